//! Durations as Go programs write them: `10s`, `1m30s`, `500ms`, `1.5h`.

use std::time::Duration;

use thiserror::Error;

/// Why a text is not a duration.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DurationError {
    #[error("no number where one is needed")]
    NoNumber,
    #[error("no unit behind the number (ns, us, ms, s, m or h)")]
    NoUnit,
    #[error("unknown unit {0:?} (ns, us, ms, s, m or h)")]
    UnknownUnit(String),
    #[error("negative")]
    Negative,
    #[error("too long")]
    TooLong,
}

/// Reads one or more numbers with units; a plain `0` needs no unit.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    if text.starts_with('-') {
        return Err(DurationError::Negative);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total: u64 = 0;
    loop {
        let (part, behind) = leading_part(rest)?;
        total = total.checked_add(part).ok_or(DurationError::TooLong)?;
        rest = behind;
        if rest.is_empty() {
            return Ok(Duration::from_nanos(total));
        }
    }
}

/// The nanoseconds of the first number and unit, and the text behind them.
fn leading_part(text: &str) -> Result<(u64, &str), DurationError> {
    let (whole, behind) = leading_digits(text);
    let (fraction, behind) = match behind.strip_prefix('.') {
        Some(behind) => leading_digits(behind),
        None => ("", behind),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::NoNumber);
    }
    let unit_end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
    let (unit, behind) = behind.split_at(unit_end);
    let scale = nanoseconds_of(unit)?;

    let whole: u64 = match whole {
        "" => 0,
        // Digits alone fail to parse only when there are too many of them.
        digits => digits.parse().map_err(|_| DurationError::TooLong)?,
    };
    let part = whole
        .checked_mul(scale)
        .and_then(|part| part.checked_add(fraction_of(scale, fraction)))
        .ok_or(DurationError::TooLong)?;
    Ok((part, behind))
}

/// `0.digits` of a unit, cut off below the nanosecond.
fn fraction_of(scale: u64, digits: &str) -> u64 {
    // No digit behind the 13th reaches a nanosecond, even of an hour.
    let (numerator, denominator) = digits
        .bytes()
        .take(13)
        .fold((0, 1), |(n, d), digit| (n * 10 + u128::from(digit - b'0'), d * 10));
    let part = u128::from(scale) * numerator / denominator;
    u64::try_from(part).expect("a fraction is below its unit, which is a u64")
}

fn leading_digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

fn nanoseconds_of(unit: &str) -> Result<u64, DurationError> {
    match unit {
        "ns" => Ok(1),
        // The micro sign and the Greek letter look alike and both are typed.
        "us" | "\u{b5}s" | "\u{3bc}s" => Ok(1_000),
        "ms" => Ok(1_000_000),
        "s" => Ok(1_000_000_000),
        "m" => Ok(60_000_000_000),
        "h" => Ok(3_600_000_000_000),
        "" => Err(DurationError::NoUnit),
        other => Err(DurationError::UnknownUnit(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_go_programs_accept() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("0s", 0),
            ("10s", 10_000_000_000),
            ("+10s", 10_000_000_000),
            ("1m30s", 90_000_000_000),
            ("500ms", 500_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("1h2m3s4ms5us6ns", 3_723_004_005_006),
            ("7\u{b5}s", 7_000),
            ("7\u{3bc}s", 7_000),
            ("0.3333333333333333333h", 1_199_999_999_999),
            ("1.00000000000000000000000000000000000000001s", 1_000_000_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
        }
    }

    #[test]
    fn names_what_is_wrong() {
        use DurationError::*;
        for (text, error) in [
            ("", NoNumber),
            ("s", NoNumber),
            (".s", NoNumber),
            ("+", NoNumber),
            ("1s ", UnknownUnit("s ".to_owned())),
            ("10", NoUnit),
            ("1.5", NoUnit),
            ("1m30", NoUnit),
            ("1d", UnknownUnit("d".to_owned())),
            ("-1s", Negative),
            ("99999999999999999999s", TooLong),
            ("9999999999h", TooLong),
            ("18446744073709551615ns1ns", TooLong),
        ] {
            assert_eq!(parse(text), Err(error), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn reads_back_what_rust_prints(nanoseconds: u64) {
            let duration = Duration::from_nanos(nanoseconds);
            prop_assert_eq!(parse(&format!("{duration:?}")), Ok(duration));
        }

        #[test]
        fn any_text_is_answered(text in "[-+0-9.a-zµμ ]{0,40}") {
            let _ = parse(&text);
        }
    }
}
