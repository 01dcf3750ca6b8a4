//! An event that passed validation. The twin is `validate.native`, which also checks what is not ours.

use std::borrow::Cow;
use std::ops::Range;

use crate::canonical::{Writer, write_text};
use crate::ledger::{Hash, identity};
use crate::number::write_integer;

/// The name of the receiver whose events are decoded here.
pub const RECEIVER: &str = "native";
/// The most characters of a text.
const MAX_TEXT: usize = 255;

/// The fields of an event as they were sent. Absent texts are empty.
#[derive(Default)]
pub struct Fields<'a> {
    /// Never empty in a draft.
    pub kind: Cow<'a, str>,
    /// May be empty.
    pub source: Cow<'a, str>,
    /// May be empty.
    pub subject: Cow<'a, str>,
    /// In microseconds.
    pub occurred_at: Option<i64>,
    /// Never empty in a draft.
    pub key: Option<Cow<'a, str>>,
}

/// A draft. Its content is in the output of the writer that sealed it.
pub struct Draft<'a> {
    /// What was sent.
    pub fields: Fields<'a>,
    /// Where the canonical payload is.
    pub data: Option<Range<usize>>,
    /// Where the canonical content is.
    pub content: Range<usize>,
    /// The SHA-256 over receiver, source and key.
    pub identity: Option<Hash>,
}

/// What stands before the payload in a content that has one. A payload is written behind it, before the other fields
/// are known.
pub const BEFORE_DATA: &[u8] = b"{\"data\":";

/// Write the rest of a content that begins at `start`, and return the draft. With `has_data` the content is
/// `BEFORE_DATA` and the payload so far, otherwise it is nothing.
pub fn seal<'a>(fields: Fields<'a>, start: usize, has_data: bool, writer: &mut Writer) -> Option<Draft<'a>> {
    if fields.kind.is_empty() || fields.key.as_ref().is_some_and(|key| key.is_empty()) {
        return None;
    }
    if ![&fields.kind, &fields.source, &fields.subject].into_iter().chain(&fields.key).all(|text| is_valid(text)) {
        return None;
    }
    let out = &mut writer.out;
    let data = has_data.then(|| start + BEFORE_DATA.len()..out.len());
    out.push(if has_data { b',' } else { b'{' });
    if let Some(occurred_at) = fields.occurred_at {
        out.extend_from_slice(b"\"occurred_at\":");
        write_integer(occurred_at, out)?;
        out.push(b',');
    }
    for (name, text) in [(&b"\"source\":"[..], &fields.source), (b"\"subject\":", &fields.subject)] {
        if !text.is_empty() {
            out.extend_from_slice(name);
            write_text(text, out);
            out.push(b',');
        }
    }
    out.extend_from_slice(b"\"type\":");
    write_text(&fields.kind, out);
    out.push(b'}');
    let content = start..out.len();
    let identity = fields.key.as_ref().map(|key| identity(RECEIVER, &fields.source, key));
    Some(Draft { fields, data, content, identity })
}

/// Whether a text is short enough and without U+0000.
fn is_valid(text: &str) -> bool {
    (text.len() <= MAX_TEXT || text.chars().count() <= MAX_TEXT) && !text.as_bytes().contains(&0)
}
