//! The process that takes packets from the queue, and what it costs.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::bail;

use super::interrupt::Interrupt;
use super::lab::Lab;
use super::process::{Memory, Process};

/// How long it may take to own its queues.
const PATIENCE: Duration = Duration::from_secs(10);
/// In the private folder of shared memory; the point keeps it from being taken for a table.
const LOG: &str = "/dev/shm/.consumer.log";

/// A running consumer with all its processes. It ends when this is dropped.
#[derive(Debug)]
pub struct Consumer(Process);

impl Consumer {
    /// Starts it on the router and waits until it owns the queues. Called by the main thread.
    pub fn start(
        mut command: Command,
        lab: &Lab,
        queues: usize,
        cpu: Option<usize>,
        signals: &Interrupt,
    ) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(LOG)?);
        let mut process = Process::start(command, &lab.router, cpu)?;
        let ready = signals.until(PATIENCE, || {
            if let Some(status) = process.ended()? {
                bail!("{} ended ({status}): {}", process.name(), last_words());
            }
            Ok(lab.queues()?.len() >= queues)
        })?;
        if !ready {
            let name = process.name();
            bail!("{name} did not take its queue within {PATIENCE:?}: {}", last_words());
        }
        Ok(Consumer(process))
    }

    /// Processor time that all its threads and processes have used.
    pub fn cpu(&mut self) -> anyhow::Result<Duration> {
        if let Some(status) = self.0.ended()? {
            bail!("the consumer ended ({status}): {}", last_words());
        }
        self.0.cpu()
    }

    /// Its memory.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        self.0.memory()
    }
}

/// The last thing that it said.
fn last_words() -> String {
    let log = fs::read_to_string(LOG).unwrap_or_default();
    log.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing").into()
}
