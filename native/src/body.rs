//! Reads a JSON body with events. The twins are `decode.json_batch` and `validate.native_json`.

use std::borrow::Cow;

use crate::canonical::{MAX_DEPTH, Writer};
use crate::draft::{BEFORE_DATA, Draft, Fields, seal};
use crate::json::{colon, read_string, skip_space, skip_value, write_object};
use crate::time;

/// An event of a batch: a draft, or the place of a text that Python reads.
pub enum Item<'a> {
    /// A draft.
    Draft(Box<Draft<'a>>),
    /// Start and end of a text that is JSON.
    Left(usize, usize),
}

/// A batch.
#[derive(Default)]
pub struct Batch<'a> {
    /// One for each event.
    pub items: Vec<Item<'a>>,
    /// The option of that name.
    pub atomic: bool,
    /// The option of that name.
    pub validate_only: bool,
}

/// Read a body that is a list of at most `most` events, or an object with one. None if it is no such body, or has
/// anything else that concerns more than one event.
pub fn read_batch<'a>(body: &'a [u8], most: usize, writer: &mut Writer) -> Option<Batch<'a>> {
    std::str::from_utf8(body).ok()?;
    let at = skip_space(body, 0);
    let mut batch = Batch::default();
    let end = match *body.get(at)? {
        b'[' => read_list(body, at, most, writer, &mut batch.items)?,
        b'{' => read_members(body, at, most, writer, &mut batch)?,
        _ => return None,
    };
    (skip_space(body, end) == body.len() && !batch.items.is_empty()).then_some(batch)
}

fn read_members<'a>(
    body: &'a [u8],
    at: usize,
    most: usize,
    writer: &mut Writer,
    batch: &mut Batch<'a>,
) -> Option<usize> {
    let mut seen = [false; 4];
    let mut at = skip_space(body, at + 1);
    loop {
        let (name, end) = plain_name(body, at)?;
        at = skip_space(body, colon(body, end)?);
        let index =
            [&b"events"[..], b"atomic", b"validate_only", b"validateOnly"].iter().position(|one| *one == name)?;
        if std::mem::replace(&mut seen[index], true) {
            return None;
        }
        if index == 0 {
            at = read_list(body, at, most, writer, &mut batch.items)?;
        } else {
            let (value, end) = read_option(body, at)?;
            at = end;
            *(if index == 1 { &mut batch.atomic } else { &mut batch.validate_only }) |= value;
        }
        at = skip_space(body, at);
        match *body.get(at)? {
            b',' => at = skip_space(body, at + 1),
            b'}' => return seen[0].then_some(at + 1),
            _ => return None,
        }
    }
}

/// Return a name without escapes, and its end.
fn plain_name(text: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let read = read_string(text, at)?;
    read.unescaped.is_none().then(|| (&text[at + 1..read.end - 1], read.end))
}

fn read_option(body: &[u8], at: usize) -> Option<(bool, usize)> {
    let rest = body.get(at..)?;
    [(&b"true"[..], true), (b"false", false), (b"null", false)]
        .into_iter()
        .find(|(text, _)| rest.starts_with(text))
        .map(|(text, value)| (value, at + text.len()))
}

fn read_list<'a>(
    body: &'a [u8],
    at: usize,
    most: usize,
    writer: &mut Writer,
    items: &mut Vec<Item<'a>>,
) -> Option<usize> {
    if body.get(at) != Some(&b'[') {
        return None;
    }
    let mut at = at;
    loop {
        at = skip_space(body, at + 1);
        if items.len() == most {
            return None;
        }
        let (item, end) = read_item(body, at, writer)?;
        items.push(item);
        at = skip_space(body, end);
        match *body.get(at)? {
            b',' => {}
            b']' => return Some(at + 1),
            _ => return None,
        }
    }
}

fn read_item<'a>(body: &'a [u8], at: usize, writer: &mut Writer) -> Option<(Item<'a>, usize)> {
    if let Some((draft, end)) = decode_at(body, at, writer) {
        return Some((Item::Draft(Box::new(draft)), end));
    }
    let end = skip_value(body, at, MAX_DEPTH)?;
    Some((Item::Left(at, end), end))
}

/// Read a text that is one event, and write its content.
pub fn decode<'a>(text: &'a [u8], writer: &mut Writer) -> Option<Draft<'a>> {
    std::str::from_utf8(text).ok()?;
    let start = writer.out.len();
    let (draft, end) = decode_at(text, skip_space(text, 0), writer)?;
    if skip_space(text, end) != text.len() {
        writer.give_up(start);
        return None;
    }
    Some(draft)
}

fn decode_at<'a>(text: &'a [u8], at: usize, writer: &mut Writer) -> Option<(Draft<'a>, usize)> {
    let start = writer.out.len();
    let read = read_event(text, at, writer);
    if read.is_none() {
        writer.give_up(start);
    }
    read
}

/// The fields of an event in JSON, by their names and other spellings.
const NAMES: [(&[u8], usize); 8] = [
    (b"type", 0),
    (b"source", 1),
    (b"subject", 2),
    (b"occurred_at", 3),
    (b"data", 4),
    (b"idempotency_key", 5),
    (b"occurredAt", 3),
    (b"idempotencyKey", 5),
];

