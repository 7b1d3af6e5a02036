//! Frames that are on their way for some time: delay, and what a slow line lets through.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::chance::{Chance, Random};
use crate::counters::Counters;
use crate::frame::Frame;
use crate::room::Room;

/// How long each frame takes.
#[derive(Clone, Debug)]
pub enum Pace {
    Delay {
        time: Duration,
        /// Up to so much more or less, evenly.
        jitter: Duration,
        /// Those that go at once, before all others.
        hurry: Option<Chance>,
    },
    /// Bits a second.
    Rate(u64),
}

/// Frames that wait, in the order in which they are due.
pub struct Line {
    pace: Pace,
    waiting: BinaryHeap<Reverse<Waiting>>,
    /// When all that came before is through.
    free_at: Duration,
    number: u64,
}

struct Waiting {
    due: Duration,
    /// Frames that are due at the same time keep their order.
    number: u64,
    frame: Frame,
}

impl Line {
    pub fn new(pace: Pace) -> Self {
        Self { pace, waiting: BinaryHeap::new(), free_at: Duration::ZERO, number: 0 }
    }

    /// A frame that goes on at once, or none.
    pub fn put(
        &mut self,
        frame: Frame,
        now: Duration,
        random: &mut Random,
        room: &mut Room,
        counters: &mut Counters,
    ) -> Option<Frame> {
        let due = match &mut self.pace {
            Pace::Delay { time, jitter, hurry } => {
                if hurry.as_mut().is_some_and(|hurry| hurry.strikes(random)) {
                    counters.hurried += 1;
                    return Some(frame);
                }
                let spread = u64::try_from(2 * jitter.as_nanos()).unwrap_or(u64::MAX - 1);
                let more = Duration::from_nanos(random.below(spread + 1));
                now + (*time + more).saturating_sub(*jitter)
            }
            Pace::Rate(rate) => {
                let bits = 8 * frame.bytes.len() as u128;
                let nanoseconds = bits * 1_000_000_000 / u128::from(*rate);
                let time = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
                self.free_at = self.free_at.max(now).saturating_add(time);
                self.free_at
            }
        };
        if !room.take(frame.bytes.len()) {
            counters.dropped_full += 1;
            return None;
        }
        counters.delayed += 1;
        self.waiting.push(Reverse(Waiting { due, number: self.number, frame }));
        self.number += 1;
        None
    }

    pub fn next_due(&self) -> Option<Duration> {
        self.waiting.peek().map(|Reverse(first)| first.due)
    }

    pub fn release(&mut self, now: Duration, room: &mut Room) -> Vec<Frame> {
        let mut released = Vec::new();
        while self.next_due().is_some_and(|due| due <= now) {
            let Some(Reverse(Waiting { frame, .. })) = self.waiting.pop() else { break };
            room.give(frame.bytes.len());
            released.push(frame);
        }
        released
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}
