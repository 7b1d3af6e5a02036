//! What of a packet decides its slot.
//!
//! | packet | key |
//! |---|---|
//! | TCP, UDP | source, destination, `[protocol, 0, 0, 0]`, the four port bytes |
//! | TCP, UDP with client affinity | source |
//! | SCTP, also in UDP | the four port bytes: every path of an association meets the same target |
//! | SCTP in tuple mode | source, destination, `[protocol, 0, 0, 0]`, the four port bytes |
//! | ICMP echo | source, destination, `[protocol, 0, 0, 0]`, `[id, id, 0, 0]` |
//! | ICMP error | the key of the packets that it is about: what it quotes, the other way round |
//! | anything else | source, destination, `[protocol, 0, 0, 0]`, zeros |
//!
//! The kernel's nft `hash` expression builds those of TCP, UDP, plain SCTP and echo from the same bytes.

use crate::hash::{Hash, Seed, jhash};
use crate::wire::ip::Addresses;
use crate::wire::{l4, protocol};

/// Which part of an SCTP packet is hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SctpHash {
    /// The ports alone, so that multihoming works.
    #[default]
    Ports,
    /// Addresses, protocol and ports, as for TCP.
    Tuple,
}

/// What of a TCP or UDP client meets the same target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Affinity {
    /// A flow: addresses, protocol and ports.
    #[default]
    Flow,
    /// All that comes from a source address.
    Client,
}

/// How keys are made: fixed when a table is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyModes {
    /// Of SCTP packets.
    pub sctp_hash: SctpHash,
    /// Of TCP and UDP packets.
    pub affinity: Affinity,
    /// Which UDP packets hold SCTP.
    pub sctp_encap: EncapPorts,
}

/// UDP destination ports behind which SCTP is found (RFC 6951); 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncapPorts(pub [u16; 2]);

impl EncapPorts {
    /// Whether packets to this port hold SCTP.
    #[inline]
    pub fn contains(self, port: u16) -> bool {
        port != 0 && self.0.contains(&port)
    }
}

/// What of a TCP, UDP or SCTP packet is its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// Addresses, protocol and ports.
    Tuple,
    /// The ports.
    Ports,
    /// The source address.
    Client,
}

impl Shape {
    /// That of a protocol's packets. Here is where an association would be followed by more than its ports: whoever
    /// does that needs a shape of its own, so that both planes know which packets are not theirs.
    #[inline(always)]
    pub fn of(protocol: u8, modes: &KeyModes) -> Self {
        match (protocol, modes.sctp_hash, modes.affinity) {
            (protocol::SCTP, SctpHash::Ports, _) => Shape::Ports,
            (protocol::TCP | protocol::UDP, _, Affinity::Client) => Shape::Client,
            _ => Shape::Tuple,
        }
    }
}

/// Key words in native byte order, ready to be hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Addresses, protocol and last word of an IPv4 packet.
    V4([u32; 4]),
    /// Addresses, protocol and last word of an IPv6 packet.
    V6([u32; 10]),
    /// The ports of an SCTP packet.
    Ports([u32; 1]),
    /// The source of an IPv4 packet.
    ClientV4([u32; 1]),
    /// The source of an IPv6 packet.
    ClientV6([u32; 4]),
}

impl Key {
    /// The key of a TCP, UDP or SCTP packet.
    #[inline(always)]
    pub fn transport(
        addresses: Addresses<'_>,
        protocol: u8,
        ports: l4::Ports,
        modes: &KeyModes,
    ) -> Self {
        match Shape::of(protocol, modes) {
            Shape::Tuple => Key::tuple(addresses, protocol, ports),
            Shape::Ports => Key::ports(ports),
            Shape::Client => Key::client(addresses),
        }
    }

    /// The key by source address alone.
    #[inline]
    pub fn client(addresses: Addresses<'_>) -> Self {
        match addresses {
            Addresses::V4(both) => {
                let [source, _] = words(both);
                Key::ClientV4([source])
            }
            Addresses::V6(both) => {
                let [s0, s1, s2, s3, ..]: [u32; 8] = words(both);
                Key::ClientV6([s0, s1, s2, s3])
            }
        }
    }

    /// The key by addresses, protocol and the four bytes that tell one flow between them from another.
    #[inline]
    pub fn tuple(addresses: Addresses<'_>, protocol: u8, last: [u8; 4]) -> Self {
        let protocol = u32::from_ne_bytes([protocol, 0, 0, 0]);
        let last = u32::from_ne_bytes(last);
        match addresses {
            Addresses::V4(both) => {
                let [source, destination] = words(both);
                Key::V4([source, destination, protocol, last])
            }
            Addresses::V6(both) => {
                let [s0, s1, s2, s3, d0, d1, d2, d3] = words(both);
                Key::V6([s0, s1, s2, s3, d0, d1, d2, d3, protocol, last])
            }
        }
    }

    /// The key by ports alone.
    #[inline]
    pub fn ports(ports: l4::Ports) -> Self {
        Key::Ports([u32::from_ne_bytes(ports)])
    }

    /// The hash of the key.
    #[inline(always)]
    pub fn hash(&self, seed: Seed) -> Hash {
        // Each arm has a length that is known when it is compiled, so that the hash is unrolled.
        match self {
            Key::V4(words) => jhash(words, seed),
            Key::V6(words) => jhash(words, seed),
            Key::Ports(words) | Key::ClientV4(words) => jhash(words, seed),
            Key::ClientV6(words) => jhash(words, seed),
        }
    }

    /// The words that are hashed.
    #[inline]
    pub fn words(&self) -> &[u32] {
        match self {
            Key::V4(words) => words,
            Key::V6(words) => words,
            Key::Ports(words) | Key::ClientV4(words) => words,
            Key::ClientV6(words) => words,
        }
    }
}

/// The bytes as native words.
#[inline]
fn words<const BYTES: usize, const WORDS: usize>(bytes: &[u8; BYTES]) -> [u32; WORDS] {
    let (chunks, _) = bytes.as_chunks::<4>();
    core::array::from_fn(|i| u32::from_ne_bytes(chunks[i]))
}
