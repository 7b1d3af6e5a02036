//! ICMP (RFC 792) and ICMPv6 (RFC 4443): the messages that belong to a flow of their own.

use super::{Packet, WireError};

/// Which of the two ICMPs: their type numbers differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// ICMP for IPv4.
    V4,
    /// ICMP for IPv6.
    V6,
}

impl Version {
    /// The type of an echo request.
    #[inline]
    pub fn echo_request(self) -> u8 {
        match self {
            Version::V4 => 8,
            Version::V6 => 128,
        }
    }
}

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// An echo request or reply with its identifier, as on the wire.
    Echo([u8; 2]),
    /// An error, and as much as it quotes of the packet that caused it.
    Error(Packet<'a>),
    /// Any other message.
    Other,
}

/// Length of the part that all these messages begin with.
pub const HEADER_LEN: usize = 8;

/// Reads a message.
#[inline]
pub fn parse(version: Version, payload: Packet<'_>) -> Result<Message<'_>, WireError> {
    let [kind, _code, _, _, id0, id1, _, _] = *payload.read::<HEADER_LEN>(0)?;
    match (version, kind) {
        (Version::V4, 0 | 8) | (Version::V6, 128 | 129) => Ok(Message::Echo([id0, id1])),
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        (Version::V4, 3 | 4 | 5 | 11 | 12) => payload.after(HEADER_LEN).map(Message::Error),
        // Unreachable, too big, time exceeded, parameter problem.
        (Version::V6, 1..=4) => payload.after(HEADER_LEN).map(Message::Error),
        _ => Ok(Message::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echo_request_and_reply_carry_an_identifier() {
        for (version, kind) in
            [(Version::V4, 8), (Version::V4, 0), (Version::V6, 128), (Version::V6, 129)]
        {
            let message = [kind, 0, 0, 0, 0x12, 0x34, 0, 1];
            assert_eq!(parse(version, Packet::whole(&message)), Ok(Message::Echo([0x12, 0x34])));
        }
    }

    #[test]
    fn the_numbers_of_the_other_version_are_other_messages() {
        for (version, kind) in [
            (Version::V6, 8),
            (Version::V6, 0),
            (Version::V6, 5),
            (Version::V4, 128),
            (Version::V4, 1),
        ] {
            let message = [kind, 0, 0, 0, 0x12, 0x34, 0, 1];
            assert_eq!(parse(version, Packet::whole(&message)), Ok(Message::Other));
        }
    }

    #[test]
    fn errors_quote_a_packet() {
        let v4 = [3, 4, 5, 11, 12].map(|kind| (Version::V4, kind));
        let v6 = [1, 2, 3, 4].map(|kind| (Version::V6, kind));
        for (version, kind) in v4.into_iter().chain(v6) {
            let message = [kind, 4, 0, 0, 0, 0, 5, 0, 0x45, 0];
            let quoted = Packet::whole(&[0x45, 0]);
            assert_eq!(parse(version, Packet::whole(&message)), Ok(Message::Error(quoted)));
            let nothing = Packet::whole(&[]);
            assert_eq!(parse(version, Packet::whole(&message[..8])), Ok(Message::Error(nothing)));
        }
    }

    #[test]
    fn every_truncation_is_told() {
        let message = [8, 0, 0, 0, 0x12, 0x34, 0, 1];
        for len in 0..HEADER_LEN {
            let cut = &message[..len];
            assert_eq!(parse(Version::V4, Packet::whole(cut)), Err(WireError::Truncated));
            assert_eq!(parse(Version::V4, Packet::copied(cut, 8)), Err(WireError::NotCopied));
        }
    }
}
