//! Messages of `ctraffic`, and the server's part in them.
//!
//! A server returns every message as it is. `ctraffic` asks for one thing more: the magic and a flag tell the
//! server that it may put its name into a field that was left free for it. Numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 0..16 | when it was sent, by the sender's monotonic clock: seconds, nanoseconds |
//! | 16..24 | number within the association, from 0 |
//! | 24..32 | the association |
//! | 32..36 | checksum of all but itself and the server's field (44..112) |
//! | 36..40 | magic |
//! | 40 | version |
//! | 41 | flags; 1: the server is asked for its name |
//! | 42..44 | length of the message |
//! | 44..48 | checksum of the name, set by the server |
//! | 48..112 | name of the server, zeros behind it; all zero as long as no server has set it |
//! | 112.. | payload: bytes that follow from the association |

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use sctp_stack::MAX_MESSAGE;
use thiserror::Error;

use crate::checksum;

/// Bytes before the payload; also the shortest message.
pub const HEADER: usize = 112;
pub const DEFAULT_SIZE: u16 = 1024;

const MAGIC: [u8; 4] = *b"MkCt";
const VERSION: u8 = 1;
const ASKS_FOR_NAME: u8 = 1;
const NAME_LENGTH: usize = 64;

/// A time of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(Duration);

/// The message of an association, which only changes its time and number.
#[derive(Debug)]
pub struct Template(Vec<u8>);

/// A message that came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    pub sent: Time,
    pub sequence: u64,
    pub association: u64,
    /// Empty if the server told none.
    pub server: &'a str,
}

/// The name of a server as it fits into a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name([u8; NAME_LENGTH]);

/// What is wrong with a message that came back.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Broken {
    #[error("not a message of this program")]
    Foreign,
    #[error("{found} bytes instead of {expected}")]
    Length { found: usize, expected: usize },
    #[error("wrong checksum")]
    Checksum,
    #[error("wrong checksum of the server's name")]
    Name,
}

impl Time {
    pub fn now() -> Self {
        // The clock is always there and never negative.
        let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
        Time(time.unwrap_or_default())
    }

    /// The time since then.
    pub fn elapsed(self) -> Duration {
        Time::now().0.saturating_sub(self.0)
    }
}

impl Template {
    /// `size` is at least [`HEADER`] and at most [`MAX_MESSAGE`].
    pub fn new(size: u16, association: u64) -> Self {
        debug_assert!((HEADER..=MAX_MESSAGE).contains(&usize::from(size)));
        let mut bytes = vec![0; usize::from(size)];
        bytes[24..32].copy_from_slice(&association.to_le_bytes());
        bytes[36..40].copy_from_slice(&MAGIC);
        bytes[40] = VERSION;
        bytes[41] = ASKS_FOR_NAME;
        bytes[42..44].copy_from_slice(&size.to_le_bytes());
        fill(&mut bytes[HEADER..], association);
        Template(bytes)
    }

    /// The message with this number.
    pub fn stamp(&mut self, sequence: u64, sent: Time) -> &[u8] {
        let bytes = &mut self.0;
        bytes[0..8].copy_from_slice(&sent.0.as_secs().to_le_bytes());
        bytes[8..16].copy_from_slice(&u64::from(sent.0.subsec_nanos()).to_le_bytes());
        bytes[16..24].copy_from_slice(&sequence.to_le_bytes());
        let sum = own_checksum(bytes);
        bytes[32..36].copy_from_slice(&sum.to_le_bytes());
        bytes
    }
}

impl<'a> Answer<'a> {
    /// Reads a message that came back, and believes nothing.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Broken> {
        if bytes.len() < HEADER || bytes[36..40] != MAGIC || bytes[40] != VERSION {
            return Err(Broken::Foreign);
        }
        let expected = usize::from(u16::from_le_bytes(array(bytes, 42)));
        if bytes.len() != expected {
            return Err(Broken::Length { found: bytes.len(), expected });
        }
        if u32::from_le_bytes(array(bytes, 32)) != own_checksum(bytes) {
            return Err(Broken::Checksum);
        }
        let nanoseconds = Duration::from_nanos(u64::from_le_bytes(array(bytes, 8)));
        let seconds = Duration::from_secs(u64::from_le_bytes(array(bytes, 0)));
        Ok(Answer {
            sent: Time(seconds.saturating_add(nanoseconds)),
            sequence: u64::from_le_bytes(array(bytes, 16)),
            association: u64::from_le_bytes(array(bytes, 24)),
            server: server(&bytes[44..HEADER])?,
        })
    }
}

/// What the server's field says.
fn server(field: &[u8]) -> Result<&str, Broken> {
    let (sum, name) = field.split_at(4);
    if field.iter().all(|byte| *byte == 0) {
        return Ok("");
    }
    let length = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    match std::str::from_utf8(&name[..length]) {
        Ok(text) if checksum::of(&[name]).to_le_bytes() == sum => Ok(text),
        _ => Err(Broken::Name),
    }
}

