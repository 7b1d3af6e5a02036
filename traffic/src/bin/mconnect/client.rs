//! The client: many connections, each of which takes one host name.
//!
//! One thread drives all connections through epoll. At most `concurrent` of
//! them hold a *slot*, from their connect to their answer. A connection that is
//! not answered for [`SLOT_PATIENCE`] passes its slot on and goes on waiting
//! without it: the end of the run alone ends a connection, and yet a lost
//! answer does not keep the others from being tried.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use socket2::{Domain, Socket, Type};
use traffic::events::{Events, Interest, TURN, is_transient};
use traffic::pace::Pace;
use traffic::sources::Sources;
use traffic::stats::Times;
use traffic::{process, tcp};

use crate::report::Report;

pub struct Settings {
    pub target: SocketAddr,
    pub udp: bool,
    pub connections: u32,
    /// Connections that may hold a slot at a time.
    pub concurrent: NonZeroU32,
    /// Connections to begin in a second; without it as fast as slots get free.
    pub rate: Option<f64>,
    pub sources: Sources,
    /// Hold answered connections until the end of the run.
    pub keep: bool,
    /// The limit of the whole run.
    pub timeout: Duration,
}

/// Makes all connections and reports on them; a signal ends the run early.
pub fn run(settings: &Settings) -> anyhow::Result<Report> {
    let signals = process::termination_signals().context("watch for signals")?;
    let mut client = Client::start(settings)?;
    client.events.add(&signals, Interest::EPOLLIN, SIGNALS).context("watch for signals")?;
    client.connect_all()?;
    Ok(client.into_report())
}

/// How long a connection may hold its slot without being answered.
const SLOT_PATIENCE: Duration = Duration::from_millis(250);

/// Descriptors that are no connections: the standard streams, epoll, signals,
/// and what the libraries may open.
const RESERVED_FILES: u64 = 16;

/// Token of the signal descriptor; the others are connection numbers.
const SIGNALS: u64 = u64::MAX;

/// What a UDP client sends.
const GREETING: &[u8] = b"Hello";

struct Client<'a> {
    settings: &'a Settings,
    events: Events,
    pace: Option<Pace>,
    begin: Instant,
    deadline: Instant,
    max_open: usize,
    /// The number of the next connection.
    next: u32,
    open: HashMap<u64, Connection>,
    slots_taken: u32,
    /// Connections in the order in which they took a slot, and when.
    slot_holders: VecDeque<(Instant, u64)>,
    connect_times: Times,
    answer_times: Times,
    report: Report,
}

struct Connection {
    socket: Socket,
    begun: Instant,
    stage: Stage,
    has_slot: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    /// Connected, and not yet answered.
    Waiting,
    /// Answered, and held because of `-keep`.
    Held,
}

/// What a connection that could be advanced came to.
enum Progress {
    Connected,
    Answered(String),
    /// Nothing that counts, as what a kept connection reads after its answer.
    Nothing,
}

/// Where in its life a connection failed: this decides how it is counted.
#[derive(Clone, Copy)]
enum Phase {
    Connect,
    Read,
}

impl<'a> Client<'a> {
    fn start(settings: &'a Settings) -> anyhow::Result<Self> {
        let limit = process::raise_open_file_limit().context("raise the limit of open files")?;
        let max_open = limit.saturating_sub(RESERVED_FILES).max(1);
        if settings.keep && u64::from(settings.connections) > max_open {
            bail!(
                "keep {} connections: only {limit} files may be open (ulimit -Hn)",
                settings.connections
            );
        }
        let events = Events::new().context("create an epoll")?;
        let begin = Instant::now();
        let deadline = begin
            .checked_add(settings.timeout)
            .with_context(|| format!("use timeout {:?}: too long", settings.timeout))?;
        Ok(Self {
            settings,
            events,
            pace: settings.rate.map(|rate| Pace::new(begin, rate)),
            begin,
            deadline,
            max_open: usize::try_from(max_open).unwrap_or(usize::MAX),
            next: 0,
            open: HashMap::new(),
            slots_taken: 0,
            slot_holders: VecDeque::new(),
            connect_times: Times::default(),
            answer_times: Times::default(),
            report: Report {
                hosts: BTreeMap::new(),
                connects: settings.connections,
                failed_connects: 0,
                failed_reads: 0,
                causes: BTreeMap::new(),
                start_time: SystemTime::now(),
                timeout: settings.timeout,
                duration: Duration::ZERO,
                connect_time: None,
                answer_time: None,
            },
        })
    }

