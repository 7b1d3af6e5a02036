//! What every run has: a way to end it, and to tell how far it has come.

use std::time::Instant;

use super::interrupt::Interrupt;

/// A run of a benchmark.
pub trait Session {
    /// Ends every wait.
    fn signals(&self) -> &Interrupt;

    /// When it began.
    fn started(&self) -> Instant;

    /// Tells how far the run has come.
    fn progress(&self, what: &str) {
        eprintln!("[{:>4} s] {what}", self.started().elapsed().as_secs());
    }
}
