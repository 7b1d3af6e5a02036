//! What the fast plane costs and how soon it follows, beside the slow one where both can.

mod arrivals;
mod change;
mod first_packet;
mod generation;
mod memory;
mod router;
mod targets;

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::cases::Effort;
use super::output::Scope;
use super::results::CaseResults;
use super::rig::{Alternative, Rig};

/// What is measured, and what becomes of it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Settings {
    /// Rounds through everything; odd numbers have a middle
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=101))]
    rounds: u32,
    /// Length of each load
    #[arg(long, value_name = "S", default_value = "3", value_parser = super::seconds)]
    seconds: Duration,
    /// Tables of no more slots than this
    #[arg(long, value_name = "M", default_value_t = 1_000_003, value_parser = clap::value_parser!(u32).range(997..))]
    max_slots: u32,
    #[command(flatten)]
    scope: Scope<Case>,
}

const EXAMPLES: &str = "\
Examples:
  bench fast-plane
  bench fast-plane --only change,first-packet --rounds 3 --max-slots 65537
  bench fast-plane --json figures.json --plot-dir plots

Needs root, iproute2, iptables and a kernel with veth, NFQUEUE and nftables.";

/// A case, by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// From a command's return until the kernel's map holds the new table
    Change,
    /// From a command to the first packet at a new target, and the last at one that was removed
    FirstPacket,
    /// Cost of a packet with 1 to 1,000 targets
    Targets,
    /// Kernel memory of the map
    Memory,
}

/// Sizes of tables.
const SLOTS: [u32; 4] = [997, 10_007, 65_537, 1_000_003];
/// Both planes.
const PLANES: [Alternative; 2] = [Alternative::Fast, Alternative::Lb];

/// How much is measured of each case.
#[derive(Clone, Copy, Debug)]
struct Extent {
    effort: Effort,
    max_slots: u32,
}

impl Extent {
    /// Those of these sizes that are wanted.
    fn sizes(self, sizes: &[u32]) -> impl Iterator<Item = u32> {
        sizes.iter().copied().filter(move |slots| *slots <= self.max_slots)
    }
}

/// Measures and reports.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    let effort = Effort { rounds: settings.rounds, duration: settings.seconds, burst: 16 };
    let extent = Extent { effort, max_slots: settings.max_slots };
    settings.scope.measure(effort, |dir| Rig::new(dir, None), |rig, case| case.run(rig, extent))
}

impl Case {
    fn run(self, rig: &Rig, extent: Extent) -> anyhow::Result<CaseResults> {
        match self {
            Case::Change => change::run(rig, extent),
            Case::FirstPacket => first_packet::run(rig, extent),
            Case::Targets => targets::run(rig, extent),
            Case::Memory => memory::run(rig, extent),
        }
    }
}

/// Milliseconds from one moment to another, which may be before it.
fn millis_between(from: i128, to: i128) -> f64 {
    (to - from) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::side_by_side::output::name;

    #[test]
    fn cases_have_names() {
        let names: Vec<String> = Case::value_variants().iter().copied().map(name).collect();
        assert_eq!(names.join(","), "change,first-packet,targets,memory");
    }

    #[test]
    fn sizes_are_limited() {
        let effort = Effort { rounds: 1, duration: Duration::from_secs(1), burst: 16 };
        let extent = Extent { effort, max_slots: 65_537 };
        assert_eq!(extent.sizes(&SLOTS).collect::<Vec<_>>(), [997, 10_007, 65_537]);
    }

    #[test]
    fn what_was_before_is_negative() {
        assert_eq!(millis_between(2_000_000, 3_500_000), 1.5);
        assert_eq!(millis_between(3_500_000, 2_000_000), -1.5);
    }
}
