//! SCTP: how long a failover takes with which settings, and what a process of a stack can do.

mod bed;
mod capacity;
mod failover;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::output::Scope;
use super::results::CaseResults;
use bed::{Bed, Stack};

/// What is measured, and what becomes of it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Settings {
    /// Rounds through everything; odd numbers have a middle
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=101))]
    rounds: u32,
    /// How long messages are sent as fast as they are taken
    #[arg(long, value_name = "S", default_value = "5", value_parser = super::seconds)]
    seconds: Duration,
    /// Failovers with this retransmission time-out alone
    #[arg(long, value_name = "RTO")]
    rto: Option<failover::Rto>,
    /// The stack of both ends
    #[arg(long, default_value = "user")]
    stack: Stack,
    #[command(flatten)]
    scope: Scope<Case>,
}

const EXAMPLES: &str = "\
Examples:
  bench sctp
  bench sctp --only failover --rto fast --rounds 1
  bench sctp --only associations,messages --json figures.json --plot-dir plots

Needs root, iproute2, iptables and a kernel with veth.";

/// A case, by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// A path is cut and comes back: how soon that is noticed, against time-outs and heartbeats
    Failover,
    /// Associations that come up at the same time
    Associations,
    /// Messages there and back as fast as they are taken
    Messages,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Extent {
    rounds: u32,
    duration: Duration,
    rto: Option<failover::Rto>,
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.duration.as_secs_f64();
        write!(f, "median (smallest–largest) of {} rounds, messages over {seconds} s", self.rounds)
    }
}

/// Measures and reports.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    let extent = Extent { rounds: settings.rounds, duration: settings.seconds, rto: settings.rto };
    let prepare = |dir: PathBuf| Bed::new(&dir, settings.stack);
    settings.scope.measure(extent, prepare, |bed, case| case.run(bed, extent))
}

impl Case {
    fn run(self, bed: &Bed, extent: Extent) -> anyhow::Result<CaseResults> {
        match self {
            Case::Failover => failover::run(bed, extent),
            Case::Associations => capacity::associations(bed, extent),
            Case::Messages => capacity::messages(bed, extent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::side_by_side::output::name;

    #[test]
    fn cases_have_names() {
        let names: Vec<String> = Case::value_variants().iter().copied().map(name).collect();
        assert_eq!(names.join(","), "failover,associations,messages");
    }
}
