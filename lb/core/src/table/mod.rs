//! The table in shared memory: everything that decides a packet, and how it is read and published.
//!
//! A table is a [`header`](layout) that never changes after creation but for one word, the
//! [`Generation`], and two buffers, each a complete set of targets with its slots. The low bit of the
//! generation selects the buffer in force. A writer fills the other one with final values only and
//! then stores the next generation, so that
//!
//! - a packet needs nothing but the generation and one slot: whatever it reads was or will be true;
//! - a reader of the whole table reads the generation before and after, and again if it moved;
//! - a writer killed at any instruction leaves the last published table in force.
//!
//! Mapping the memory and keeping writers apart is the caller's part.

mod config;
mod inspect;
mod layout;
mod moves;
mod saved;
mod snapshot;

pub use config::{Config, ConfigError, MAX_SLOTS, MAX_TARGETS, MIN_SLOTS, prime_at_most};
pub use inspect::{Inspection, Problem, inspect};
pub use layout::{BodyWords, HEADER_LEN, HEADER_WORDS, LAYOUT_VERSION, file_len, header_of};
pub use moves::{Move, Moves};
pub use snapshot::{Fingerprint, Share, Snapshot};

use alloc::vec::Vec;
use core::ops::Deref;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU32, AtomicU64, fence};

use thiserror::Error;

use crate::hash::Slot;
use crate::maglev;
use crate::target::{Mark, Target, Targets, Weight};

/// Counts publications; the low bit selects the buffer in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u64);

impl Generation {
    /// The one that follows.
    pub fn next(self) -> Self {
        Generation(self.0.wrapping_add(1))
    }

    /// The number of the buffer that it puts in force.
    #[inline]
    pub fn buffer(self) -> u8 {
        u8::from(self.0 & 1 == 1)
    }
}

/// Why memory is not a table, or not a sound one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TableError {
    /// Too short, or other magic bytes.
    #[error("not a Markway table")]
    NotATable,
    /// Made by another version of Markway.
    #[error(
        "layout version {found}, this program reads version {LAYOUT_VERSION}; \
         use programs of one release, or make the table anew with `init --force`"
    )]
    OtherLayout {
        /// The version found.
        found: u64,
    },
    /// The header contradicts itself or the length of the file.
    #[error("damaged table: {0}")]
    Damaged(&'static str),
    /// Writers published faster than the table could be read.
    #[error("the table changed at every one of {0} attempts to read it")]
    Busy(u32),
}

/// A view of a table in memory that others may write at any time.
#[derive(Clone, Copy, Debug)]
pub struct Table<'m> {
    config: Config,
    generation: &'m AtomicU64,
    buffers: [Buffer<'m>; 2],
}

/// One of the two buffers.
#[derive(Clone, Copy, Debug)]
struct Buffer<'m> {
    fingerprint: &'m [AtomicU32],
    targets: &'m [AtomicU32],
    slots: &'m [AtomicU32],
}

impl<'m> Table<'m> {
    /// Views mapped memory as a table after checking all that can be checked once.
    pub fn view(header: &'m [AtomicU64], body: &'m [AtomicU32]) -> Result<Self, TableError> {
        let file_len = layout::mapped_len(header, body);
        let config = layout::checked_config(header, file_len)?;
        let words = BodyWords::of(&config);
        let generation = header.get(layout::GENERATION).ok_or(TableError::NotATable)?;
        let buffer = |number| Buffer::within(body, words, number);
        match (buffer(0), buffer(1)) {
            (Some(first), Some(second)) => {
                Ok(Table { config, generation, buffers: [first, second] })
            }
            _ => Err(TableError::Damaged("the file ends inside a buffer")),
        }
    }

    /// What was fixed when the table was made.
    #[inline]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The number of the last publication.
    #[inline]
    pub fn generation(&self) -> Generation {
        Generation(self.generation.load(Acquire))
    }

    /// What a slot holds now.
    #[inline]
    pub fn mark(&self, slot: Slot) -> Option<Mark> {
        let word = self.buffer(self.generation()).slots.get(slot.0 as usize)?;
        Mark::new(word.load(Relaxed))
    }

    /// A consistent copy of the whole table, checked against its fingerprint.
    pub fn snapshot(&self) -> Result<Snapshot, TableError> {
        const ATTEMPTS: u32 = 1000;
        for _ in 0..ATTEMPTS {
            let generation = self.generation();
            let copy = self.buffer(generation).copy();
            // Pairs with the fence in `publish`: whoever read a word of a later publication sees
            // here that the generation moved.
            fence(Acquire);
            if Generation(self.generation.load(Relaxed)) == generation {
                return copy.check(self.config, generation);
            }
        }
        Err(TableError::Busy(ATTEMPTS))
    }

