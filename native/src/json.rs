//! Reads JSON (RFC 8259) that is known to be UTF-8, and writes it canonically or only checks its grammar.

use crate::canonical::{MAX_DEPTH, PLAIN, Writer, write_escaped};
use crate::number;

/// Return where the next byte is that is no white space.
pub fn skip_space(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

/// A string that was read: its end, and its text if it has escapes.
pub struct Read {
    /// Behind the closing quotation mark.
    pub end: usize,
    /// The unescaped text; None if it stands in the source as it is.
    pub unescaped: Option<Vec<u8>>,
}

/// Return the end of the bytes from `at` on that stand for themselves.
fn plain_end(text: &[u8], mut at: usize) -> usize {
    while at < text.len() && PLAIN[usize::from(text[at])] {
        at += 1;
    }
    at
}

/// Read the string at `at`. None if it is no string, or has a lone surrogate.
pub fn read_string(text: &[u8], at: usize) -> Option<Read> {
    if text.get(at) != Some(&b'"') {
        return None;
    }
    let end = plain_end(text, at + 1);
    if *text.get(end)? == b'"' {
        return Some(Read { end: end + 1, unescaped: None });
    }
    let mut unescaped = text[at + 1..end].to_vec();
    let mut at = end;
    loop {
        match *text.get(at)? {
            b'"' => return Some(Read { end: at + 1, unescaped: Some(unescaped) }),
            b'\\' => at = unescape(text, at, &mut unescaped)?,
            _ => return None,
        }
        let end = plain_end(text, at);
        unescaped.extend_from_slice(&text[at..end]);
        at = end;
    }
}

/// Read the escape at `at`. Return its end. None if it is none, or a lone surrogate.
fn unescape(text: &[u8], at: usize, out: &mut Vec<u8>) -> Option<usize> {
    let byte = match *text.get(at + 1)? {
        byte @ (b'"' | b'\\' | b'/') => byte,
        b'b' => 0x08,
        b'f' => 0x0C,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => return unescape_unit(text, at, out),
        _ => return None,
    };
    out.push(byte);
    Some(at + 2)
}

fn unescape_unit(text: &[u8], at: usize, out: &mut Vec<u8>) -> Option<usize> {
    let first = unit(text, at)?;
    let (point, end) = if (0xD800..0xDC00).contains(&first) {
        let second = unit(text, at + 6)?;
        if !(0xDC00..0xE000).contains(&second) {
            return None;
        }
        (0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00), at + 12)
    } else {
        (first, at + 6)
    };
    let character = char::from_u32(point)?;
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    Some(end)
}

/// Read `\uXXXX` at `at`.
fn unit(text: &[u8], at: usize) -> Option<u32> {
    if text.get(at..at + 2)? != b"\\u" {
        return None;
    }
    text.get(at + 2..at + 6)?.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
}

/// Write the string at `at` canonically. Return its end, and its text if the output has escapes.
fn write_string(text: &[u8], at: usize, out: &mut Vec<u8>) -> Option<Read> {
    let read = read_string(text, at)?;
    out.push(b'"');
    let has_escapes = match &read.unescaped {
        None => {
            out.extend_from_slice(&text[at + 1..read.end - 1]);
            false
        }
        Some(unescaped) => {
            let before = out.len();
            let mut start = 0;
            for (at, byte) in unescaped.iter().enumerate() {
                if !PLAIN[usize::from(*byte)] {
                    out.extend_from_slice(&unescaped[start..at]);
                    write_escaped(*byte, out);
                    start = at + 1;
                }
            }
            out.extend_from_slice(&unescaped[start..]);
            out.len() - before != unescaped.len()
        }
    };
    out.push(b'"');
    Some(Read { end: read.end, unescaped: if has_escapes { read.unescaped } else { None } })
}

/// Write the value at `at` canonically, which is on this level of nesting. Return its end.
pub fn write_value(text: &[u8], at: usize, depth: usize, writer: &mut Writer) -> Option<usize> {
    match *text.get(at)? {
        b'{' => write_object(text, at, depth, writer),
        b'[' => write_list(text, at, depth, writer),
        b'"' => Some(write_string(text, at, &mut writer.out)?.end),
        b't' => write_literal(text, at, b"true", &mut writer.out),
        b'f' => write_literal(text, at, b"false", &mut writer.out),
        b'n' => write_literal(text, at, b"null", &mut writer.out),
        _ => number::write(text, at, &mut writer.out),
    }
}

fn write_literal(text: &[u8], at: usize, literal: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let end = skip_literal(text, at, literal)?;
    out.extend_from_slice(literal);
    Some(end)
}

fn skip_literal(text: &[u8], at: usize, literal: &[u8]) -> Option<usize> {
    text.get(at..)?.starts_with(literal).then_some(at + literal.len())
}

/// Write the object at `at` canonically. Return its end. None also if a name occurs twice.
pub fn write_object(text: &[u8], at: usize, depth: usize, writer: &mut Writer) -> Option<usize> {
    if depth > MAX_DEPTH || text.get(at) != Some(&b'{') {
        return None;
    }
    let mut open = writer.open();
    let mut at = skip_space(text, at + 1);
    if text.get(at) == Some(&b'}') {
        writer.close(open)?;
        return Some(at + 1);
    }
    loop {
        let start = writer.member(&open);
        let name = write_string(text, at, &mut writer.out)?;
        writer.named(&mut open, start, name.unescaped.as_deref())?;
        at = skip_space(text, colon(text, name.end)?);
        at = skip_space(text, write_value(text, at, depth + 1, writer)?);
        writer.end_member();
        match *text.get(at)? {
            b',' => at = skip_space(text, at + 1),
            b'}' => {
                writer.close(open)?;
                return Some(at + 1);
            }
            _ => return None,
        }
    }
}

