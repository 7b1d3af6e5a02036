//! mconnect: many short connections to one address, and who answered them.

#![forbid(unsafe_code)]

mod args;
mod client;
mod report;
mod server;

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use traffic::process;

use crate::args::{COMMAND_LINE, Task};
use crate::server::HostName;

fn main() -> ExitCode {
    let args = match COMMAND_LINE.parse_or_exit_code() {
        Ok(args) => args,
        Err(code) => return code,
    };
    let done = args.into_task().and_then(|task| match task {
        Task::Serve(settings) => {
            let host_name = process::host_name().context("get the host name")?;
            traffic::server::run(&settings, HostName(host_name))?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Connect(settings, format) => connect(&settings, format),
    });
    done.unwrap_or_else(|error| {
        process::log(format_args!("mconnect: {error:#}"));
        ExitCode::FAILURE
    })
}

/// Runs the client and prints its report: on stdout the report alone, on
/// stderr why connections failed.
fn connect(settings: &client::Settings, format: report::Format) -> anyhow::Result<ExitCode> {
    let report = client::run(settings)?;
    for (cause, count) in &report.causes {
        process::log(format_args!("mconnect: {cause} ({count} times)"));
    }
    io::stdout().write_all(report.shown_as(format).as_bytes()).context("write the report")?;
    Ok(match report.has_failures() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}
