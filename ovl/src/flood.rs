//! The hidden verb that sends many flows at a steady rate until it is told to end.

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::address::FAMILIES;
use crate::flow::{self, Flow, Transport};
use crate::packet::{Extras, first_packet};
use crate::sender::Sockets;

#[derive(clap::Args)]
pub struct FloodArgs {
    /// Packets per second
    #[arg(long)]
    pub rate: u32,
    /// UDP flows of each family
    #[arg(long)]
    pub flows: u16,
    /// End when this file is there
    #[arg(long)]
    pub until: PathBuf,
    /// End after so many seconds in any case
    #[arg(long)]
    pub seconds: u32,
}

/// What the verb prints at its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flood {
    pub sent: u64,
    pub seconds: f64,
}

/// How often packets are sent.
const TICK: Duration = Duration::from_millis(1);

/// The most ticks that are made up for after this process had no processor: what it missed beyond
/// is not sent at all, or the rate would be another one for a while.
const MOST_TICKS: u64 = 10;

pub fn run(args: &FloodArgs) -> Result<ExitCode> {
    let sockets = Sockets::open()?;
    let lists = FAMILIES.map(|family| flow::list(family, Transport::Udp, args.flows));
    let packets: Vec<Vec<u8>> =
        lists.iter().flatten().map(|flow: &Flow| first_packet(flow, Extras::None)).collect();
    let start = Instant::now();
    let end = Duration::from_secs(args.seconds.into());
    let mut pace = Pace::new(args.rate);
    let mut turns = packets.iter().cycle();
    let mut sent = 0;
    while start.elapsed() < end && !args.until.exists() {
        for _ in 0..pace.due(start.elapsed()) {
            sockets.send(turns.next().context("flood: no flows")?)?;
            sent += 1;
        }
        thread::sleep(TICK);
    }
    println!("{}", Flood { sent, seconds: start.elapsed().as_secs_f64() }.report());
    Ok(ExitCode::SUCCESS)
}

impl Flood {
    fn report(&self) -> String {
        format!("sent {} in {:.3} s", self.sent, self.seconds)
    }

    pub fn parse(report: &str) -> Option<Self> {
        let words: Vec<&str> = report.split_whitespace().collect();
        match words[..] {
            ["sent", sent, "in", seconds, "s"] => {
                Some(Self { sent: sent.parse().ok()?, seconds: seconds.parse().ok()? })
            }
            _ => None,
        }
    }

    pub fn has_rate(&self, least: u32) -> bool {
        // More packets than 32 bits hold are a rate beyond all that is asked for.
        let packets = u32::try_from(self.sent).map_or(f64::INFINITY, f64::from);
        packets >= f64::from(least) * self.seconds
    }
}

/// How many packets are due at a time.
struct Pace {
    rate: u64,
    /// Microseconds since the start up to which packets were due already.
    covered: u64,
    /// What was due beyond whole packets, in millionths of one.
    rest: u64,
}

impl Pace {
    fn new(rate: u32) -> Self {
        Self { rate: rate.into(), covered: 0, rest: 0 }
    }

    fn due(&mut self, elapsed: Duration) -> u64 {
        let now = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let most = MOST_TICKS * 1000;
        let passed = now.saturating_sub(self.covered).min(most);
        self.covered = now;
        let millionths = self.rate * passed + self.rest;
        self.rest = millionths % 1_000_000;
        millionths / 1_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_kept_without_bursts() {
        let mut pace = Pace::new(1500);
        let due: Vec<u64> = (1..=4).map(|ms| pace.due(Duration::from_millis(ms))).collect();
        assert_eq!(due, [1, 2, 1, 2]);
        // A second without a processor is made up for in part only.
        assert_eq!(pace.due(Duration::from_millis(1004)), 15);
        assert_eq!(pace.due(Duration::from_millis(1005)), 1);
    }

    #[test]
    fn a_report_is_read_back() {
        let flood = Flood { sent: 12345, seconds: 2.5 };
        assert_eq!(Flood::parse(&flood.report()), Some(flood));
        assert_eq!(Flood::parse("sent x in 2 s"), None);
        assert!(flood.has_rate(4900) && !flood.has_rate(5000));
    }
}
