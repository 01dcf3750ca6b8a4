//! Reads a serialized Event (proto/headgate/v1/event.proto). The twin is `decode.proto_event`.
//!
//! Only messages as every library writes them are read here: each field at most once, no unknown ones. All others are
//! not ours.

use std::borrow::Cow;

use crate::canonical::Writer;
use crate::draft::{BEFORE_DATA, Draft, Fields, seal};
use crate::{json, structs, time};

/// Reads the fields of a message.
pub struct Message<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Message<'a> {
    /// Read from these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Message { bytes, at: 0 }
    }

    /// Return the tag of the next field, 0 at the end.
    pub fn tag(&mut self) -> u8 {
        let tag = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += usize::from(self.at < self.bytes.len());
        tag
    }

    /// Whether nothing is left. A tag of 0 that was read from bytes is an error.
    pub fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Read a varint, as short as it can be written.
    pub fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for count in 0..10 {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            if count == 9 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7F) << (7 * count);
            if byte < 0x80 {
                return (byte != 0 || count == 0).then_some(value);
            }
        }
        None
    }

    /// Read eight bytes as a double.
    pub fn double(&mut self) -> Option<f64> {
        let bytes = self.bytes.get(self.at..self.at.checked_add(8)?)?;
        self.at += 8;
        Some(f64::from_le_bytes(bytes.try_into().ok()?))
    }

    /// Read bytes behind their length.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        let end = self.at.checked_add(length)?;
        let bytes = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    /// Read a string behind its length.
    pub fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}

/// Put a field's value into its place. None if it has one already.
pub fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.is_none().then(|| *place = Some(value))
}

enum Payload<'a> {
    Struct(&'a [u8]),
    Json(&'a [u8]),
}

/// Read a serialized Event, and write its content.
pub fn decode<'a>(serialized: &'a [u8], writer: &mut Writer) -> Option<Draft<'a>> {
    let start = writer.out.len();
    let draft = read(serialized, writer);
    if draft.is_none() {
        writer.give_up(start);
    }
    draft
}

fn read<'a>(serialized: &'a [u8], writer: &mut Writer) -> Option<Draft<'a>> {
    let mut message = Message::new(serialized);
    let (mut kind, mut source, mut subject, mut key) = (None, None, None, None);
    let (mut occurred_at, mut payload) = (None, None);
    while !message.is_at_end() {
        match message.tag() {
            0x0A => once(&mut kind, message.text()?)?,
            0x12 => once(&mut source, message.text()?)?,
            0x1A => once(&mut subject, message.text()?)?,
            0x22 => once(&mut occurred_at, moment(message.bytes()?)?)?,
            0x2A => once(&mut payload, Payload::Struct(message.bytes()?))?,
            0x32 => once(&mut payload, Payload::Json(message.bytes()?))?,
            0x3A => once(&mut key, message.text()?)?,
            _ => return None,
        }
    }
    let start = writer.out.len();
    if let Some(payload) = &payload {
        writer.out.extend_from_slice(BEFORE_DATA);
        match payload {
            Payload::Struct(bytes) => structs::write_struct(bytes, 1, writer)?,
            Payload::Json(text) => write_json(text, writer)?,
        }
    }
    let fields = Fields {
        kind: Cow::Borrowed(kind?),
        source: Cow::Borrowed(source.unwrap_or("")),
        subject: Cow::Borrowed(subject.unwrap_or("")),
        occurred_at,
        key: key.map(Cow::Borrowed),
    };
    seal(fields, start, payload.is_some(), writer)
}

/// Write JSON text that is one object.
fn write_json(text: &[u8], writer: &mut Writer) -> Option<()> {
    std::str::from_utf8(text).ok()?;
    let end = json::write_object(text, json::skip_space(text, 0), 1, writer)?;
    (json::skip_space(text, end) == text.len()).then_some(())
}

/// Read a Timestamp of whole microseconds.
fn moment(bytes: &[u8]) -> Option<i64> {
    let mut message = Message::new(bytes);
    let (mut seconds, mut nanos) = (None, None);
    while !message.is_at_end() {
        match message.tag() {
            0x08 => once(&mut seconds, message.varint()? as i64)?,
            0x10 => once(&mut nanos, message.varint()?)?,
            _ => return None,
        }
    }
    let nanos = nanos.unwrap_or(0);
    if nanos >= 1_000_000_000 || nanos % 1_000 != 0 {
        return None;
    }
    let microseconds = seconds.unwrap_or(0).checked_mul(1_000_000)?.checked_add((nanos / 1_000) as i64)?;
    (time::MIN..=time::MAX).contains(&microseconds).then_some(microseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut field = vec![number << 3 | 2, bytes.len() as u8];
        field.extend_from_slice(bytes);
        field
    }

    fn content(serialized: &[u8]) -> Option<String> {
        let mut writer = Writer::default();
        let draft = decode(serialized, &mut writer)?;
        String::from_utf8(writer.out[draft.content].to_vec()).ok()
    }

    #[test]
    fn an_event_has_its_content() {
        let mut event =
            [field(1, b"t"), field(2, b"s"), field(6, br#" {"b":1.0,"a":"\u00e9"} "#), field(7, b"k")].concat();
        assert_eq!(content(&event).as_deref(), Some(r#"{"data":{"a":"é","b":1},"source":"s","type":"t"}"#));
        event.extend(field(4, &[0x08, 0x01]));
        let expected = r#"{"data":{"a":"é","b":1},"occurred_at":1000000,"source":"s","type":"t"}"#;
        assert_eq!(content(&event).as_deref(), Some(expected));
        assert_eq!(content(&field(1, b"t")).as_deref(), Some(r#"{"type":"t"}"#));
    }

    #[test]
    fn what_is_unusual_is_not_ours_and_leaves_nothing_behind() {
        let kind = field(1, b"t");
        let mut writer = Writer::default();
        writer.out.extend_from_slice(b"before");
        for rest in [
            field(1, b"u"),
            field(2, b"\xff"),
            field(3, b"a\0"),
            field(7, b""),
            field(6, b""),
            field(6, b"[1]"),
            field(6, b"{} {}"),
            field(6, br#"{"a":1,"a":1}"#),
            field(8, b""),
            [field(5, b""), field(6, b"{}")].concat(),
            field(4, &[0x10, 0x01]),
            field(4, &[0x18, 0x01]),
            vec![0x0A, 0x05],
            vec![0x12, 0x81, 0x00, b's'],
            vec![0],
            vec![0x80],
            field(2, &[b'x'; 100]).repeat(2),
        ] {
            let event = [kind.clone(), rest].concat();
            assert!(decode(&event, &mut writer).is_none(), "{event:?}");
            assert_eq!(writer.out, b"before");
        }
        assert!(decode(b"", &mut writer).is_none());
    }
}
