//! break-test: how long traffic breaks while something is done to a network.

#![forbid(unsafe_code)]

mod args;
mod connects;
mod disturbance;
mod echoes;
mod picture;
mod report;
mod stream;
mod trials;

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::thread;
use std::time::Instant;

use anyhow::Context as _;
use traffic::events::{Events, Interest};
use traffic::{fail_on::NOT_ACCEPTED, process};

use crate::args::{COMMAND_LINE, Settings};
use crate::report::{Probe, Report};
use crate::trials::{Outcome, Run};

fn main() -> ExitCode {
    let args = match COMMAND_LINE.parse_or_exit_code() {
        Ok(args) => args,
        Err(code) => return code,
    };
    let done = args.into_settings().and_then(|settings| test(&settings));
    done.unwrap_or_else(|error| {
        process::log(format_args!("break-test: {error:#}"));
        ExitCode::FAILURE
    })
}

fn test(settings: &Settings) -> anyhow::Result<ExitCode> {
    let report = measure(settings)?;
    let text = report.shown_as(settings.format);
    io::stdout().write_all(text.as_bytes()).context("write to stdout")?;
    if let Some(file) = &settings.plot {
        file.write(&picture::TimeLine(&report))?;
    }
    Ok(match settings.longest_break {
        Some(limit) if report.longest_break() > limit => ExitCode::from(NOT_ACCEPTED),
        _ => ExitCode::SUCCESS,
    })
}

/// Runs all probes at once, and the disturbance in their middle. Each has a
/// thread of its own, so that none of them waits for another.
fn measure(settings: &Settings) -> anyhow::Result<Report> {
    let signals = process::termination_signals().context("watch for signals")?;
    let mut events = Events::new().context("create an epoll")?;
    events.add(&signals, Interest::EPOLLIN, 0).context("watch for signals")?;
    let stopped = OnceLock::new();
    let run = Run::for_time(settings.time, &stopped);
    thread::scope(|scope| {
        let mut probes = Vec::new();
        for path in &settings.paths {
            for probe in [Probe::Icmp, Probe::Connect, Probe::Tcp, Probe::Udp] {
                let work = move || watch(probe, path.address, settings, run);
                probes.push((path, probe, scope.spawn(work)));
            }
        }
        let disturbance = settings
            .during
            .as_ref()
            .map(|command| scope.spawn(move || disturbance::run(command, run)));
        // A signal ends the run, with its report.
        while Instant::now() < run.end() {
            if events.wait(Some(run.end())).context("wait for events")?.next().is_some() {
                run.stop();
            }
        }
        let mut report = Report::new(settings, run.time());
        for (path, probe, thread) in probes {
            let outcome = thread.join().map_err(|_| anyhow::anyhow!("a probe panicked"))?;
            report.add(path, probe, outcome);
        }
        if let Some(thread) = disturbance {
            let done = thread.join().map_err(|_| anyhow::anyhow!("the disturbance panicked"))?;
            report.disturbance = done?;
        }
        Ok(report)
    })
}

fn watch(probe: Probe, address: IpAddr, settings: &Settings, run: Run<'_>) -> Outcome {
    let echo = (address, settings.echo_port).into();
    match probe {
        Probe::Icmp => echoes::icmp(address, run),
        Probe::Connect => connects::run((address, settings.connect_port).into(), run),
        Probe::Tcp => stream::run(echo, run),
        Probe::Udp => echoes::udp(echo, run),
    }
}