    fn connect_all(&mut self) -> anyhow::Result<()> {
        loop {
            self.begin_connections();
            if self.open.is_empty() && self.next == self.settings.connections {
                return Ok(());
            }
            let until = self.wake_up_time();
            for token in self.events.wait(Some(until)).context("wait for events")? {
                match token {
                    SIGNALS => return Ok(()),
                    number => self.advance(number),
                }
            }
            let now = Instant::now();
            if now >= self.deadline {
                return Ok(());
            }
            self.pass_on_slots(now);
        }
    }

    /// Counts what the end of the run cut off.
    fn into_report(mut self) -> Report {
        let cut_off = || io::Error::other("no answer before the end of the run");
        for (_, connection) in std::mem::take(&mut self.open) {
            if connection.stage != Stage::Held {
                self.count_failure(connection.phase(), &cut_off());
            }
        }
        let not_begun = self.settings.connections - self.next;
        if not_begun > 0 {
            let error = io::Error::other("not begun before the end of the run");
            self.count_failures(Phase::Connect, &error, not_begun.into());
        }
        self.report.duration = self.begin.elapsed();
        self.report.connect_time = self.connect_times.percentiles();
        self.report.answer_time = self.answer_times.percentiles();
        self.report
    }

    /// Whether there is another connection to make and nothing in its way.
    fn can_begin(&self) -> bool {
        self.next < self.settings.connections
            && self.slots_taken < self.settings.concurrent.get()
            && self.open.len() < self.max_open
    }

    /// Fills free slots, in bounded steps: events and the deadline have to be
    /// looked at in between.
    fn begin_connections(&mut self) {
        for _ in 0..TURN {
            if !self.can_begin() {
                return;
            }
            let now = Instant::now();
            if let Some(pace) = &mut self.pace {
                if pace.due() > now {
                    return;
                }
                // What is late is made up for: all connections are to be made.
                pace.advance();
            }
            let number = u64::from(self.next);
            self.next += 1;
            let begun = Connection::begin(self.settings, number, now).and_then(|connection| {
                self.events.add(&connection.socket, connection.interest(), number)?;
                Ok(connection)
            });
            match begun {
                Ok(connection) => {
                    self.open.insert(number, connection);
                    self.slots_taken += 1;
                    self.slot_holders.push_back((now, number));
                }
                Err(error) => self.count_failure(Phase::Connect, &error),
            }
        }
    }

    fn advance(&mut self, number: u64) {
        let Some(connection) = self.open.get_mut(&number) else {
            return;
        };
        match connection.advance(self.settings.udp) {
            Ok(Progress::Nothing) => {}
            Ok(Progress::Connected) => {
                connection.stage = Stage::Waiting;
                self.connect_times.record(connection.begun.elapsed());
                let interest = connection.interest();
                if let Err(error) = self.events.change(&connection.socket, interest, number) {
                    self.count_failure(Phase::Read, &error);
                    self.close(number);
                }
            }
            Ok(Progress::Answered(host)) => {
                self.answer_times.record(connection.begun.elapsed());
                *self.report.hosts.entry(host).or_default() += 1;
                if self.settings.keep {
                    connection.stage = Stage::Held;
                    self.free_slot(number);
                } else {
                    self.close(number);
                }
            }
            Err(error) => {
                let phase = connection.phase();
                self.count_failure(phase, &error);
                self.close(number);
            }
        }
    }

