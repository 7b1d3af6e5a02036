//! The life of a client: it connects, receives, connects again if that is wanted, and ends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use sctp_stack::{Association, Error, Event, MAX_MESSAGE, Path, PathChange};

use super::ledger::{Arrival, Ledger};
use super::report::{End, PathRecord, Record};
use super::sender::{Order, Session};
use super::{Phase, Run, lock};
use crate::log;
use crate::message::Answer;
use crate::stats::figures::Counter;

/// How soon a change of phase is seen by who waits for a message.
const TICK: Duration = Duration::from_millis(250);
/// How long an association may take to end.
const CLOSE: Duration = Duration::from_secs(1);
/// From a failure to the next attempt: at first and at most.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub fn run(run: &Run<'_>, number: u32, orders: &Sender<Order>) {
    let mut connects = 0;
    let mut pause = PAUSE;
    // Many that begin at once would find no room in queues.
    let wait = Duration::from_secs_f64(f64::from(number) / run.settings.connect_rate);
    let mut is_on = run.pause(run.begin + wait);
    while is_on {
        match connect(run, number) {
            Ok(association) => {
                run.add(Counter::Connects, 1);
                run.add(Counter::Reconnects, u64::from(connects > 0));
                connects += 1;
                pause = PAUSE;
                Life::new(run, number, connects, association).run(orders);
            }
            Err(error) => run.failed(Counter::FailedConnects, error.to_string()),
        }
        is_on = run.settings.reconnect && run.pause(Instant::now() + pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    if connects == 0 {
        run.unconnected.fetch_add(1, Ordering::Relaxed);
    }
    // Nobody sends any more at the end of the run.
    let _ = orders.send(Order::Gone { client: number });
}

fn connect(run: &Run<'_>, number: u32) -> sctp_stack::Result<Arc<dyn Association>> {
    let settings = run.settings;
    let deadline = run.end.min(Instant::now() + settings.connect_timeout);
    let mut local = settings.local.clone();
    if local.port != 0 {
        let offset = u16::try_from(number).unwrap_or(u16::MAX);
        local.port = local.port.saturating_add(offset);
    }
    run.stack.connect(&local, &settings.remote, &settings.sctp, deadline)
}

/// An association from its beginning to its end.
struct Life<'a> {
    run: &'a Run<'a>,
    session: Arc<Session>,
    ledger: Ledger,
    record: Record,
    paths: BTreeMap<IpAddr, PathRecord>,
    /// Paths that are inactive.
    down: BTreeSet<IpAddr>,
    /// Who answered last.
    server: String,
}

