//! Beginning connections, and ending those that failed.

use std::cmp::Reverse;
use std::hash::BuildHasher as _;
use std::io;
use std::time::{Duration, Instant};

use traffic::pace::Pace;

use super::Client;
use super::connection::{Connection, Stage};

/// How long a connect may take.
const CONNECT_LIMIT: Duration = Duration::from_millis(1_500);

/// The wait before a connect is tried again: this more each time, up to the
/// longest.
const RETRY_STEP: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

impl Client<'_> {
    pub fn connect(&mut self, number: u64, now: Instant) {
        let target = self.settings.target;
        let source = match self.settings.sources.address(number, target) {
            Ok(source) => source,
            Err(error) => {
                self.stopped_by.get_or_insert(error.into());
                return;
            }
        };
        let cookie = self.random.hash_one((number, "cookie"));
        let udp = self.settings.udp;
        let connected = Connection::connect(target, source, udp, cookie).and_then(|connection| {
            self.events.add(connection.socket(), connection.watched, number)?;
            Ok(connection)
        });
        let slot = self.slot(number);
        slot.attempts += 1;
        let attempt = slot.attempts;
        match connected {
            Ok(connection) => {
                slot.connection = Some(connection);
                match udp {
                    true => self.connected(number, now),
                    false => {
                        self.connect_limits.push_back((now + CONNECT_LIMIT, number, attempt));
                    }
                }
            }
            Err(error) => self.retry_connect(number, &error, now),
        }
    }

    pub fn retry_connect(&mut self, number: u64, error: &io::Error, now: Instant) {
        self.note(&format!("connect to {}: {error}", self.settings.target));
        self.totals.failed_connects += 1;
        let slot = self.slot(number);
        slot.connection = None;
        let wait = (RETRY_STEP * slot.attempts).min(LONGEST_RETRY);
        self.wakes.push(Reverse((now + wait, number)));
    }

    pub fn connected(&mut self, number: u64, now: Instant) {
        let settings = self.settings;
        // Bytes a second of this connection, as packets of their size.
        let share = settings.rate * 1_024.0 / f64::from(settings.connections.get());
        let size = u32::try_from(settings.packet_size).expect("at most a datagram");
        let rate = share / f64::from(size);
        // All connections together send evenly, too.
        let phase = f64::from(unit_hash(settings.seed, number));
        let pace = Pace::with_phase(now, rate, phase);
        let since_begin = now.saturating_duration_since(self.begin);

        let slot = self.slot(number);
        let Some(connection) = &mut slot.connection else {
            return;
        };
        connection.stage = Stage::Open { pace, is_held_back: false };
        slot.record.connected(since_begin, connection.local());
        self.connecting -= 1;
        self.active += 1;
        self.wakes.push(Reverse((pace.due(), number)));
        self.watch(number, now);
    }

    pub fn enforce_limits(&mut self, now: Instant) {
        while let Some(&(time, number, attempt)) = self.connect_limits.front()
            && time <= now
        {
            self.connect_limits.pop_front();
            let slot = self.slot(number);
            let is_it = slot.attempts == attempt;
            if let Some(connection) = &slot.connection
                && is_it
                && matches!(connection.stage, Stage::Connecting)
            {
                self.retry_connect(number, &io::Error::other("no answer"), now);
            }
        }
        while let Some(&(time, number, packet)) = self.answer_limits.front() {
            let connection = self.slot(number).connection.as_ref();
            let is_waiting = connection.is_some_and(|c| c.flight.is_waiting_for(packet));
            if is_waiting && time > now {
                return;
            }
            self.answer_limits.pop_front();
            match (is_waiting, self.settings.udp) {
                // What is answered is forgotten, so that at the end nothing
                // more than the open answers is waited for.
                (false, _) => {}
                (true, true) => self.give_up(number, packet, now),
                (true, false) => self.fail(number, "no answer in time", now),
            }
        }
    }

    /// Ends a connection that stood, and begins another.
    pub fn fail(&mut self, number: u64, error: &str, now: Instant) {
        self.note(error);
        self.totals.failed_connections += 1;
        self.active -= 1;
        let since_begin = now.saturating_duration_since(self.begin);
        let slot = self.slot(number);
        let retransmits = slot.connection.take().map_or(0, |c| c.retransmits());
        slot.record.ended(since_begin, error, retransmits);
        self.totals.retransmits += retransmits;
        if self.settings.reconnect && now < self.deadline {
            self.take_slot(now);
        }
    }
}

/// From 0 to below 1, the same for the same seed and number.
fn unit_hash(seed: u64, number: u64) -> f32 {
    let mixed = traffic::source::splitmix64(seed, number);
    let bits = u16::try_from(mixed >> 48).expect("16 bits");
    f32::from(bits) / 65_536.0
}