    #[inline]
    fn buffer(&self, generation: Generation) -> &Buffer<'m> {
        &self.buffers[usize::from(generation.buffer())]
    }
}

/// A table in memory that this process may write, too.
#[derive(Clone, Copy, Debug)]
pub struct WritableTable<'m>(Table<'m>);

impl<'m> WritableTable<'m> {
    /// As [`Table::view`], of memory that is mapped for writing.
    pub fn view(header: &'m [AtomicU64], body: &'m [AtomicU32]) -> Result<Self, TableError> {
        Table::view(header, body).map(Self)
    }

    /// Makes `targets` the table in force. The caller holds the writers' lock.
    pub fn publish(&self, targets: &Targets) -> Generation {
        let slots = maglev::build(targets.iter().map(|(_, target)| target), self.config.slots);
        let next = self.generation().next();
        let fingerprint = Fingerprint::of(&self.config, &slots);
        // Nothing below may be seen before the generation that took this buffer out of force.
        fence(Release);
        self.buffer(next).fill(targets, &slots, fingerprint);
        self.generation.store(next.0, Release);
        next
    }
}

impl<'m> Deref for WritableTable<'m> {
    type Target = Table<'m>;

    fn deref(&self) -> &Table<'m> {
        &self.0
    }
}

/// What a target's second word holds where there is no target.
const NO_TARGET: u32 = u32::MAX;

impl<'m> Buffer<'m> {
    fn within(body: &'m [AtomicU32], words: BodyWords, number: usize) -> Option<Self> {
        let buffer = body.get(number * words.buffer..)?.get(..words.buffer)?;
        let (fingerprint, rest) = buffer.split_at_checked(words.fingerprint)?;
        let (targets, rest) = rest.split_at_checked(words.targets)?;
        Some(Buffer { fingerprint, targets, slots: rest.get(..words.slots)? })
    }

    fn fill(&self, targets: &Targets, slots: &[u32], fingerprint: Fingerprint) {
        let halves = [(fingerprint.0 & 0xffff_ffff) as u32, (fingerprint.0 >> 32) as u32];
        for (word, half) in self.fingerprint.iter().zip(halves) {
            word.store(half, Relaxed);
        }
        for (pair, place) in self.targets.chunks_exact(2).zip(targets.places()) {
            let (mark, weight) = match place {
                Some(target) => (target.mark.get(), u32::from(target.weight.0)),
                None => (Mark::EMPTY, NO_TARGET),
            };
            pair[0].store(mark, Relaxed);
            pair[1].store(weight, Relaxed);
        }
        for (word, slot) in self.slots.iter().zip(slots) {
            word.store(*slot, Relaxed);
        }
    }

    fn copy(&self) -> RawCopy {
        let words = |words: &[AtomicU32]| words.iter().map(|word| word.load(Relaxed)).collect();
        RawCopy {
            fingerprint: words(self.fingerprint),
            targets: words(self.targets),
            slots: words(self.slots),
        }
    }
}

/// The words of a buffer as they were read, not yet believed.
struct RawCopy {
    fingerprint: Vec<u32>,
    targets: Vec<u32>,
    slots: Vec<u32>,
}

impl RawCopy {
    fn check(self, config: Config, generation: Generation) -> Result<Snapshot, TableError> {
        let place = |pair: &[u32]| match (Mark::new(pair[0]), u16::try_from(pair[1])) {
            _ if pair[1] == NO_TARGET => Ok(None),
            (Some(mark), Ok(weight)) => Ok(Some(Target { mark, weight: Weight(weight) })),
            _ => Err(TableError::Damaged("a target has an impossible mark or weight")),
        };
        let places = self.targets.chunks_exact(2).map(place).collect::<Result<_, _>>()?;
        let targets = Targets::from_places(places)
            .ok_or(TableError::Damaged("two targets have the same mark"))?;
        let fingerprint = Fingerprint::of(&config, &self.slots);
        let [low, high] = self.fingerprint[..] else {
            return Err(TableError::Damaged("the fingerprint is missing"));
        };
        if fingerprint.0 != (u64::from(high) << 32 | u64::from(low)) {
            return Err(TableError::Damaged("the slots do not match the fingerprint"));
        }
        Ok(Snapshot { config, generation, fingerprint, targets, slots: self.slots })
    }
}

#[cfg(test)]
mod tests;
