//! Datagrams as packets of both families, and a router that decides about their fragments.

mod attack;
mod orders;
mod prediction;
mod states;
mod tier;

use super::*;
use crate::table::{Config, Generation, HEADER_LEN, Table, WritableTable, file_len, header_of};
use crate::target::{Targets, Weight};
use crate::walk::{Policy, Walked, walk, walk_with};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64};
use core::time::Duration;

const SECRET: Secret = Secret([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);

/// 8 buffers of 100 bytes, all for one source, and 16 datagrams for a second.
const SMALL: FragConfig = FragConfig {
    entries: 16,
    held: 8,
    held_per_source: 8,
    held_bytes: 100,
    ttl: Duration::from_secs(1),
};

fn millis(millis: u64) -> Time {
    Time(millis * 1_000_000)
}

/// A UDP datagram to port 80 of 10.0.0.0 or 1000::. Sources of IPv6 that differ in the last byte alone
/// share a /64.
#[derive(Clone, Copy, Debug)]
struct Datagram {
    v6: bool,
    source: u32,
    port: u16,
    id: u16,
}

/// From 192.0.2.1 or 2000:0:c0:2::1.
const V4: Datagram = Datagram { v6: false, source: 0xc000_0201, port: 4000, id: 0x1234 };
const V6: Datagram = Datagram { v6: true, ..V4 };

impl Datagram {
    /// A fragment of it.
    fn part(&self, Part { start, len, more }: Part) -> Vec<u8> {
        let mut payload: Vec<u8> = Vec::new();
        payload.extend(self.port.to_be_bytes());
        payload.extend(80u16.to_be_bytes());
        payload.extend([0; 4]);
        payload.resize(start as usize + len, 0xee);
        let payload = &payload[start as usize..];
        let mut packet = if self.v6 { self.v6_headers(len) } else { self.v4_header(len) };
        let unit = u16::try_from(start / 8).unwrap();
        if self.v6 {
            let offset = (unit << 3 | u16::from(more)).to_be_bytes();
            packet[42..44].copy_from_slice(&offset);
        } else {
            packet[6..8].copy_from_slice(&(unit | u16::from(more) << 13).to_be_bytes());
        }
        packet.extend(payload);
        packet
    }

    /// The whole of it in one packet.
    fn whole(&self) -> Vec<u8> {
        self.part(Part { start: 0, len: 8, more: false })
    }

    fn v4_header(&self, len: usize) -> Vec<u8> {
        let mut header = vec![0x45, 0];
        header.extend(u16::try_from(20 + len).unwrap().to_be_bytes());
        header.extend(self.id.to_be_bytes());
        header.extend([0, 0, 64, 17, 0, 0]);
        header.extend(self.source.to_be_bytes());
        header.extend([10, 0, 0, 0]);
        header
    }

    fn v6_headers(&self, len: usize) -> Vec<u8> {
        let mut header = vec![0x60, 0, 0, 0];
        header.extend(u16::try_from(8 + len).unwrap().to_be_bytes());
        header.extend([44, 64]);
        let [a, b, c, host] = self.source.to_be_bytes();
        header.extend([0x20, 0, 0, 0, 0, a, b, c, 0, 0, 0, 0, 0, 0, 0, host]);
        header.extend([0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        header.extend([17, 0, 0, 0, 0, 0]);
        header.extend(self.id.to_be_bytes());
        header
    }
}

/// Equal parts of `len` bytes but the last, which has five bytes less.
fn parts(count: u32, len: usize) -> Vec<Part> {
    (0..count)
        .map(|i| {
            let more = i + 1 < count;
            Part {
                start: i * u32::try_from(len).unwrap(),
                len: len - if more { 0 } else { 5 },
                more,
            }
        })
        .collect()
}

/// Memory of a table with the marks 1 to `targets`.
struct Memory {
    header: Vec<AtomicU64>,
    body: Vec<AtomicU32>,
}

impl Memory {
    fn with_targets(targets: u32) -> Self {
        Memory::new(0, 1..=targets)
    }

    fn new(own_mark: u32, marks: impl IntoIterator<Item = u32>) -> Self {
        let config = Config { slots: 997, targets: 16, own_mark, ..Config::default() };
        let body = (file_len(&config) - HEADER_LEN) / size_of::<u32>();
        let memory = Memory {
            header: header_of(&config, Generation(0)).map(AtomicU64::new).into(),
            body: (0..body).map(|_| AtomicU32::new(0)).collect(),
        };
        let table = WritableTable::view(&memory.header, &memory.body).unwrap();
        let mut set = Targets::new(config.targets);
        for mark in marks {
            set.activate(Mark::new(mark).unwrap(), Some(Weight(1)), None).unwrap();
        }
        table.publish(&set);
        memory
    }

    fn table(&self) -> Table<'_> {
        Table::view(&self.header, &self.body).unwrap()
    }
}

/// One queue of a router.
struct Router {
    memory: Memory,
    fragments: Fragments,
}

impl Router {
    fn new(config: FragConfig) -> Self {
        Router { memory: Memory::with_targets(16), fragments: Fragments::new(config, SECRET) }
    }

    fn walk(&mut self, packet: &[u8], now: Time) -> Walked {
        let (packet, policy) = (Packet::whole(packet), Policy::default());
        walk_with(packet, &self.memory.table(), &policy, None, &mut self.fragments, now)
    }

    fn decide(&mut self, packet: &[u8], now: Time) -> Decision {
        self.walk(packet, now).decision
    }

    /// The decision about the datagram if it came in one packet.
    fn expected(&self, datagram: Datagram) -> Decision {
        walk(Packet::whole(&datagram.whole()), &self.memory.table(), &Policy::default()).decision
    }

    fn ready(&mut self) -> Vec<Vec<u8>> {
        core::iter::from_fn(|| self.fragments.poll_ready().map(<[u8]>::to_vec)).collect()
    }

    /// When all is over nothing is left of `held` copies, and every buffer is there again.
    fn check_forgotten(mut self, held: u64, Time(now): Time) {
        let over = Time(now + self.fragments.ttl);
        self.fragments.expire(over);
        let counts = *self.fragments.counts();
        assert_eq!((counts.entries, counts.held_now), (0, 0));
        let gone =
            counts.injected + counts.held_refused + counts.held_expired + counts.held_evicted;
        assert_eq!(gone, held);

        let FragConfig { held, entries, held_per_source, .. } = self.fragments.config;
        for id in 0..held.min(entries).min(held_per_source) {
            let datagram = Datagram { id: u16::try_from(id).unwrap(), ..V4 };
            let later = datagram.part(Part { start: 8, len: 8, more: true });
            assert_eq!(self.decide(&later, over), Decision::Hold);
        }
        let after = self.fragments.counts();
        assert_eq!((after.evicted, after.held_evicted), (counts.evicted, counts.held_evicted));
    }
}

/// A generator of numbers, always the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        u32::try_from(self.0 >> 33).unwrap()
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        f64::from(self.next()) / f64::from(1u32 << 31)
    }
}
