//! Which bytes of a datagram have passed.

/// A part of a datagram's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it begins, in bytes.
    pub start: u32,
    /// Its length in bytes.
    pub len: usize,
    /// More parts follow.
    pub more: bool,
}

/// Most runs of bytes with gaps between them that are told apart. Fragments in order, reversed, or with
/// one of them late need one or two.
const RUNS: usize = 8;

/// The bytes that have passed, as far as it can be told in a bounded room. It may give up, and then
/// never says that the datagram is complete; it never says so wrongly.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Start and end of each run, in ascending order, none touching the next.
    runs: [(u16, u16); RUNS],
    count: u8,
    /// Where the datagram ends, once its last part has passed; the furthest if there are several ends.
    end: Option<u16>,
    given_up: bool,
}

impl Seen {
    pub const NOTHING: Seen = Seen { runs: [(0, 0); RUNS], count: 0, end: None, given_up: false };

    /// Notes that a part has passed.
    pub fn add(&mut self, part: Part) {
        if !self.given_up && self.try_add(part).is_none() {
            self.given_up = true;
        }
    }

    /// Whether every byte has passed.
    pub fn is_complete(&self) -> bool {
        let Some(end) = self.end else { return false };
        !self.given_up && self.count == 1 && self.runs[0] == (0, end)
    }

    fn try_add(&mut self, Part { start, len, more }: Part) -> Option<()> {
        const UNIT: usize = 8;
        if more && !len.is_multiple_of(UNIT) {
            return None; // Receivers differ in what they make of it.
        }
        let end = u16::try_from((start as usize).checked_add(len)?).ok()?;
        let start = u16::try_from(start).ok()?;
        if !more {
            self.end = self.end.max(Some(end));
        }
        if start == end { Some(()) } else { self.add_run(start, end) }
    }

