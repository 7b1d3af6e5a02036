//! What a run found, as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use sctp_stack::{Heartbeats, LostBy, Path, PathState};
use serde_json::{Map, Value, json};

use super::{Outcome, Settings};

/// An association that was up.
#[derive(Debug, Default)]
pub struct Record {
    pub client: u32,
    /// Times from the start of the run.
    pub connected: Duration,
    pub ended: Duration,
    pub end: End,
    pub sent: u64,
    pub received: u64,
    pub lost: u64,
    pub duplicates: u64,
    pub reordered: u64,
    pub corrupted: u64,
    pub failovers: u64,
    pub max_rtt: Duration,
    pub answers: Answers,
    pub local: Vec<String>,
    pub peer: Vec<String>,
    pub paths: Vec<PathRecord>,
}

/// Who answered on an association.
#[derive(Debug, Default)]
pub struct Answers {
    /// Answers by the name of the server, which is empty if it told none.
    pub servers: BTreeMap<String, u64>,
    /// How often another server answered than before.
    pub moves: u64,
}

/// Why an association ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// The run was over.
    #[default]
    Lasted,
    /// The peer ended it in order.
    Closed,
    Aborted,
    Timeout,
    Failed,
}

/// A path of an association as it was last seen.
#[derive(Debug)]
pub struct PathRecord {
    pub address: IpAddr,
    state: Option<PathState>,
    pub primary: bool,
    srtt: Duration,
    rto: Duration,
    mtu: u32,
    cwnd: u32,
    /// None where the stack does not tell.
    heartbeats: Option<Heartbeats>,
    pub downs: u64,
    pub ups: u64,
}

/// Whether each association is shown, or only sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Detail {
    All,
    Summary,
}

impl End {
    pub fn of(lost: LostBy) -> Self {
        match lost {
            LostBy::Abort => End::Aborted,
            LostBy::Timeout => End::Timeout,
        }
    }

    /// As it is told.
    pub fn text(self) -> &'static str {
        match self {
            End::Lasted => "Association ended",
            End::Closed => "Association lost: closed by the peer",
            End::Aborted => "Association lost: aborted by the peer",
            End::Timeout => "Association lost: no answer",
            End::Failed => "Association lost: it cannot be read",
        }
    }

    fn key(self) -> &'static str {
        match self {
            End::Lasted => "lasted",
            End::Closed => "closed",
            End::Aborted => "aborted",
            End::Timeout => "timeout",
            End::Failed => "failed",
        }
    }
}

impl PathRecord {
    pub fn new(address: IpAddr) -> Self {
        PathRecord {
            address,
            state: None,
            primary: false,
            srtt: Duration::ZERO,
            rto: Duration::ZERO,
            mtu: 0,
            cwnd: 0,
            heartbeats: None,
            downs: 0,
            ups: 0,
        }
    }

    /// As it is seen now.
    pub fn of(path: &Path) -> Self {
        let mut record = Self::new(path.address.ip().to_canonical());
        record.look(path);
        record
    }

    /// Takes over what the stack knows.
    pub fn look(&mut self, path: &Path) {
        self.state = Some(path.state);
        self.primary = path.primary;
        (self.srtt, self.rto) = (path.srtt, path.rto);
        (self.mtu, self.cwnd) = (path.mtu, path.cwnd);
        self.heartbeats = path.heartbeats;
    }

    fn state(&self) -> &'static str {
        match self.state {
            Some(PathState::Active) => "active",
            Some(PathState::Inactive) => "inactive",
            Some(PathState::Unconfirmed) => "unconfirmed",
            None => "unknown",
        }
    }

    fn json(&self) -> Value {
        json!({
            "address": self.address,
            "state": self.state(),
            "primary": self.primary,
            "srttMicros": micros(self.srtt),
            "rtoMicros": micros(self.rto),
            "mtu": self.mtu,
            "cwnd": self.cwnd,
            "heartbeats": heartbeats(self.heartbeats),
            "downs": self.downs,
            "ups": self.ups,
        })
    }
}

/// As it is told.
impl fmt::Display for PathRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, state, srtt) = (self.address, self.state(), self.srtt);
        write!(f, "path {address}: {state}, RTT {srtt:?}, heartbeats ")?;
        let Some(Heartbeats { sent, acks_received, received, acks_sent }) = self.heartbeats else {
            return f.write_str("-");
        };
        write!(
            f,
            "{sent} sent, {acks_received} answered, {received} received, {acks_sent} answered"
        )
    }
}

