//! What is known about a connection of the run when it is over.

use std::net::SocketAddr;
use std::time::Duration;

use traffic::stats::{ConnStats, Nanos};

#[derive(Debug, Default)]
pub struct Record {
    started: Duration,
    connect: Option<Duration>,
    end: Option<End>,
    pub sent: u64,
    pub received: u64,
    pub dropped: u64,
    local: Option<SocketAddr>,
    /// Who answered first, and whose answer came last.
    host: Option<String>,
    current_host: Option<String>,
}

#[derive(Debug)]
struct End {
    time: Duration,
    error: String,
    retransmits: u64,
}

impl Record {
    /// All times are from the start of the run.
    pub fn begun(started: Duration) -> Self {
        Self { started, ..Self::default() }
    }

    pub fn connected(&mut self, time: Duration, local: SocketAddr) {
        self.connect = Some(time);
        self.local = Some(local);
    }

    pub fn ended(&mut self, time: Duration, error: &str, retransmits: u64) {
        self.end = Some(End { time, error: error.to_owned(), retransmits });
    }

    /// Another host than before answers; returns whether there was one before.
    pub fn answered_by(&mut self, host: String) -> bool {
        match &self.host {
            None => {
                self.host = Some(host);
                false
            }
            Some(_) => {
                self.current_host = Some(host);
                true
            }
        }
    }

    pub fn is_connected(&self) -> bool {
        self.connect.is_some()
    }

    pub fn is_over(&self) -> bool {
        self.end.is_some()
    }

    /// Who answers; empty if nobody did.
    pub fn host(&self) -> &str {
        self.current_host.as_deref().or(self.host.as_deref()).unwrap_or_default()
    }

    pub fn into_stats(self, remote: SocketAddr) -> ConnStats {
        // In a file 0 means never; what happened in the first moment was later.
        let time = |time: Duration| Nanos(Nanos::from(time).0.max(1));
        let end =
            self.end.unwrap_or(End { time: Duration::ZERO, error: String::new(), retransmits: 0 });
        ConnStats {
            started: Nanos::from(self.started),
            connect: self.connect.map_or(Nanos(0), time),
            ended: time(end.time),
            err: end.error,
            sent: self.sent,
            received: self.received,
            dropped: self.dropped,
            retransmits: end.retransmits,
            local: self.local.map_or_else(String::new, |local| local.to_string()),
            remote: remote.to_string(),
            host: self.host.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_becomes_what_is_saved() {
        let mut record = Record::begun(Duration::from_nanos(5));
        record.connected(Duration::from_nanos(7), "127.0.0.1:1".parse().unwrap());
        assert!(!record.answered_by("vm-001".to_owned()));
        assert!(record.answered_by("vm-002".to_owned()));
        assert_eq!(record.host(), "vm-002");
        record.ended(Duration::from_nanos(9), "gone", 3);
        let stats = record.into_stats("127.0.0.1:2".parse().unwrap());
        assert_eq!((stats.started, stats.connect, stats.ended), (Nanos(5), Nanos(7), Nanos(9)));
        assert_eq!((stats.err.as_str(), stats.retransmits), ("gone", 3));
        assert_eq!((stats.local.as_str(), stats.host.as_str()), ("127.0.0.1:1", "vm-001"));
    }

    #[test]
    fn the_first_moment_is_not_never() {
        let mut record = Record::begun(Duration::ZERO);
        record.connected(Duration::ZERO, "127.0.0.1:1".parse().unwrap());
        record.ended(Duration::ZERO, "", 0);
        let stats = record.into_stats("127.0.0.1:2".parse().unwrap());
        assert_eq!((stats.connect, stats.ended), (Nanos(1), Nanos(1)));
    }
}
