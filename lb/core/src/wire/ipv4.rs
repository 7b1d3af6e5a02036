//! IPv4 header (RFC 791).

use super::ip::{Addresses, Fragment, Ip, LengthField};
use super::{Packet, WireError};

/// Where the fields stand.
mod field {
    pub const VERSION_IHL: usize = 0;
    pub const TOTAL_LENGTH: usize = 2;
    pub const IDENTIFICATION: usize = 4;
    pub const FLAGS_OFFSET: usize = 6;
    pub const PROTOCOL: usize = 9;
    pub const ADDRESSES: usize = 12;
}

/// Length of a header without options.
pub const MIN_HEADER_LEN: usize = 20;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// A checked IPv4 header with its payload.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    fixed: &'a [u8; MIN_HEADER_LEN],
    addresses: &'a [u8; 8],
    payload: Packet<'a>,
}

impl<'a> Header<'a> {
    /// Reads a header with its options.
    #[inline(always)]
    pub fn parse(packet: Packet<'a>, length: LengthField) -> Result<Self, WireError> {
        let fixed: &[u8; MIN_HEADER_LEN] = packet.read(0)?;
        let header_len = usize::from(fixed[field::VERSION_IHL] & 0x0f) * 4;
        if fixed[field::VERSION_IHL] >> 4 != 4 || header_len < MIN_HEADER_LEN {
            return Err(WireError::Malformed);
        }
        let total_len = usize::from(u16_at(fixed, field::TOTAL_LENGTH));
        let packet = if length == LengthField::Ignored {
            packet
        } else if total_len >= header_len {
            packet.limited(total_len)
        } else if total_len == 0 && packet.full_len() > usize::from(u16::MAX) {
            packet // Linux leaves the length zero when it joined segments to more than 64 KiB.
        } else {
            return Err(WireError::Malformed);
        };
        Ok(Header {
            fixed,
            addresses: packet.read(field::ADDRESSES)?,
            payload: packet.after(header_len)?,
        })
    }

    /// The fields that the walk needs.
    #[inline(always)]
    pub fn ip(&self) -> Ip<'a> {
        Ip {
            addresses: Addresses::V4(self.addresses),
            protocol: self.fixed[field::PROTOCOL],
            fragment: self.fragment(),
            payload: self.payload,
        }
    }

    #[inline(always)]
    fn fragment(&self) -> Option<Fragment> {
        let flags_offset = u16_at(self.fixed, field::FLAGS_OFFSET);
        (flags_offset & (MORE_FRAGMENTS | OFFSET_MASK) != 0).then(|| Fragment {
            id: u32::from(u16_at(self.fixed, field::IDENTIFICATION)),
            offset: u32::from(flags_offset & OFFSET_MASK) * 8,
            more: flags_offset & MORE_FRAGMENTS != 0,
        })
    }
}

fn u16_at(header: &[u8; MIN_HEADER_LEN], offset: usize) -> u16 {
    u16::from_be_bytes([header[offset], header[offset + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ip, protocol};

    /// 10.0.0.1 -> 10.0.0.2, UDP, four bytes of payload.
    const PLAIN: [u8; 24] = [
        0x45, 0x00, 0x00, 0x18, 0x12, 0x34, 0x40, 0x00, 0x40, 0x11, 0x00, 0x00, //
        10, 0, 0, 1, 10, 0, 0, 2, //
        0x0f, 0xa0, 0x00, 0x50,
    ];

    fn with(offset: usize, bytes: &[u8]) -> [u8; 24] {
        let mut packet = PLAIN;
        packet[offset..offset + bytes.len()].copy_from_slice(bytes);
        packet
    }

    #[test]
    fn plain_header() {
        let ip = ip::parse(Packet::whole(&PLAIN)).unwrap();
        assert_eq!(ip.addresses, Addresses::V4(&[10, 0, 0, 1, 10, 0, 0, 2]));
        assert_eq!(ip.protocol, protocol::UDP);
        assert_eq!(ip.fragment, None);
        assert_eq!(ip.payload, Packet::whole(&[0x0f, 0xa0, 0x00, 0x50]));
    }

    #[test]
    fn options_are_stepped_over() {
        let packet = with(0, &[0x46]);
        let ip = ip::parse(Packet::whole(&packet)).unwrap();
        assert_eq!(ip.payload, Packet::whole(&[]));
    }

    #[test]
    fn link_padding_is_not_payload() {
        let packet = with(2, &[0x00, 0x16]);
        let ip = ip::parse(Packet::whole(&packet)).unwrap();
        assert_eq!(ip.payload, Packet::whole(&[0x0f, 0xa0]));
    }

    #[test]
    fn a_header_alone_is_a_packet() {
        let packet = with(2, &[0x00, 0x14]);
        let ip = ip::parse(Packet::whole(&packet[..20])).unwrap();
        assert_eq!(ip.payload, Packet::whole(&[]));
    }

    #[test]
    fn lengths_that_contradict_are_malformed() {
        for (offset, bytes) in [
            (0, &[0x44][..]),   // header of 16 bytes
            (0, &[0x40]),       // header of none
            (2, &[0x00, 0x13]), // total length inside the header
            (2, &[0x00, 0x00]), // no length, and no joined segments
        ] {
            let packet = with(offset, bytes);
            assert_eq!(ip::parse(Packet::whole(&packet)), Err(WireError::Malformed), "{bytes:x?}");
        }
        let packet = with(0, &[0x47]); // header of 28 bytes in a packet of 24
        assert_eq!(ip::parse(Packet::whole(&packet)), Err(WireError::Malformed));
    }

    #[test]
    fn joined_segments_beyond_64k_have_no_length() {
        let packet = with(2, &[0x00, 0x00]);
        let ip = ip::parse(Packet::copied(&packet, 100_000)).unwrap();
        assert_eq!(ip.payload.full_len(), 99_980);
    }

    #[test]
    fn fragments_first_middle_last() {
        for (flags_offset, offset, more) in
            [([0x20, 0x00], 0, true), ([0x20, 0xb9], 1480, true), ([0x00, 0xb9], 1480, false)]
        {
            let packet = with(6, &flags_offset);
            let ip = ip::parse(Packet::whole(&packet)).unwrap();
            assert_eq!(ip.fragment, Some(Fragment { id: 0x1234, offset, more }));
        }
    }

    #[test]
    fn every_truncation_of_the_header_is_told() {
        for len in 1..20 {
            assert_eq!(ip::parse(Packet::whole(&PLAIN[..len])), Err(WireError::Truncated), "{len}");
            let copied = Packet::copied(&PLAIN[..len], 24);
            assert_eq!(ip::parse(copied), Err(WireError::NotCopied), "{len}");
        }
    }
}
