//! Words of the command line.

use std::ops::RangeInclusive;
use std::str::FromStr;

/// `N` or `A:B`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queues(pub RangeInclusive<u16>);

impl FromStr for Queues {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const MOST: u16 = 64;
        let number = |text: &str| text.parse().map_err(|_| "a queue is a number from 0 to 65535");
        let (first, last) = match text.split_once(':') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        };
        if first > last {
            return Err("the first queue is above the last");
        }
        if last - first >= MOST {
            return Err("more than 64 queues");
        }
        Ok(Queues(first..=last))
    }
}

/// What becomes of packets without a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum NoConsumer {
    /// They go on without a mark.
    Accept,
    /// They end here.
    Drop,
}

/// Whether something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnOff {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// A 32-bit number, decimal or hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(pub u32);

impl FromStr for Number {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let number = match text.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => text.parse(),
        };
        number.map(Number).map_err(|_| "not a number of 32 bits, decimal or 0x…")
    }
}

/// A size with an optional suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub usize);

impl FromStr for Bytes {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let (digits, factor) = match text.strip_suffix(['k', 'K']) {
            Some(digits) => (digits, 1024),
            None => match text.strip_suffix(['m', 'M']) {
                Some(digits) => (digits, 1024 * 1024),
                None => (text, 1),
            },
        };
        let number: usize = digits.parse().map_err(|_| "not a size such as 65536, 512k or 8M")?;
        // What `setsockopt` takes is an int.
        let most = i32::MAX as usize;
        number.checked_mul(factor).filter(|bytes| *bytes <= most).map(Bytes).ok_or("beyond 2 GiB")
    }
}
