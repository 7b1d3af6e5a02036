//! What is fixed when a table is made.

use thiserror::Error;

use crate::hash::Seed;
use crate::key::KeyModes;

/// Fewest slots of a table.
pub const MIN_SLOTS: u32 = 3;
/// Most slots of a table.
pub const MAX_SLOTS: u32 = 1 << 24;
/// Most targets of a table.
pub const MAX_TARGETS: u32 = 4096;

/// What is fixed when a table is made. With the slots it decides every packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Number of slots ("M"), a prime.
    pub slots: u32,
    /// Room for targets ("N").
    pub targets: u32,
    /// The mark by which other routers of a tier reach this one; 0 is none.
    pub own_mark: u32,
    /// Initial value of the hash.
    pub seed: Seed,
    /// How keys are made.
    pub modes: KeyModes,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            slots: 997,
            targets: 32,
            own_mark: 0,
            seed: Seed::default(),
            modes: KeyModes::default(),
        }
    }
}

/// Why there can be no table of such dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// M out of range.
    #[error("M = {0} is out of range: {MIN_SLOTS} to {MAX_SLOTS}")]
    Slots(u32),
    /// M is not prime. Markway could do with any M; the C program and Maglev could not, and what a table
    /// promises should not depend on who builds it.
    #[error("M = {0} is not prime")]
    NotPrime(u32),
    /// N out of range.
    #[error("N = {0} is out of range: 1 to {MAX_TARGETS}")]
    Targets(u32),
    /// N larger than M: some targets could never hold a slot.
    #[error("N = {targets} is larger than M = {slots}")]
    MoreTargetsThanSlots {
        /// N.
        targets: u32,
        /// M.
        slots: u32,
    },
}

impl Config {
    /// Whether there can be a table of these dimensions.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !(MIN_SLOTS..=MAX_SLOTS).contains(&self.slots) {
            return Err(ConfigError::Slots(self.slots));
        }
        if !is_prime(self.slots) {
            return Err(ConfigError::NotPrime(self.slots));
        }
        if !(1..=MAX_TARGETS).contains(&self.targets) {
            return Err(ConfigError::Targets(self.targets));
        }
        if self.targets > self.slots {
            return Err(ConfigError::MoreTargetsThanSlots {
                targets: self.targets,
                slots: self.slots,
            });
        }
        Ok(())
    }
}

/// The largest prime that is not above `limit`.
pub fn prime_at_most(limit: u32) -> Option<u32> {
    (2..=limit).rev().find(|&number| is_prime(number))
}

fn is_prime(number: u32) -> bool {
    let divides = |divisor: u32| number.is_multiple_of(divisor);
    number >= 2
        && (number < 4 || !divides(2))
        && !(3..).step_by(2).take_while(|&d| d <= number / d).any(divides)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_below() {
        assert_eq!(prime_at_most(0), None);
        assert_eq!(prime_at_most(1), None);
        for (limit, prime) in [
            (2, 2),
            (4, 3),
            (9, 7),
            (25, 23),
            (1000, 997),
            (997, 997),
            (65_536, 65_521),
            (65_537, 65_537),
            (1_000_004, 1_000_003),
            (u32::MAX, 4_294_967_291),
        ] {
            assert_eq!(prime_at_most(limit), Some(prime), "{limit}");
        }
    }

    #[test]
    fn impossible_dimensions_are_named() {
        let check = |slots, targets| Config { slots, targets, ..Config::default() }.check();
        assert_eq!(check(997, 32), Ok(()));
        assert_eq!(check(1_000_003, 1000), Ok(()));
        assert_eq!(check(2, 1), Err(ConfigError::Slots(2)));
        assert_eq!(check(u32::MAX, 1), Err(ConfigError::Slots(u32::MAX)));
        assert_eq!(check(1000, 32), Err(ConfigError::NotPrime(1000)));
        assert_eq!(check(997, 0), Err(ConfigError::Targets(0)));
        assert_eq!(
            check(31, 32),
            Err(ConfigError::MoreTargetsThanSlots { targets: 32, slots: 31 })
        );
    }
}
