//! Which packets the kernel decides by itself, from the same table and by the same hash.
//!
//! The fast plane takes packets whose key stands at known places: TCP, UDP, SCTP and echo requests directly
//! behind the IP header. A [`Lane`] is a kind of packet with the way its key is made; the kernel's rules are made
//! from lanes, and [`lane_of`] says of a packet which it is in. Whatever is in no lane goes to the queue, and
//! so does what finds no mark. The INITs of SCTP are in none: they are few, and `lb` counts them. So the kernel
//! never needs to agree with the walk about anything difficult: extension headers, fragments and ICMP errors are
//! the walk's alone.

use thiserror::Error;

pub use crate::key::Shape;
use crate::key::{Key, KeyModes};
use crate::target::Mark;
use crate::walk::Policy;
use crate::wire::ip::{Ip, LengthField};
use crate::wire::sctp::{self, Chunk};
use crate::wire::{Packet, WireError, icmp, ipv4, ipv6, l4, protocol};

/// A version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A kind of packet that the kernel decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lane {
    /// Its version of IP.
    pub family: Family,
    /// Its protocol, which is that of the IP header itself.
    pub protocol: u8,
    /// What stands behind the IP header.
    pub content: Content,
}

/// What a key is made of, besides addresses and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// Ports, and what of the packet is hashed.
    Ports(Shape),
    /// The identifier of an echo request, which has this type.
    Echo(u8),
}

/// Why a packet goes to the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Why {
    /// It is one.
    #[error("it is a fragment")]
    Fragment,
    /// Only the walk follows the chain.
    #[error("it has IPv6 extension headers")]
    ExtensionHeaders,
    /// Neither TCP nor UDP nor SCTP nor an echo request.
    #[error("it is neither TCP nor UDP nor SCTP nor an echo request")]
    Protocol,
    /// UDP to a port behind which there is SCTP.
    #[error("it is UDP to a port of --sctp-encap")]
    Encapsulated,
    /// The first packet of an association. The kernel marks it and `lb` looks at it, as far as there are not too
    /// many; without `lb` it goes on with that mark.
    #[error("it is an INIT of SCTP, and lb counts them")]
    Init,
    /// The headers cannot be read as far as the key.
    #[error("{0}")]
    Unreadable(#[from] WireError),
}

/// The lanes of a version of IP, those first that most packets take.
pub fn lanes(family: Family, modes: &KeyModes) -> [Lane; 4] {
    let ports =
        |protocol| Lane { family, protocol, content: Content::Ports(Shape::of(protocol, modes)) };
    let (icmp, version) = match family {
        Family::V4 => (protocol::ICMP, icmp::Version::V4),
        Family::V6 => (protocol::ICMPV6, icmp::Version::V6),
    };
    let echo = Lane { family, protocol: icmp, content: Content::Echo(version.echo_request()) };
    [ports(protocol::TCP), ports(protocol::UDP), ports(protocol::SCTP), echo]
}

/// The lane of a packet with its key, or why it has none. That its mark has bits of others, or that its slot
/// is empty, are reasons that do not lie in the packet.
pub fn lane_of(packet: Packet<'_>, modes: &KeyModes) -> Result<(Lane, Key), Why> {
    let (family, ip) = fixed_header(packet)?;
    if ip.fragment.is_some() {
        return Err(Why::Fragment);
    }
    if family == Family::V6 && ipv6::is_extension(ip.protocol) {
        return Err(Why::ExtensionHeaders);
    }
    let mut lanes = lanes(family, modes).into_iter();
    let lane = lanes.find(|lane| lane.protocol == ip.protocol).ok_or(Why::Protocol)?;
    if let Content::Echo(request) = lane.content {
        let header = ip.payload.read::<{ icmp::HEADER_LEN }>(0)?;
        let [kind, _code, _, _, id0, id1, _, _] = *header;
        let key = Key::tuple(ip.addresses, lane.protocol, [id0, id1, 0, 0]);
        return if kind == request { Ok((lane, key)) } else { Err(Why::Protocol) };
    }
    let ports = l4::ports(ip.payload)?;
    if lane.protocol == protocol::UDP && modes.sctp_encap.contains(l4::destination(ports)) {
        return Err(Why::Encapsulated);
    }
    if lane.protocol == protocol::SCTP && sctp::first_chunk(ip.payload) == Ok(Chunk::Init) {
        return Err(Why::Init);
    }
    Ok((lane, Key::transport(ip.addresses, lane.protocol, ports, modes)))
}

/// The header without any that extend it.
fn fixed_header(packet: Packet<'_>) -> Result<(Family, Ip<'_>), WireError> {
    let [first] = packet.read(0)?;
    match first >> 4 {
        4 => Ok((Family::V4, ipv4::Header::parse(packet, LengthField::Bounds)?.ip())),
        6 => Ok((Family::V6, ipv6::parse_fixed(packet, LengthField::Bounds)?)),
        _ => Err(WireError::Malformed),
    }
}