fn read_event<'a>(text: &'a [u8], at: usize, writer: &mut Writer) -> Option<(Draft<'a>, usize)> {
    if text.get(at) != Some(&b'{') {
        return None;
    }
    let start = writer.out.len();
    let mut fields = Fields::default();
    let mut seen = [false; 6];
    let mut has_data = false;
    let mut at = at;
    loop {
        at = skip_space(text, at + 1);
        let (name, end) = plain_name(text, at)?;
        at = skip_space(text, colon(text, end)?);
        let (_, index) = *NAMES.iter().find(|(one, _)| *one == name)?;
        if std::mem::replace(&mut seen[index], true) {
            return None;
        }
        if text.get(at..)?.starts_with(b"null") {
            at += 4; // as if it were absent
        } else if index == 4 {
            writer.out.extend_from_slice(BEFORE_DATA);
            at = write_object(text, at, 1, writer)?;
            has_data = true;
        } else {
            let (value, end) = read_text(text, at)?;
            at = end;
            match index {
                0 => fields.kind = value,
                1 => fields.source = value,
                2 => fields.subject = value,
                3 => fields.occurred_at = Some(time::parse(value.as_bytes())?),
                _ => fields.key = Some(value),
            }
        }
        at = skip_space(text, at);
        match *text.get(at)? {
            b',' => {}
            b'}' => return Some((seal(fields, start, has_data, writer)?, at + 1)),
            _ => return None,
        }
    }
}

fn read_text(text: &[u8], at: usize) -> Option<(Cow<'_, str>, usize)> {
    let read = read_string(text, at)?;
    let value = match read.unescaped {
        None => Cow::Borrowed(std::str::from_utf8(&text[at + 1..read.end - 1]).ok()?),
        Some(unescaped) => Cow::Owned(String::from_utf8(unescaped).ok()?),
    };
    Some((value, read.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(body: &str, most: usize) -> Option<String> {
        let mut writer = Writer::default();
        let batch = read_batch(body.as_bytes(), most, &mut writer)?;
        let items: Vec<String> = batch
            .items
            .iter()
            .map(|item| match item {
                Item::Draft(draft) => String::from_utf8(writer.out[draft.content.clone()].to_vec()).unwrap(),
                Item::Left(start, end) => format!("left {}", &body[*start..*end]),
            })
            .collect();
        Some(format!("{} {} {}", items.join("; "), batch.atomic, batch.validate_only))
    }

    #[test]
    fn events_are_read_each_on_its_own() {
        let body = r#" { "events" : [ {"type":"t","data":{"b":1,"a":2},"source":null} , 5, {"type":"\u0074","x":1} ], "atomic":true}"#;
        let expected = r#"{"data":{"a":2,"b":1},"type":"t"}; left 5; left {"type":"\u0074","x":1} true false"#;
        assert_eq!(shape(body, 3).as_deref(), Some(expected));
        assert_eq!(shape(r#"[{"type":"t"}]"#, 1).as_deref(), Some(r#"{"type":"t"} false false"#));
        let options = r#"{"validateOnly":true,"validate_only":false,"atomic":null,"events":[{"data":{},"type":"\n"}]}"#;
        assert_eq!(shape(options, 1).as_deref(), Some(r#"{"data":{},"type":"\n"} false true"#));
    }

    #[test]
    fn what_concerns_the_whole_body_is_not_ours() {
        for body in [
            "",
            "5",
            "[]",
            "{}",
            r#"{"events":[]}"#,
            r#"{"events":[1],"events":[1]}"#,
            r#"{"events":[1],"x":1}"#,
            r#"{"events":[1],"atomic":1}"#,
            r#"{"event\u0073":[1]}"#,
            "[1,2,3]",
            "[1,]",
            "[1",
            "[1] 2",
            r#"{"events":{}}"#,
            "[tru]",
            "[\"\u{1}\"]",
        ] {
            assert_eq!(shape(body, 2), None, "{body}");
        }
        let deep = format!("[{}{}]", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1));
        assert_eq!(shape(&deep, 2), None);
    }

    #[test]
    fn what_is_unusual_in_an_event_is_not_ours_and_leaves_nothing_behind() {
        let mut writer = Writer::default();
        for text in [
            "",
            "{}",
            r#"{"type":""}"#,
            r#"{"type":null}"#,
            r#"{"type":5}"#,
            r#"{"type":"t","type":"t"}"#,
            r#"{"type":"t","data":[]}"#,
            r#"{"type":"t","data":{"a":1e99999}}"#,
            r#"{"type":"t","occurred_at":"now"}"#,
            r#"{"type":"t","occurred_at":null,"occurredAt":null}"#,
            r#"{"type":"t","idempotency_key":""}"#,
            r#"{"type":"t"} x"#,
            r#"{"type":"t","data":{"b":{"d":1,"c":2,"c":3}}}"#,
            r#"{"type":"\u0000"}"#,
        ] {
            assert!(decode(text.as_bytes(), &mut writer).is_none(), "{text}");
            assert!(writer.out.is_empty(), "{text}");
        }
    }
}
