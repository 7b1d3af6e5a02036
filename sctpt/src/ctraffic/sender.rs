//! The thread that sends the messages of all clients, each at its time.
//!
//! Nobody waits for an answer or for room. What cannot be sent until the next message of its client is due is
//! dropped, and so is all that was due more than [`LATE`] ago: after a pause there is no burst.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use sctp_stack::{Association, Sent};
use traffic::pace::Pace;

use super::{Run, Settings};
use crate::log;
use crate::message::{Template, Time};
use crate::stats::figures::Counter;

/// An association to send on.
pub struct Session {
    pub association: Arc<dyn Association>,
    pub id: u64,
    /// Numbers given to messages, of which all but perhaps the last were sent.
    pub numbered: AtomicU64,
    /// Nothing is to be sent on it any more.
    pub is_over: AtomicBool,
}

pub enum Order {
    /// The client has an association.
    Up {
        client: u32,
        id: u64,
        /// Its client alone keeps it: with it goes the association's port, which the next one may need.
        session: Weak<Session>,
    },
    /// The client has ended.
    Gone {
        client: u32,
    },
    Stop,
}

/// All clients with the times of their next messages.
pub struct Schedule<'a> {
    run: &'a Run<'a>,
    clients: Vec<Option<Client>>,
    due: BinaryHeap<Reverse<(Instant, u32)>>,
}

struct Client {
    session: Weak<Session>,
    template: Template,
    pace: Pace,
    /// Whether there was no room for the message that is due.
    is_pending: bool,
    /// How often it was so before.
    blocks: u64,
}

/// What is late by no more than this is still sent.
const LATE: Duration = Duration::from_millis(10);
/// How soon it is tried again when there was no room.
const RETRY: Duration = Duration::from_millis(10);

impl<'a> Schedule<'a> {
    pub fn new(run: &'a Run<'a>) -> Self {
        Schedule { run, clients: Vec::new(), due: BinaryHeap::new() }
    }

    /// Sends until it is told to stop.
    pub fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let order = match self.due.peek() {
                Some(Reverse((due, _))) => {
                    orders.recv_timeout(due.saturating_duration_since(Instant::now()))
                }
                None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match order {
                Ok(Order::Up { client, id, session }) => self.up(client, id, session),
                Ok(Order::Gone { client }) => self.gone(client),
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            while let Some(&Reverse((due, number))) = self.due.peek()
                && due <= Instant::now()
            {
                self.due.pop();
                if let Some(Some(client)) = self.clients.get_mut(index(number)) {
                    let next = client.turn(self.run, number);
                    self.plan(next, number);
                }
            }
        }
        let end = Instant::now().min(self.run.end);
        let left = self.clients.iter_mut().flatten().map(|client| client.left(end));
        self.run.add(Counter::Dropped, left.sum());
    }

    /// What would be due behind the end is not.
    fn plan(&mut self, due: Instant, number: u32) {
        if due < self.run.end {
            self.due.push(Reverse((due, number)));
        }
    }

    fn up(&mut self, number: u32, id: u64, session: Weak<Session>) {
        if self.clients.len() <= index(number) {
            self.clients.resize_with(index(number) + 1, || None);
        }
        let template = Template::new(self.run.settings.size, id);
        match &mut self.clients[index(number)] {
            // It had one before; its times go on.
            Some(client) => (client.session, client.template) = (session, template),
            none => {
                let pace = pace(self.run.settings, self.run.begin, Instant::now(), number);
                *none = Some(Client { session, template, pace, is_pending: false, blocks: 0 });
                self.plan(pace.due(), number);
            }
        }
    }

    fn gone(&mut self, number: u32) {
        if let Some(client) = self.clients.get_mut(index(number)).and_then(Option::take) {
            self.run.add(Counter::Dropped, client.is_pending.into());
        }
    }
}

impl Client {
    /// Does what is due, and says when there is something to do next.
    fn turn(&mut self, run: &Run<'_>, number: u32) -> Instant {
        let now = Instant::now().min(run.end);
        if now >= self.pace.due() {
            let former = u64::from(self.is_pending);
            let overdue = match now.duration_since(self.pace.due()) <= LATE {
                true => {
                    self.pace.advance();
                    0
                }
                false => self.pace.take(now),
            };
            run.add(Counter::Dropped, former + overdue);
        }
        self.is_pending = !self.send(run, number);
        match self.is_pending {
            true => self.pace.due().min(now + RETRY),
            false => self.pace.due(),
        }
    }

