//! Packets that no socket would send like that: UDP datagrams of 2,048 bytes as two fragments each, in an order of
//! our choice, and SCTP.

use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use nix::sys::socket::{
    AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockProtocol, SockType, SockaddrIn, sendmmsg,
    socket,
};

use super::lab::{COUNTED_PORTS, SOURCES, VIPS, source_address, vip};
use super::load::{Load, Sent, paced};

/// What is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// Datagrams in two fragments.
    Fragments(Order),
    /// Whole packets with the ports of many flows, as long as the load says.
    Whole(Protocol),
}

/// Of whole packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Udp,
    /// With a DATA chunk.
    Sctp,
}

impl Protocol {
    fn number(self) -> u8 {
        match self {
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

/// In which order the fragments of a datagram are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The first one first.
    Forward,
    /// The last one first.
    Reversed,
}

/// Fragments of a datagram.
pub const FRAGMENTS: usize = 2;
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// What is written out of each packet.
const HEAD: usize = IP_HEADER + UDP_HEADER;
/// What of UDP is in the first and in the last.
const LENGTHS: [usize; FRAGMENTS] = [1480, UDP_HEADER + 2048 - 1480];

/// Sends from this thread's namespace; what was sent is counted in fragments, if there are any.
pub fn generate(load: &Load, made: Made, stop: &AtomicBool) -> anyhow::Result<Sent> {
    let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw)
        .context("open the generator's raw socket")?;
    let mut packets = Packets { made, packet_len: load.packet_len, count: 0 };
    let burst = load.burst.max(FRAGMENTS);
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(burst, None);
    let longest = LENGTHS[0].max(load.packet_len);
    let body = vec![0; longest];
    paced(load, stop, || {
        let heads = packets.burst(burst);
        let slices: Vec<_> = heads
            .iter()
            .map(|head| [IoSlice::new(&head.bytes), IoSlice::new(&body[..head.body_len])])
            .collect();
        let to: Vec<_> = heads.iter().map(|head| Some(head.to)).collect();
        let sent = sendmmsg(raw.as_raw_fd(), &mut headers, &slices, &to, [], MsgFlags::empty());
        sent.map_or(0, |sent| sent.count() as u64)
    })
}

/// The beginning of a packet: the IP header and the first bytes behind it, which hold the ports if it is no
/// later fragment.
#[derive(Clone, Copy, Debug)]
struct Head {
    bytes: [u8; HEAD],
    /// What follows is zero: of SCTP the checksum, which nobody on the way looks at, and a DATA chunk.
    body_len: usize,
    to: SockaddrIn,
}

/// Packets of many flows, one after the other.
#[derive(Debug)]
struct Packets {
    made: Made,
    packet_len: usize,
    count: u32,
}

impl Packets {
    /// As many as that, but no half datagrams.
    fn burst(&mut self, packets: usize) -> Vec<Head> {
        match self.made {
            Made::Whole(protocol) => (0..packets).map(|_| self.whole(protocol)).collect(),
            Made::Fragments(order) => {
                (0..packets / FRAGMENTS).flat_map(|_| self.datagram(order)).collect()
            }
        }
    }

    fn datagram(&mut self, order: Order) -> [Head; FRAGMENTS] {
        self.count = self.count.wrapping_add(1);
        let parts = match order {
            Order::Forward => [0, 1],
            Order::Reversed => [1, 0],
        };
        parts.map(|part| fragment(self.count, part))
    }

