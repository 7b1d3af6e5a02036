//! Holding the fragments of a datagram until all are there, and letting them go in another order.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use crate::chance::{Chance, Random};
use crate::counters::Counters;
use crate::frame::{Datagram, Frame};
use crate::room::Room;

/// The order in which fragments go.
#[derive(Clone, Debug)]
pub enum Order {
    /// The last that came goes first; only those datagrams that the chance strikes.
    Reversed(Chance),
    /// Any; the same.
    Shuffled(Chance),
    /// Those of so many datagrams in turn, each in its own order.
    Interleaved(usize),
}

/// What waits for the rest of its datagrams.
pub struct Datagrams {
    order: Order,
    /// How long a datagram is waited for.
    patience: Duration,
    /// By the order in which they were first seen.
    held: BTreeMap<u64, Gathered>,
    numbers: BTreeMap<Datagram, u64>,
    next: u64,
    /// Datagrams that the chance has spared, the last ones.
    spared: VecDeque<Datagram>,
}

#[derive(Default)]
struct Gathered {
    /// None for a whole packet among them.
    datagram: Option<Datagram>,
    deadline: Duration,
    frames: VecDeque<Frame>,
    parts: Vec<Range<u32>>,
    /// Known when the last fragment is there.
    end: Option<u32>,
    is_complete: bool,
}

/// Far more than are on their way at a time.
const SPARED: usize = 256;

impl Datagrams {
    pub fn new(order: Order, patience: Duration) -> Self {
        Self {
            order,
            patience,
            held: BTreeMap::new(),
            numbers: BTreeMap::new(),
            next: 0,
            spared: VecDeque::new(),
        }
    }

    /// Takes a frame; returns what goes on now.
    pub fn put(
        &mut self,
        frame: Frame,
        now: Duration,
        random: &mut Random,
        room: &mut Room,
        counters: &mut Counters,
    ) -> Vec<Frame> {
        let Some(datagram) = frame.fragment().map(|fragment| fragment.datagram.clone()) else {
            return self.put_whole(frame, room, counters);
        };
        if !self.numbers.contains_key(&datagram) && self.spares(&datagram, random) {
            return vec![frame];
        }
        if !room.take(frame.bytes.len()) {
            counters.passed_full += 1;
            return vec![frame];
        }
        let number = *self.numbers.entry(datagram.clone()).or_insert(self.next);
        if number == self.next {
            self.next += 1;
        }
        let gathered = self.held.entry(number).or_insert_with(|| Gathered {
            datagram: Some(datagram),
            deadline: now + self.patience,
            ..Gathered::default()
        });
        gathered.add(frame);
        if !gathered.is_complete {
            return Vec::new();
        }
        match self.order {
            Order::Interleaved(count) => {
                let is_datagram = |one: &&Gathered| one.is_complete && one.datagram.is_some();
                if self.held.values().filter(is_datagram).count() < count {
                    return Vec::new();
                }
                self.let_all_go(random, room, counters)
            }
            Order::Reversed(_) | Order::Shuffled(_) => self.let_go(number, random, room, counters),
        }
    }

    /// A whole packet goes among the fragments of those that wait, if it may.
    fn put_whole(&mut self, frame: Frame, room: &mut Room, counters: &mut Counters) -> Vec<Frame> {
        let Some((_, first)) = self.held.first_key_value() else {
            return vec![frame];
        };
        if !matches!(self.order, Order::Interleaved(_)) {
            return vec![frame];
        }
        if !room.take(frame.bytes.len()) {
            counters.passed_full += 1;
            return vec![frame];
        }
        let deadline = first.deadline;
        let frames = VecDeque::from([frame]);
        let gathered = Gathered { deadline, frames, is_complete: true, ..Gathered::default() };
        self.held.insert(self.next, gathered);
        self.next += 1;
        Vec::new()
    }

    fn spares(&mut self, datagram: &Datagram, random: &mut Random) -> bool {
        let (Order::Reversed(chance) | Order::Shuffled(chance)) = &mut self.order else {
            return false;
        };
        if *chance == Chance::ALWAYS {
            return false;
        }
        if self.spared.contains(datagram) {
            return true;
        }
        if chance.strikes(random) {
            return false;
        }
        if self.spared.len() == SPARED {
            self.spared.pop_front();
        }
        self.spared.push_back(datagram.clone());
        true
    }

    pub fn next_due(&self) -> Option<Duration> {
        // All wait equally long.
        self.held.first_key_value().map(|(_, first)| first.deadline)
    }

    /// What was waited for long enough goes, though it is not complete.
    pub fn release(
        &mut self,
        now: Duration,
        random: &mut Random,
        room: &mut Room,
        counters: &mut Counters,
    ) -> Vec<Frame> {
        let mut released = Vec::new();
        while let Some((number, first)) = self.held.first_key_value()
            && first.deadline <= now
        {
            let number = *number;
            released.extend(match self.order {
                Order::Interleaved(_) => self.let_all_go(random, room, counters),
                _ => self.let_go(number, random, room, counters),
            });
        }
        released
    }

    fn let_go(
        &mut self,
        number: u64,
        random: &mut Random,
        room: &mut Room,
        counters: &mut Counters,
    ) -> Vec<Frame> {
        let Some(gathered) = self.held.remove(&number) else { return Vec::new() };
        let mut frames = Vec::from(self.forget(gathered, room, counters));
        match self.order {
            Order::Reversed(_) => frames.reverse(),
            Order::Shuffled(_) => {
                for last in (1..frames.len()).rev() {
                    frames.swap(last, random.index(last + 1));
                }
            }
            Order::Interleaved(_) => {}
        }
        frames
    }

    /// Each time one of those that have any left goes on with its next frame.
    fn let_all_go(
        &mut self,
        random: &mut Random,
        room: &mut Room,
        counters: &mut Counters,
    ) -> Vec<Frame> {
        let held = std::mem::take(&mut self.held).into_values();
        let mut queues: Vec<VecDeque<Frame>> =
            held.map(|gathered| self.forget(gathered, room, counters)).collect();
        let mut frames = Vec::new();
        while !queues.is_empty() {
            let turn = random.index(queues.len());
            frames.extend(queues[turn].pop_front());
            if queues[turn].is_empty() {
                queues.remove(turn);
            }
        }
        frames
    }

    fn forget(
        &mut self,
        gathered: Gathered,
        room: &mut Room,
        counters: &mut Counters,
    ) -> VecDeque<Frame> {
        if let Some(datagram) = &gathered.datagram {
            self.numbers.remove(datagram);
            if gathered.is_complete {
                counters.rearranged += 1;
            } else {
                counters.timed_out += 1;
            }
        }
        for frame in &gathered.frames {
            room.give(frame.bytes.len());
        }
        gathered.frames
    }
}

impl Gathered {
    fn add(&mut self, frame: Frame) {
        if let Some(fragment) = frame.fragment() {
            self.parts.push(fragment.part.clone());
            if fragment.is_last {
                self.end = Some(fragment.part.end);
            }
        }
        self.frames.push_back(frame);
        self.is_complete = self.end.is_some_and(|end| covers(&mut self.parts, end));
    }
}

/// Whether the parts together are all bytes up to `end`.
fn covers(parts: &mut [Range<u32>], end: u32) -> bool {
    parts.sort_by_key(|part| part.start);
    let covered = parts
        .iter()
        .try_fold(0, |covered: u32, part| (part.start <= covered).then_some(covered.max(part.end)));
    covered.is_some_and(|covered| covered >= end)
}
