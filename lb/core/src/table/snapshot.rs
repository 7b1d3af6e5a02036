//! A consistent copy of a table, for those who look at all of it.

use alloc::vec::Vec;
use core::fmt;

use super::layout::mode_words;
use super::{Config, Generation};
use crate::hash::HASH_VERSION;
use crate::maglev;
use crate::target::{Mark, Target, Targets};

/// 64 bits over all that decides a packet: two routers with equal fingerprints decide alike.
/// Indexes, the own mark and targets without a slot do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u64);

/// A table as it was at one generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// What was fixed when the table was made.
    pub config: Config,
    /// The publication that was in force.
    pub generation: Generation,
    /// Of the configuration and every slot.
    pub fingerprint: Fingerprint,
    /// The targets.
    pub targets: Targets,
    /// The mark of every slot, [`Mark::EMPTY`] where there is none.
    pub slots: Vec<u32>,
}

impl Fingerprint {
    /// The fingerprint of slots under a configuration.
    pub fn of(config: &Config, slots: &[u32]) -> Self {
        let Config { slots: count, targets: _, own_mark: _, seed, modes } = *config;
        let [sctp_hash, affinity, sctp_encap] = mode_words(&modes);
        let deciding =
            [HASH_VERSION, u64::from(count), u64::from(seed.0), sctp_hash, affinity, sctp_encap];
        Fingerprint(digest(deciding.into_iter().chain(slots.iter().map(|&slot| u64::from(slot)))))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

/// How many slots a target holds, and how many it would hold if slots could be divided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Index of the target.
    pub index: u32,
    /// The target.
    pub target: Target,
    /// Slots held.
    pub slots: u32,
    /// Slots by weight alone.
    pub ideal: f64,
}

impl Snapshot {
    /// The table as it would be if these targets were published next.
    pub fn changed(&self, targets: Targets) -> Snapshot {
        let slots = maglev::build(targets.iter().map(|(_, target)| target), self.config.slots);
        Snapshot {
            config: self.config,
            generation: self.generation.next(),
            fingerprint: Fingerprint::of(&self.config, &slots),
            targets,
            slots,
        }
    }

    /// What each target holds, in order of index.
    pub fn shares(&self) -> Vec<Share> {
        let mut sorted = self.slots.clone();
        sorted.sort_unstable();
        let held = |mark: Mark| {
            let below = sorted.partition_point(|&slot| slot < mark.get());
            let above = sorted.partition_point(|&slot| slot <= mark.get());
            u32::try_from(above - below).unwrap_or(u32::MAX)
        };
        let total: f64 = self.targets.iter().map(|(_, target)| f64::from(target.weight.0)).sum();
        self.targets
            .iter()
            .map(|(index, target)| Share {
                index,
                target,
                slots: held(target.mark),
                ideal: f64::from(self.config.slots) * f64::from(target.weight.0) / total.max(1.0),
            })
            .collect()
    }

    /// How even the slots are shared: 1 less the largest deviation of an active target from its ideal
    /// share. Without active targets there is none.
    pub fn evenness(&self) -> Option<f64> {
        self.shares()
            .iter()
            .filter(|share| share.target.weight.0 > 0)
            .map(|share| 1.0 - ((f64::from(share.slots) - share.ideal) / share.ideal).abs())
            .reduce(f64::min)
    }
}

/// A 64-bit hash of words (multiply and fold); not for use against an adversary.
pub(super) fn digest(words: impl Iterator<Item = u64>) -> u64 {
    const MULTIPLIER: u64 = 0x9fb2_1c65_1e98_df25;
    let mut state: u64 = 0x6d61_726b_7761_7900;
    for word in words {
        let mixed = (state ^ word).wrapping_mul(MULTIPLIER);
        state = mixed ^ (mixed >> 29);
    }
    state ^= state >> 32;
    state = state.wrapping_mul(MULTIPLIER);
    state ^ (state >> 29)
}
