//! UDP datagrams of 2,048 bytes as two fragments each, made here so that the order is ours to choose.

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
/// What of UDP is in the first and in the last.
const LENGTHS: [usize; FRAGMENTS] = [1480, UDP_HEADER + 2048 - 1480];

/// Sends from this thread's namespace; what was sent is counted in fragments.
pub fn generate(load: &Load, order: Order, stop: &AtomicBool) -> anyhow::Result<Sent> {
    let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw)
        .context("open the generator's raw socket")?;
    let mut datagrams = Datagrams::new(order);
    let count = (load.burst / FRAGMENTS).max(1);
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(FRAGMENTS * count, None);
    let bodies = LENGTHS.map(|len| vec![0; len - UDP_HEADER]);
    paced(load, stop, || {
        let heads: Vec<Head> = (0..count).flat_map(|_| datagrams.next()).collect();
        let slices: Vec<_> = heads
            .iter()
            .map(|head| [IoSlice::new(&head.bytes), IoSlice::new(&bodies[head.part])])
            .collect();
        let to: Vec<_> = heads.iter().map(|head| Some(head.to)).collect();
        let sent = sendmmsg(raw.as_raw_fd(), &mut headers, &slices, &to, [], MsgFlags::empty());
        sent.map_or(0, |sent| sent.count() as u64)
    })
}

/// The beginning of a fragment: the IP header and what stands where a whole packet has its UDP header.
#[derive(Clone, Copy, Debug)]
struct Head {
    bytes: [u8; IP_HEADER + UDP_HEADER],
    part: usize,
    to: SockaddrIn,
}

/// Datagrams of many flows, one after the other.
#[derive(Debug)]
struct Datagrams {
    order: Order,
    count: u32,
}

impl Datagrams {
    fn new(order: Order) -> Self {
        Datagrams { order, count: 0 }
    }

    fn next(&mut self) -> [Head; FRAGMENTS] {
        self.count = self.count.wrapping_add(1);
        let parts = match self.order {
            Order::Forward => [0, 1],
            Order::Reversed => [1, 0],
        };
        parts.map(|part| head(self.count, part))
    }
}

fn head(count: u32, part: usize) -> Head {
    let [_, _, high, low] = count.to_be_bytes();
    // The kernel would put a number of its own where there is none, another for each fragment.
    let id = u16::from_be_bytes([high, low]).max(1);
    let byte = |range: &std::ops::RangeInclusive<u8>, number: u32| {
        let len = u32::from(range.end() - range.start()) + 1;
        range.start() + u8::try_from(number % len).unwrap_or_default()
    };
    let source = source_address(byte(&SOURCES, count));
    let destination = vip(byte(&VIPS, count / 16));
    let ports = u32::from(COUNTED_PORTS.end() - COUNTED_PORTS.start()) + 1;
    let port = COUNTED_PORTS.start() + u16::try_from((count / 4000) % ports).unwrap_or_default();

    const MORE: u16 = 0x2000;
    let flags_offset =
        if part == 0 { MORE } else { u16::try_from(LENGTHS[0] / 8).unwrap_or_default() };
    let mut bytes = [0; IP_HEADER + UDP_HEADER];
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&length(IP_HEADER + LENGTHS[part]));
    bytes[4..6].copy_from_slice(&id.to_be_bytes());
    bytes[6..8].copy_from_slice(&flags_offset.to_be_bytes());
    bytes[8..10].copy_from_slice(&[64, 17]);
    bytes[12..16].copy_from_slice(&source.octets());
    bytes[16..20].copy_from_slice(&destination.octets());
    if part == 0 {
        bytes[20..22].copy_from_slice(&40_000u16.to_be_bytes());
        bytes[22..24].copy_from_slice(&port.to_be_bytes());
        bytes[24..26].copy_from_slice(&length(LENGTHS.iter().sum()));
    }
    let [a, b, c, d] = destination.octets();
    Head { bytes, part, to: SockaddrIn::new(a, b, c, d, 0) }
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_core::wire::{Packet, ip};
    use std::collections::HashSet;

    fn whole(head: &Head) -> Vec<u8> {
        let mut packet = head.bytes.to_vec();
        packet.resize(IP_HEADER + LENGTHS[head.part], 0);
        packet
    }

    #[test]
    fn two_fragments_make_a_datagram_of_2048_bytes() {
        for order in [Order::Forward, Order::Reversed] {
            let mut parts = Datagrams::new(order).next();
            assert_eq!(parts[0].part, usize::from(order == Order::Reversed));
            parts.sort_by_key(|head| head.part);
            let packets = parts.each_ref().map(whole);
            let [first, last] =
                packets.each_ref().map(|bytes| ip::parse(Packet::whole(bytes)).unwrap());
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
    fn datagrams_under_way_differ() {
        let mut datagrams = Datagrams::new(Order::Forward);
        let all: HashSet<_> =
            (0..60_000).map(|_| datagrams.next()[0].bytes[4..24].to_vec()).collect();
        assert_eq!(all.len(), 60_000);
    }
}
