//! sctpt: SCTP test traffic.

#![forbid(unsafe_code)]

mod args;
mod checksum;
mod ctraffic;
#[cfg(test)]
mod fake;
mod log;
mod message;
mod output;
mod peer;
mod signals;
mod stack;
mod stats;
mod verb;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Cli;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) => {
            // Help and version are messages, too. Nobody may be reading, which is no reason to panic.
            let _ = message.print();
            return ExitCode::from(u8::from(message.use_stderr()));
        }
    };
    match cli.verb.run() {
        Ok(code) => code,
        // Nobody reads on (`sctpt stats | head`), which is their right.
        Err(error) if output::is_nobody_reading(&error) => ExitCode::SUCCESS,
        Err(error) => {
            traffic::process::log(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
