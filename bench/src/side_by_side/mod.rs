//! The alternatives that a user has, side by side on one machine: in interleaved rounds, by the built
//! programs, in network namespaces that nobody else sees.

mod bulk;
mod cases;
mod consumer;
mod datagrams;
mod fast_plane;
mod interrupt;
mod lab;
mod load;
mod machine;
mod namespace;
mod output;
mod plot;
mod process;
mod results;
mod rig;
mod round_trip;
mod sctp;
mod session;
mod substitute;
mod table;
mod traffic;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use cases::{Case, Effort, Saturation};
use output::Scope;
use rig::{Peer, Rig};
use substitute::CommandLine;

pub use fast_plane::{Settings as FastPlaneSettings, run as run_fast_plane};
pub use sctp::{Settings as SctpSettings, run as run_sctp};
pub use traffic::{Settings as TrafficSettings, run as run_traffic};

/// What is measured, and what becomes of it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Settings {
    /// Another program to compare with: a shell command that makes its table and serves the queue
    ///
    /// It runs in the router's namespace with an empty /dev/shm of its own, must set the marks itself,
    /// and is ended with SIGTERM. {queue} stands for the number of the queue, {marks} for the marks of
    /// the targets, {m} for the number of slots.
    #[arg(long, value_name = "COMMAND")]
    peer: Option<String>,
    /// How the peer puts a target in while it runs; {mark} stands for its mark
    #[arg(long, value_name = "COMMAND", requires = "peer", requires = "peer_deactivate")]
    peer_activate: Option<String>,
    /// How the peer takes a target out while it runs
    #[arg(long, value_name = "COMMAND", requires = "peer", requires = "peer_activate")]
    peer_deactivate: Option<String>,
    /// Rounds through all alternatives; odd numbers have a middle
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=101))]
    rounds: u32,
    /// Length of each measurement
    #[arg(long, value_name = "S", default_value = "3", value_parser = seconds)]
    seconds: Duration,
    /// UDP packets that are sent at once; a network card, too, hands packets over in bursts
    #[arg(long, value_name = "PACKETS", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    burst: u16,
    #[command(flatten)]
    scope: Scope<Case>,
}

const EXAMPLES: &str = "\
Examples:
  bench side-by-side
  bench side-by-side --only flood,latency --rounds 3 --seconds 2
  bench side-by-side --json figures.json --plot-dir plots \\
    --peer 'nfqlb init --M={m} --N=100 && nfqlb activate {marks} && exec nfqlb lb --queue={queue}' \\
    --peer-activate 'nfqlb activate {mark}' --peer-deactivate 'nfqlb deactivate {mark}'
  bench side-by-side --only fragments,fragments-limit \
    --peer 'ip tuntap add nfqlb0 mode tun; ip link set nfqlb0 up; nfqlb init --M={m} --N=100 && \
      nfqlb activate {marks} && exec nfqlb lb --queue={queue} --tun=nfqlb0 --ft_size=16384 --ft_frag=1024'

Needs root, iproute2, iptables and a kernel with veth and NFQUEUE.";

/// Prints results that were saved.
#[derive(Debug, Args)]
pub struct Report {
    /// What `--json` wrote
    file: PathBuf,
    /// Write a picture of each case to a folder
    #[arg(long, value_name = "DIR")]
    plot_dir: Option<PathBuf>,
    /// Print tables in Markdown
    #[arg(long)]
    markdown: bool,
}

/// Measures and reports.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    let command_line = |text: &String| CommandLine::new(text);
    let peer = settings.peer.as_ref().map(|start| Peer {
        start: CommandLine::new(start),
        change: settings
            .peer_activate
            .as_ref()
            .map(command_line)
            .zip(settings.peer_deactivate.as_ref().map(command_line)),
    });
    let effort = Effort {
        rounds: settings.rounds,
        duration: settings.seconds,
        burst: settings.burst.into(),
    };
    let mut saturation = Saturation::default();
    let prepare = |dir| Rig::new(dir, peer);
    settings.scope.measure(effort, prepare, |rig, case| case.run(rig, effort, &mut saturation))
}

/// Prints and draws what was saved.
pub fn run_report(settings: &Report) -> anyhow::Result<()> {
    let read = || format!("read {}", settings.file.display());
    let text = fs::read_to_string(&settings.file).with_context(read)?;
    let results = serde_json::from_str(&text).with_context(read)?;
    output::show(&results, settings.markdown, settings.plot_dir.as_deref())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number")?;
    if (0.1..=60.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("from 0.1 to 60".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_within_reason() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("60"), Ok(Duration::from_secs(60)));
        for bad in ["", "x", "0", "-1", "61", "nan", "inf"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
