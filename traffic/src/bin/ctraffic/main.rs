//! ctraffic: steady traffic on many connections, to see what disturbs it.

#![forbid(unsafe_code)]

mod args;
mod client;
mod progress;
mod server;

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use traffic::stats::{Statistics, analysis, plot};
use traffic::{process, server::run as serve};

use crate::args::{Analysis, COMMAND_LINE, Detail, Task};
use crate::server::Echo;
use traffic::fail_on::{FailOn, NOT_ACCEPTED};

fn main() -> ExitCode {
    let args = match COMMAND_LINE.parse_or_exit_code() {
        Ok(args) => args,
        Err(code) => return code,
    };
    let done = args.into_task().and_then(|task| match task {
        Task::Analyze(analysis) => analyze(&analysis).map(|()| ExitCode::SUCCESS),
        Task::Serve(settings) => {
            let host_name = process::host_name().context("get the host name")?;
            serve(&settings, Echo(host_name))?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Generate(settings, detail, fail_on) => generate(&settings, detail, fail_on),
    });
    done.unwrap_or_else(|error| {
        process::log(format_args!("ctraffic: {error:#}"));
        ExitCode::FAILURE
    })
}

fn analyze(analysis: &Analysis) -> anyhow::Result<()> {
    let statistics = Statistics::read(&analysis.file)?;
    match &analysis.plot {
        Some(file) => Ok(plot::write(&statistics, analysis.kind, file)?),
        None => print(&analysis::text(&statistics, analysis.kind)?),
    }
}

/// Runs the client and prints what it found, also when it could not go on.
fn generate(
    settings: &client::Settings,
    detail: Detail,
    fail_on: FailOn,
) -> anyhow::Result<ExitCode> {
    let outcome = client::run(settings)?;
    for (cause, count) in &outcome.causes {
        process::log(format_args!("ctraffic: {cause} ({count} times)"));
    }
    let mut statistics = outcome.statistics;
    match detail {
        Detail::All => print(&statistics.line())?,
        Detail::Summary => {
            statistics.conn_stats.clear();
            statistics.samples.clear();
            print(&statistics.line())?;
        }
        Detail::None => {}
    }
    if let Some(error) = outcome.stopped_by {
        return Err(error);
    }
    let complaints = fail_on.complaints(&statistics.totals);
    for complaint in &complaints {
        process::log(format_args!("ctraffic: {complaint}"));
    }
    Ok(match complaints.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(NOT_ACCEPTED),
    })
}

fn print(text: &str) -> anyhow::Result<()> {
    io::stdout().write_all(text.as_bytes()).context("write to stdout")
}
