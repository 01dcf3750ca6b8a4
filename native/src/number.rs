//! Canonical numbers: exact decimals, written as ECMA-262 writes a double of that value
//! (docs/design/canonical.md). The twin is `canonical.Number.parse`.

use std::io::Write;

/// The most decimal digits of an exponent that are read here. Python reads longer ones.
const MOST_EXPONENT_DIGITS: usize = 4;
/// The most digits of an integer that is written without an exponent, whatever its digits are.
const MOST_PLAIN_DIGITS: usize = 21;
/// The most significant digits with which a double is printed.
const DOUBLE_DIGITS: usize = 17;
/// From here on not every integer is a double.
const SAFE_INTEGER: f64 = 9_007_199_254_740_992.0;

/// The parts of a number's text: their ends, from the start of the text on.
struct Parts {
    whole: (usize, usize),
    fraction: (usize, usize),
    exponent: (usize, usize),
    end: usize,
}

fn digits_end(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    at
}

/// Find the parts of the number at `at`, None if there is no number.
fn parts(text: &[u8], at: usize) -> Option<Parts> {
    let start = at + usize::from(text.get(at) == Some(&b'-'));
    let whole_end = match text.get(start)? {
        b'0' => start + 1,
        b'1'..=b'9' => digits_end(text, start),
        _ => return None,
    };
    let mut end = whole_end;
    let mut fraction = (end, end);
    if text.get(end) == Some(&b'.') {
        fraction = (end + 1, digits_end(text, end + 1));
        end = fraction.1;
        if fraction.0 == fraction.1 {
            return None;
        }
    }
    let mut exponent = (end, end);
    if matches!(text.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(end + 1), Some(b'+' | b'-')));
        let digits = end + 1 + sign;
        exponent = (end + 1, digits_end(text, digits));
        end = exponent.1;
        if digits == end {
            return None;
        }
    }
    Some(Parts { whole: (start, whole_end), fraction, exponent, end })
}

/// Return the end of the number at `at`, None if there is no number.
pub fn skip(text: &[u8], at: usize) -> Option<usize> {
    Some(parts(text, at)?.end)
}

/// Write the number at `at` canonically. Return its end.
pub fn write(text: &[u8], at: usize, out: &mut Vec<u8>) -> Option<usize> {
    let parts = parts(text, at)?;
    let whole = &text[parts.whole.0..parts.whole.1];
    let fraction = trimmed_end(&text[parts.fraction.0..parts.fraction.1]);
    let negative = parts.whole.0 > at;
    let plain = parts.exponent.0 == parts.exponent.1 && whole.len() <= MOST_PLAIN_DIGITS;
    if plain && (whole != b"0" || (!fraction.is_empty() && zeros(fraction) < 6)) {
        if negative {
            out.push(b'-');
        }
        out.extend_from_slice(whole);
        if !fraction.is_empty() {
            out.push(b'.');
            out.extend_from_slice(fraction);
        }
        return Some(parts.end);
    }
    let shift = exponent(&text[parts.exponent.0..parts.exponent.1])?;
    let mut digits = Vec::with_capacity(whole.len() + fraction.len());
    digits.extend_from_slice(whole);
    digits.extend_from_slice(fraction);
    let leading = zeros(&digits);
    let significant = trimmed_end(&digits[leading..]);
    if significant.is_empty() {
        out.push(b'0');
    } else {
        if negative {
            out.push(b'-');
        }
        let point = (digits.len() - leading) as i64 - fraction.len() as i64 + shift;
        positional(significant, point, out);
    }
    Some(parts.end)
}

/// Write a double that is finite canonically.
pub fn write_double(value: f64, out: &mut Vec<u8>) -> Option<()> {
    if !value.is_finite() {
        return None;
    }
    if value.abs() < SAFE_INTEGER && value.fract() == 0.0 {
        return write_integer(value as i64, out);
    }
    // The shortest decimal that reads back as this double; of two that are as near, the even one, as Python writes it.
    write(ryu::Buffer::new().format_finite(value).as_bytes(), 0, out).map(|_| ())
}

