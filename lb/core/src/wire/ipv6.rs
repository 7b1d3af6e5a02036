//! IPv6 header and its chain of extension headers (RFC 8200; RFC 4302 for authentication).

use super::ip::{Addresses, Fragment, Ip, LengthField};
use super::{Packet, WireError, protocol};

/// Where the fields stand.
mod field {
    pub const VERSION: usize = 0;
    pub const PAYLOAD_LENGTH: usize = 4;
    pub const NEXT_HEADER: usize = 6;
    pub const ADDRESSES: usize = 8;
}

/// Length of the fixed header.
pub const HEADER_LEN: usize = 40;
/// Most extension headers that are walked. Every one has at least eight bytes, so no ordinary copy
/// range reaches this; it bounds the work that a hostile packet can ask for.
pub const MAX_EXTENSION_HEADERS: usize = 64;
const FRAGMENT_HEADER_LEN: usize = 8;

/// Reads the fixed header and walks the extension headers to the payload. In a fragment that is not
/// the first the walk ends behind the fragment header: what follows is data, not a header.
#[inline(always)]
pub fn parse(packet: Packet<'_>, length: LengthField) -> Result<Ip<'_>, WireError> {
    let mut ip = parse_fixed(packet, length)?;
    if is_extension(ip.protocol) {
        walk_extensions(&mut ip)?;
    }
    Ok(ip)
}

/// Reads the fixed header alone: the protocol is the next header, whatever it is.
#[inline]
pub fn parse_fixed(packet: Packet<'_>, length: LengthField) -> Result<Ip<'_>, WireError> {
    let fixed: &[u8; HEADER_LEN] = packet.read(0)?;
    if fixed[field::VERSION] >> 4 != 6 {
        return Err(WireError::Malformed);
    }
    let packet = match length {
        LengthField::Bounds => packet.limited(packet_len(fixed, packet.full_len())),
        LengthField::Ignored => packet,
    };
    Ok(Ip {
        addresses: Addresses::V6(packet.read(field::ADDRESSES)?),
        protocol: fixed[field::NEXT_HEADER],
        fragment: None,
        payload: packet.after(HEADER_LEN)?,
    })
}

/// Length that the header claims. It may be zero when Linux joined segments to more than 64 KiB or
/// when a jumbo option (hop-by-hop, RFC 2675) holds it.
fn packet_len(fixed: &[u8; HEADER_LEN], full_len: usize) -> usize {
    let payload_len =
        u16::from_be_bytes([fixed[field::PAYLOAD_LENGTH], fixed[field::PAYLOAD_LENGTH + 1]]);
    let elsewhere = fixed[field::NEXT_HEADER] == protocol::HOP_BY_HOP
        || full_len > HEADER_LEN + usize::from(u16::MAX);
    if payload_len == 0 && elsewhere { full_len } else { HEADER_LEN + usize::from(payload_len) }
}

/// Whether this is the number of an extension header that is walked.
#[inline]
pub fn is_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS
    )
}

fn walk_extensions(ip: &mut Ip<'_>) -> Result<(), WireError> {
    for _ in 0..MAX_EXTENSION_HEADERS {
        step_over_extension(ip)?;
        if !is_before_extension(ip) {
            return Ok(());
        }
    }
    Err(WireError::ChainTooLong)
}

/// Whether the walk goes on: an extension header follows, and not the data of a later fragment.
#[inline(always)]
pub fn is_before_extension(ip: &Ip<'_>) -> bool {
    let first_part = ip.fragment.is_none_or(|fragment| fragment.offset == 0);
    first_part && is_extension(ip.protocol)
}

/// Moves on to what follows the extension header that `ip` stands before. Inlined always: as a call it
/// costs a packet with five headers a nanosecond.
#[inline(always)]
pub fn step_over_extension(ip: &mut Ip<'_>) -> Result<(), WireError> {
    let [next_header, len_field] = *ip.payload.read(0)?;
    let units = usize::from(len_field);
    let len = match ip.protocol {
        protocol::FRAGMENT => FRAGMENT_HEADER_LEN,
        protocol::AUTHENTICATION => (units + 2) * 4,
        _ => (units + 1) * 8,
    };
    if ip.protocol == protocol::FRAGMENT {
        ip.fragment = fragment(ip.payload.read(0)?).or(ip.fragment);
    }
    ip.protocol = next_header;
    ip.payload = ip.payload.after(len)?;
    Ok(())
}

