//! The client: many that ask at an even pace, each on its own connection.

mod connection;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::anyhow;
use hyper::Uri;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::LocalSet;
use tokio::time::{sleep_until, timeout_at};
use tokio_rustls::TlsConnector;
use traffic::pace::Pace;
use traffic::process;
use traffic::source::splitmix64;
use traffic::sources::{SourceError, Sources};
use traffic::stats::Times;

use self::connection::{Connection, DialError};
use crate::report::Report;
use crate::{termination, tls};

pub struct Settings {
    pub target: SocketAddr,
    /// The server's name, for TLS.
    pub host: String,
    pub uri: Uri,
    pub tls: bool,
    pub http2: bool,
    pub keep_alive: bool,
    pub clients: NonZeroU32,
    /// Requests a second of all clients together.
    pub rate: f64,
    pub time: Duration,
    pub monitor: bool,
    pub host_stats: bool,
    pub sources: Sources,
    pub seed: u64,
}

pub struct Outcome {
    pub report: Report,
    /// What went wrong, and how often.
    pub causes: BTreeMap<String, u64>,
    /// Why the run could not go on to its end.
    pub stopped_by: Option<anyhow::Error>,
}

/// Runs until the time is over, or a signal comes.
pub fn run(runtime: &Runtime, settings: Settings) -> anyhow::Result<Outcome> {
    let connector = match settings.tls {
        true => Some(TlsConnector::from(Arc::new(tls::client_config(settings.http2)?))),
        false => None,
    };
    let begin = Instant::now();
    let deadline = begin
        .checked_add(settings.time)
        .ok_or_else(|| anyhow!("use timeout {:?}: too long", settings.time))?;
    let run = Rc::new(Run {
        report: RefCell::new(Report {
            started: humantime::format_rfc3339_nanos(SystemTime::now()).to_string(),
            rate: settings.rate,
            clients: settings.clients.get(),
            hosts: settings.host_stats.then(BTreeMap::new),
            ..Report::default()
        }),
        settings,
        connector,
        begin,
        deadline,
        state: RefCell::default(),
        is_stopping: Cell::new(false),
        stop: Notify::new(),
    });
    runtime.block_on(generate(&run));
    let state = run.state.take();
    let mut report = run.report.take();
    report.duration = begin.elapsed().into();
    report.lost = report.sent - report.received;
    report.reply_time = state.reply_times.percentiles();
    Ok(Outcome { report, causes: state.causes, stopped_by: state.stopped_by })
}

/// How long an answer, and a connection, are waited for.
const LIMIT: Duration = Duration::from_secs(10);

/// How long answers are waited for after a signal, and connections after the
/// end of the run.
const FINISH_LIMIT: Duration = Duration::from_secs(1);

/// The wait before a connect is tried again: this more each time, up to the
/// longest.
const RETRY_STEP: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// The runtime's clock goes in milliseconds, and rounds up: requests that are late by no more are sent still.
const CLOCK_GRAIN: Duration = Duration::from_millis(2);

/// Clients that are made at most for each one of the run.
const REPLACEMENTS: u64 = 10;

/// What all clients share.
struct Run {
    settings: Settings,
    connector: Option<TlsConnector>,
    begin: Instant,
    deadline: Instant,
    report: RefCell<Report>,
    state: RefCell<State>,
    /// Nothing more is sent.
    is_stopping: Cell<bool>,
    /// Tells that the run cannot go on.
    stop: Notify,
}

#[derive(Default)]
struct State {
    /// Clients that have a connection.
    active: u64,
    /// Requests that wait for their answers.
    waiting: u64,
    /// Connections that were begun, by which they have their sources.
    begun: u64,
    reply_times: Times,
    causes: BTreeMap<String, u64>,
    stopped_by: Option<anyhow::Error>,
}

async fn generate(run: &Rc<Run>) {
    let tasks = LocalSet::new();
    let mut clients = Vec::new();
    for number in 0..run.settings.clients.get() {
        let run = run.clone();
        clients.push(tasks.spawn_local(async move { run.client(number.into()).await }));
    }
    if run.settings.monitor {
        let run = run.clone();
        tasks.spawn_local(async move { run.monitor().await });
    }
    let all = async {
        for client in clients {
            // A client ends only by coming to its end.
            let _ = client.await;
        }
    };
    tasks
        .run_until(async {
            tokio::select! {
                () = all => {}
                _ = termination() => run.finish().await,
                () = run.stop.notified() => {}
            }
        })
        .await;
}

