//! What statistics show over time, as columns of text or for a picture.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use thiserror::Error;

use super::{ConnStats, Nanos, Statistics};

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Throughput,
    Connections,
    Hosts,
}

/// Why statistics cannot be analysed.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum AnalysisError {
    #[error("No samples found (make them with -stats all)")]
    NoSamples,
    #[error("samples {0} and {1}: time or packets go backwards")]
    Backwards(usize, usize),
    #[error("connection {0} never ended")]
    NeverEnded(usize),
    #[error("no connections found (save them with -stats all)")]
    NoConnections,
    #[error("duration of {0:.0} s: longer than can be analysed")]
    TooLong(f64),
}

/// Received data between two samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throughput {
    /// The middle of the interval, in seconds.
    pub time: f64,
    /// KB/s.
    pub rate: f64,
}

/// Connections in a second of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    pub active: u64,
    /// Begun in this second; among the active or connecting ones, too.
    pub new: u64,
    pub failed: u64,
    pub connecting: u64,
}

/// Connections by the host that answered them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts<'a> {
    pub lost: BTreeMap<&'a str, u64>,
    pub lasting: BTreeMap<&'a str, u64>,
}

/// A day; longer ones would be a bad file.
const MOST_SECONDS: u64 = 86_400;

const SECOND: u64 = 1_000_000_000;

impl Kind {
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "throughput" => Some(Kind::Throughput),
            "connections" => Some(Kind::Connections),
            "hosts" => Some(Kind::Hosts),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Throughput => "throughput",
            Kind::Connections => "connections",
            Kind::Hosts => "hosts",
        }
    }
}

/// The analysis as text: columns with one space between them.
pub fn text(statistics: &Statistics, kind: Kind) -> Result<String, AnalysisError> {
    let mut out = String::new();
    // Writing to a String cannot fail.
    match kind {
        Kind::Throughput => {
            out += "Time Throughput\n";
            for Throughput { time, rate } in throughput(statistics)? {
                let _ = writeln!(out, "{time:.1} {rate:.0}");
            }
        }
        Kind::Connections => {
            out += "Time Active New Failed Connecting\n";
            for (number, second) in (0u64..).zip(connections(statistics)?) {
                let Second { active, new, failed, connecting } = second;
                let _ = writeln!(out, "{number}.5 {active} {new} {failed} {connecting}");
            }
        }
        Kind::Hosts => {
            let hosts = hosts(statistics);
            for (title, counts) in [("Lost", hosts.lost), ("Lasting", hosts.lasting)] {
                let _ = writeln!(out, "{title} connections: {}", counts.values().sum::<u64>());
                for (host, count) in counts {
                    let _ = writeln!(out, "  {host} {count}");
                }
            }
        }
    }
    Ok(out)
}

pub fn throughput(statistics: &Statistics) -> Result<Vec<Throughput>, AnalysisError> {
    if statistics.samples.is_empty() {
        return Err(AnalysisError::NoSamples);
    }
    let pairs = statistics.samples.windows(2).enumerate();
    pairs
        .map(|(index, pair)| {
            let (from, to) = (pair[0], pair[1]);
            let backwards = AnalysisError::Backwards(index, index + 1);
            let packets = to.received.checked_sub(from.received).ok_or(backwards.clone())?;
            let interval = to.time.seconds() - from.time.seconds();
            if interval <= 0.0 {
                return Err(backwards);
            }
            let bytes = as_float(packets) * f64::from(statistics.packet_size);
            Ok(Throughput {
                time: from.time.seconds() + interval / 2.0,
                rate: bytes / 1024.0 / interval,
            })
        })
        .collect()
}

/// One entry for each full second of the run.
pub fn connections(statistics: &Statistics) -> Result<Vec<Second>, AnalysisError> {
    let seconds = full_seconds(statistics)?;
    ended(statistics)?;
    Ok((0..seconds)
        .map(|number| {
            let (begin, end) = (Nanos(number * SECOND), Nanos((number + 1) * SECOND));
            let mut counts = Second::default();
            for connection in &statistics.conn_stats {
                if connection.started >= end || connection.ended < begin {
                    continue;
                }
                if connection.ended < end {
                    // Without an error it was over before the run was.
                    counts.failed += u64::from(connection.has_failed());
                    continue;
                }
                counts.new += u64::from(connection.started >= begin);
                let is_connected = connection.connect.0 > 0 && connection.connect < end;
                counts.active += u64::from(is_connected);
                counts.connecting += u64::from(!is_connected);
            }
            counts
        })
        .collect())
}

pub fn hosts(statistics: &Statistics) -> Hosts<'_> {
    let mut hosts = Hosts::default();
    for connection in &statistics.conn_stats {
        let counts = match connection.has_failed() {
            true => &mut hosts.lost,
            false => &mut hosts.lasting,
        };
        *counts.entry(connection.host.as_str()).or_default() += 1;
    }
    hosts
}