/// What the kernel's map has for a slot that holds this word, if anything: the bits of the mark that
/// are ours. A packet that has bits of others does not come as far as the map.
#[inline]
pub fn element(word: u32, policy: &Policy, mark_mask: u32) -> Option<u32> {
    Mark::new(word).or(policy.no_targets_mark).map(|mark| mark.get() & mark_mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::EncapPorts;
    use crate::key::{Affinity, SctpHash};
    use crate::table::Config;
    use crate::walk::{Class, keyed};
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn modes() -> impl Strategy<Value = KeyModes> {
        (any::<bool>(), any::<bool>(), any::<[bool; 2]>()).prop_map(|(ports, client, encap)| {
            KeyModes {
                sctp_hash: if ports { SctpHash::Ports } else { SctpHash::Tuple },
                affinity: if client { Affinity::Client } else { Affinity::Flow },
                sctp_encap: EncapPorts(encap.map(|there| if there { 9899 } else { 0 })),
            }
        })
    }

    /// Bytes that are often a packet: a plausible version, length, protocol and port.
    fn packets() -> impl Strategy<Value = Vec<u8>> {
        let protocols = prop::sample::select(&[6u8, 17, 132, 1, 58, 44, 51, 0, 43, 60, 47][..]);
        let bytes = prop::collection::vec(any::<u8>(), 0..100);
        (bytes, any::<bool>(), protocols, any::<[bool; 6]>()).prop_map(
            |(mut bytes, v6, protocol, [fits, whole, encap, options, echo, init])| {
                let len = u16::try_from(bytes.len()).unwrap();
                let mut set = |at: usize, values: &[u8]| {
                    for (byte, value) in bytes.iter_mut().skip(at).zip(values) {
                        *byte = *value;
                    }
                };
                match v6 {
                    true => {
                        set(0, &[0x60]);
                        set(6, &[protocol]);
                        if fits {
                            set(4, &len.saturating_sub(40).to_be_bytes());
                        }
                        if encap {
                            set(42, &9899u16.to_be_bytes());
                        }
                        if echo {
                            set(40, &[128]);
                        }
                        if init {
                            set(52, &[1]);
                        }
                    }
                    false => {
                        set(0, &[if options { 0x46 } else { 0x45 }]);
                        set(9, &[protocol]);
                        if fits {
                            set(2, &len.to_be_bytes());
                        }
                        if whole {
                            set(6, &[0x40, 0]);
                        }
                        if encap {
                            set(if options { 26 } else { 22 }, &9899u16.to_be_bytes());
                        }
                        if echo {
                            set(if options { 24 } else { 20 }, &[8]);
                        }
                        if init {
                            set(if options { 36 } else { 32 }, &[1]);
                        }
                    }
                }
                bytes
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn a_lane_gives_the_key_that_the_walk_gives(bytes in packets(), modes in modes()) {
            let packet = Packet::whole(&bytes);
            let config = Config { modes, ..Config::default() };
            let walked = keyed(packet, &config);
            match lane_of(packet, &modes) {
                Ok((lane, key)) => {
                    let class = match lane.protocol {
                        protocol::TCP => Class::Tcp,
                        protocol::UDP => Class::Udp,
                        protocol::SCTP => Class::Sctp,
                        _ => Class::Echo,
                    };
                    prop_assert_eq!(walked, (class, Ok(key)));
                }
                Err(Why::Fragment) => prop_assert_eq!(walked.0, Class::Fragment),
                Err(Why::Encapsulated) => prop_assert_eq!(walked.0, Class::SctpInUdp),
                Err(Why::Init) => {
                    prop_assert_eq!(walked.0, Class::Sctp);
                    prop_assert!(walked.1.is_ok());
                }
                Err(Why::Unreadable(error)) => prop_assert_eq!(walked.1, Err(error.into())),
                Err(Why::ExtensionHeaders) => prop_assert_eq!(bytes[0] >> 4, 6),
                Err(Why::Protocol) => {
                    let plain = [Class::Tcp, Class::Udp, Class::Sctp, Class::SctpInUdp];
                    prop_assert!(!plain.contains(&walked.0));
                }
            }
        }
    }

    #[test]
    fn of_sctp_all_but_the_init_has_a_lane() {
        for sctp_hash in [SctpHash::Ports, SctpHash::Tuple] {
            let modes = KeyModes { sctp_hash, ..KeyModes::default() };
            for chunk in 0..=255 {
                let mut bytes = [0; 36];
                bytes[..10].copy_from_slice(&[0x45, 0, 0, 36, 0, 0, 0, 0, 64, 132]);
                bytes[32] = chunk;
                let lane = lane_of(Packet::whole(&bytes), &modes);
                assert_eq!(lane.err(), (chunk == sctp::INIT).then_some(Why::Init), "{chunk}");
                bytes[3] = 32;
                assert!(lane_of(Packet::whole(&bytes), &modes).is_ok(), "it ends before the chunk");
            }
        }
    }

    #[test]
    fn an_element_has_our_bits_and_the_mark_of_an_empty_table() {
        let closed = Policy::default();
        let open = Policy { no_targets_mark: Mark::new(7) };
        assert_eq!(element(0x1234, &closed, u32::MAX), Some(0x1234));
        assert_eq!(element(0x1234, &open, 0xff), Some(0x34));
        assert_eq!(element(0, &closed, u32::MAX), Some(0));
        assert_eq!(element(Mark::EMPTY, &closed, u32::MAX), None);
        assert_eq!(element(Mark::EMPTY, &open, u32::MAX), Some(7));
    }
}
