//! The statistics of a run of traffic, as they are saved: one line of JSON.
//!
//! Times are nanoseconds from the start of the run. What older programs did
//! not write is left out or zero when it is read.

pub mod analysis;
mod percentiles;
pub mod plot;

use std::io::{self, Read as _};
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

pub use percentiles::{Percentiles, Times};

/// Nanoseconds in a file, a duration elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nanos(pub u64);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Statistics {
    /// RFC 3339.
    pub started: String,
    /// How long the run took.
    pub duration: Nanos,
    /// KB/s of all connections together.
    #[serde(serialize_with = "without_needless_fraction")]
    pub rate: f64,
    pub connections: u32,
    pub packet_size: u32,
    #[serde(flatten)]
    pub totals: Totals,
    /// From sending a packet to its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_time: Option<Percentiles>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conn_stats: Vec<ConnStats>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
}

/// What is counted over all connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Totals {
    pub failed_connections: u64,
    pub sent: u64,
    /// Sent packets that were answered, however late.
    pub received: u64,
    /// Packets not sent because answers to earlier ones were late.
    pub dropped: u64,
    pub retransmits: u64,
    /// Attempts to connect that were followed by another one.
    pub failed_connects: u64,
    /// Sent packets without an answer.
    #[serde(default)]
    pub lost: u64,
    /// Answers that came after their time limit.
    #[serde(default)]
    pub late: u64,
    /// Answers that came after the answer to a later packet.
    #[serde(default)]
    pub reordered: u64,
    /// Further answers to an answered packet.
    #[serde(default)]
    pub duplicates: u64,
    /// Datagrams that are no answer to any packet of theirs.
    #[serde(default)]
    pub invalid: u64,
    /// Changes of the answering host within a connection.
    #[serde(default)]
    pub moves: u64,
}

/// A connection; each replacement of a failed one is another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ConnStats {
    pub started: Nanos,
    /// When it was connected; 0 if it never was.
    pub connect: Nanos,
    pub ended: Nanos,
    /// Why it ended; empty if it lasted.
    #[serde(default)]
    pub err: String,
    pub sent: u64,
    pub received: u64,
    pub dropped: u64,
    #[serde(default)]
    pub retransmits: u64,
    #[serde(default)]
    pub local: String,
    #[serde(default)]
    pub remote: String,
    /// Who answered first.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
}

/// The counters at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Sample {
    pub time: Nanos,
    pub sent: u64,
    pub received: u64,
    pub dropped: u64,
}

/// Why there are no statistics to work with.
#[derive(Debug, Error)]
pub enum ReadError {
    #[error("read statistics {0}: {1}")]
    Open(String, io::Error),
    #[error("read statistics {0}: {1}")]
    Form(String, serde_json::Error),
}

impl Statistics {
    /// Reads a file; `-` is stdin.
    pub fn read(path: &str) -> Result<Self, ReadError> {
        let open = |error| ReadError::Open(path.to_owned(), error);
        let bytes = match path {
            "-" => {
                let mut bytes = Vec::new();
                io::stdin().read_to_end(&mut bytes).map_err(open)?;
                bytes
            }
            path => std::fs::read(path).map_err(open)?,
        };
        serde_json::from_slice(&bytes).map_err(|error| ReadError::Form(path.to_owned(), error))
    }

    /// As a line of JSON.
    pub fn line(&self) -> String {
        // Maps with text as keys and finite numbers can always be written.
        format!("{}\n", serde_json::to_string(self).expect("statistics are JSON"))
    }
}

/// A whole number is written as one, as programs in Go do.
pub fn without_needless_fraction<S: Serializer>(number: &f64, out: S) -> Result<S::Ok, S::Error> {
    #[expect(clippy::cast_possible_truncation, reason = "it is compared with the original")]
    let whole = *number as i64;
    #[expect(clippy::cast_precision_loss, reason = "it is compared with the original")]
    let back = whole as f64;
    match back == *number {
        true => out.serialize_i64(whole),
        false => out.serialize_f64(*number),
    }
}

