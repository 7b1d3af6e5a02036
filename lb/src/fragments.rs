//! Fragments: what the command line says about them, and what a worker does beside its packets.

use std::time::{Duration, Instant};

use clap::Args;
use lb_core::counters::{Counter, Counts};
use lb_core::frag::{FragConfig, Fragments, Secret, Time};
use lb_sys::tun::{DeviceName, Tun};

/// The options.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Fragments")]
pub struct FragArgs {
    /// Device that lb makes, to send fragments round once more that came before the first of their
    /// datagram; the rules must send its packets to the queues, too. Without it they are dropped
    #[arg(long, value_name = "NAME")]
    tun: Option<DeviceName>,

    /// Datagrams of which fragments are remembered, in each queue
    #[arg(long, value_name = "N", default_value_t = FragConfig::default().entries, value_parser = clap::value_parser!(u32).range(1..=MOST_ENTRIES))]
    frag_entries: u32,

    /// Fragments that are held until the first of their datagram comes, in each queue
    #[arg(long, value_name = "N", requires = "tun", default_value_t = FragConfig::default().held, value_parser = clap::value_parser!(u32).range(1..=MOST_HELD))]
    frag_held: u32,

    /// Milliseconds for which a datagram is remembered from its first sight
    #[arg(long, value_name = "MILLIS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=600_000))]
    frag_ttl: u32,
}

const MOST_ENTRIES: i64 = 1 << 24;
const MOST_HELD: i64 = 1 << 20;
/// Bytes copied of a packet: fragments that are held must be whole, and headers are enough else.
const HEADERS: u32 = 512;
const WHOLE: u32 = 1500;
/// The least that every link of IPv6 lets pass.
const LEAST_WHOLE: u32 = 1280;

/// What the options mean.
#[derive(Clone, Debug)]
pub struct FragSettings {
    /// The device.
    pub tun: Option<DeviceName>,
    /// The table of a queue.
    pub table: FragConfig,
    /// Bytes copied of each packet.
    pub copy_range: u32,
}

impl FragArgs {
    /// What they mean together with the copy range, if one is given.
    pub fn settings(self, copy_range: Option<u32>) -> Result<FragSettings, &'static str> {
        let copy_range = match (copy_range, &self.tun) {
            (Some(given), Some(_)) if given < LEAST_WHOLE => {
                return Err("--copy-range is below 1280: with --tun whole packets are needed");
            }
            (Some(given), _) => given,
            (None, Some(_)) => WHOLE,
            (None, None) => HEADERS,
        };
        let held = if self.tun.is_some() { self.frag_held } else { 0 };
        let table = FragConfig {
            entries: self.frag_entries,
            held,
            held_per_source: per_source(held),
            held_bytes: copy_range as usize,
            ttl: Duration::from_millis(self.frag_ttl.into()),
        };
        Ok(FragSettings { tun: self.tun, table, copy_range })
    }
}

/// A quarter for one source, but the longest datagram in pieces of 1,280 bytes if it fits at all.
fn per_source(held: u32) -> u32 {
    const LONGEST: u32 = 52;
    (held / 4).max(held.min(LONGEST))
}

/// The fragments of one queue.
#[derive(Debug)]
pub struct Worker<'a> {
    /// Of which datagrams they are.
    pub table: Fragments,
    /// When it is, as far as the table is concerned: read once for a batch.
    pub now: Time,
    start: Instant,
    tun: Option<&'a Tun>,
}

impl<'a> Worker<'a> {
    /// Remembers nothing yet.
    pub fn new(config: FragConfig, secret: Secret, tun: Option<&'a Tun>) -> Self {
        let (table, start) = (Fragments::new(config, secret), Instant::now());
        Worker { table, now: Time(0), start, tun }
    }

    /// To be called before a batch.
    pub fn before_batch(&mut self) {
        self.now = Time(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        self.table.expire(self.now);
    }

    /// To be called when the verdicts of a batch have gone: sends round what need no longer be held.
    pub fn after_batch(&mut self, counts: &mut Counts) {
        if let Some(tun) = self.tun {
            while let Some(packet) = self.table.poll_ready() {
                if tun.write(packet).is_err() {
                    counts.add(Counter::HeldUnsent, 1);
                }
            }
        }
        counts.set_fragments(self.table.counts());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_may_hold_a_quarter_but_one_long_datagram_always() {
        for (held, expected) in [(0, 0), (1, 1), (52, 52), (100, 52), (1024, 256)] {
            assert_eq!(per_source(held), expected);
        }
    }
}
