//! Writes a serialized google.protobuf.Struct as canonical JSON. The twin is `decode.members`.

use crate::canonical::{Writer, write_text};
use crate::event::{Message, once};
use crate::number;

/// The most levels of a Struct that are read here. Protobuf's own parser reads some 33.
const MOST_LEVELS: usize = 30;

/// Write a Struct, which is on this level of nesting. None also if a name occurs twice.
pub fn write_struct(bytes: &[u8], depth: usize, writer: &mut Writer) -> Option<()> {
    if depth > MOST_LEVELS {
        return None;
    }
    let mut message = Message::new(bytes);
    let mut open = writer.open();
    while !message.is_at_end() {
        if message.tag() != 0x0A {
            return None;
        }
        let (name, value) = entry(message.bytes()?)?;
        let start = writer.member(&open);
        write_text(name, &mut writer.out);
        let has_escapes = writer.out.len() - start - 2 != name.len();
        writer.named(&mut open, start, has_escapes.then_some(name.as_bytes()))?;
        write_value(value, depth, writer)?;
        writer.end_member();
    }
    writer.close(open)
}

/// Return the name and the serialized value of a member.
fn entry(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let mut message = Message::new(bytes);
    let (mut name, mut value) = (None, None);
    while !message.is_at_end() {
        match message.tag() {
            0x0A => once(&mut name, message.text()?)?,
            0x12 => once(&mut value, message.bytes()?)?,
            _ => return None,
        }
    }
    Some((name.unwrap_or(""), value?))
}

fn write_value(bytes: &[u8], depth: usize, writer: &mut Writer) -> Option<()> {
    let mut message = Message::new(bytes);
    if message.is_at_end() {
        writer.out.extend_from_slice(b"null");
        return Some(());
    }
    match message.tag() {
        0x08 if message.varint()? == 0 => writer.out.extend_from_slice(b"null"),
        0x11 => number::write_double(message.double()?, &mut writer.out)?,
        0x1A => write_text(message.text()?, &mut writer.out),
        0x20 => writer.out.extend_from_slice(bool_text(message.varint()?)?.as_bytes()),
        0x2A => write_struct(message.bytes()?, depth + 1, writer)?,
        0x32 => write_list(message.bytes()?, depth + 1, writer)?,
        _ => return None,
    }
    message.is_at_end().then_some(())
}

fn bool_text(value: u64) -> Option<&'static str> {
    match value {
        0 => Some("false"),
        1 => Some("true"),
        _ => None,
    }
}

fn write_list(bytes: &[u8], depth: usize, writer: &mut Writer) -> Option<()> {
    if depth > MOST_LEVELS {
        return None;
    }
    let mut message = Message::new(bytes);
    writer.out.push(b'[');
    let mut is_first = true;
    while !message.is_at_end() {
        if message.tag() != 0x0A {
            return None;
        }
        if !is_first {
            writer.out.push(b',');
        }
        is_first = false;
        write_value(message.bytes()?, depth, writer)?;
    }
    writer.out.push(b']');
    Some(())
}