/// Write an integer.
pub fn write_integer(value: i64, out: &mut Vec<u8>) -> Option<()> {
    write!(out, "{value}").ok()
}

fn zeros(digits: &[u8]) -> usize {
    digits.iter().take_while(|digit| **digit == b'0').count()
}

fn trimmed_end(digits: &[u8]) -> &[u8] {
    let kept = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
    &digits[..kept]
}

/// Read an exponent with its sign; none is 0.
fn exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let digits = &digits[zeros(digits)..];
    if digits.len() > MOST_EXPONENT_DIGITS {
        return None;
    }
    let value = digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
    Some(if negative { -value } else { value })
}

/// Write 0.DIGITS x 10^point. It writes at most 21 zeros that are not digits of the number.
fn positional(digits: &[u8], point: i64, out: &mut Vec<u8>) {
    let count = digits.len() as i64;
    let most = MOST_PLAIN_DIGITS as i64;
    if count <= point && (point <= most || (digits.len() > DOUBLE_DIGITS && point - count <= most)) {
        out.extend_from_slice(digits);
        out.extend(std::iter::repeat_n(b'0', (point - count) as usize));
    } else if 0 < point && point <= most {
        out.extend_from_slice(&digits[..point as usize]);
        out.push(b'.');
        out.extend_from_slice(&digits[point as usize..]);
    } else if -6 < point && point <= 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', -point as usize));
        out.extend_from_slice(digits);
    } else {
        let exponent = point - 1;
        out.push(digits[0]);
        if count > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        out.push(b'e');
        out.push(if exponent >= 0 { b'+' } else { b'-' });
        write_integer(exponent.abs(), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> Option<String> {
        let mut out = Vec::new();
        let end = write(text.as_bytes(), 0, &mut out)?;
        assert_eq!(end, text.len());
        String::from_utf8(out).ok()
    }

    #[test]
    fn equal_numbers_have_equal_texts() {
        for (text, expected) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("0e5", "0"),
            ("1", "1"),
            ("1.00", "1"),
            ("10e-1", "1"),
            ("-1.50", "-1.5"),
            ("49.990", "49.99"),
            ("1e20", "100000000000000000000"),
            ("1e21", "1e+21"),
            ("1e-6", "0.000001"),
            ("1e-7", "1e-7"),
            ("12e-8", "1.2e-7"),
            ("0.0000001", "1e-7"),
            ("0.00000120", "0.0000012"),
            ("12345678901234567890123", "12345678901234567890123"),
            ("1000000000000000000000", "1e+21"),
            ("100000000000000000000", "100000000000000000000"),
            ("123456789012345678e5", "12345678901234567800000"),
            ("1E+0002", "100"),
            ("1.5e300", "1.5e+300"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_and_long_exponents_are_not_ours() {
        for text in ["", "-", ".5", "1.", "1e", "1e+", "+1", "1e12345"] {
            assert_eq!(write(text.as_bytes(), 0, &mut Vec::new()), None, "{text}");
        }
        assert_eq!(canonical("1e9999").as_deref(), Some("1e+9999"));
        assert_eq!(canonical("1e0000012").as_deref(), Some("1000000000000"));
    }

    #[test]
    fn doubles_are_written_with_the_fewest_digits() {
        for (value, expected) in [
            (0.1, "0.1"),
            (-0.0, "0"),
            (1e23, "1e+23"),
            (5e-324, "5e-324"),
            (9007199254740993.0, "9007199254740992"),
            (1e15, "1000000000000000"),
            (1315611138480591.2, "1315611138480591.2"),
            (123456.789, "123456.789"),
            (1e-7, "1e-7"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
        ] {
            let mut out = Vec::new();
            write_double(value, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        assert_eq!(write_double(f64::NAN, &mut Vec::new()), None);
        assert_eq!(write_double(f64::NEG_INFINITY, &mut Vec::new()), None);
    }
}