    /// Joins the run with all that it overlaps or touches.
    fn add_run(&mut self, mut start: u16, mut end: u16) -> Option<()> {
        let mut runs = [(0, 0); RUNS];
        let mut count = 0;
        let mut keep = |run| {
            *runs.get_mut(count)? = run;
            count += 1;
            Some(())
        };
        let mut placed = false;
        for &(other_start, other_end) in &self.runs[..usize::from(self.count)] {
            if other_end < start {
                keep((other_start, other_end))?;
            } else if other_start > end {
                if !placed {
                    keep((start, end))?;
                    placed = true;
                }
                keep((other_start, other_end))?;
            } else {
                (start, end) = (start.min(other_start), end.max(other_end));
            }
        }
        if !placed {
            keep((start, end))?;
        }
        self.runs = runs;
        self.count = u8::try_from(count).ok()?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn part(start: u32, len: usize, more: bool) -> Part {
        Part { start, len, more }
    }

    fn after(parts: &[Part]) -> Seen {
        let mut seen = Seen::NOTHING;
        parts.iter().for_each(|part| seen.add(*part));
        seen
    }

    const FIRST: Part = Part { start: 0, len: 16, more: true };
    const MIDDLE: Part = Part { start: 16, len: 8, more: true };
    const LAST: Part = Part { start: 24, len: 3, more: false };

    #[test]
    fn complete_in_every_order_and_not_before() {
        for parts in [
            [FIRST, MIDDLE, LAST],
            [FIRST, LAST, MIDDLE],
            [MIDDLE, FIRST, LAST],
            [MIDDLE, LAST, FIRST],
            [LAST, FIRST, MIDDLE],
            [LAST, MIDDLE, FIRST],
        ] {
            assert!(after(&parts).is_complete());
            assert!(!after(&parts[..2]).is_complete());
        }
    }

    #[test]
    fn duplicates_and_overlaps_do_no_harm() {
        assert!(after(&[FIRST, FIRST, LAST, MIDDLE, MIDDLE]).is_complete());
        assert!(!after(&[FIRST, FIRST, LAST, LAST]).is_complete());
        assert!(after(&[FIRST, LAST, part(8, 16, true)]).is_complete());
        assert!(!after(&[FIRST, LAST, part(8, 8, true)]).is_complete());
        // A last part that covers all that was missing.
        assert!(after(&[FIRST, part(8, 19, false)]).is_complete());
    }

    #[test]
    fn an_empty_part_fills_nothing() {
        assert!(!after(&[FIRST, part(16, 0, true), LAST]).is_complete());
        assert!(after(&[FIRST, part(16, 0, false)]).is_complete());
        assert!(!after(&[part(0, 0, true), part(8, 0, false)]).is_complete());
    }

    #[test]
    fn bytes_beyond_the_end_and_odd_lengths_are_never_complete() {
        assert!(!after(&[FIRST, MIDDLE, part(24, 8, true), LAST]).is_complete());
        assert!(!after(&[FIRST, part(16, 9, true), part(24, 3, false)]).is_complete());
    }

    #[test]
    fn of_several_ends_the_furthest_counts() {
        let further = part(32, 5, false);
        assert!(!after(&[FIRST, further, MIDDLE, LAST]).is_complete());
        assert!(after(&[FIRST, further, MIDDLE, LAST, part(24, 8, true)]).is_complete());
        assert!(!after(&[FIRST, part(64, 0, false), MIDDLE, LAST]).is_complete());
    }

    #[test]
    fn the_longest_datagram_and_one_byte_more() {
        let head = part(0, 65_528, true);
        assert!(after(&[head, part(65_528, 7, false)]).is_complete());
        assert!(!after(&[head, part(65_528, 8, false)]).is_complete());
        assert!(!after(&[head, part(u32::MAX, usize::MAX, false)]).is_complete());
    }

    #[test]
    fn more_gaps_than_it_can_tell_apart_make_it_give_up() {
        let spread = |count: u32| (0..count).map(|i| part(i * 16, 8, true)).collect::<Vec<_>>();
        let fill = |count: u32| (0..count).map(move |i| part(i * 16 + 8, 8, i + 1 < count));
        let mut parts = spread(8);
        parts.extend(fill(8));
        assert!(after(&parts).is_complete());
        let mut parts = spread(9);
        parts.extend(fill(9));
        assert!(!after(&parts).is_complete());
    }

    proptest! {
        /// Beside a map of every byte.
        #[test]
        fn never_wrongly_complete(
            parts in prop::collection::vec((0u32..12, 0usize..6, 0u8..8), 0..14),
        ) {
            let mut bytes = [false; 200];
            let mut end = None;
            let mut seen = Seen::NOTHING;
            for (start, units, kind) in parts {
                let part = match kind {
                    0 => part(start * 8, units * 8 + 5, false),
                    1 => part(start * 8, units * 8 + 3, true),
                    _ => part(start * 8, units * 8, true),
                };
                seen.add(part);
                let from = part.start as usize;
                bytes[from..from + part.len].iter_mut().for_each(|byte| *byte = true);
                if !part.more {
                    end = end.max(Some(from + part.len));
                }
                if seen.is_complete() {
                    let end = end.unwrap();
                    prop_assert!(bytes[..end].iter().all(|byte| *byte));
                    prop_assert!(!bytes[end..].iter().any(|byte| *byte));
                }
            }
        }

        /// Any order, with duplicates, of up to 16 parts that leave no more than eight runs.
        #[test]
        fn complete_when_all_has_passed(
            (count, order) in (2usize..=16).prop_flat_map(|count| {
                let all: Vec<usize> = (0..count).chain(0..count / 2).collect();
                (Just(count), Just(all).prop_shuffle())
            }),
        ) {
            let parts: Vec<Part> = order
                .into_iter()
                .map(|i| part(u32::try_from(i * 24).unwrap(), 24, i + 1 < count))
                .collect();
            prop_assert!(after(&parts).is_complete());
        }
    }
}
