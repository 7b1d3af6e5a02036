//! Measures what Markway promises. Figures depend on the machine; what is compared is measured in
//! turns, and what is quoted are medians.

mod allocations;
mod corpus;
mod heap_table;
mod micro;
mod moves;
mod nfq_consumer;
mod report;
mod side_by_side;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lb_sys::shm::Name;

#[derive(Debug, Parser)]
#[command(version, about = "Measures what Markway promises")]
struct Args {
    #[command(subcommand)]
    measure: Measure,
}

#[derive(Debug, Subcommand)]
enum Measure {
    /// User-space cost of a packet and of building a table; needs nothing but a processor
    Micro {
        /// Rounds through all cases; more are steadier
        #[arg(long, default_value_t = 41, value_parser = clap::value_parser!(u32).range(3..=1001))]
        rounds: u32,
        /// One JSON object instead of tables
        #[arg(long)]
        json: bool,
    },
    /// Slots that a change of the targets moves without need, beside Maglev's own algorithm
    Moves {
        /// One JSON array instead of a table
        #[arg(long)]
        json: bool,
    },
    /// `lb` beside plain forwarding and other consumers: CPU, packets/s, latency, loss, memory
    SideBySide(Box<side_by_side::Settings>),
    /// The fast plane beside the slow one: changes, the first packet after one, memory, many targets
    FastPlane(side_by_side::FastPlaneSettings),
    /// The traffic generators beside iperf, wrk and hping3: pace, packets/s, connections/s, memory
    Traffic(side_by_side::TrafficSettings),
    /// SCTP: failover against its settings, associations/s, messages/s
    Sctp(side_by_side::SctpSettings),
    /// Tables and plots of what was saved with `--json`
    Report(side_by_side::Report),
    /// A consumer on the `nfq` crate, for side-by-side
    #[command(hide = true)]
    NfqConsumer {
        #[arg(long)]
        queue: u16,
        #[arg(long)]
        shm: Name,
    },
}

fn main() -> ExitCode {
    match run(Args::parse().measure) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(measure: Measure) -> anyhow::Result<()> {
    match measure {
        Measure::Micro { rounds, json } => micro::run(rounds, json),
        Measure::Moves { json } => {
            moves::run(json);
            Ok(())
        }
        Measure::SideBySide(settings) => side_by_side::run(&settings),
        Measure::FastPlane(settings) => side_by_side::run_fast_plane(&settings),
        Measure::Traffic(settings) => side_by_side::run_traffic(&settings),
        Measure::Sctp(settings) => side_by_side::run_sctp(&settings),
        Measure::Report(settings) => side_by_side::run_report(&settings),
        Measure::NfqConsumer { queue, shm } => nfq_consumer::run(queue, &shm),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
