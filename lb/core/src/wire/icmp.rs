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

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// An echo request or reply with its identifier, as on the wire.
    Echo([u8; 2]),
    /// Any other message.
    Other,
}

/// Length of the part that all messages share with the echo.
pub const HEADER_LEN: usize = 8;

/// Reads the head of a message.
#[inline]
pub fn parse(version: Version, payload: Packet<'_>) -> Result<Message, WireError> {
    let [kind, _code, _, _, id0, id1, _, _] = *payload.read::<HEADER_LEN>(0)?;
    let echo = match version {
        Version::V4 => matches!(kind, 0 | 8),
        Version::V6 => matches!(kind, 128 | 129),
    };
    Ok(if echo {
        Message::Echo([id0, id1])
    } else {
        Message::Other
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echo_request_and_reply_carry_an_identifier() {
        for (version, kind) in [
            (Version::V4, 8),
            (Version::V4, 0),
            (Version::V6, 128),
            (Version::V6, 129),
        ] {
            let message = [kind, 0, 0, 0, 0x12, 0x34, 0, 1];
            assert_eq!(
                parse(version, Packet::whole(&message)),
                Ok(Message::Echo([0x12, 0x34]))
            );
        }
    }

    #[test]
    fn the_numbers_of_the_other_version_are_other_messages() {
        for (version, kind) in [
            (Version::V6, 8),
            (Version::V6, 0),
            (Version::V4, 128),
            (Version::V4, 3),
        ] {
            let message = [kind, 0, 0, 0, 0x12, 0x34, 0, 1];
            assert_eq!(parse(version, Packet::whole(&message)), Ok(Message::Other));
        }
    }

    #[test]
    fn every_truncation_is_told() {
        let message = [8, 0, 0, 0, 0x12, 0x34, 0, 1];
        for len in 0..HEADER_LEN {
            let cut = &message[..len];
            assert_eq!(
                parse(Version::V4, Packet::whole(cut)),
                Err(WireError::Truncated)
            );
            assert_eq!(
                parse(Version::V4, Packet::copied(cut, 8)),
                Err(WireError::NotCopied)
            );
        }
    }
}
