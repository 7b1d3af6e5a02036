//! Views of packet headers: borrowed bytes with checked constructors.
//!
//! Every read goes through [`Packet::read`], so a header that ends exactly at the packet's end is
//! valid, one byte less is an answer, and nothing here can panic or read past the end.

pub mod icmp;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod l4;
pub mod sctp;

use thiserror::Error;

/// Protocol numbers that the walk knows by name (IANA "Protocol Numbers").
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Authentication header.
    pub const AUTHENTICATION: u8 = 51;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// Why a packet's headers could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// The packet ends before the header does.
    #[error("the packet ends inside a header")]
    Truncated,
    /// The packet goes on, but the queue's copy range ends before the header does.
    #[error("a header lies beyond the copied part of the packet")]
    NotCopied,
    /// A field contradicts the format: version, header length, total length.
    #[error("a header field contradicts the format")]
    Malformed,
    /// More IPv6 extension headers than [`ipv6::MAX_EXTENSION_HEADERS`].
    #[error("too many IPv6 extension headers")]
    ChainTooLong,
}

/// A packet, or the rest of one: the bytes that were copied and the length that it really has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    full_len: usize,
}

impl<'a> Packet<'a> {
    /// A packet of which every byte is at hand.
    pub fn whole(bytes: &'a [u8]) -> Self {
        Packet { bytes, full_len: bytes.len() }
    }

    /// A packet of `full_len` bytes of which the first `bytes.len()` were copied.
    pub fn copied(bytes: &'a [u8], full_len: usize) -> Self {
        Packet { bytes, full_len: full_len.max(bytes.len()) }
    }

    /// The bytes at hand.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The length of the packet, copied or not.
    pub fn full_len(&self) -> usize {
        self.full_len
    }

    /// `N` bytes at `offset`, or why they are not there.
    #[inline]
    pub fn read<const N: usize>(&self, offset: usize) -> Result<&'a [u8; N], WireError> {
        match self.bytes.get(offset..).and_then(|rest| rest.first_chunk()) {
            Some(chunk) => Ok(chunk),
            None => Err(self.missing(offset, N)),
        }
    }

    /// What follows `offset`, which the packet must reach.
    #[inline]
    pub fn after(&self, offset: usize) -> Result<Packet<'a>, WireError> {
        match self.bytes.get(offset..) {
            Some(bytes) => Ok(Packet { bytes, full_len: self.full_len - offset }),
            None => Err(self.missing(offset, 0)),
        }
    }

    /// The same packet without what lies behind `len` bytes (link padding).
    #[inline]
    pub fn limited(&self, len: usize) -> Packet<'a> {
        Packet {
            bytes: self.bytes.get(..len).unwrap_or(self.bytes),
            full_len: self.full_len.min(len),
        }
    }

    fn missing(&self, offset: usize, len: usize) -> WireError {
        if offset.saturating_add(len) <= self.full_len {
            WireError::NotCopied
        } else {
            WireError::Truncated
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_ends_at_the_end_is_valid_and_one_byte_more_is_not() {
        let packet = Packet::whole(&[1, 2, 3, 4]);
        assert_eq!(packet.read::<2>(2), Ok(&[3, 4]));
        assert_eq!(packet.read::<0>(4), Ok(&[]));
        assert_eq!(packet.read::<2>(3), Err(WireError::Truncated));
        assert_eq!(packet.read::<1>(usize::MAX), Err(WireError::Truncated));
    }

    #[test]
    fn beyond_the_copy_is_told_from_beyond_the_packet() {
        let packet = Packet::copied(&[1, 2, 3, 4], 6);
        assert_eq!(packet.read::<2>(4), Err(WireError::NotCopied));
        assert_eq!(packet.read::<2>(5), Err(WireError::Truncated));
        assert_eq!(packet.after(5), Err(WireError::NotCopied));
        assert_eq!(packet.after(7), Err(WireError::Truncated));
    }

    #[test]
    fn a_limit_cuts_bytes_and_length_and_never_extends() {
        let packet = Packet::copied(&[1, 2, 3, 4], 6);
        assert_eq!(packet.limited(3), Packet::whole(&[1, 2, 3]));
        assert_eq!(packet.limited(5), Packet::copied(&[1, 2, 3, 4], 5));
        assert_eq!(packet.limited(9), packet);
    }
}
