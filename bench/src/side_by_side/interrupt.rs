//! Waiting that a signal ends.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::Context;
use lb_sys::wait::{EndSignals, wait};

/// SIGINT and SIGTERM, as something that ends every wait.
#[derive(Debug)]
pub struct Interrupt(EndSignals);

/// A signal asked to end.
#[derive(Clone, Copy, Debug)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted by a signal")
    }
}

impl std::error::Error for Interrupted {}

impl Interrupt {
    /// Catches the signals from now on; there may be no other thread yet.
    pub fn catch() -> io::Result<Self> {
        EndSignals::catch().map(Interrupt)
    }

    /// Waits; an error if a signal came, now or before.
    pub fn pause(&self, duration: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + duration;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let [signalled] = wait([self.0.as_fd()], left).context("wait")?;
            if signalled {
                return Err(Interrupted.into());
            }
            if left.is_zero() {
                return Ok(());
            }
        }
    }

    /// Waits until the condition holds, at most so long; says whether it does.
    pub fn until(
        &self,
        patience: Duration,
        mut condition: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<bool> {
        const STEP: Duration = Duration::from_millis(10);
        let deadline = Instant::now() + patience;
        loop {
            if condition()? {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            self.pause(STEP)?;
        }
    }
}
