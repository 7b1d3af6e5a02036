//! TCP connects, ten a second; what is connected is closed at once.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::errno::Errno;
use socket2::{Domain, Socket, Type};
use traffic::events::{Events, Interest};
use traffic::pace::Pace;

use crate::trials::{Outcome, Run, Trials};

const RATE: f64 = 10.0;

/// How long a connect may take. TCP tries again by itself after a second: what is answered then was lost.
const LIMIT: Duration = Duration::from_millis(950);

pub fn run(target: SocketAddr, run: Run<'_>) -> Outcome {
    match connect_all(target, run) {
        Ok(outcome) => outcome,
        Err(error) => Outcome::unavailable(format!("{error:#}")),
    }
}

fn connect_all(target: SocketAddr, run: Run<'_>) -> anyhow::Result<Outcome> {
    let mut events = Events::new().context("create an epoll")?;
    let mut pace = Pace::new(run.begin, RATE);
    let mut trials = Trials::default();
    let mut causes: BTreeMap<String, u64> = BTreeMap::new();
    let mut note = |error: &io::Error| *causes.entry(error.to_string()).or_default() += 1;
    let mut open: HashMap<u64, (Socket, Instant)> = HashMap::new();
    loop {
        let now = Instant::now();
        open.retain(|_, (_, since)| {
            let is_in_time = now.saturating_duration_since(*since) < LIMIT;
            if !is_in_time {
                note(&io::Error::other("no answer"));
            }
            is_in_time
        });
        if now >= run.end() && open.is_empty() {
            break;
        }
        if now < run.end() && now >= pace.due() {
            pace.take(now);
            let number = trials.begin(run.since_begin(now));
            let begun = begin(target).and_then(|socket| {
                events.add(&socket, Interest::EPOLLOUT, number)?;
                Ok(socket)
            });
            match begun {
                Ok(socket) => drop(open.insert(number, (socket, now))),
                Err(error) => note(&error),
            }
        }
        let limit = open.values().map(|(_, since)| *since + LIMIT).min();
        let due = (pace.due() < run.end()).then(|| pace.due());
        let until = [limit, due].into_iter().flatten().fold(run.end().max(now), Instant::min);
        let idle_end = if now >= run.end() { limit.unwrap_or(now) } else { until };
        for number in events.wait(Some(idle_end)).context("wait for events")? {
            let Some((socket, since)) = open.remove(&number) else {
                continue;
            };
            match socket.take_error() {
                Ok(None) if since.elapsed() >= LIMIT => note(&io::Error::other("no answer")),
                Ok(None) => trials.answer(number, run.since_begin(Instant::now())),
                Ok(Some(error)) | Err(error) => note(&error),
            }
        }
    }
    Ok(Outcome { causes, ..trials.outcome(run.time()) })
}

fn begin(target: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM.nonblocking(), None)?;
    socket.set_linger(Some(Duration::ZERO))?;
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(error),
        _ => Ok(socket),
    }
}
