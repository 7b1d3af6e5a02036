//! Fragments of a few datagrams, and any bytes, in little room.

use std::time::Duration;

use lb_core::frag::{DatagramKey, FragConfig, FragCounts, Fragments, Secret, Time};
use lb_core::table::{Config, Table};
use lb_core::target::Mark;
use lb_core::walk::{Class, Decision, Policy, Reason, walk, walk_with};
use lb_core::wire::{Packet, ip};

use crate::choices::Choices;
use crate::memory::Memory;

const TTL: Duration = Duration::from_millis(100);
/// Longer inputs would say nothing new.
const STEPS: usize = 200;

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let config = Config { slots: 7, targets: 3, ..Config::default() };
    let memory = Memory::new(&config);
    let table = memory.view().unwrap();
    let mut router = Router::new(&mut choices);
    for _ in 0..STEPS {
        if choices.is_empty() {
            break;
        }
        match choices.below(8) {
            0 => {
                table.publish(&choices.targets(config.targets));
            }
            1 => router.now += u64::from(choices.u8()) * 1_000_000,
            2 => router.poll(&table),
            3 => {
                let len = choices.below(80);
                router.take(choices.bytes(len), &table);
            }
            _ => router.take(&fragment(&mut choices), &table),
        }
        router.check_bounds();
    }
    router.check_end();
}

/// A fragment of one of eight datagrams, sound or not.
fn fragment(choices: &mut Choices<'_>) -> Vec<u8> {
    let who = choices.below(8);
    let [v6, source, id] = [who & 1 != 0, who & 2 != 0, who & 4 != 0].map(u8::from);
    let units = u16::from(choices.u8() % 12);
    let more = choices.bool();
    let len = match choices.below(4) {
        0 => choices.below(40),
        full => full * 8,
    };
    let len_field = u16::try_from(len).unwrap();
    let mut bytes = if v6 == 0 {
        let flags = (units | u16::from(more) << 13).to_be_bytes();
        let [high, low] = (20 + len_field).to_be_bytes();
        let mut header = vec![0x45, 0, high, low, 0, id, flags[0], flags[1], 64, 17, 0, 0];
        header.extend([192, 0, 2, source, 10, 0, 0, 0]);
        header
    } else {
        let [high, low] = (8 + len_field).to_be_bytes();
        let mut header = vec![0x60, 0, 0, 0, high, low, 44, 64];
        header.extend([0x20, 0, 0, 0, 0, 0, 0, source]);
        header.extend([0; 24]);
        header.extend([17, 0]);
        header.extend((units << 3 | u16::from(more)).to_be_bytes());
        header.extend([0, 0, 0, id]);
        header
    };
    let payload = choices.bytes(len);
    bytes.extend(payload);
    bytes.resize(bytes.len() + len - payload.len(), 0);
    bytes
}

/// A queue's fragments, and what is known about them from outside.
struct Router {
    config: FragConfig,
    fragments: Fragments,
    now: u64,
    /// What was decided about the last first fragment of each datagram.
    firsts: Vec<(DatagramKey, Mark)>,
    /// Copies that were held and have not come back.
    held: Vec<(DatagramKey, Vec<u8>)>,
    holds: u64,
}

impl Router {
    fn new(choices: &mut Choices<'_>) -> Self {
        let mut few = |most| u32::try_from(choices.below(most)).unwrap();
        let config = FragConfig {
            entries: 1 + few(6),
            held: few(6),
            held_per_source: 1 + few(6),
            held_bytes: 16 * few(8) as usize,
            ttl: TTL,
        };
        Router {
            config,
            fragments: Fragments::new(config, Secret([1, 2])),
            now: 0,
            firsts: Vec::new(),
            held: Vec::new(),
            holds: 0,
        }
    }

    fn take(&mut self, bytes: &[u8], table: &Table<'_>) {
        let (packet, policy) = (Packet::whole(bytes), Policy::default());
        let alone = walk(packet, table, &policy);
        let walked = walk_with(packet, table, &policy, None, &mut self.fragments, Time(self.now));
        assert_eq!(walked.class, alone.class);
        if walked.class != Class::Fragment {
            assert_eq!(walked, alone);
            return;
        }
        let ip = ip::parse(packet).unwrap();
        let fragment = ip.fragment.unwrap();
        let key = DatagramKey::new(ip.addresses, ip.protocol, fragment);
        if fragment.offset == 0 {
            assert_eq!(walked, alone, "the first passes always");
            match alone.decision {
                Decision::Mark(mark) => self.decided(key, Some(mark)),
                Decision::Drop(Reason::NoTarget) => self.decided(key, None),
                Decision::Drop(_) | Decision::Hold | Decision::Relay(_) => {}
            }
            return;
        }
        match walked.decision {
            Decision::Relay(router) => panic!("to router {router}, but there is no tier"),
            Decision::Mark(mark) => assert!(self.firsts.contains(&(key, mark)), "{mark}"),
            Decision::Hold => {
                assert!(bytes.len() <= self.config.held_bytes);
                self.held.push((key, bytes.to_vec()));
                self.holds += 1;
            }
            Decision::Drop(Reason::EarlyFragment) => assert_eq!(self.config.held, 0),
            Decision::Drop(Reason::TooLongToHold) => assert!(bytes.len() > self.config.held_bytes),
            Decision::Drop(reason) => assert!(
                matches!(reason, Reason::HeldFull | Reason::SourceFull | Reason::FirstDropped),
                "{reason}"
            ),
        }
    }

    fn decided(&mut self, key: DatagramKey, mark: Option<Mark>) {
        self.firsts.retain(|(other, _)| *other != key);
        self.firsts.extend(mark.map(|mark| (key, mark)));
    }

    /// What is polled was held and not polled before; it comes back through the queue.
    fn poll(&mut self, table: &Table<'_>) {
        let ready: Vec<Vec<u8>> =
            std::iter::from_fn(|| self.fragments.poll_ready().map(<[u8]>::to_vec)).collect();
        for bytes in ready {
            let place = self.held.iter().position(|(_, held)| *held == bytes);
            self.held.remove(place.expect("it was held"));
            self.take(&bytes, table);
        }
    }

    fn check_bounds(&self) {
        let counts = self.fragments.counts();
        assert!(counts.entries <= self.config.entries.into());
        assert!(counts.held_now <= self.config.held.into());
        assert!(counts.entries_peak >= counts.entries && counts.held_peak >= counts.held_now);
        assert_eq!(self.holds, counts.held_now + gone(counts));
    }

    /// When all time is over nothing is left but what is ready to go.
    fn check_end(mut self) {
        while self.fragments.poll_ready().is_some() {}
        self.fragments.expire(Time(self.now + 100_000_000));
        let counts = self.fragments.counts();
        assert_eq!((counts.entries, counts.held_now), (0, 0));
        assert_eq!(self.holds, gone(counts));
    }
}

fn gone(counts: &FragCounts) -> u64 {
    counts.injected + counts.held_refused + counts.held_expired + counts.held_evicted
}
