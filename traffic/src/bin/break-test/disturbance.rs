//! What is done to the network in the middle of a run.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::trials::Run;

#[derive(Clone, Debug)]
pub struct Disturbance {
    pub command: String,
    pub from: Duration,
    pub to: Duration,
    /// `None` if a signal ended it.
    pub exit_code: Option<i32>,
}

/// Waits for the middle of the run, then runs a shell command; `None` if the
/// run ended before. Its output goes to stderr: stdout belongs to the report.
pub fn run(command: &str, run: Run<'_>) -> anyhow::Result<Option<Disturbance>> {
    let middle = run.begin + (run.limit() - run.begin) / 2;
    while Instant::now() < middle {
        if run.end() < middle {
            return Ok(None);
        }
        thread::sleep(STEP.min(middle.saturating_duration_since(Instant::now())));
    }
    let from = run.since_begin(Instant::now());
    let status = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("run {command:?}"))?;
    let to = run.since_begin(Instant::now());
    Ok(Some(Disturbance { command: command.to_owned(), from, to, exit_code: status.code() }))
}

/// How soon it is noticed that the run was ended.
const STEP: Duration = Duration::from_millis(50);
