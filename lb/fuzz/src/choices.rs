//! An input as a list of choices.

use lb_core::hash::Seed;
use lb_core::key::{Affinity, EncapPorts, KeyModes, SctpHash};
use lb_core::table::Config;
use lb_core::target::{Mark, Targets, Weight};

/// Bytes that are taken from the front. Behind the end there are zeros, so every input has a meaning.
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub fn new(input: &'a [u8]) -> Self {
        Choices(input)
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.bytes(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// As many bytes, or fewer at the end.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn rest(&mut self) -> &'a [u8] {
        self.bytes(usize::MAX)
    }

    pub fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.array())
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    pub fn bool(&mut self) -> bool {
        self.u8() & 1 != 0
    }

    /// A number below `end`, which is at most 256.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.u8()) % end
    }

    pub fn one_of<T: Copy, const N: usize>(&mut self, all: [T; N]) -> T {
        all[self.below(N)]
    }

    /// Any modes.
    pub fn modes(&mut self) -> KeyModes {
        KeyModes {
            sctp_hash: self.one_of([SctpHash::Ports, SctpHash::Tuple]),
            affinity: self.one_of([Affinity::Flow, Affinity::Client]),
            sctp_encap: EncapPorts([self.u16(), self.u16()]),
        }
    }

    /// A configuration, mostly a small and possible one.
    pub fn config(&mut self) -> Config {
        const SLOTS: [u32; 8] = [3, 7, 31, 101, 251, 997, 2, 1000];
        let slots = match SLOTS.get(usize::from(self.u8())) {
            Some(&slots) => slots,
            None => self.u32(),
        };
        let targets = match self.u8() {
            u8::MAX => self.u32(),
            few => few.into(),
        };
        let (own_mark, seed) = (self.u32(), Seed(self.u32()));
        Config { slots, targets, own_mark, seed, modes: self.modes() }
    }

    /// A set of targets that has come about by some commands.
    pub fn targets(&mut self, capacity: u32) -> Targets {
        let mut targets = Targets::new(capacity);
        for _ in 0..self.below(9) {
            let weight = self.bool().then(|| Weight(self.u16()));
            let index = self.bool().then(|| self.u8().into());
            if let Some(mark) = Mark::new(self.u32()) {
                // The set is as before when there is no room.
                let _ = targets.activate(mark, weight, index);
            }
        }
        targets
    }
}
