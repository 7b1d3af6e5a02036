//! kahttp: HTTP clients that keep their connections, and a server that says
//! who it is.

#![forbid(unsafe_code)]

mod args;
mod client;
mod page;
mod report;
mod server;
mod tls;

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use traffic::fail_on::{FailOn, NOT_ACCEPTED};
use traffic::process;

use crate::args::{COMMAND_LINE, Task};

/// What the server calls itself.
const SERVER_NAME: &str = concat!("Kahttp/", env!("CARGO_PKG_VERSION"));

fn main() -> ExitCode {
    let args = match COMMAND_LINE.parse_or_exit_code() {
        Ok(args) => args,
        Err(code) => return code,
    };
    let done = args.into_task().and_then(|task| match task {
        Task::Serve(settings) => {
            process::raise_open_file_limit().context("raise the limit of open files")?;
            runtime()?.block_on(server::run(&settings))?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Ask(settings, fail_on) => ask(settings, fail_on),
    });
    done.unwrap_or_else(|error| {
        process::log(format_args!("kahttp: {error:#}"));
        ExitCode::FAILURE
    })
}

/// One thread: nothing is counted by two at a time.
fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("start the runtime")
}

fn ask(settings: client::Settings, fail_on: FailOn) -> anyhow::Result<ExitCode> {
    process::raise_open_file_limit().context("raise the limit of open files")?;
    let outcome = client::run(&runtime()?, settings)?;
    for (cause, count) in &outcome.causes {
        process::log(format_args!("kahttp: {cause} ({count} times)"));
    }
    let line = outcome.report.line();
    io::stdout().write_all(line.as_bytes()).context("write to stdout")?;
    if let Some(error) = outcome.stopped_by {
        return Err(error);
    }
    let complaints = fail_on.complaints(&outcome.report.totals());
    for complaint in &complaints {
        process::log(format_args!("kahttp: {complaint}"));
    }
    Ok(match complaints.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(NOT_ACCEPTED),
    })
}

/// Comes to its end when SIGTERM or SIGINT comes.
async fn termination() -> io::Result<()> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
