//! The traffic generators beside the programs that a user would take instead.

mod bed;
mod connections;
mod memory;
mod pace;
mod packets;
mod requests;
mod said;
mod streams;

use std::fmt;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::cases::Entrant;
use super::output::Scope;
use super::results::{CaseResults, Row};
use bed::{Bed, Generator};

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
    /// Length of what is sent at a pace
    #[arg(long, value_name = "S", default_value = "10", value_parser = super::seconds)]
    pace_seconds: Duration,
    /// Connections of which the memory is measured
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=20_000))]
    connections: u32,
    #[command(flatten)]
    scope: Scope<Case>,
}

const EXAMPLES: &str = "\
Examples:
  bench traffic
  bench traffic --only pace,packets --rounds 3 --seconds 2
  bench traffic --json figures.json --plot-dir plots

Needs root, iproute2, iptables and a kernel with veth. Compares with iperf (2), wrk and hping3, those of
them that are installed.";

/// A case, by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// Packets that are sent at 10 to 100,000 a second, beside what was asked for
    Pace,
    /// Small UDP packets as fast as they can be sent
    Packets,
    /// TCP streams as fast as they go
    Streams,
    /// Connections that are made and closed
    Connections,
    /// HTTP requests on connections that stay
    Requests,
    /// Memory of a connection
    Memory,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Extent {
    rounds: u32,
    duration: Duration,
    pace_duration: Duration,
    connections: u32,
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (duration, pace) = (self.duration.as_secs_f64(), self.pace_duration.as_secs_f64());
        write!(
            f,
            "median (smallest–largest) of {} rounds of {duration} s, pace over {pace} s",
            self.rounds
        )
    }
}

/// Measures and reports.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    let extent = Extent {
        rounds: settings.rounds,
        duration: settings.seconds,
        pace_duration: settings.pace_seconds,
        connections: settings.connections,
    };
    settings.scope.measure(extent, Bed::new, |bed, case| {
        let mut results = case.run(bed, extent)?;
        // Who is not here has a row, too: nobody may think that it was forgotten.
        results.rows.extend(case.rivals().iter().filter(|rival| !bed.has(**rival)).map(missing));
        Ok(results)
    })
}

impl Case {
    fn run(self, bed: &Bed, extent: Extent) -> anyhow::Result<CaseResults> {
        match self {
            Case::Pace => pace::run(bed, extent),
            Case::Packets => packets::run(bed, extent),
            Case::Streams => streams::run(bed, extent),
            Case::Connections => connections::run(bed, extent),
            Case::Requests => requests::run(bed, extent),
            Case::Memory => memory::run(bed, extent),
        }
    }

    /// Others that are measured beside ours.
    fn rivals(self) -> &'static [Generator] {
        match self {
            Case::Pace | Case::Packets => &[Generator::Iperf, Generator::Hping3],
            Case::Streams => &[Generator::Iperf],
            Case::Connections | Case::Requests | Case::Memory => &[Generator::Wrk],
        }
    }
}

/// Those of these that are here, in their variants.
fn entrants<V: Copy>(bed: &Bed, all: &[(Generator, &str, V)]) -> Vec<Entrant<V, Generator>> {
    let here = all.iter().filter(|(generator, ..)| bed.has(*generator));
    here.map(|(generator, variant, setting)| Entrant::new(*generator, *variant, *setting)).collect()
}

fn missing(rival: &Generator) -> Row {
    let variant = "not installed".to_string();
    Row { name: rival.to_string(), variant, rounds: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::side_by_side::output::name;

    #[test]
    fn cases_have_names() {
        let names: Vec<String> = Case::value_variants().iter().copied().map(name).collect();
        assert_eq!(names.join(","), "pace,packets,streams,connections,requests,memory");
    }

    #[test]
    fn who_is_missing_has_a_row() {
        assert_eq!(missing(&Generator::Wrk).title(), "wrk, not installed");
    }
}
