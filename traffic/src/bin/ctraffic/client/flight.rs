//! The packets of a connection that are under way.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub struct Flight {
    /// The number of the next packet.
    next: u64,
    waiting: VecDeque<(u64, Instant)>,
    /// The youngest of those whose answer is no longer waited for.
    given_up: VecDeque<u64>,
    /// One more than the highest number that was answered.
    answered_below: u64,
}

/// What an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    InTime {
        after: Duration,
        is_reordered: bool,
    },
    /// To a packet that was given up already.
    Late {
        is_reordered: bool,
    },
    /// To a packet that was answered before, or was given up long ago.
    Duplicate,
    /// To a packet that was never sent.
    Unknown,
}

/// Packets remembered after they were given up.
const REMEMBERED: usize = 64;

impl Flight {
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The number of the packet that is sent now.
    pub fn depart(&mut self, now: Instant) -> u64 {
        let number = self.next;
        self.next += 1;
        self.waiting.push_back((number, now));
        number
    }

    /// The number of the oldest packet that is waited for.
    pub fn oldest(&self) -> Option<u64> {
        self.waiting.front().map(|(number, _)| *number)
    }

    /// The number of the packet that was sent last.
    pub fn newest(&self) -> Option<u64> {
        self.next.checked_sub(1)
    }

    pub fn is_waiting_for(&self, number: u64) -> bool {
        self.waiting.iter().any(|(waiting, _)| *waiting == number)
    }

    pub fn answer(&mut self, number: u64, now: Instant) -> Answer {
        if number >= self.next {
            return Answer::Unknown;
        }
        let is_reordered = number < self.answered_below;
        let answer = if let Some(place) = self.waiting.iter().position(|(n, _)| *n == number) {
            let sent = self.waiting.remove(place).map_or(now, |(_, sent)| sent);
            Answer::InTime { after: now.saturating_duration_since(sent), is_reordered }
        } else if let Some(place) = self.given_up.iter().position(|n| *n == number) {
            self.given_up.remove(place);
            Answer::Late { is_reordered }
        } else {
            Answer::Duplicate
        };
        self.answered_below = self.answered_below.max(number + 1);
        answer
    }

    /// Does not wait for this packet any longer; `false` if it was answered.
    pub fn give_up(&mut self, number: u64) -> bool {
        let Some(place) = self.waiting.iter().position(|(n, _)| *n == number) else {
            return false;
        };
        self.waiting.remove(place);
        if self.given_up.len() == REMEMBERED {
            self.given_up.pop_front();
        }
        self.given_up.push_back(number);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(millis: u64) -> Answer {
        Answer::InTime { after: Duration::from_millis(millis), is_reordered: false }
    }

    #[test]
    fn answers_in_order() {
        let (mut flight, begin) = (Flight::default(), Instant::now());
        for number in 0..3 {
            assert_eq!(flight.depart(begin), number);
        }
        for number in 0..3 {
            assert_eq!(flight.oldest(), Some(number));
            let now = begin + Duration::from_millis(number);
            assert_eq!(flight.answer(number, now), after(number));
        }
        assert_eq!(flight.len(), 0);
        assert_eq!(flight.answer(3, begin), Answer::Unknown);
    }

    #[test]
    fn an_overtaken_answer_is_reordered() {
        let (mut flight, now) = (Flight::default(), Instant::now());
        flight.depart(now);
        flight.depart(now);
        assert_eq!(flight.answer(1, now), after(0));
        let reordered = Answer::InTime { after: Duration::ZERO, is_reordered: true };
        assert_eq!(flight.answer(0, now), reordered);
        assert_eq!(flight.answer(0, now), Answer::Duplicate);
    }

    #[test]
    fn an_answer_after_the_limit_is_late_and_counts_once() {
        let (mut flight, now) = (Flight::default(), Instant::now());
        flight.depart(now);
        assert!(flight.give_up(0));
        assert!(!flight.give_up(0));
        assert_eq!(flight.len(), 0);
        flight.depart(now);
        assert_eq!(flight.answer(0, now), Answer::Late { is_reordered: false });
        assert_eq!(flight.answer(0, now), Answer::Duplicate);
        assert_eq!(flight.answer(1, now), after(0));
    }

    #[test]
    fn only_some_are_remembered() {
        let (mut flight, now) = (Flight::default(), Instant::now());
        for _ in 0..=REMEMBERED {
            let number = flight.depart(now);
            flight.give_up(number);
        }
        assert_eq!(flight.answer(0, now), Answer::Duplicate);
        assert_eq!(flight.answer(1, now), Answer::Late { is_reordered: false });
    }
}
