//! The client: connections that send at an even pace and wait for the answers.
//!
//! One thread drives all of them, so nothing is counted twice or half. A
//! connection sends its next packet when that is due and fewer than `window`
//! others wait for answers. What is overdue by then is dropped and counted.

mod connect;
mod connection;
mod exchange;
mod flight;
mod outcome;
mod record;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::hash::RandomState;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, anyhow};
use traffic::events::{Events, Interest, TURN};
use traffic::process;
use traffic::sources::Sources;
use traffic::stats::{Sample, Times, Totals};

use self::connection::{Connection, Heard, Stage};
use self::outcome::Outcome;
use self::record::Record;
use crate::progress::{Monitor, Progress};

pub struct Settings {
    pub target: SocketAddr,
    pub udp: bool,
    pub connections: NonZeroU32,
    /// KB/s of all connections together.
    pub rate: f64,
    pub packet_size: usize,
    /// Packets of a connection that may wait for answers.
    pub window: usize,
    pub time: Duration,
    /// Replace failed connections.
    pub reconnect: bool,
    /// Connections that are made at most.
    pub slots: u64,
    pub monitor: Monitor,
    pub sources: Sources,
    pub seed: u64,
}

/// Runs until the time is over, or a signal comes.
pub fn run(settings: &Settings) -> anyhow::Result<Outcome> {
    let signals = process::termination_signals().context("watch for signals")?;
    let mut client = Client::start(settings)?;
    client.events.add(&signals, Interest::EPOLLIN, SIGNALS).context("watch for signals")?;
    client.generate(&signals)?;
    Ok(client.into_outcome())
}

const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// As much as is read at a time.
const BUFFER: usize = 1 << 16;

/// Descriptors that are no connections: the standard streams, epoll, signals,
/// and what the libraries may open.
const RESERVED_FILES: u64 = 16;

/// Token of the signal descriptor; the others are numbers of slots.
const SIGNALS: u64 = u64::MAX;

struct Client<'a> {
    settings: &'a Settings,
    events: Events,
    started: SystemTime,
    begin: Instant,
    /// When sending ends.
    deadline: Instant,
    slots: Vec<Slot>,
    active: u64,
    connecting: u64,
    /// When connections have something to do: connect, or send.
    wakes: BinaryHeap<Reverse<(Instant, u64)>>,
    /// Connects and answers that are waited for, oldest first.
    connect_limits: VecDeque<(Instant, u64, u32)>,
    answer_limits: VecDeque<(Instant, u64, u64)>,
    next_sample: Instant,
    totals: Totals,
    reply_times: Times,
    samples: Vec<Sample>,
    progress: Progress,
    causes: BTreeMap<String, u64>,
    stopped_by: Option<anyhow::Error>,
    random: RandomState,
    packet: Vec<u8>,
    buffer: Vec<u8>,
    heard: Vec<Heard>,
}

/// A place for one connection of the run.
struct Slot {
    record: Record,
    /// Connects that were tried.
    attempts: u32,
    /// `None` before and between connects, and when it is over.
    connection: Option<Connection>,
}

impl<'a> Client<'a> {
    fn start(settings: &'a Settings) -> anyhow::Result<Self> {
        let limit = process::raise_open_file_limit().context("raise the limit of open files")?;
        let connections = settings.connections.get();
        if u64::from(connections) + RESERVED_FILES > limit {
            anyhow::bail!(
                "open {connections} connections: only {limit} files may be open (ulimit -Hn)"
            );
        }
        let events = Events::new().context("create an epoll")?;
        let begin = Instant::now();
        let deadline = begin
            .checked_add(settings.time)
            .with_context(|| format!("use timeout {:?}: too long", settings.time))?;
        let mut client = Self {
            settings,
            events,
            started: SystemTime::now(),
            begin,
            deadline,
            slots: Vec::new(),
            active: 0,
            connecting: 0,
            wakes: BinaryHeap::new(),
            connect_limits: VecDeque::new(),
            answer_limits: VecDeque::new(),
            next_sample: begin + SAMPLE_INTERVAL,
            totals: Totals::default(),
            reply_times: Times::default(),
            samples: vec![Sample::default()],
            progress: Progress::new(settings.monitor),
            causes: BTreeMap::new(),
            stopped_by: None,
            random: RandomState::new(),
            packet: vec![0; settings.packet_size],
            buffer: vec![0; BUFFER],
            heard: Vec::new(),
        };
        for _ in 0..connections {
            client.take_slot(begin);
        }
        Ok(client)
    }

