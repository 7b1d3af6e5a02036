//! What IPv4 and IPv6 have in common: addresses, a protocol, a payload, perhaps a fragment.

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use super::{Packet, WireError, ipv4, ipv6};

/// Source and destination, as they stand side by side in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses<'a> {
    /// Four bytes each.
    V4(&'a [u8; 8]),
    /// Sixteen bytes each.
    V6(&'a [u8; 32]),
}

/// [`Addresses`] that stand nowhere in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnAddresses {
    /// Four bytes each.
    V4([u8; 8]),
    /// Sixteen bytes each.
    V6([u8; 32]),
}

impl Addresses<'_> {
    /// The addresses of the packets in the other direction.
    pub fn swapped(&self) -> OwnAddresses {
        match *self {
            Addresses::V4(both) => {
                let mut both = *both;
                both.rotate_left(4);
                OwnAddresses::V4(both)
            }
            Addresses::V6(both) => {
                let mut both = *both;
                both.rotate_left(16);
                OwnAddresses::V6(both)
            }
        }
    }
}

impl OwnAddresses {
    /// The same as a view.
    pub fn view(&self) -> Addresses<'_> {
        match self {
            OwnAddresses::V4(both) => Addresses::V4(both),
            OwnAddresses::V6(both) => Addresses::V6(both),
        }
    }
}

/// Which part of a datagram a fragment carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The identification: 16 bits for IPv4, 32 for IPv6.
    pub id: u32,
    /// Where the part begins in the datagram's payload, in bytes.
    pub offset: u32,
    /// More parts follow.
    pub more: bool,
}

/// An IP packet after its headers were walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip<'a> {
    /// Source and destination.
    pub addresses: Addresses<'a>,
    /// The protocol of the payload: the first that is not an extension header.
    pub protocol: u8,
    /// Present if the packet is a part of a datagram. An atomic IPv6 fragment (RFC 6946) is not.
    pub fragment: Option<Fragment>,
    /// What follows the headers.
    pub payload: Packet<'a>,
}

/// What a header's length field says about the bytes at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthField {
    /// Where the packet ends: what lies behind is padding of the link.
    Bounds,
    /// Nothing: the packet is quoted, cut short, and on its way the field may have been changed, or left
    /// zero where segments were joined.
    Ignored,
}

/// Reads the IP headers of a packet of either version.
#[inline(always)]
pub fn parse(packet: Packet<'_>) -> Result<Ip<'_>, WireError> {
    parse_with(packet, LengthField::Bounds)
}

/// Reads the IP headers of a packet that an ICMP error quotes.
pub fn parse_quoted(packet: Packet<'_>) -> Result<Ip<'_>, WireError> {
    parse_with(packet, LengthField::Ignored)
}

#[inline(always)]
fn parse_with(packet: Packet<'_>, length: LengthField) -> Result<Ip<'_>, WireError> {
    let [first] = packet.read(0)?;
    match first >> 4 {
        4 => ipv4::Header::parse(packet, length).map(|header| header.ip()),
        6 => ipv6::parse(packet, length),
        _ => Err(WireError::Malformed),
    }
}

impl fmt::Display for Addresses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addresses::V4([s0, s1, s2, s3, d @ ..]) => {
                write!(f, "{} -> {}", Ipv4Addr::new(*s0, *s1, *s2, *s3), Ipv4Addr::from(*d))
            }
            Addresses::V6(both) => {
                let (source, destination) = both.split_at(16);
                let address = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).map(Ipv6Addr::from);
                match (address(source), address(destination)) {
                    (Ok(source), Ok(destination)) => write!(f, "{source} -> {destination}"),
                    _ => Err(fmt::Error),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn other_versions_and_nothing_are_refused() {
        assert_eq!(parse(Packet::whole(&[])), Err(WireError::Truncated));
        assert_eq!(parse(Packet::copied(&[], 40)), Err(WireError::NotCopied));
        for version in [0u8, 1, 5, 7, 15] {
            let bytes = [version << 4; 60];
            assert_eq!(parse(Packet::whole(&bytes)), Err(WireError::Malformed));
        }
    }

    #[test]
    fn addresses_are_shown_as_people_write_them() {
        assert_eq!(Addresses::V4(&[10, 0, 0, 1, 10, 0, 0, 2]).to_string(), "10.0.0.1 -> 10.0.0.2");
        let mut both = [0u8; 32];
        both[0] = 0x10;
        both[15] = 1;
        both[16] = 0x10;
        assert_eq!(Addresses::V6(&both).to_string(), "1000::1 -> 1000::");
    }
}