    fn whole(&mut self, protocol: Protocol) -> Head {
        const SOURCE_PORTS: u32 = 1_000;
        self.count = self.count.wrapping_add(1);
        let count = self.count;
        let len = self.packet_len.max(HEAD);
        let mut head = ip_head(count, len, 0, protocol);
        let source = 40_000 + u16::try_from(count % SOURCE_PORTS).unwrap_or_default();
        head.bytes[20..22].copy_from_slice(&source.to_be_bytes());
        head.bytes[22..24].copy_from_slice(&destination_port(count).to_be_bytes());
        match protocol {
            Protocol::Udp => head.bytes[24..26].copy_from_slice(&length(len - IP_HEADER)),
            // The tag of an association.
            Protocol::Sctp => head.bytes[24..28].copy_from_slice(&count.to_be_bytes()),
        }
        head
    }
}

fn fragment(count: u32, part: usize) -> Head {
    const MORE: u16 = 0x2000;
    let flags_offset =
        if part == 0 { MORE } else { u16::try_from(LENGTHS[0] / 8).unwrap_or_default() };
    let mut head = ip_head(count, IP_HEADER + LENGTHS[part], flags_offset, Protocol::Udp);
    if part == 0 {
        head.bytes[20..22].copy_from_slice(&40_000u16.to_be_bytes());
        head.bytes[22..24].copy_from_slice(&destination_port(count).to_be_bytes());
        head.bytes[24..26].copy_from_slice(&length(LENGTHS.iter().sum()));
    }
    head
}

fn destination_port(count: u32) -> u16 {
    let ports = u32::from(COUNTED_PORTS.end() - COUNTED_PORTS.start()) + 1;
    COUNTED_PORTS.start() + u16::try_from((count / 4000) % ports).unwrap_or_default()
}

fn ip_head(count: u32, len: usize, flags_offset: u16, protocol: Protocol) -> Head {
    let [_, _, high, low] = count.to_be_bytes();
    // The kernel would put a number of its own where there is none, another for each fragment.
    let id = u16::from_be_bytes([high, low]).max(1);
    let byte = |range: &std::ops::RangeInclusive<u8>, number: u32| {
        let len = u32::from(range.end() - range.start()) + 1;
        range.start() + u8::try_from(number % len).unwrap_or_default()
    };
    let source = source_address(byte(&SOURCES, count));
    let destination = vip(byte(&VIPS, count / 16));
    let mut bytes = [0; HEAD];
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&length(len));
    bytes[4..6].copy_from_slice(&id.to_be_bytes());
    bytes[6..8].copy_from_slice(&flags_offset.to_be_bytes());
    bytes[8..10].copy_from_slice(&[64, protocol.number()]);
    bytes[12..16].copy_from_slice(&source.octets());
    bytes[16..20].copy_from_slice(&destination.octets());
    let [a, b, c, d] = destination.octets();
    Head { bytes, body_len: len - HEAD, to: SockaddrIn::new(a, b, c, d, 0) }
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_core::wire::{Packet, ip};
    use std::collections::HashSet;

    fn packets(made: Made) -> Packets {
        Packets { made, packet_len: 64, count: 0 }
    }

    fn all_of(head: &Head) -> Vec<u8> {
        let mut packet = head.bytes.to_vec();
        packet.resize(HEAD + head.body_len, 0);
        packet
    }

    #[test]
    fn two_fragments_make_a_datagram_of_2048_bytes() {
        for order in [Order::Forward, Order::Reversed] {
            let mut packets: Vec<_> =
                packets(Made::Fragments(order)).burst(3).iter().map(all_of).collect();
            assert_eq!(packets.len(), FRAGMENTS);
            assert_eq!(packets[0].len() < packets[1].len(), order == Order::Reversed);
            packets.sort_by_key(|bytes| std::cmp::Reverse(bytes.len()));
            let parse = |bytes| ip::parse(Packet::whole(bytes)).unwrap();
            let (first, last) = (parse(&packets[0]), parse(&packets[1]));
            let (one, other) = (first.fragment.unwrap(), last.fragment.unwrap());
            assert_eq!(one.id, other.id);
            assert_eq!((one.offset, one.more, other.more), (0, true, false));
            assert_eq!(other.offset as usize, first.payload.full_len());
            let udp = other.offset as usize + last.payload.full_len();
            assert_eq!(udp, UDP_HEADER + 2048);
            assert!(packets.iter().all(|packet| packet.len() <= 1500));
        }
    }

    #[test]
    fn whole_packets_are_of_their_protocol_and_length() {
        for (protocol, number) in [(Protocol::Udp, 17), (Protocol::Sctp, 132)] {
            let heads = packets(Made::Whole(protocol)).burst(16);
            assert_eq!(heads.len(), 16);
            let bytes = all_of(&heads[0]);
            assert_eq!((bytes.len(), bytes[9]), (64, number));
            let parsed = ip::parse(Packet::whole(&bytes)).unwrap();
            assert!(parsed.fragment.is_none());
            assert_eq!(parsed.payload.full_len(), 44);
        }
    }

    #[test]
    fn datagrams_under_way_differ() {
        let mut packets = packets(Made::Fragments(Order::Forward));
        let all: HashSet<_> =
            (0..60_000).map(|_| packets.burst(FRAGMENTS)[0].bytes[4..24].to_vec()).collect();
        assert_eq!(all.len(), 60_000);
    }
}
