//! The way of frames in one direction: stages, one after the other, in the order of the
//! instructions. Time is a parameter: the engine neither waits nor looks at a clock.

use std::collections::VecDeque;
use std::time::Duration;

use crate::chance::{Chance, Random};
use crate::corrupt::{Harm, corrupt};
use crate::counters::Counters;
use crate::datagrams::Datagrams;
use crate::frame::{Datagram, Frame};
use crate::instructions::{Instructions, Selector, Treatment};
use crate::line::Line;
use crate::room::{Amount, Room};

pub struct Lane {
    stages: Vec<Stage>,
    shared: Shared,
}

/// What all stages use.
struct Shared {
    random: Random,
    room: Room,
    counters: Counters,
    /// Datagrams of which something was lost or corrupted, the last ones.
    hit: VecDeque<Datagram>,
}

struct Stage {
    selector: Selector,
    work: Work,
}

enum Work {
    Lose(Chance),
    Duplicate(Chance),
    Corrupt(Chance, Harm),
    Line(Line),
    Datagrams(Datagrams),
}

/// Far more than are on their way at a time.
const REMEMBERED_HITS: usize = 256;

impl Lane {
    pub fn new(instructions: &Instructions, seed: u64, most_bytes: usize) -> Self {
        let stage = |(selector, treatment): &(Selector, Treatment)| {
            let work = match treatment.clone() {
                Treatment::Lose(chance) => Work::Lose(chance),
                Treatment::Duplicate(chance) => Work::Duplicate(chance),
                Treatment::Corrupt(chance, harm) => Work::Corrupt(chance, harm),
                Treatment::Line(pace) => Work::Line(Line::new(pace)),
                Treatment::Arrange(order) => {
                    Work::Datagrams(Datagrams::new(order, instructions.patience))
                }
            };
            Stage { selector: *selector, work }
        };
        let most = Amount { frames: instructions.limit, bytes: most_bytes };
        Self {
            stages: instructions.treatments.iter().map(stage).collect(),
            shared: Shared {
                random: Random::new(seed),
                room: Room::new(most),
                counters: Counters::default(),
                hit: VecDeque::new(),
            },
        }
    }

    /// Takes a frame; returns what goes on now.
    pub fn put(&mut self, frame: Frame, now: Duration) -> Vec<Frame> {
        self.shared.counters.received += 1;
        self.shared.counters.fragments += u64::from(frame.fragment().is_some());
        self.pass(0, vec![frame], now)
    }

    /// When something that is held is to go on.
    pub fn next_due(&self) -> Option<Duration> {
        self.stages.iter().filter_map(Stage::next_due).min()
    }

    /// What goes on because its time has come.
    pub fn release(&mut self, now: Duration) -> Vec<Frame> {
        let mut released = Vec::new();
        for number in 0..self.stages.len() {
            let frames = self.stages[number].release(now, &mut self.shared);
            released.extend(self.pass(number + 1, frames, now));
        }
        released
    }

    fn pass(&mut self, first: usize, mut frames: Vec<Frame>, now: Duration) -> Vec<Frame> {
        for stage in &mut self.stages[first..] {
            if frames.is_empty() {
                break;
            }
            let mut next = Vec::with_capacity(frames.len());
            for frame in frames {
                match stage.selector.takes(&frame) {
                    true => stage.treat(frame, now, &mut self.shared, &mut next),
                    false => next.push(frame),
                }
            }
            frames = next;
        }
        frames
    }

    pub fn count_sent(&mut self, is_sent: bool) {
        match is_sent {
            true => self.shared.counters.sent += 1,
            false => self.shared.counters.refused += 1,
        }
    }

    pub fn counters(&self) -> Counters {
        let Room { held, peak, .. } = &self.shared.room;
        Counters {
            held: held.frames as u64,
            held_bytes: held.bytes as u64,
            held_peak: peak.frames as u64,
            held_bytes_peak: peak.bytes as u64,
            ..self.shared.counters.clone()
        }
    }
}

impl Stage {
    fn treat(
        &mut self,
        mut frame: Frame,
        now: Duration,
        shared: &mut Shared,
        next: &mut Vec<Frame>,
    ) {
        let Shared { random, room, counters, .. } = shared;
        match &mut self.work {
            Work::Lose(chance) => {
                if !chance.strikes(random) {
                    next.push(frame);
                    return;
                }
                counters.lost += 1;
                shared.note_hit(&frame);
            }
            Work::Duplicate(chance) => {
                if chance.strikes(random) {
                    counters.duplicated += 1;
                    next.push(frame.clone());
                }
                next.push(frame);
            }
            Work::Corrupt(chance, harm) => {
                if chance.strikes(random) && corrupt(&mut frame, *harm, random) {
                    counters.corrupted += 1;
                    shared.note_hit(&frame);
                }
                next.push(frame);
            }
            Work::Line(line) => next.extend(line.put(frame, now, random, room, counters)),
            Work::Datagrams(datagrams) => {
                next.extend(datagrams.put(frame, now, random, room, counters));
            }
        }
    }

    fn next_due(&self) -> Option<Duration> {
        match &self.work {
            Work::Line(line) => line.next_due(),
            Work::Datagrams(datagrams) => datagrams.next_due(),
            Work::Lose(_) | Work::Duplicate(_) | Work::Corrupt(..) => None,
        }
    }

    fn release(&mut self, now: Duration, shared: &mut Shared) -> Vec<Frame> {
        let Shared { random, room, counters, .. } = shared;
        match &mut self.work {
            Work::Line(line) => line.release(now, room),
            Work::Datagrams(datagrams) => datagrams.release(now, random, room, counters),
            Work::Lose(_) | Work::Duplicate(_) | Work::Corrupt(..) => Vec::new(),
        }
    }
}

impl Shared {
    fn note_hit(&mut self, frame: &Frame) {
        if let Some(fragment) = frame.fragment() {
            if self.hit.contains(&fragment.datagram) {
                return;
            }
            if self.hit.len() == REMEMBERED_HITS {
                self.hit.pop_front();
            }
            self.hit.push_back(fragment.datagram.clone());
        }
        self.counters.hit += 1;
    }
}

#[cfg(test)]
mod tests;