/// A fragment header that says "the whole datagram" (RFC 6946, atomic) is no fragment.
fn fragment(header: &[u8; FRAGMENT_HEADER_LEN]) -> Option<Fragment> {
    let [_, _, high, low, i0, i1, i2, i3] = *header;
    let offset_more = u16::from_be_bytes([high, low]);
    let offset = u32::from(offset_more & 0xfff8);
    let more = offset_more & 1 != 0;
    let id = u32::from_be_bytes([i0, i1, i2, i3]);
    (offset != 0 || more).then_some(Fragment { id, offset, more })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ip;
    use alloc::vec;
    use alloc::vec::Vec;

    /// The fixed header of a packet 1000::1 -> 1000::2 with `payload`.
    fn packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![0x60, 0, 0, 0, len[0], len[1], next_header, 64];
        for last in [1u8, 2] {
            bytes.extend([0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        bytes.extend(payload);
        bytes
    }

    const PORTS: [u8; 4] = [0x0f, 0xa0, 0x00, 0x50];

    #[test]
    fn no_extension_header() {
        let bytes = packet(protocol::UDP, &PORTS);
        let ip = ip::parse(Packet::whole(&bytes)).unwrap();
        let Addresses::V6(both) = ip.addresses else { panic!("not IPv6") };
        assert_eq!((both[15], both[31]), (1, 2));
        assert_eq!(ip.protocol, protocol::UDP);
        assert_eq!(ip.payload, Packet::whole(&PORTS));
    }

    #[test]
    fn each_extension_header_has_its_true_length() {
        let cases: [(u8, &[u8]); 7] = [
            (protocol::HOP_BY_HOP, &[17, 0, 1, 4, 0, 0, 0, 0]),
            (protocol::DESTINATION_OPTIONS, &[17, 0, 1, 4, 0, 0, 0, 0]),
            (protocol::DESTINATION_OPTIONS, &[17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            (protocol::ROUTING, &[17, 0, 0, 0, 0, 0, 0, 0]),
            (protocol::AUTHENTICATION, &[17, 0, 0, 0, 0, 0, 0, 1]),
            (protocol::AUTHENTICATION, &[17, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]),
            (protocol::FRAGMENT, &[17, 0xff, 0, 0, 0, 0, 0, 9]), // atomic; the second byte is reserved
        ];
        for (first, header) in cases {
            let bytes = packet(first, &[header, &PORTS].concat());
            let ip = ip::parse(Packet::whole(&bytes)).unwrap();
            assert_eq!(ip.protocol, protocol::UDP, "{header:x?}");
            assert_eq!(ip.payload, Packet::whole(&PORTS), "{header:x?}");
            assert_eq!(ip.fragment, None, "{header:x?}");
        }
    }

    #[test]
    fn a_chain_of_all_kinds() {
        let chain = [
            [43u8, 0, 1, 4, 0, 0, 0, 0], // hop-by-hop
            [60, 0, 0, 0, 0, 0, 0, 0],   // routing
            [51, 0, 1, 4, 0, 0, 0, 0],   // destination options
            [44, 0, 0, 0, 0, 0, 0, 1],   // authentication
            [6, 0, 0, 0, 0, 0, 0, 5],    // atomic fragment
        ]
        .concat();
        let bytes = packet(protocol::HOP_BY_HOP, &[&chain[..], &PORTS].concat());
        let ip = ip::parse(Packet::whole(&bytes)).unwrap();
        assert_eq!((ip.protocol, ip.payload), (protocol::TCP, Packet::whole(&PORTS)));
    }

    #[test]
    fn unknown_headers_end_the_walk() {
        for other in [50u8, 59, 135, 139, 140, 253] {
            let bytes = packet(protocol::HOP_BY_HOP, &[other, 0, 1, 4, 0, 0, 0, 0, 1, 2]);
            let ip = ip::parse(Packet::whole(&bytes)).unwrap();
            assert_eq!((ip.protocol, ip.payload), (other, Packet::whole(&[1, 2])));
        }
    }

    #[test]
    fn fragments_first_and_later() {
        let first = packet(protocol::FRAGMENT, &[17, 0, 0, 1, 0, 0, 0x12, 0x34, 0x0f, 0xa0, 0, 80]);
        let ip = ip::parse(Packet::whole(&first)).unwrap();
        assert_eq!(ip.fragment, Some(Fragment { id: 0x1234, offset: 0, more: true }));
        assert_eq!((ip.protocol, ip.payload), (protocol::UDP, Packet::whole(&PORTS)));

        // A later part begins with data; a next header of hop-by-hop must not be walked.
        let later = packet(protocol::FRAGMENT, &[0, 0, 0x05, 0xa8, 0, 0, 0x12, 0x34, 9, 9]);
        let ip = ip::parse(Packet::whole(&later)).unwrap();
        assert_eq!(ip.fragment, Some(Fragment { id: 0x1234, offset: 0x5a8, more: false }));
        assert_eq!(ip.payload, Packet::whole(&[9, 9]));
    }

    #[test]
    fn the_first_part_walks_on_behind_the_fragment_header() {
        let first = [[60u8, 0, 0, 1, 0, 0, 0, 7], [17, 0, 1, 4, 0, 0, 0, 0]].concat();
        let bytes = packet(protocol::FRAGMENT, &[&first[..], &PORTS].concat());
        let ip = ip::parse(Packet::whole(&bytes)).unwrap();
        assert_eq!(ip.fragment, Some(Fragment { id: 7, offset: 0, more: true }));
        assert_eq!((ip.protocol, ip.payload), (protocol::UDP, Packet::whole(&PORTS)));
    }

    #[test]
    fn a_chain_without_end_is_bounded() {
        let one = [60u8, 0, 1, 4, 0, 0, 0, 0];
        let mut chain = one.repeat(MAX_EXTENSION_HEADERS);
        let last = chain.len() - 8;
        chain[last] = protocol::UDP;
        let longest = packet(protocol::DESTINATION_OPTIONS, &[&chain[..], &PORTS].concat());
        assert_eq!(ip::parse(Packet::whole(&longest)).unwrap().payload, Packet::whole(&PORTS));

        let endless = packet(protocol::DESTINATION_OPTIONS, &one.repeat(8000));
        assert_eq!(ip::parse(Packet::whole(&endless)), Err(WireError::ChainTooLong));
    }

    #[test]
    fn link_padding_is_not_payload() {
        let mut bytes = packet(protocol::UDP, &PORTS);
        bytes.extend([0xee; 6]);
        assert_eq!(ip::parse(Packet::whole(&bytes)).unwrap().payload, Packet::whole(&PORTS));
    }

    #[test]
    fn a_zero_length_means_none_unless_the_packet_is_a_jumbo() {
        let mut bytes = packet(protocol::UDP, &PORTS);
        bytes[4..6].copy_from_slice(&[0, 0]);
        assert_eq!(ip::parse(Packet::whole(&bytes)).unwrap().payload, Packet::whole(&[]));
        let joined = ip::parse(Packet::copied(&bytes, 100_000)).unwrap();
        assert_eq!(joined.payload.full_len(), 99_960);

        let jumbo = [&[6u8, 0, 0xc2, 4, 0, 1, 0x86, 0xa0][..], &PORTS].concat();
        let mut bytes = packet(protocol::HOP_BY_HOP, &jumbo);
        bytes[4..6].copy_from_slice(&[0, 0]);
        assert_eq!(ip::parse(Packet::whole(&bytes)).unwrap().payload, Packet::whole(&PORTS));
    }

    #[test]
    fn every_truncation_is_told() {
        let header = [17u8, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let bytes = packet(protocol::DESTINATION_OPTIONS, &header);
        for len in 1..bytes.len() {
            assert_eq!(ip::parse(Packet::whole(&bytes[..len])), Err(WireError::Truncated), "{len}");
            let copied = Packet::copied(&bytes[..len], bytes.len());
            assert_eq!(ip::parse(copied), Err(WireError::NotCopied), "{len}");
        }
        assert_eq!(ip::parse(Packet::whole(&bytes)).unwrap().payload, Packet::whole(&[]));
    }
}
