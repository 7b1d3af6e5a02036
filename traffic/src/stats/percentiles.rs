//! How times are spread.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::Nanos;

/// Times as they are collected, to three digits.
#[derive(Clone, Debug)]
pub struct Times(Histogram<u64>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Percentiles {
    pub min: Nanos,
    pub p50: Nanos,
    pub p90: Nanos,
    pub p99: Nanos,
    pub p999: Nanos,
    pub max: Nanos,
}

/// Longer ones count as this.
const LONGEST: Duration = Duration::from_secs(3_600);

impl Default for Times {
    fn default() -> Self {
        let longest = Nanos::from(LONGEST).0;
        Self(Histogram::new_with_max(longest, 3).expect("an hour to three digits can be held"))
    }
}

impl Times {
    pub fn record(&mut self, time: Duration) {
        self.0.saturating_record(Nanos::from(time).0);
    }

    /// `None` as long as there is no time.
    pub fn percentiles(&self) -> Option<Percentiles> {
        let at = |quantile| Nanos(self.0.value_at_quantile(quantile));
        (!self.0.is_empty()).then(|| Percentiles {
            min: Nanos(self.0.min()),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: Nanos(self.0.max()),
        })
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact_to_three_digits() {
        let mut times = Times::default();
        assert_eq!(times.percentiles(), None);
        for micros in 1..=1_000 {
            times.record(Duration::from_micros(micros));
        }
        let found = times.percentiles().unwrap();
        for (found, micros) in [
            (found.min, 1),
            (found.p50, 500),
            (found.p90, 900),
            (found.p99, 990),
            (found.p999, 999),
            (found.max, 1_000),
        ] {
            let expected = micros * 1_000;
            assert!(found.0.abs_diff(expected) * 1_000 <= expected, "{found:?} for {expected}");
        }
        times.clear();
        assert_eq!(times.percentiles(), None);
    }

    #[test]
    fn what_is_too_long_counts_as_the_longest() {
        let mut times = Times::default();
        times.record(Duration::from_secs(100_000));
        let max = times.percentiles().unwrap().max;
        assert!(max >= Nanos::from(LONGEST) && max.seconds() < 2.0 * 3_600.0, "{max:?}");
    }
}
