//! RFC 3339 to microseconds since 1970, and back. The twin is `timestamps`.

/// 0001-01-01T00:00:00Z.
pub const MIN: i64 = -62_135_596_800_000_000;
/// 9999-12-31T23:59:59.999999Z.
pub const MAX: i64 = 253_402_300_799_999_999;

fn number(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |value, digit| digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0')))
}

/// The days from 1970-01-01 to a date of the proleptic Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The date of a day counted from 1970-01-01.
fn date(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day - era * 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, of_year - (153 * shifted + 2) / 5 + 1)
}

/// Read a time of at most six digits of a second's fraction. None for all others: leap seconds, finer times, and what
/// is no time.
pub fn parse(text: &[u8]) -> Option<i64> {
    if text.len() < 20 || text[4] != b'-' || text[7] != b'-' || !matches!(text[10], b'T' | b't') {
        return None;
    }
    if text[13] != b':' || text[16] != b':' {
        return None;
    }
    let (year, month, day) = (number(&text[..4])?, number(&text[5..7])?, number(&text[8..10])?);
    let (hour, minute, second) = (number(&text[11..13])?, number(&text[14..16])?, number(&text[17..19])?);
    if year < 1 || !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut at = 19;
    let mut fraction = 0;
    if text[at] == b'.' {
        let digits = text[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=6).contains(&digits) {
            return None;
        }
        fraction = number(&text[at + 1..at + 1 + digits])? * 10_i64.pow(6 - digits as u32);
        at += 1 + digits;
    }
    let offset = offset(text.get(at..)?)?;
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset;
    let microseconds = seconds * 1_000_000 + fraction;
    (MIN..=MAX).contains(&microseconds).then_some(microseconds)
}

/// Read an offset, in seconds.
fn offset(text: &[u8]) -> Option<i64> {
    match text {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), hours @ .., b':', ten, one] if hours.len() == 2 => {
            let (hours, minutes) = (number(hours)?, number(&[*ten, *one])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = hours * 3_600 + minutes * 60;
            Some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

/// Write a time with no, 3 or 6 digits of a second's fraction. None outside the years 1 to 9999.
pub fn write(microseconds: i64, out: &mut Vec<u8>) -> Option<()> {
    if !(MIN..=MAX).contains(&microseconds) {
        return None;
    }
    let (seconds, rest) = (microseconds.div_euclid(1_000_000), microseconds.rem_euclid(1_000_000));
    let (day, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date(day);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    for (number, digits, behind) in
        [(year, 4, b'-'), (month, 2, b'-'), (day, 2, b'T'), (hour, 2, b':'), (minute, 2, b':')]
    {
        write_digits(number, digits, out);
        out.push(behind);
    }
    write_digits(second, 2, out);
    if rest != 0 {
        out.push(b'.');
        if rest % 1_000 != 0 { write_digits(rest, 6, out) } else { write_digits(rest / 1_000, 3, out) }
    }
    out.push(b'Z');
    Some(())
}

/// Write the last digits of a number, at most six.
fn write_digits(mut number: i64, count: usize, out: &mut Vec<u8>) {
    let mut digits = [0; 6];
    let digits = &mut digits[..count];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(microseconds: i64) -> String {
        let mut out = Vec::new();
        write(microseconds, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_read_and_written() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2024-01-15T10:30:00Z", 1_705_314_600_000_000),
            ("2024-02-29t23:59:59.5+05:30", 1_709_231_399_500_000),
            ("1969-12-31T23:59:59.999999z", -1),
            ("0001-01-01T00:00:00-00:00", MIN),
            ("9999-12-31T23:59:59.999999Z", MAX),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(expected), "{text}");
            assert_eq!(parse(written(expected).as_bytes()), Some(expected));
        }
        assert_eq!(written(1_705_314_600_120_000), "2024-01-15T10:30:00.120Z");
        assert_eq!(written(MIN), "0001-01-01T00:00:00Z");
    }

    #[test]
    fn every_day_is_read_as_it_is_written() {
        for day in (MIN / 86_400_000_000..=MAX / 86_400_000_000).step_by(17) {
            assert_eq!(parse(written(day * 86_400_000_000).as_bytes()), Some(day * 86_400_000_000));
        }
    }

    #[test]
    fn what_is_unusual_is_not_ours() {
        for text in [
            "",
            "2024-01-15",
            "2024-01-15T10:30:00",
            "2024-02-30T10:30:00Z",
            "2023-02-29T10:30:00Z",
            "2024-01-15T24:00:00Z",
            "2024-01-15T10:30:60Z",
            "2024-01-15T10:30:00.1234567Z",
            "2024-01-15T10:30:00.Z",
            "2024-01-15 10:30:00Z",
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "2024-01-15T10:30:00+24:00",
            "2024-01-15T10:30:00+1:00",
            "2024-01-15T10:30:00Zx",
            "2024-13-15T10:30:00Z",
            "2024-01-15T10:30:00\u{e9}Z",
            "２024-01-15T10:30:00Z",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(write(MAX + 1, &mut Vec::new()), None);
    }
}
