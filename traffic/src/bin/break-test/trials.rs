//! Trials: things that were tried at known times, and what became of them.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The time in which trials are made.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    pub begin: Instant,
    limit: Instant,
    /// When a signal ended it.
    stopped: &'a OnceLock<Instant>,
}

/// How long answers are waited for after the end.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Trials in the order in which they were made. Times are from the begin.
#[derive(Debug, Default)]
pub struct Trials(Vec<Trial>);

#[derive(Debug)]
struct Trial {
    time: Duration,
    answer: Option<Duration>,
}

/// A time in which nothing went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Break {
    pub from: Duration,
    pub to: Duration,
}

/// What a probe found.
#[derive(Debug, Default)]
pub struct Outcome {
    pub sent: u64,
    pub lost: u64,
    pub breaks: Vec<Break>,
    /// Only of TCP.
    pub retransmits: Option<u64>,
    /// Only of SCTP: associations after the first.
    pub reconnects: Option<u64>,
    /// Why it could not work at all.
    pub unavailable: Option<String>,
    /// What went wrong, and how often.
    pub causes: BTreeMap<String, u64>,
}

impl<'a> Run<'a> {
    pub fn for_time(time: Duration, stopped: &'a OnceLock<Instant>) -> Self {
        let begin = Instant::now();
        Self { begin, limit: begin + time, stopped }
    }

    pub fn limit(&self) -> Instant {
        self.limit
    }

    pub fn end(&self) -> Instant {
        self.stopped.get().copied().unwrap_or(self.limit)
    }

    pub fn stop(&self) {
        // Only the first time counts.
        let _ = self.stopped.set(Instant::now());
    }

    pub fn time(&self) -> Duration {
        self.end().saturating_duration_since(self.begin)
    }

    pub fn since_begin(&self, time: Instant) -> Duration {
        time.saturating_duration_since(self.begin)
    }
}

impl Break {
    pub fn length(&self) -> Duration {
        self.to.saturating_sub(self.from)
    }
}

impl Trials {
    /// The number of the trial that is made now.
    pub fn begin(&mut self, time: Duration) -> u64 {
        self.0.push(Trial { time, answer: None });
        self.0.len() as u64 - 1
    }

    /// Only the first answer to a trial counts.
    pub fn answer(&mut self, number: u64, time: Duration) {
        let trial = usize::try_from(number).ok().and_then(|number| self.0.get_mut(number));
        if let Some(trial) = trial {
            trial.answer.get_or_insert(time);
        }
    }

    pub fn all_answered(&self) -> bool {
        self.0.iter().rev().all(|trial| trial.answer.is_some())
    }

    /// What became of them: a break is from the first trial without an answer
    /// to the next one with an answer, or to the end.
    pub fn outcome(&self, end: Duration) -> Outcome {
        let lost = self.0.iter().filter(|trial| trial.answer.is_none()).count();
        let mut breaks = Vec::new();
        let mut begun = None;
        for trial in &self.0 {
            match (trial.answer, begun) {
                (None, None) => begun = Some(trial.time),
                (Some(_), Some(from)) => {
                    breaks.push(Break { from, to: trial.time });
                    begun = None;
                }
                _ => {}
            }
        }
        breaks.extend(begun.map(|from| Break { from, to: end }));
        Outcome { sent: self.0.len() as u64, lost: lost as u64, breaks, ..Outcome::default() }
    }
}

impl Outcome {
    pub fn unavailable(why: impl Into<String>) -> Self {
        Self { unavailable: Some(why.into()), ..Self::default() }
    }

    pub fn longest(&self) -> Option<Break> {
        self.breaks.iter().copied().max_by_key(Break::length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn outcome(answered: &[bool]) -> Outcome {
        let mut trials = Trials::default();
        for (number, answered) in (0..).zip(answered) {
            assert_eq!(trials.begin(millis(10 * number)), number);
            if *answered {
                trials.answer(number, millis(10 * number + 1));
            }
        }
        assert_eq!(trials.all_answered(), answered.iter().all(|answered| *answered));
        trials.outcome(millis(10 * answered.len() as u64))
    }

    #[test]
    fn a_break_lasts_from_a_lost_trial_to_the_next_answered_one() {
        let found = outcome(&[true, false, false, true, false, true]);
        assert_eq!((found.sent, found.lost), (6, 3));
        let longest = Break { from: millis(10), to: millis(30) };
        assert_eq!(found.breaks, [longest, Break { from: millis(40), to: millis(50) }]);
        assert_eq!(found.longest(), Some(longest));
    }

    #[test]
    fn a_break_may_last_to_the_end_or_all_the_time() {
        assert_eq!(outcome(&[true, false]).breaks, [Break { from: millis(10), to: millis(20) }]);
        assert_eq!(outcome(&[false; 3]).breaks, [Break { from: millis(0), to: millis(30) }]);
        assert_eq!(outcome(&[true; 3]).longest(), None);
        assert_eq!(outcome(&[]).longest(), None);
    }

    #[test]
    fn answers_to_nothing_are_ignored() {
        let mut trials = Trials::default();
        trials.answer(0, millis(1));
        trials.begin(millis(1));
        trials.answer(u64::MAX, millis(2));
        assert_eq!(trials.outcome(millis(5)).lost, 1);
    }
}
