//! Which messages of an association came back: how many, twice, late, or never.

use std::collections::BTreeSet;

#[derive(Debug, Default)]
pub struct Ledger {
    /// All numbers below it have been looked at: they came, or they are `missing`.
    next: u64,
    /// Numbers that later ones have overtaken.
    missing: BTreeSet<u64>,
    received: u64,
}

/// What a message that came back is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The first with its number, and none later was there before.
    InOrder,
    /// The first with its number, behind a later one.
    Reordered,
    Duplicate,
    /// No message with this number was sent.
    Unknown,
}

impl Ledger {
    /// Takes note of a message; `sent` numbers have been given out.
    pub fn arrive(&mut self, sequence: u64, sent: u64) -> Arrival {
        if sequence >= sent {
            return Arrival::Unknown;
        }
        if sequence < self.next {
            if !self.missing.remove(&sequence) {
                return Arrival::Duplicate;
            }
            self.received += 1;
            return Arrival::Reordered;
        }
        self.missing.extend(self.next..sequence);
        self.next = sequence + 1;
        self.received += 1;
        Arrival::InOrder
    }

    /// Messages that came back, each counted once.
    pub fn received(&self) -> u64 {
        self.received
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Arrival::*;
    use super::*;

    fn arrivals(sequences: &[u64], sent: u64) -> Vec<Arrival> {
        let mut ledger = Ledger::default();
        sequences.iter().map(|sequence| ledger.arrive(*sequence, sent)).collect()
    }

    #[test]
    fn every_arrival_is_one_of_four() {
        assert_eq!(arrivals(&[0, 1, 2], 3), [InOrder; 3]);
        assert_eq!(
            arrivals(&[2, 0, 0, 1, 2], 3),
            [InOrder, Reordered, Duplicate, Reordered, Duplicate]
        );
        assert_eq!(arrivals(&[3, u64::MAX], 3), [Unknown, Unknown]);
        assert_eq!(arrivals(&[0], 0), [Unknown]);
    }

    proptest! {
        // Any order, any loss, any repetition, and numbers that were never sent.
        #[test]
        fn counts_are_those_of_a_simple_mind(sequences in prop::collection::vec(0u64..40, 0..120), sent in 0u64..35) {
            let mut ledger = Ledger::default();
            let mut seen = BTreeSet::new();
            for sequence in sequences {
                let expected = if sequence >= sent {
                    Unknown
                } else if seen.contains(&sequence) {
                    Duplicate
                } else if seen.last().is_some_and(|last| *last > sequence) {
                    Reordered
                } else {
                    InOrder
                };
                if expected != Unknown {
                    seen.insert(sequence);
                }
                prop_assert_eq!(ledger.arrive(sequence, sent), expected);
                prop_assert_eq!(ledger.received(), seen.len() as u64);
            }
        }
    }
}
