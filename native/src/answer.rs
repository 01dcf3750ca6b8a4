//! Writes the answer to a batch as protobuf and as JSON. The twins are `wire.batch_message` and `wire.batch_json`.

use std::borrow::Cow;

use crate::canonical::{write_hex, write_text};
use crate::number::write_integer;
use crate::time;

/// A stored event's place in its ledger.
pub struct Link<'a> {
    /// A UUID.
    pub id: &'a [u8; 16],
    /// From 1.
    pub sequence: i64,
    /// In microseconds.
    pub created_at: i64,
    /// Its hash.
    pub event_hash: &'a [u8],
}

/// Why an event is not stored.
pub struct Problem<'a> {
    /// For programs.
    pub reason: Cow<'a, str>,
    /// A path.
    pub field: Cow<'a, str>,
    /// A sentence.
    pub message: Cow<'a, str>,
    /// Whether a retry helps.
    pub retryable: bool,
    /// Paths.
    pub differing_fields: Vec<Cow<'a, str>>,
}

/// What became of an event.
pub struct Outcome<'a> {
    /// The word of the API.
    pub status: Cow<'a, str>,
    /// Whether the status promises that the event is stored.
    pub is_stored: bool,
    /// Where it is stored.
    pub link: Option<Link<'a>>,
    /// Why it is not.
    pub problem: Option<Problem<'a>>,
    /// Sentences.
    pub warnings: Vec<Cow<'a, str>>,
    /// The number of its line.
    pub line: Option<i32>,
}

/// Write a BatchIngestResponse.
pub fn write_message(outcomes: &[Outcome<'_>], out: &mut Vec<u8>) {
    let stored = outcomes.iter().filter(|outcome| outcome.is_stored).count();
    for (tag, count) in [(0x08, outcomes.len()), (0x10, stored), (0x18, outcomes.len() - stored)] {
        write_number(tag, count as u64, out);
    }
    write_results(0x22, outcomes, out);
}

/// Write the results as the repeated field that has this tag.
pub fn write_results(tag: u8, outcomes: &[Outcome<'_>], out: &mut Vec<u8>) {
    let mut result = Vec::new();
    let mut inner = Vec::new();
    for (index, outcome) in outcomes.iter().enumerate() {
        result.clear();
        write_result(index, outcome, &mut result, &mut inner);
        write_field(tag, &result, out);
    }
}

fn write_result(index: usize, outcome: &Outcome<'_>, out: &mut Vec<u8>, inner: &mut Vec<u8>) {
    write_number(0x08, index as u64, out);
    write_nonempty(0x12, outcome.status.as_bytes(), out);
    if let Some(link) = &outcome.link {
        inner.clear();
        write_id(link.id, inner);
        write_field(0x1A, inner, out);
        write_number(0x20, link.sequence as u64, out);
        inner.clear();
        write_number(0x08, link.created_at.div_euclid(1_000_000) as u64, inner);
        write_number(0x10, link.created_at.rem_euclid(1_000_000) as u64 * 1_000, inner);
        write_field(0x2A, inner, out);
        inner.clear();
        write_hex(link.event_hash, inner);
        write_nonempty(0x32, inner, out);
    }
    if let Some(problem) = &outcome.problem {
        inner.clear();
        write_nonempty(0x0A, problem.reason.as_bytes(), inner);
        write_nonempty(0x12, problem.field.as_bytes(), inner);
        write_nonempty(0x1A, problem.message.as_bytes(), inner);
        write_number(0x20, u64::from(problem.retryable), inner);
        for path in &problem.differing_fields {
            write_field(0x2A, path.as_bytes(), inner);
        }
        write_field(0x3A, inner, out);
    }
    for warning in &outcome.warnings {
        write_field(0x42, warning.as_bytes(), out);
    }
    if let Some(line) = outcome.line {
        out.push(0x48);
        write_varint(i64::from(line) as u64, out);
    }
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Write a number that is not 0.
fn write_number(tag: u8, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        out.push(tag);
        write_varint(value, out);
    }
}

fn write_field(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    write_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn write_nonempty(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        write_field(tag, bytes, out);
    }
}

/// Write a UUID as text.
fn write_id(id: &[u8; 16], out: &mut Vec<u8>) {
    for (start, end) in [(0, 4), (4, 6), (6, 8), (8, 10), (10, 16)] {
        if start > 0 {
            out.push(b'-');
        }
        write_hex(&id[start..end], out);
    }
}

/// Write REST's answer. None if a time cannot be written.
pub fn write_json(outcomes: &[Outcome<'_>], out: &mut Vec<u8>) -> Option<()> {
    let stored = outcomes.iter().filter(|outcome| outcome.is_stored).count();
    let counts = [
        ("{\"total\":", outcomes.len()),
        (",\"success_count\":", stored),
        (",\"error_count\":", outcomes.len() - stored),
    ];
    for (name, count) in counts {
        out.extend_from_slice(name.as_bytes());
        write_integer(count as i64, out)?;
    }
    out.extend_from_slice(b",\"results\":[");
    for (index, outcome) in outcomes.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_json_result(index, outcome, out)?;
    }
    out.extend_from_slice(b"]}");
    Some(())
}

fn write_json_result(index: usize, outcome: &Outcome<'_>, out: &mut Vec<u8>) -> Option<()> {
    out.extend_from_slice(b"{\"index\":");
    write_integer(index as i64, out)?;
    out.extend_from_slice(b",\"status\":");
    write_text(&outcome.status, out);
    if let Some(link) = &outcome.link {
        out.extend_from_slice(b",\"id\":\"");
        write_id(link.id, out);
        out.extend_from_slice(b"\",\"sequence\":");
        write_integer(link.sequence, out)?;
        out.extend_from_slice(b",\"created_at\":\"");
        time::write(link.created_at, out)?;
        out.extend_from_slice(b"\",\"event_hash\":\"");
        write_hex(link.event_hash, out);
        out.push(b'"');
    }
    if let Some(problem) = &outcome.problem {
        let texts = [
            (",\"error\":{\"reason\":", &problem.reason),
            (",\"field\":", &problem.field),
            (",\"message\":", &problem.message),
        ];
        for (name, text) in texts {
            out.extend_from_slice(name.as_bytes());
            write_text(text, out);
        }
        out.extend_from_slice(if problem.retryable { b",\"retryable\":true" } else { b",\"retryable\":false" });
        write_texts(",\"differing_fields\":[", &problem.differing_fields, out);
        out.push(b'}');
    }
    write_texts(",\"warnings\":[", &outcome.warnings, out);
    if let Some(line) = outcome.line {
        out.extend_from_slice(b",\"line\":");
        write_integer(i64::from(line), out)?;
    }
    out.push(b'}');
    Some(())
}

/// Write a member that is a list of texts, if there are any.
fn write_texts(before: &str, texts: &[Cow<'_, str>], out: &mut Vec<u8>) {
    let mut separator = before.as_bytes();
    for text in texts {
        out.extend_from_slice(separator);
        write_text(text, out);
        separator = b",";
    }
    if !texts.is_empty() {
        out.push(b']');
    }
}