/// Return the end of the colon behind a name.
pub fn colon(text: &[u8], at: usize) -> Option<usize> {
    let at = skip_space(text, at);
    (text.get(at) == Some(&b':')).then_some(at + 1)
}

fn write_list(text: &[u8], at: usize, depth: usize, writer: &mut Writer) -> Option<usize> {
    if depth > MAX_DEPTH {
        return None;
    }
    writer.out.push(b'[');
    let mut at = skip_space(text, at + 1);
    if text.get(at) == Some(&b']') {
        writer.out.push(b']');
        return Some(at + 1);
    }
    loop {
        at = skip_space(text, write_value(text, at, depth + 1, writer)?);
        match *text.get(at)? {
            b',' => {
                writer.out.push(b',');
                at = skip_space(text, at + 1);
            }
            b']' => {
                writer.out.push(b']');
                return Some(at + 1);
            }
            _ => return None,
        }
    }
}

/// Check the grammar of the value at `at`. Return its end. None also if it nests deeper than `levels`.
pub fn skip_value(text: &[u8], at: usize, levels: usize) -> Option<usize> {
    match *text.get(at)? {
        open @ (b'{' | b'[') => skip_nested(text, at, open, levels.checked_sub(1)?),
        b'"' => skip_string(text, at),
        b't' => skip_literal(text, at, b"true"),
        b'f' => skip_literal(text, at, b"false"),
        b'n' => skip_literal(text, at, b"null"),
        _ => number::skip(text, at),
    }
}

fn skip_nested(text: &[u8], at: usize, open: u8, levels: usize) -> Option<usize> {
    let close = if open == b'{' { b'}' } else { b']' };
    let mut at = skip_space(text, at + 1);
    if text.get(at) == Some(&close) {
        return Some(at + 1);
    }
    loop {
        if open == b'{' {
            at = skip_space(text, colon(text, skip_string(text, at)?)?);
        }
        at = skip_space(text, skip_value(text, at, levels)?);
        match *text.get(at)? {
            b',' => at = skip_space(text, at + 1),
            byte if byte == close => return Some(at + 1),
            _ => return None,
        }
    }
}

/// Check the grammar of the string at `at`, which may have lone surrogates. Return its end.
fn skip_string(text: &[u8], at: usize) -> Option<usize> {
    if text.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        at = plain_end(text, at);
        match *text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => match *text.get(at + 1)? {
                b'u' => {
                    unit(text, at)?;
                    at += 6;
                }
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => at += 2,
                _ => return None,
            },
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> Option<String> {
        let mut writer = Writer::default();
        let end = write_value(text.as_bytes(), 0, 1, &mut writer)?;
        assert_eq!(end, text.len());
        String::from_utf8(writer.out).ok()
    }

    #[test]
    fn members_are_sorted_by_their_unescaped_names() {
        for (text, expected) in [
            (r#"{"b": 1, "a": {"d":[1 , 2],"c":null}}"#, r#"{"a":{"c":null,"d":[1,2]},"b":1}"#),
            (r#"{"\u0062":1,"a":2}"#, r#"{"a":2,"b":1}"#),
            (r#"{"\n":1,"\u0001":2,"~":3,"":4}"#, r#"{"":4,"\u0001":2,"\n":1,"~":3}"#),
            (r#"{"a\"":1,"a!":2}"#, r#"{"a!":2,"a\"":1}"#),
            ("{}", "{}"),
            ("[ ]", "[]"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn strings_are_written_with_the_fewest_escapes() {
        let text = r#""\u00e9\/\ud83d\ude00\u001F\u007f\b\u000c\"\\""#;
        assert_eq!(canonical(text).as_deref(), Some("\"é/😀\\u001f\u{7f}\\b\\f\\\"\\\\\""));
    }

    #[test]
    fn what_is_unusual_is_not_ours() {
        for text in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"b":0,"\u0061":2}"#,
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800\u0041""#,
            "\"\t\"",
            r#""\x""#,
            "[1,]",
            "{,}",
            r#"{"a"}"#,
            "nul",
            "NaN",
            r#""a"#,
            "[",
            "{",
            r#"{"a":"#,
            r#"{1:2}"#,
        ] {
            assert_eq!(write_value(text.as_bytes(), 0, 1, &mut Writer::default()), None, "{text}");
        }
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(canonical(&deep(MAX_DEPTH)).is_some());
        assert_eq!(write_value(deep(MAX_DEPTH + 1).as_bytes(), 0, 1, &mut Writer::default()), None);
    }

    #[test]
    fn the_grammar_is_checked_without_writing() {
        for text in [r#"{"a":[1,{"\ud800":"\udc00"}],"a":1e99999}"#, "null", "[]", "-0.5e+1", r#""\u12aF""#] {
            assert_eq!(skip_value(text.as_bytes(), 0, 9), Some(text.len()), "{text}");
        }
        for text in ["[1 2]", "{\"a\":}", "\"\\u12g4\"", "\"\u{1}\"", "tru", "01x", "[", "[[1]"] {
            assert_ne!(skip_value(text.as_bytes(), 0, 9), Some(text.len()), "{text}");
        }
        assert_eq!(skip_value(b"[[[]]]", 0, 2), None);
    }
}