/// The connections that each host served, at the middle of each full second.
pub fn hosts_over_time(statistics: &Statistics) -> Result<BTreeMap<&str, Vec<u64>>, AnalysisError> {
    let seconds = full_seconds(statistics)?;
    ended(statistics)?;
    if statistics.conn_stats.is_empty() {
        return Err(AnalysisError::NoConnections);
    }
    let length = usize::try_from(seconds).expect("at most a day");
    let mut hosts: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for connection in statistics.conn_stats.iter().filter(|c| c.connect.0 > 0) {
        let counts = hosts.entry(&connection.host).or_insert_with(|| vec![0; length]);
        for (number, count) in (0u64..).zip(counts) {
            let middle = Nanos(number * SECOND + SECOND / 2);
            *count += u64::from(connection.connect <= middle && middle < connection.ended);
        }
    }
    Ok(hosts)
}

impl ConnStats {
    fn has_failed(&self) -> bool {
        !self.err.is_empty()
    }
}

fn full_seconds(statistics: &Statistics) -> Result<u64, AnalysisError> {
    match statistics.duration.0 / SECOND {
        seconds if seconds <= MOST_SECONDS => Ok(seconds),
        _ => Err(AnalysisError::TooLong(statistics.duration.seconds())),
    }
}

fn ended(statistics: &Statistics) -> Result<(), AnalysisError> {
    match statistics.conn_stats.iter().position(|connection| connection.ended.0 == 0) {
        Some(number) => Err(AnalysisError::NeverEnded(number)),
        None => Ok(()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "2^53 packets are not reached")]
fn as_float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Sample, tests::FOREIGN};
    use super::*;

    fn foreign() -> Statistics {
        serde_json::from_str(FOREIGN).unwrap()
    }

    #[test]
    fn throughput_is_by_the_samples() {
        let shown = text(&foreign(), Kind::Throughput).unwrap();
        assert_eq!(shown, "Time Throughput\n1.5 8\n");
    }

    #[test]
    fn throughput_knows_large_numbers_and_small_packets() {
        let sample = |seconds: u64, received| Sample {
            time: Nanos(seconds * SECOND),
            received,
            ..Sample::default()
        };
        let mut statistics = Statistics { packet_size: 100, ..Statistics::default() };
        statistics.samples = vec![sample(1, 0), sample(2, 64), sample(3, 10_000_000_064)];
        let shown = text(&statistics, Kind::Throughput).unwrap();
        assert_eq!(shown, "Time Throughput\n1.5 6\n2.5 976562500\n");
    }

    #[test]
    fn connections_are_counted_each_second() {
        let shown = text(&foreign(), Kind::Connections).unwrap();
        assert_eq!(
            shown,
            "Time Active New Failed Connecting\n0.5 2 2 0 0\n1.5 2 1 1 0\n2.5 2 0 0 0\n"
        );
    }

    #[test]
    fn a_connection_that_is_never_connected_is_connecting_until_it_failed() {
        let mut statistics = foreign();
        statistics.conn_stats = vec![ConnStats {
            ended: Nanos(1_500_000_000),
            err: "timeout".to_owned(),
            ..ConnStats::default()
        }];
        let shown = text(&statistics, Kind::Connections).unwrap();
        assert_eq!(
            shown,
            "Time Active New Failed Connecting\n0.5 0 1 0 1\n1.5 0 0 1 0\n2.5 0 0 0 0\n"
        );
    }

    #[test]
    fn hosts_are_sorted_and_counted() {
        let shown = text(&foreign(), Kind::Hosts).unwrap();
        assert_eq!(shown, "Lost connections: 1\n  vm-001 1\nLasting connections: 2\n  vm-002 2\n");
        let statistics = foreign();
        let over_time = hosts_over_time(&statistics).unwrap();
        assert_eq!(over_time["vm-001"], [1, 1, 0]);
        assert_eq!(over_time["vm-002"], [1, 1, 2]);
    }

    #[test]
    fn what_cannot_be_analysed_is_named() {
        let mut statistics = foreign();
        statistics.samples[1].time = Nanos(1);
        assert_eq!(throughput(&statistics), Err(AnalysisError::Backwards(0, 1)));
        statistics.samples.clear();
        assert_eq!(throughput(&statistics), Err(AnalysisError::NoSamples));
        statistics.conn_stats[2].ended = Nanos(0);
        assert_eq!(connections(&statistics), Err(AnalysisError::NeverEnded(2)));
        statistics.conn_stats.clear();
        assert_eq!(hosts_over_time(&statistics), Err(AnalysisError::NoConnections));
        statistics.duration = Nanos(u64::MAX);
        assert!(matches!(connections(&statistics), Err(AnalysisError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn no_connection_is_counted_twice(
            times in prop::collection::vec((0u64..5, 0u64..5, 1u64..5, any::<bool>()), 0..20),
        ) {
            let mut statistics = foreign();
            statistics.duration = Nanos(5 * SECOND);
            statistics.conn_stats = times
                .iter()
                .map(|&(started, connect, ended, failed)| ConnStats {
                    started: Nanos(started * SECOND / 2),
                    connect: Nanos(connect * SECOND / 2),
                    ended: Nanos(ended * SECOND),
                    err: if failed { "x".to_owned() } else { String::new() },
                    ..ConnStats::default()
                })
                .collect();
            for second in connections(&statistics).unwrap() {
                let all = second.active + second.failed + second.connecting;
                prop_assert!(all <= times.len() as u64);
                prop_assert!(second.new <= second.active + second.connecting);
            }
        }
    }
}