    /// What was due before the end and is not sent any more.
    fn left(&mut self, end: Instant) -> u64 {
        let pending = u64::from(self.is_pending);
        match self.pace.due() < end {
            true => pending + 1 + self.pace.take(end),
            false => pending,
        }
    }

    /// Tells of the first time that there is no room. At a high rate there are many more.
    fn tell(&self, what: std::fmt::Arguments<'_>) {
        match self.blocks {
            0 => log::warning(what),
            _ => log::debug(what),
        }
    }

    /// Whether there is nothing more to try for this message.
    fn send(&mut self, run: &Run<'_>, number: u32) -> bool {
        let session = self.session.upgrade();
        let is_there = |session: &Arc<Session>| !session.is_over.load(Ordering::Relaxed);
        let Some(session) = session.filter(is_there) else {
            run.add(Counter::Dropped, 1);
            return true;
        };
        // The answer may be there before `send` has come back, so the number is given first.
        let sequence = session.numbered.fetch_add(1, Ordering::AcqRel);
        let message = self.template.stamp(sequence, Time::now());
        match session.association.send(message, 0) {
            Ok(Sent::Taken) => {
                run.add(Counter::Sent, 1);
                if self.is_pending {
                    self.tell(format_args!("Client {number}: Send is un-blocked"));
                    self.blocks += 1;
                }
                true
            }
            Ok(Sent::Blocked) => {
                session.numbered.store(sequence, Ordering::Release);
                if !self.is_pending {
                    self.tell(format_args!("Client {number}: Send is blocked"));
                }
                false
            }
            Err(error) => {
                session.numbered.store(sequence, Ordering::Release);
                run.add(Counter::Dropped, 1);
                // The receiver learns what became of the association.
                log::debug(format_args!("Client {number}: send: {error}"));
                true
            }
        }
    }
}

/// The times of a client that is connected at `now`: on the grid of its run, so that all clients together send
/// evenly. If its first time would come after the end it is one before that.
fn pace(settings: &Settings, begin: Instant, now: Instant, number: u32) -> Pace {
    let rate = settings.rate / f64::from(settings.clients);
    let phase = (f64::from(number) + 0.5) / f64::from(settings.clients);
    let mut pace = Pace::with_phase(begin, rate, phase);
    if pace.due() < now {
        // The first time that has not passed.
        pace.take(now);
    }
    let left = (begin + settings.duration).saturating_duration_since(now);
    match pace.due() < now + left {
        true => pace,
        false => Pace::new(now + left.mul_f64(phase * 0.8), rate),
    }
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctraffic::tests::settings;

    #[test]
    fn clients_together_send_evenly() {
        let begin = Instant::now();
        let duration = Duration::from_secs(10);
        let settings = Settings { clients: 10, rate: 100.0, duration, ..settings() };
        let mut due: Vec<_> =
            (0..10).map(|number| pace(&settings, begin, begin, number).due() - begin).collect();
        due.sort();
        for (index, due) in due.iter().enumerate() {
            let expected = 5.0 + 10.0 * f64::from(u32::try_from(index).unwrap());
            assert!((due.as_secs_f64() * 1e3 - expected).abs() < 1e-3, "{due:?}");
        }
        // One that comes later has its place among them.
        let late = pace(&settings, begin, begin + Duration::from_millis(1_000), 3).due() - begin;
        assert!((late.as_secs_f64() - 1.035).abs() < 1e-6, "{late:?}");
    }

    #[test]
    fn every_client_has_a_time_before_the_end() {
        let begin = Instant::now();
        let settings =
            Settings { clients: 1_000, rate: 1.0, duration: Duration::from_secs(2), ..settings() };
        for number in 0..1_000 {
            for connected in [0, 500, 1_999] {
                let now = begin + Duration::from_millis(connected);
                let due = pace(&settings, begin, now, number).due();
                assert!(due >= now && due < begin + settings.duration, "{number} {connected}");
            }
        }
    }
}