    fn close(&mut self, number: u64) {
        self.free_slot(number);
        self.open.remove(&number);
    }

    fn free_slot(&mut self, number: u64) {
        if let Some(connection) = self.open.get_mut(&number)
            && connection.has_slot
        {
            connection.has_slot = false;
            self.slots_taken -= 1;
        }
    }

    fn pass_on_slots(&mut self, now: Instant) {
        while let Some(&(since, number)) = self.slot_holders.front()
            && now.duration_since(since) >= SLOT_PATIENCE
        {
            self.slot_holders.pop_front();
            self.free_slot(number);
        }
    }

    fn count_failure(&mut self, phase: Phase, error: &io::Error) {
        self.count_failures(phase, error, 1);
    }

    fn count_failures(&mut self, phase: Phase, error: &io::Error, count: u64) {
        let (counter, verb) = match phase {
            Phase::Connect => (&mut self.report.failed_connects, "connect to"),
            Phase::Read => (&mut self.report.failed_reads, "read from"),
        };
        *counter += count;
        let cause = format!("{verb} {}: {error}", self.settings.target);
        *self.report.causes.entry(cause).or_default() += count;
    }

    /// When something is to be done even if nothing happens.
    fn wake_up_time(&self) -> Instant {
        let patience_end = self.slot_holders.front().map(|(since, _)| *since + SLOT_PATIENCE);
        let begin =
            self.can_begin().then(|| self.pace.map_or_else(Instant::now, |pace| pace.due()));
        [patience_end, begin].into_iter().flatten().fold(self.deadline, Instant::min)
    }
}

impl Connection {
    fn begin(settings: &Settings, number: u64, now: Instant) -> io::Result<Self> {
        let target = settings.target;
        let kind = match settings.udp {
            true => Type::DGRAM,
            false => Type::STREAM,
        };
        let socket = Socket::new(Domain::for_address(target), kind.nonblocking(), None)?;
        if !settings.udp {
            // Close by a reset: tens of thousands of connections in TIME_WAIT
            // would use up the ports here or the memory of the servers.
            socket.set_linger(Some(Duration::ZERO))?;
        }
        let source = settings.sources.address(number, target).map_err(io::Error::other)?;
        if let Some(source) = source {
            tcp::bind_source(&socket, source)?;
        }
        match socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => {
                return Err(error);
            }
            _ => {}
        }
        let stage = match settings.udp {
            true => {
                socket.send(GREETING)?;
                Stage::Waiting
            }
            false => Stage::Connecting,
        };
        Ok(Self { socket, begun: now, stage, has_slot: true })
    }

    fn advance(&mut self, udp: bool) -> io::Result<Progress> {
        if self.stage == Stage::Connecting {
            return match self.socket.take_error()? {
                Some(error) => Err(error),
                None => Ok(Progress::Connected),
            };
        }
        let mut buffer = [0; 4_096];
        match self.socket.read(&mut buffer) {
            Ok(0) if udp => Err(io::Error::other("an empty answer")),
            Ok(0) => Err(io::Error::other("closed by the server")),
            Ok(_) if self.stage == Stage::Held => Ok(Progress::Nothing),
            Ok(length) => {
                Ok(Progress::Answered(String::from_utf8_lossy(&buffer[..length]).into_owned()))
            }
            Err(error) if is_transient(&error) => Ok(Progress::Nothing),
            Err(error) => Err(error),
        }
    }

    fn interest(&self) -> Interest {
        match self.stage {
            Stage::Connecting => Interest::EPOLLOUT,
            Stage::Waiting | Stage::Held => Interest::EPOLLIN,
        }
    }

    fn phase(&self) -> Phase {
        match self.stage {
            Stage::Connecting => Phase::Connect,
            Stage::Waiting | Stage::Held => Phase::Read,
        }
    }
}