impl Name {
    /// What is too long is cut.
    pub fn new(text: &str) -> Self {
        let mut length = text.len().min(NAME_LENGTH);
        while !text.is_char_boundary(length) {
            length -= 1;
        }
        let mut bytes = [0; NAME_LENGTH];
        bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
        Name(bytes)
    }

    /// Puts the name into a message that asks for it. Any other message stays as it is.
    pub fn put_into(&self, message: &mut [u8]) {
        let asks = message.len() >= HEADER
            && message[36..40] == MAGIC
            && message[40] == VERSION
            && message[41] & ASKS_FOR_NAME != 0
            && message[44..HEADER].iter().all(|byte| *byte == 0);
        if asks {
            message[44..48].copy_from_slice(&checksum::of(&[&self.0]).to_le_bytes());
            message[48..HEADER].copy_from_slice(&self.0);
        }
    }
}

/// The checksum of what the server does not change.
fn own_checksum(message: &[u8]) -> u32 {
    checksum::of(&[&message[..32], &message[36..44], &message[HEADER..]])
}

/// Bytes that look random, other ones for each association (xorshift).
fn fill(payload: &mut [u8], association: u64) {
    let mut state = association | 1;
    for chunk in payload.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SENT: Time = Time(Duration::new(5, 7));

    fn message(size: u16) -> Vec<u8> {
        Template::new(size, 0x0102_0304_0506_0708).stamp(9, SENT).to_vec()
    }

    #[test]
    fn the_header_is_this_in_bytes() {
        let bytes = message(DEFAULT_SIZE);
        assert_eq!(bytes.len(), 1024);
        assert_eq!(bytes[0..16], [5, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[16..32], [9, 0, 0, 0, 0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(bytes[36..44], [b'M', b'k', b'C', b't', 1, 1, 0, 4]);
        assert!(bytes[44..112].iter().all(|byte| *byte == 0));
        // The first step of xorshift from the number of the association.
        let mut state: u64 = 0x0102_0304_0506_0709;
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        assert_eq!(bytes[112..120], state.to_le_bytes());
        let mut covered = bytes[..32].to_vec();
        covered.extend(&bytes[36..44]);
        covered.extend(&bytes[112..]);
        assert_eq!(bytes[32..36], checksum::of(&[&covered]).to_le_bytes());
    }

    #[test]
    fn a_message_comes_back_with_and_without_a_name() {
        for size in [112, 113, 1024, 16_384] {
            let mut bytes = message(size);
            let plain = Answer::parse(&bytes).unwrap();
            let expected =
                Answer { sent: SENT, sequence: 9, association: 0x0102_0304_0506_0708, server: "" };
            assert_eq!(plain, expected);
            Name::new("vm-001").put_into(&mut bytes);
            assert_eq!(bytes[48..56], *b"vm-001\0\0");
            assert_eq!(Answer::parse(&bytes), Ok(Answer { server: "vm-001", ..expected }));
            // A second server on the way changes nothing.
            let named = bytes.clone();
            Name::new("vm-002").put_into(&mut bytes);
            assert_eq!(bytes, named);
        }
    }

    #[test]
    fn a_name_is_cut_between_characters() {
        let long = "x".repeat(63) + "\u{e4}";
        let mut bytes = message(200);
        Name::new(&long).put_into(&mut bytes);
        assert_eq!(Answer::parse(&bytes).unwrap().server, "x".repeat(63));
        let mut bytes = message(200);
        Name::new(&"y".repeat(64)).put_into(&mut bytes);
        assert_eq!(Answer::parse(&bytes).unwrap().server, "y".repeat(64));
    }

    #[test]
    fn a_plain_message_is_left_alone() {
        let mut other_version = message(200);
        other_version[40] = 2;
        let mut no_wish = message(200);
        no_wish[41] = 0;
        let short = message(200)[..111].to_vec();
        for plain in [b"Hi\n".to_vec(), vec![0; 1024], other_version, no_wish, short] {
            let mut bytes = plain.clone();
            Name::new("vm-001").put_into(&mut bytes);
            assert_eq!(bytes, plain);
        }
    }

    #[test]
    fn a_cut_or_joined_message_is_told_by_its_length() {
        let bytes = message(1024);
        let error = Answer::parse(&bytes[..1000]).unwrap_err();
        assert_eq!(error, Broken::Length { found: 1000, expected: 1024 });
        let error = Answer::parse(&[&bytes[..], &bytes[..]].concat()).unwrap_err();
        assert_eq!(error.to_string(), "2048 bytes instead of 1024");
        assert_eq!(Answer::parse(&bytes[..111]), Err(Broken::Foreign));
        assert_eq!(Answer::parse(b""), Err(Broken::Foreign));
    }

    proptest! {
        #[test]
        fn any_changed_bit_is_found(byte in 0usize..300, bit in 0u32..8, named: bool) {
            let mut bytes = message(300);
            if named {
                Name::new("vm-001").put_into(&mut bytes);
            }
            bytes[byte] ^= 1 << bit;
            prop_assert!(Answer::parse(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_answered(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Answer::parse(&bytes).is_err());
            let before = bytes.clone();
            Name::new("x").put_into(&mut bytes);
            prop_assert_eq!(bytes, before);
        }
    }
}
