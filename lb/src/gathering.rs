//! Letting packets gather: under load a worker waits a moment after it answered, so that there are fewer
//! and fuller batches. Each costs two system calls and a change to the worker and back.

use std::time::{Duration, Instant};

/// Below this rate answers come at once: the processor is idle anyway.
const MIN_RATE: f64 = 65_000.0;
/// A batch that is as large as this is worth its cost.
const GOAL: f64 = 32.0;
/// How long packets are counted before the rate is taken.
const WINDOW: Duration = Duration::from_millis(5);

/// How long a worker waits, by the rate at which packets come.
#[derive(Debug)]
pub struct Gathering {
    most: Duration,
    wait: Duration,
    since: Instant,
    packets: u64,
}

impl Gathering {
    /// Waits are never longer than `most`; 0 is never to wait.
    pub fn new(most: Duration, now: Instant) -> Self {
        Gathering { most, wait: Duration::ZERO, since: now, packets: 0 }
    }

    /// How long to wait after a batch that was answered by `now`.
    pub fn after(&mut self, batch: u64, now: Instant) -> Duration {
        self.packets += batch;
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= WINDOW {
            let rate = self.packets as f64 / elapsed.as_secs_f64();
            self.wait = match rate >= MIN_RATE {
                true => Duration::from_secs_f64(GOAL / rate).min(self.most),
                false => Duration::ZERO,
            };
            (self.since, self.packets) = (now, 0);
        }
        if batch as f64 >= GOAL { Duration::ZERO } else { self.wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_micros(100);

    /// The wait that a steady stream of such batches settles at.
    fn wait_at(batch: u64, every: Duration, most: Duration) -> Duration {
        let start = Instant::now();
        let mut gathering = Gathering::new(most, start);
        (1..=10_000).map(|n| gathering.after(batch, start + every * n)).last().unwrap()
    }

    #[test]
    fn no_wait_while_little_comes() {
        assert_eq!(wait_at(1, Duration::from_micros(25), MOST), Duration::ZERO); // 40,000/s
        assert_eq!(wait_at(0, Duration::from_millis(100), MOST), Duration::ZERO);
    }

    #[test]
    fn a_wait_gathers_what_a_batch_should_hold_and_has_an_end() {
        let at_80_000 = wait_at(8, Duration::from_micros(100), MOST);
        assert_eq!(at_80_000, MOST);
        let at_800_000 = wait_at(16, Duration::from_micros(20), MOST);
        assert!((35..=45).contains(&at_800_000.as_micros()), "{at_800_000:?}");
        assert_eq!(wait_at(8, Duration::from_micros(100), Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn no_wait_where_more_is_there_already() {
        assert_eq!(wait_at(128, Duration::from_micros(300), MOST), Duration::ZERO);
    }

    #[test]
    fn it_ends_with_the_load() {
        let start = Instant::now();
        let mut gathering = Gathering::new(MOST, start);
        let busy = start + WINDOW;
        assert_eq!(gathering.after(400, busy), Duration::ZERO, "a batch beyond the goal");
        assert_eq!(gathering.after(8, busy), MOST);
        assert_eq!(gathering.after(1, busy + Duration::from_millis(100)), Duration::ZERO);
    }
}