impl Totals {
    /// The counters of another sender as well.
    pub fn add(&mut self, other: &Totals) {
        self.failed_connections += other.failed_connections;
        self.sent += other.sent;
        self.received += other.received;
        self.dropped += other.dropped;
        self.retransmits += other.retransmits;
        self.failed_connects += other.failed_connects;
        self.lost += other.lost;
        self.late += other.late;
        self.reordered += other.reordered;
        self.duplicates += other.duplicates;
        self.invalid += other.invalid;
        self.moves += other.moves;
    }
}

impl Nanos {
    #[expect(clippy::cast_precision_loss, reason = "2^53 nanoseconds are 104 days")]
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl From<Duration> for Nanos {
    /// Held at the largest number after some 580 years.
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shape that the Go program of the same name writes.
    pub const FOREIGN: &str = r#"{
        "Started": "2021-03-04T10:00:00.123456789+01:00", "Duration": 3000000001,
        "Rate": 100, "Connections": 2, "PacketSize": 1024,
        "FailedConnections": 1, "Sent": 30, "Received": 29, "Dropped": 2,
        "Retransmits": 1, "FailedConnects": 0,
        "ConnStats": [
            {"Started": 0, "Connect": 1000000, "Ended": 1700000000, "Err": "EOF", "Sent": 10,
             "Received": 9, "Dropped": 2, "Retransmits": 0, "Local": "10.0.0.1:4000",
             "Remote": "10.0.0.0:5003", "Host": "vm-001"},
            {"Started": 0, "Connect": 2000000, "Ended": 3000000000, "Err": "", "Sent": 15,
             "Received": 15, "Dropped": 0, "Retransmits": 1, "Local": "10.0.0.1:4001",
             "Remote": "10.0.0.0:5003", "Host": "vm-002"},
            {"Started": 1700000000, "Connect": 1701000000, "Ended": 3000000000, "Err": "",
             "Sent": 5, "Received": 5, "Dropped": 0, "Retransmits": 0,
             "Local": "10.0.0.1:4002", "Remote": "10.0.0.0:5003", "Host": "vm-002"}],
        "Samples": [
            {"Time": 1000000000, "Sent": 12, "Received": 10, "Dropped": 0},
            {"Time": 2000000000, "Sent": 20, "Received": 18, "Dropped": 2}]}"#;

    #[test]
    fn foreign_statistics_are_read() {
        let statistics: Statistics = serde_json::from_str(FOREIGN).unwrap();
        assert_eq!(statistics.duration, Nanos(3_000_000_001));
        assert_eq!(statistics.totals.sent, 30);
        assert_eq!(statistics.totals.lost, 0);
        assert_eq!(statistics.conn_stats[0].err, "EOF");
        assert_eq!(statistics.conn_stats[2].started, Nanos(1_700_000_000));
        assert_eq!(statistics.samples.len(), 2);
    }

    #[test]
    fn a_summary_has_the_known_keys_first_and_no_empty_lists() {
        let line = Statistics { rate: 10.0, ..Statistics::default() }.line();
        assert!(line.ends_with("}\n"));
        assert!(line.contains("\"Rate\":10,"), "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys[..11],
            [
                "Started",
                "Duration",
                "Rate",
                "Connections",
                "PacketSize",
                "FailedConnections",
                "Sent",
                "Received",
                "Dropped",
                "Retransmits",
                "FailedConnects"
            ]
        );
        assert!(!line.contains("ConnStats") && !line.contains("Samples"), "{line}");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut statistics: Statistics = serde_json::from_str(FOREIGN).unwrap();
        statistics.totals.late = 7;
        statistics.reply_time = Some(Percentiles { p50: Nanos(5), ..Percentiles::default() });
        let again: Statistics = serde_json::from_str(&statistics.line()).unwrap();
        assert_eq!(again, statistics);
    }

    #[test]
    fn a_bad_file_is_named() {
        let error = Statistics::read("/nowhere/x").unwrap_err().to_string();
        assert!(error.starts_with("read statistics /nowhere/x: No such file"), "{error}");
        assert!(serde_json::from_str::<Statistics>("{\"Started\": 5}").is_err());
        assert!(serde_json::from_str::<Statistics>("{}").is_err());
    }
}