fn heartbeats(heartbeats: Option<Heartbeats>) -> Value {
    heartbeats.map_or(Value::Null, |heartbeats| {
        json!({
            "sent": heartbeats.sent,
            "acksReceived": heartbeats.acks_received,
            "received": heartbeats.received,
            "acksSent": heartbeats.acks_sent,
        })
    })
}

/// Those of several paths, if they are known of all.
fn sum_of_heartbeats(paths: &[&PathRecord]) -> Option<Heartbeats> {
    paths.iter().try_fold(Heartbeats::default(), |sum, path| {
        let path = path.heartbeats?;
        Some(Heartbeats {
            sent: sum.sent + path.sent,
            acks_received: sum.acks_received + path.acks_received,
            received: sum.received + path.received,
            acks_sent: sum.acks_sent + path.acks_sent,
        })
    })
}

impl Record {
    fn json(&self) -> Value {
        json!({
            "client": self.client,
            "connected": self.connected.as_secs_f64(),
            "ended": self.ended.as_secs_f64(),
            "end": self.end.key(),
            "sent": self.sent,
            "received": self.received,
            "lost": self.lost,
            "duplicates": self.duplicates,
            "reordered": self.reordered,
            "corrupted": self.corrupted,
            "failovers": self.failovers,
            "maxRttMicros": micros(self.max_rtt),
            "servers": self.answers.servers,
            "moves": self.answers.moves,
            "local": self.local,
            "peer": self.peer,
            "paths": self.paths.iter().map(PathRecord::json).collect::<Vec<_>>(),
        })
    }
}

impl Outcome {
    /// How often another server answered than before, within an association.
    pub fn moves(&self) -> u64 {
        self.records.iter().map(|record| record.answers.moves).sum()
    }

    /// The statistics, with the keys of the older program first.
    pub fn json(&self, settings: &Settings, stack: &str, detail: Detail) -> Value {
        let mut map = self.figures.snapshot().json();
        let mut put = |key: &str, value: Value| drop(map.insert(key.to_owned(), value));
        put("stack", json!(stack));
        put("clients", json!(settings.clients));
        put("unconnected", json!(self.unconnected));
        put("rate", json!(settings.rate));
        put("size", json!(settings.size));
        put("duration", json!(settings.duration.as_secs_f64()));
        put("took", json!(self.took.as_secs_f64()));
        put("moves", json!(self.moves()));
        put("servers", self.servers());
        put("paths", self.paths());
        put("causes", json!(self.causes));
        if detail == Detail::All {
            let mut records: Vec<_> = self.records.iter().collect();
            records.sort_by_key(|record| (record.client, record.connected));
            put("associations", records.into_iter().map(Record::json).collect());
        }
        Value::Object(map)
    }

    /// How associations and answers are spread over servers.
    fn servers(&self) -> Value {
        let mut servers: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (server, answers) in self.records.iter().flat_map(|record| &record.answers.servers) {
            let sums = servers.entry(server).or_default();
            *sums = (sums.0 + 1, sums.1 + answers);
        }
        let json = |(associations, received): (u64, u64)| json!({ "associations": associations, "received": received });
        let servers = servers.into_iter().map(|(server, sums)| (server.to_owned(), json(sums)));
        Value::Object(servers.collect::<Map<_, _>>())
    }

    /// The paths of all associations to each address.
    fn paths(&self) -> Value {
        let mut addresses: BTreeMap<IpAddr, Vec<&PathRecord>> = BTreeMap::new();
        for path in self.records.iter().flat_map(|record| &record.paths) {
            addresses.entry(path.address).or_default().push(path);
        }
        let json = |(address, paths): (IpAddr, Vec<&PathRecord>)| {
            let count = |state| paths.iter().filter(|path| path.state() == state).count();
            let longest = paths.iter().map(|path| path.srtt).max().unwrap_or_default();
            json!({
                "address": address,
                "paths": paths.len(),
                "active": count("active"),
                "inactive": count("inactive"),
                "unconfirmed": count("unconfirmed"),
                "primary": paths.iter().filter(|path| path.primary).count(),
                "downs": paths.iter().map(|path| path.downs).sum::<u64>(),
                "ups": paths.iter().map(|path| path.ups).sum::<u64>(),
                "maxSrttMicros": micros(longest),
                "heartbeats": heartbeats(sum_of_heartbeats(&paths)),
            })
        };
        addresses.into_iter().map(json).collect()
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
