//! Round-trip times as counts that fit into shared memory: each power of two is cut into 128 equal parts, so a time
//! is known to within 0.8 %. Percentiles are then taken by `hdrhistogram`.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Up to this many microseconds each has a count of its own.
const EXACT: u64 = 256;
const PARTS: u64 = EXACT / 2;
/// The longest time, 2^32 - 1 microseconds: an hour and twelve minutes.
const LONGEST: u64 = u32::MAX as u64;

/// A count is taken for no more than this, so that no sum can overflow whatever memory holds.
const MOST: u64 = u32::MAX as u64;

/// How many counts there are.
pub const COUNTS: usize = 256 + 24 * 128;

/// Microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    pub min: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

/// Which count a time belongs to.
pub fn index(time: Duration) -> usize {
    let micros = u64::try_from(time.as_micros()).unwrap_or(LONGEST).min(LONGEST);
    let index = if micros < EXACT {
        micros
    } else {
        // The highest bit says which power of two, the seven bits below it which part.
        let power = u64::from(micros.ilog2() - EXACT.ilog2());
        let part = (micros >> (power + 1)) - PARTS;
        EXACT + power * PARTS + part
    };
    usize::try_from(index).unwrap_or(COUNTS - 1)
}

/// The shortest time of a count, in microseconds, and how many there are of it.
fn range(index: u64) -> (u64, u64) {
    match index.checked_sub(EXACT) {
        None => (index, 1),
        Some(behind) => {
            let (power, part) = (behind / PARTS, behind % PARTS);
            ((PARTS + part) << (power + 1), 1 << (power + 1))
        }
    }
}

/// `None` as long as there is no time. What is known better than by the counts, the longest time, is given.
pub fn percentiles(counts: &[u64], longest_micros: u64) -> Option<Percentiles> {
    let mut histogram: Histogram<u64> =
        Histogram::new_with_bounds(1, LONGEST, 3).expect("an hour to three digits can be held");
    for (index, count) in (0..).zip(counts).filter(|(_, count)| **count > 0) {
        let (first, width) = range(index);
        // The middle of what it may have been; there is no zero in a histogram.
        histogram.saturating_record_n((first + width / 2).max(1), (*count).min(MOST));
    }
    let at = |quantile| histogram.value_at_quantile(quantile).min(longest_micros);
    (!histogram.is_empty()).then(|| Percentiles {
        min: histogram.min().min(longest_micros),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: longest_micros,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_counts_follow_each_other_without_a_gap() {
        let mut next = 0;
        for index in 0..u64::try_from(COUNTS).unwrap() {
            let (first, width) = range(index);
            assert_eq!(first, next, "{index}");
            next = first + width;
        }
        assert_eq!(next, LONGEST + 1);
        assert_eq!(index(Duration::MAX), COUNTS - 1);
    }

    #[test]
    fn percentiles_are_exact_to_a_hundredth() {
        let mut counts = vec![0; COUNTS];
        assert_eq!(percentiles(&counts, 0), None);
        for micros in 1..=10_000 {
            counts[index(Duration::from_micros(micros))] += 1;
        }
        let found = percentiles(&counts, 10_000).unwrap();
        assert_eq!((found.min, found.max), (1, 10_000));
        for (found, exact) in
            [(found.p50, 5_000u64), (found.p90, 9_000), (found.p99, 9_900), (found.p999, 9_990)]
        {
            assert!(found.abs_diff(exact) * 100 <= exact, "{found} for {exact}");
        }
    }

    proptest! {
        #[test]
        fn a_time_belongs_to_the_count_that_holds_it(micros in 0..=LONGEST) {
            let index = index(Duration::from_micros(micros));
            let (first, width) = range(u64::try_from(index).unwrap());
            prop_assert!((first..first + width).contains(&micros));
            prop_assert!(width == 1 || width * 128 <= first);
        }
    }
}