impl Run {
    async fn client(&self, number: u64) {
        let settings = &self.settings;
        let rate = settings.rate / f64::from(settings.clients.get());
        // All clients together ask evenly, too.
        let bits = u32::try_from(splitmix64(settings.seed, number) >> 32).expect("32 bits");
        let phase = f64::from(bits) / (f64::from(u32::MAX) + 1.0);
        let mut pace = Pace::with_phase(self.begin, rate, phase);
        let mut connection = None;
        while pace.due() < self.deadline {
            sleep_until(pace.due().into()).await;
            if self.is_stopping.get() {
                return;
            }
            // A server may close a connection on which it heard nothing.
            if connection.as_ref().is_some_and(|open: &Connection| !open.is_open()) {
                self.close(&mut connection);
            }
            if connection.is_none() {
                connection = self.connect().await;
            }
            let Some(open) = &mut connection else {
                return;
            };
            let now = Instant::now();
            let skipped = pace.take_within(now, CLOCK_GRAIN);
            self.count_request(skipped);
            let answered = timeout_at((now + LIMIT).into(), open.ask(settings)).await;
            self.state.borrow_mut().waiting -= 1;
            match answered.unwrap_or_else(|_| Err(anyhow!("no answer within {LIMIT:?}"))) {
                Ok(answer) => {
                    self.count(&answer, now.elapsed());
                    if !settings.keep_alive {
                        self.close(&mut connection);
                    }
                }
                Err(error) => {
                    self.close(&mut connection);
                    self.fail(&error);
                }
            }
        }
        // A connection lasts to the end of the run.
        sleep_until(self.deadline.into()).await;
        self.close(&mut connection);
    }

    fn close(&self, connection: &mut Option<Connection>) {
        if connection.take().is_some() {
            self.state.borrow_mut().active -= 1;
        }
    }

    /// A connection, however often it has to be tried; `None` when there is no
    /// more time.
    async fn connect(&self) -> Option<Connection> {
        let number = {
            let mut state = self.state.borrow_mut();
            state.begun += 1;
            state.begun - 1
        };
        for attempt in 1.. {
            // What the end of the run would cut off has not failed.
            let limit = (Instant::now() + LIMIT).min(self.deadline + FINISH_LIMIT);
            // On the heap, for as long as it takes: a handshake needs more room than all that a
            // client has for the rest of the run.
            let dial = Connection::dial(&self.settings, self.connector.as_ref(), number);
            let dialed = timeout_at(limit.into(), Box::pin(dial));
            let error = match dialed.await {
                Ok(Ok(connection)) => {
                    self.report.borrow_mut().dials += 1;
                    self.state.borrow_mut().active += 1;
                    return Some(connection);
                }
                Ok(Err(DialError::Source(error))) => {
                    self.stop(error.into());
                    return None;
                }
                Ok(Err(DialError::NotHttp2)) => {
                    self.stop(anyhow!("the server does not speak HTTP/2"));
                    return None;
                }
                Ok(Err(DialError::Other(error))) => format!("{error:#}"),
                Err(_) => "no answer".to_owned(),
            };
            self.note(format!("connect to {}: {error}", self.settings.target));
            self.report.borrow_mut().failed_connects += 1;
            let wait = (RETRY_STEP * attempt).min(LONGEST_RETRY);
            if Instant::now() + wait >= self.deadline {
                return None;
            }
            tokio::time::sleep(wait).await;
        }
        None
    }

    fn count_request(&self, skipped: u64) {
        let mut report = self.report.borrow_mut();
        report.dropped += skipped;
        report.sent += 1;
        self.state.borrow_mut().waiting += 1;
    }

    fn count(&self, answer: &connection::Answer, after: Duration) {
        let mut report = self.report.borrow_mut();
        report.received += 1;
        report.not_ok += u64::from(!answer.is_ok);
        if let (Some(hosts), Some(host)) = (&mut report.hosts, &answer.host) {
            *hosts.entry(host.clone()).or_default() += 1;
        }
        self.state.borrow_mut().reply_times.record(after);
    }

    fn fail(&self, error: &anyhow::Error) {
        self.note(format!("get {}: {error:#}", self.settings.uri));
        let mut report = self.report.borrow_mut();
        report.failed_connections += 1;
        let most = REPLACEMENTS * u64::from(self.settings.clients.get());
        if report.failed_connections >= most {
            drop(report);
            self.stop(anyhow!("Too many re-connects: {most}"));
        }
    }

    fn note(&self, cause: String) {
        *self.state.borrow_mut().causes.entry(cause).or_default() += 1;
    }

    fn stop(&self, error: anyhow::Error) {
        self.state.borrow_mut().stopped_by.get_or_insert(error);
        self.stop.notify_one();
    }

    /// Waits for the answers that are under way.
    async fn finish(&self) {
        self.is_stopping.set(true);
        let limit = Instant::now() + FINISH_LIMIT;
        while self.state.borrow().waiting > 0 && Instant::now() < limit {
            tokio::time::sleep(FINISH_LIMIT / 100).await;
        }
    }

    async fn monitor(&self) {
        let mut seconds = Pace::new(self.begin + Duration::from_secs(1), 1.0);
        loop {
            sleep_until(seconds.due().into()).await;
            seconds.take(Instant::now());
            process::log(self.report.borrow().progress(self.state.borrow().active));
        }
    }
}

impl From<SourceError> for DialError {
    fn from(error: SourceError) -> Self {
        DialError::Source(error)
    }
}
