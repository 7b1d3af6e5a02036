//! The command line: what may be asked for, not how it is done.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::flood::FloodArgs;

/// Runs test clusters of servers, routers and testers in namespaces.
#[derive(Parser)]
#[command(name = "ovl", version)]
pub struct Args {
    /// Set by `ovl` for its second self, which lives in namespaces of its own.
    #[arg(long, hide = true)]
    pub supervised: bool,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Subcommand)]
pub enum Verb {
    /// Show a load balancer at work in a small cluster
    Demo(DemoArgs),
    /// Run the function tests, each in a cluster of its own
    Test(TestArgs),
    /// Print completions for a shell
    Completions {
        /// The shell to write them for
        shell: Shell,
    },
    /// Print the manual page (roff)
    Man,
    /// Send raw IP packets, read from standard input as one line of hex digits each
    #[command(hide = true)]
    SendPackets,
    /// Send packets of many flows at a steady rate
    #[command(hide = true)]
    Flood(FloodArgs),
}

impl Verb {
    pub fn needs_cluster(&self) -> bool {
        match self {
            Self::Demo(_) => true,
            Self::Test(test) => !test.list,
            Self::Completions { .. } | Self::Man | Self::SendPackets | Self::Flood(_) => false,
        }
    }
}

#[derive(clap::Args)]
pub struct DemoArgs {
    /// Start the same cluster and open a shell on its router; the cluster ends with the shell
    #[arg(long)]
    pub shell: bool,
    /// Where lb, shm-tool and mconnect are [default: beside ovl]
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
}

#[derive(clap::Args)]
pub struct TestArgs {
    /// List the cases and end
    #[arg(long)]
    pub list: bool,
    /// Stop at the first failed case and open a shell on its router
    #[arg(long)]
    pub keep: bool,
    /// Where lb, shm-tool and mconnect are [default: beside ovl]
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Names of cases [default: all]
    #[arg(value_name = "CASE")]
    pub cases: Vec<String>,
}

pub fn write_completions(shell: Shell) {
    clap_complete::generate(shell, &mut Args::command(), "ovl", &mut io::stdout());
}

pub fn write_manual() -> anyhow::Result<ExitCode> {
    clap_mangen::Man::new(Args::command()).render(&mut io::stdout()).context("write manual")?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn only_a_list_of_cases_needs_no_cluster() {
        let needs = |words: &[&str]| Args::try_parse_from(words).unwrap().verb.needs_cluster();
        assert!(!needs(&["ovl", "test", "--list"]));
        assert!(needs(&["ovl", "test"]));
        assert!(needs(&["ovl", "demo"]));
    }
}
