//! Slots that change hands from one table to another of as many slots.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::target::Mark;

/// Slots that go from one holder to another; no holder means that the slot is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Who holds them before.
    pub from: Option<Mark>,
    /// Who holds them after.
    pub to: Option<Mark>,
    /// How many.
    pub slots: u32,
}

/// All that changes hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moves(Vec<Move>);

impl Moves {
    /// Compares slot by slot, as far as both tables reach.
    pub fn between(before: &[u32], after: &[u32]) -> Self {
        let mut counts: BTreeMap<(u32, u32), u32> = BTreeMap::new();
        for (&from, &to) in before.iter().zip(after).filter(|(from, to)| from != to) {
            *counts.entry((from, to)).or_default() += 1;
        }
        let moved = |((from, to), slots)| Move { from: Mark::new(from), to: Mark::new(to), slots };
        Moves(counts.into_iter().map(moved).collect())
    }

    /// Each pair of holders once, in ascending order of marks; the empty slot stands last.
    pub fn list(&self) -> &[Move] {
        &self.0
    }

    /// How many slots move.
    pub fn slots(&self) -> u32 {
        self.0.iter().map(|moved| moved.slots).sum()
    }

    /// How many slots have to move, however they are chosen: what the holders that shrink have to
    /// give away.
    pub fn needed(&self) -> u32 {
        let mut given: BTreeMap<Option<Mark>, i64> = BTreeMap::new();
        for moved in &self.0 {
            *given.entry(moved.from).or_default() += i64::from(moved.slots);
            *given.entry(moved.to).or_default() -= i64::from(moved.slots);
        }
        given.into_values().filter_map(|net| u32::try_from(net).ok()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn moved(from: u32, to: u32, slots: u32) -> Move {
        Move { from: Mark::new(from), to: Mark::new(to), slots }
    }

    #[test]
    fn an_exchange_is_needless_and_a_gift_is_not() {
        for (before, after, list, needed) in [
            ([1, 1, 2, 2], [1, 1, 2, 2], vec![], 0),
            ([1, 1, 2, 2], [2, 2, 2, 2], vec![moved(1, 2, 2)], 2),
            ([1, 1, 2, 2], [2, 1, 1, 2], vec![moved(1, 2, 1), moved(2, 1, 1)], 0),
            ([1, 1, 2, 2], [2, 2, 2, 1], vec![moved(1, 2, 2), moved(2, 1, 1)], 1),
            // Round a circle: nobody shrinks.
            ([1, 2, 3, 3], [2, 3, 1, 3], vec![moved(1, 2, 1), moved(2, 3, 1), moved(3, 1, 1)], 0),
            ([Mark::EMPTY; 4], [7; 4], vec![moved(Mark::EMPTY, 7, 4)], 4),
        ] {
            let moves = Moves::between(&before, &after);
            assert_eq!(moves.list(), list, "{before:?} {after:?}");
            assert_eq!(moves.needed(), needed, "{before:?} {after:?}");
            assert_eq!(moves.slots(), list.iter().map(|moved| moved.slots).sum::<u32>());
        }
    }

    proptest! {
        #[test]
        fn what_is_needed_is_what_shrinking_holders_lose(
            pairs in prop::collection::vec((0u32..5, 0u32..5), 0..60),
        ) {
            let (before, after): (Vec<u32>, Vec<u32>) = pairs.into_iter().unzip();
            let held = |slots: &[u32], mark| slots.iter().filter(|&&slot| slot == mark).count();
            let lost: usize =
                (0..5).map(|mark| held(&before, mark).saturating_sub(held(&after, mark))).sum();
            let differ = before.iter().zip(&after).filter(|(b, a)| b != a).count();
            let moves = Moves::between(&before, &after);
            prop_assert_eq!(moves.needed() as usize, lost);
            prop_assert_eq!(moves.slots() as usize, differ);
        }
    }
}
