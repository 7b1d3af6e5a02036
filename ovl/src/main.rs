//! `ovl` runs test clusters of servers, routers and testers in namespaces and drives the project's
//! built binaries in them.
#![forbid(unsafe_code)]

mod activity;
mod address;
mod bins;
mod case;
mod cli;
mod cluster;
mod demo;
mod flood;
mod flow;
mod lab;
mod mconnect;
mod net;
mod node;
mod packet;
mod process;
mod random;
mod sender;
mod shell;
mod stats;
mod style;
mod supervisor;
mod trace;
mod wait;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match run(&cli::Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ovl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &cli::Args) -> anyhow::Result<ExitCode> {
    if args.verb.needs_cluster() && !args.supervised {
        return supervisor::run_inside();
    }
    match &args.verb {
        cli::Verb::Demo(demo) => demo::run(demo),
        cli::Verb::Test(test) => case::run(test),
        cli::Verb::SendPackets => sender::run(),
        cli::Verb::Flood(args) => flood::run(args),
        cli::Verb::Completions { shell } => {
            cli::write_completions(*shell);
            Ok(ExitCode::SUCCESS)
        }
        cli::Verb::Man => cli::write_manual(),
    }
}