    fn generate(&mut self, signals: &nix::sys::signalfd::SignalFd) -> anyhow::Result<()> {
        loop {
            let now = Instant::now();
            self.wake(now);
            self.enforce_limits(now);
            if now >= self.next_sample {
                self.sample(now);
            }
            if self.is_over(now) {
                return Ok(());
            }
            let until = self.wake_up_time(now);
            for token in self.events.wait(Some(until)).context("wait for events")? {
                match token {
                    SIGNALS => {
                        // Once for the answers that are under way, twice for none.
                        signals.read_signal().context("read a signal")?;
                        if Instant::now() >= self.deadline {
                            return Ok(());
                        }
                        self.deadline = Instant::now();
                    }
                    number => self.advance(number),
                }
            }
        }
    }

    /// Whether nothing more is sent, and no answer is waited for.
    fn is_over(&self, now: Instant) -> bool {
        let has_no_more = self.active == 0 && self.connecting == 0;
        let is_answered = self.answer_limits.is_empty() || has_no_more;
        self.stopped_by.is_some() || has_no_more || (now >= self.deadline && is_answered)
    }

    fn wake_up_time(&self, now: Instant) -> Instant {
        let wake = match now < self.deadline {
            true => self.wakes.peek().map(|Reverse((time, _))| *time),
            false => None,
        };
        let connect = self.connect_limits.front().map(|(time, ..)| *time);
        let answer = self.answer_limits.front().map(|(time, ..)| *time);
        let end = (now < self.deadline).then_some(self.deadline);
        [wake, connect, answer, end].into_iter().flatten().fold(self.next_sample, Instant::min)
    }

    fn take_slot(&mut self, now: Instant) {
        let number = self.slots.len() as u64;
        if number >= self.settings.slots {
            self.stopped_by = Some(anyhow!("Too many re-connects: {}", self.settings.slots));
            return;
        }
        self.slots.push(Slot {
            record: Record::begun(now.saturating_duration_since(self.begin)),
            attempts: 0,
            connection: None,
        });
        self.connecting += 1;
        self.wakes.push(Reverse((now, number)));
    }

    fn slot(&mut self, number: u64) -> &mut Slot {
        // Tokens and times are made of numbers of slots alone, and no slot is
        // ever removed.
        &mut self.slots[usize::try_from(number).expect("the number of a slot")]
    }

    /// Does what is due, in bounded steps: events have to be looked at in
    /// between.
    fn wake(&mut self, now: Instant) {
        if now >= self.deadline {
            return;
        }
        for _ in 0..TURN {
            let Some(&Reverse((time, number))) = self.wakes.peek() else {
                return;
            };
            if time > now {
                return;
            }
            self.wakes.pop();
            let slot = self.slot(number);
            match &slot.connection {
                Some(connection) if matches!(connection.stage, Stage::Open { .. }) => {
                    self.send(number, now);
                }
                Some(_) => {}
                None if slot.record.is_over() => {}
                None => self.connect(number, now),
            }
        }
    }

    /// Changes what is waited for on the socket if need be.
    fn watch(&mut self, number: u64, now: Instant) {
        let index = usize::try_from(number).expect("the number of a slot");
        let Some(connection) = &mut self.slots[index].connection else {
            return;
        };
        let interest = connection.interest();
        if interest != connection.watched {
            connection.watched = interest;
            if let Err(error) = self.events.change(connection.socket(), interest, number) {
                self.fail(number, &format!("watch: {error}"), now);
            }
        }
    }

    fn note(&mut self, cause: &str) {
        match self.causes.get_mut(cause) {
            Some(count) => *count += 1,
            None => drop(self.causes.insert(cause.to_owned(), 1)),
        }
    }
}
