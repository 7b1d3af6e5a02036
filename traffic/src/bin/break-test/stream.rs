//! A TCP stream of 10 Mbit/s to an echo server. TCP loses nothing, so a break is a time in
//! which nothing comes back.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::errno::Errno;
use socket2::{Domain, Socket, Type};
use traffic::events::{Events, Interest, is_transient};
use traffic::pace::Pace;

use crate::trials::{Break, Outcome, PATIENCE, Run};

/// Bytes of a write.
const PACKET: usize = 1_024;

/// Writes a second: 10 Mbit/s.
const RATE: f64 = 10e6 / 8.0 / 1_024.0;

/// Shorter pauses are what a machine with other work makes.
pub const SHORTEST_BREAK: Duration = Duration::from_millis(50);

/// The wait before a failed connection is replaced.
pub const RETRY: Duration = Duration::from_millis(100);

pub fn run(target: SocketAddr, run: Run<'_>) -> Outcome {
    let mut stream = Stream { target, run, outcome: Outcome::default(), heard: run.begin };
    let mut retransmits = 0;
    while Instant::now() < run.end() {
        match stream.connect_and_send() {
            Ok(more) => retransmits += more,
            Err(error) => return Outcome::unavailable(format!("{error:#}")),
        }
    }
    stream.hear_nothing_until(run.end());
    let mut outcome = stream.outcome;
    outcome.retransmits = Some(retransmits);
    outcome
}

struct Stream<'a> {
    target: SocketAddr,
    run: Run<'a>,
    outcome: Outcome,
    /// When something came back last.
    heard: Instant,
}

impl Stream<'_> {
    /// Sends until the end or until the connection fails, which is counted and no
    /// error; returns the retransmits.
    fn connect_and_send(&mut self) -> anyhow::Result<u64> {
        let socket = match connect(self.target) {
            Ok(socket) => socket,
            Err(error) => {
                self.failed(&error);
                return Ok(0);
            }
        };
        let mut events = Events::new().context("create an epoll")?;
        events.add(&socket, Interest::EPOLLIN, 0).context("watch a socket")?;
        let mut pace = Pace::new(Instant::now(), RATE);
        let (packet, mut buffer) = ([0; PACKET], vec![0; 1 << 16]);
        let (mut unsent, mut since) = (0, Instant::now());
        loop {
            let now = Instant::now();
            if now >= self.run.end() {
                break;
            }
            let mut result = Ok(());
            while result.is_ok() && (unsent > 0 || pace.due() <= now) {
                if unsent == 0 {
                    pace.take(now);
                    self.outcome.sent += 1;
                    unsent = PACKET;
                }
                match (&socket).write(&packet[PACKET - unsent..]) {
                    Ok(sent) => unsent -= sent,
                    // The buffers are full: nothing is heard of it either.
                    Err(error) if is_transient(&error) => break,
                    Err(error) => result = Err(error),
                }
            }
            // What is left of a packet is tried again soon: it is late anyway.
            let wake = match unsent {
                0 => pace.due(),
                _ => now + Duration::from_millis(1),
            };
            let wake = wake.min(self.run.end());
            for _ in events.wait(Some(wake)).context("wait for events")? {
                match (&socket).read(&mut buffer) {
                    Ok(0) => result = Err(io::Error::other("closed by the server")),
                    Ok(_) => {
                        since = Instant::now();
                        self.hear(since);
                    }
                    Err(error) if is_transient(&error) => {}
                    Err(error) => result = Err(error),
                }
            }
            if result.is_ok() && since.elapsed() >= 3 * PATIENCE {
                result = Err(io::Error::other("nothing came back for 3 s"));
            }
            if let Err(error) = result {
                self.failed(&error);
                break;
            }
        }
        Ok(traffic_sys::retransmits(&socket).map_or(0, u64::from))
    }

    fn hear(&mut self, now: Instant) {
        self.hear_nothing_until(now);
        self.heard = now;
    }

    fn hear_nothing_until(&mut self, now: Instant) {
        let (from, to) = (self.run.since_begin(self.heard), self.run.since_begin(now));
        let gap = Break { from, to };
        if gap.length() >= SHORTEST_BREAK {
            self.outcome.breaks.push(gap);
        }
    }

    fn failed(&mut self, error: &io::Error) {
        self.outcome.lost += 1;
        *self.outcome.causes.entry(error.to_string()).or_default() += 1;
        // Nothing else can be done in this thread meanwhile.
        let left = self.run.end().saturating_duration_since(Instant::now());
        std::thread::sleep(RETRY.min(left));
    }
}

fn connect(target: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    match socket.connect_timeout(&target.into(), PATIENCE) {
        Err(error) if error.raw_os_error() == Some(Errno::ETIMEDOUT as i32) => {
            Err(io::Error::other("no answer"))
        }
        other => other,
    }?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// `BTreeMap` of causes as text, for the notes of a table.
pub fn causes_as_text(causes: &BTreeMap<String, u64>) -> String {
    causes
        .iter()
        .map(|(cause, count)| format!("{cause} ({count} times)"))
        .collect::<Vec<_>>()
        .join(", ")
}
