//! The pace of a sender: packets due at even intervals.
//!
//! The times are counted from the first one, so no error adds up. Who is late
//! either catches up ([`Pace::advance`]) or skips what is overdue
//! ([`Pace::take`]); what is skipped is what a tool reports as dropped.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
pub struct Pace {
    first: Instant,
    /// Nanoseconds from one packet to the next, with their fraction.
    interval: f64,
    /// The number of the next packet.
    next: u64,
}

/// What is further away than this is never waited for.
const FAR_FUTURE: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

impl Pace {
    /// The first packet at `first`, then `rate` packets a second.
    pub fn new(first: Instant, rate: f64) -> Self {
        Self { first, interval: 1e9 / rate, next: 0 }
    }

    /// The first packet after a part of an interval, `phase` from 0 to 1. Many
    /// senders with phases of their own do not send all at once.
    pub fn with_phase(begin: Instant, rate: f64, phase: f64) -> Self {
        let interval = 1e9 / rate;
        Self { first: later(begin, interval * phase), interval, next: 0 }
    }

    /// When the next packet is due.
    pub fn due(&self) -> Instant {
        later(self.first, self.interval * as_float(self.next))
    }

    /// Takes the next packet alone: who is late catches up.
    pub fn advance(&mut self) {
        self.next += 1;
    }

    /// Takes the next packet, and skips those that were due longer ago than `grain`; returns how many these
    /// are. For those whose clock wakes them up to a grain late, which must not cost packets.
    pub fn take_within(&mut self, now: Instant, grain: Duration) -> u64 {
        match now.checked_sub(grain) {
            Some(then) if self.due() <= then => self.take(then),
            _ => {
                self.advance();
                0
            }
        }
    }

    /// Takes the next packet and all others that are due; returns how many
    /// others these are. Not to be called before the packet is due.
    pub fn take(&mut self, now: Instant) -> u64 {
        let elapsed = as_float_nanoseconds(now.saturating_duration_since(self.first));
        // The first one is number 0, so that many are due and one more.
        let due = whole(elapsed / self.interval).saturating_add(1);
        let taken = self.next + 1;
        self.next = due.max(taken);
        self.next - taken
    }
}

fn later(begin: Instant, nanoseconds: f64) -> Instant {
    let wait = Duration::try_from_secs_f64(nanoseconds / 1e9).unwrap_or(FAR_FUTURE);
    begin.checked_add(wait.min(FAR_FUTURE)).unwrap_or(begin)
}

#[expect(clippy::cast_precision_loss, reason = "2^53 packets or nanoseconds are not reached")]
fn as_float(number: u64) -> f64 {
    number as f64
}

fn as_float_nanoseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "never negative, and held at the largest number"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(rate: f64) -> (Pace, Instant) {
        let begin = Instant::now();
        (Pace::new(begin, rate), begin)
    }

    #[test]
    fn packets_are_due_at_even_intervals() {
        let (mut pace, begin) = pace(10.0);
        for number in 0..100 {
            assert_eq!(pace.due(), begin + Duration::from_millis(100 * number));
            assert_eq!(pace.take(pace.due()), 0);
        }
        pace.advance();
        assert_eq!(pace.due(), begin + Duration::from_millis(10_100));
    }

    #[test]
    fn no_error_adds_up_over_an_hour() {
        // A third of a nanosecond more than fits into whole ones.
        let (mut pace, begin) = pace(300_000.0);
        pace.next = 300_000 * 3_600;
        assert_eq!(pace.due(), begin + Duration::from_secs(3_600));
        pace.take(pace.due());
        assert_eq!(pace.due(), begin + Duration::from_secs(3_600) + Duration::from_nanos(3_333));
    }

    #[test]
    fn what_is_overdue_is_skipped_and_counted() {
        let (mut pace, begin) = pace(10.0);
        assert_eq!(pace.take(begin + Duration::from_millis(99)), 0);
        // Number 1 is sent, 2 to 5 are overdue.
        assert_eq!(pace.take(begin + Duration::from_millis(550)), 4);
        // The phase is kept.
        assert_eq!(pace.due(), begin + Duration::from_millis(600));
    }

    #[test]
    fn a_late_clock_costs_nothing_and_a_pause_does() {
        let (mut pace, begin) = pace(10_000.0);
        let (grain, now) = (Duration::from_millis(2), begin + Duration::from_millis(1));
        for number in 0..10 {
            assert_eq!(pace.due(), begin + Duration::from_micros(100 * number));
            assert_eq!(pace.take_within(now, grain), 0);
        }
        // Number 10 is sent; 11 to 30 are 2 ms late and more, the rest is caught up with.
        assert_eq!(pace.take_within(now + Duration::from_millis(4), grain), 20);
        assert_eq!(pace.due(), begin + Duration::from_micros(3_100));
    }

    #[test]
    fn a_phase_moves_all_packets() {
        let begin = Instant::now();
        let pace = Pace::with_phase(begin, 10.0, 0.25);
        assert_eq!(pace.due(), begin + Duration::from_millis(25));
    }

    #[test]
    fn a_hardly_moving_pace_is_far_in_the_future() {
        let (mut pace, begin) = pace(1e-300);
        assert_eq!(pace.take(begin), 0);
        assert!(pace.due() > begin + Duration::from_secs(3_600 * 24 * 365));
    }
}
