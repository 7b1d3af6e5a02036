//! shm-tool: makes, changes and shows the target tables of Markway.

#![forbid(unsafe_code)]

mod args;
mod capture;
mod columns;
mod error;
mod output;
mod settings;
mod source;
mod verb;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Cli;

fn main() -> ExitCode {
    match Cli::parse().verb.run() {
        Ok(code) => code,
        Err(error) => error.report(),
    }
}