impl<'a> Life<'a> {
    fn new(run: &'a Run<'a>, client: u32, connect: u64, association: Arc<dyn Association>) -> Self {
        let shown = |addresses: sctp_stack::Result<Vec<_>>| {
            addresses.unwrap_or_default().iter().map(ToString::to_string).collect()
        };
        let id = run.first_id.wrapping_add(u64::from(client)).wrapping_add(connect << 32);
        let record = Record {
            client,
            connected: run.begin.elapsed(),
            local: shown(association.local_addresses()),
            peer: shown(association.peer_addresses()),
            ..Record::default()
        };
        log::debug(format_args!("Client {client}: Connected"));
        let (numbered, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
        let mut life = Life {
            run,
            session: Arc::new(Session { association, id, numbered, is_over }),
            ledger: Ledger::default(),
            record,
            paths: BTreeMap::new(),
            down: BTreeSet::new(),
            server: String::new(),
        };
        life.look_at_paths();
        life
    }

    fn run(mut self, orders: &Sender<Order>) {
        let (run, client) = (self.run, self.record.client);
        run.add(Counter::Active, 1);
        // If nobody sends any more the association just ends.
        let (id, session) = (self.session.id, Arc::downgrade(&self.session));
        let _ = orders.send(Order::Up { client, id, session });
        let end = self.receive();
        self.session.is_over.store(true, Ordering::Relaxed);
        self.look_at_paths();
        let association = &self.session.association;
        match end {
            End::Lasted | End::Closed => {
                if let Err(error) = association.close(Instant::now() + CLOSE) {
                    log::debug(format_args!("Client {client}: close: {error}"));
                }
            }
            End::Aborted | End::Timeout | End::Failed => association.abort(),
        }
        if end != End::Lasted {
            run.failed(Counter::LostAssociations, end.text().to_owned());
        }
        run.own.subtract(Counter::Active, 1);
        run.shared.subtract(Counter::Active, 1);

        let sent = self.session.numbered.load(Ordering::Acquire);
        let mut record = self.record;
        record.end = end;
        record.ended = run.begin.elapsed();
        (record.sent, record.received) = (sent, self.ledger.received());
        record.lost = sent.saturating_sub(record.received);
        run.add(Counter::Lost, record.lost);
        record.paths = self.paths.into_values().collect();
        for path in &record.paths {
            log::info(format_args!("Client {client}: {path}"));
        }
        lock(&run.records).push(record);
    }

    /// Takes what comes until the association or the run is over.
    fn receive(&mut self) -> End {
        let mut buffer = vec![0; MAX_MESSAGE];
        let association = Arc::clone(&self.session.association);
        loop {
            let now = Instant::now();
            let mut deadline = now + TICK;
            match self.run.phase() {
                Phase::Sending => {}
                Phase::Waiting(_) if self.is_all_there() => return End::Lasted,
                Phase::Waiting(until) if now < until => deadline = deadline.min(until),
                Phase::Waiting(_) | Phase::Over => return End::Lasted,
            }
            match association.receive(&mut buffer, Some(deadline)) {
                Ok(None) => {}
                Ok(Some(Event::Message { length, .. })) => self.take(&buffer[..length]),
                Ok(Some(Event::Path { address, change })) => {
                    self.path_changed(address.to_canonical(), change);
                }
                Ok(Some(Event::Closed)) => return End::Closed,
                Ok(Some(Event::Lost(by))) => return End::of(by),
                Err(error @ Error::TooLong { .. }) => self.corrupted(&error.to_string()),
                Err(error) => {
                    self.run.cause(format!("receive: {error}"));
                    return End::Failed;
                }
            }
        }
    }

    /// Whether no answer is missing. Nothing is sent any more when this is asked.
    fn is_all_there(&self) -> bool {
        self.ledger.received() >= self.session.numbered.load(Ordering::Acquire)
    }

    fn take(&mut self, message: &[u8]) {
        let answer = match Answer::parse(message) {
            Ok(answer) if answer.association == self.session.id => answer,
            Ok(_) => return self.corrupted("a message of another association"),
            Err(broken) => return self.corrupted(&broken.to_string()),
        };
        let round_trip = answer.sent.elapsed();
        let run = self.run;
        match self.ledger.arrive(answer.sequence, self.session.numbered.load(Ordering::Acquire)) {
            Arrival::InOrder => {}
            Arrival::Reordered => {
                self.record.reordered += 1;
                run.add(Counter::Reordered, 1);
            }
            Arrival::Duplicate => {
                self.record.duplicates += 1;
                return run.add(Counter::Duplicates, 1);
            }
            Arrival::Unknown => return self.corrupted("a message that was never sent"),
        }
        run.add(Counter::Received, 1);
        run.record(round_trip);
        self.record.max_rtt = self.record.max_rtt.max(round_trip);
        self.answered_by(answer.server);
    }

    fn answered_by(&mut self, server: &str) {
        let answers = &mut self.record.answers;
        if !self.server.is_empty() && self.server != server {
            answers.moves += 1;
        }
        if self.server != server {
            server.clone_into(&mut self.server);
        }
        match answers.servers.get_mut(server) {
            Some(count) => *count += 1,
            None => drop(answers.servers.insert(server.to_owned(), 1)),
        }
    }

    fn corrupted(&mut self, cause: &str) {
        self.record.corrupted += 1;
        self.run.failed(Counter::Corrupted, format!("Received {cause}"));
    }

    fn path_changed(&mut self, address: IpAddr, change: PathChange) {
        let client = self.record.client;
        log::info(format_args!("Client {client}: path {address}: {change:?}"));
        match change {
            PathChange::Down if self.down.insert(address) => {
                self.run.add(Counter::PathsDown, 1);
                let path = self.paths.entry(address).or_insert_with(|| PathRecord::new(address));
                path.downs += 1;
                if path.primary {
                    self.record.failovers += 1;
                    self.run.add(Counter::Failovers, 1);
                }
            }
            PathChange::Up if self.down.remove(&address) => {
                self.run.add(Counter::PathsUp, 1);
                let path = self.paths.entry(address).or_insert_with(|| PathRecord::new(address));
                path.ups += 1;
            }
            _ => {}
        }
        self.look_at_paths();
    }

    /// Takes over what the stack knows of the paths. When the association has ended that is nothing, and what was
    /// known before stays.
    fn look_at_paths(&mut self) {
        let paths: Vec<Path> = self.session.association.paths().unwrap_or_default();
        for path in paths {
            let address = path.address.ip().to_canonical();
            let record = self.paths.entry(address).or_insert_with(|| PathRecord::new(address));
            record.look(&path);
        }
    }
}
