//! What is being done right now, and until when it may take: so that something that is stuck can
//! be named, and ends.
//!
//! One case runs at a time, so that one state for the whole process suffices.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

static STATE: Mutex<State> = Mutex::new(State { doing: Vec::new(), deadline: None });

struct State {
    /// The innermost thing last.
    doing: Vec<String>,
    deadline: Option<Instant>,
}

/// Ends the mention of an activity when it is dropped.
pub struct Doing(());

/// Mentions an activity.
pub fn doing(what: &str) -> Doing {
    state().doing.push(what.to_owned());
    Doing(())
}

/// The innermost activity.
pub fn current() -> Option<String> {
    state().doing.last().cloned()
}

/// Everything that waits from now on gives up after `limit`.
pub fn begin(limit: Duration) {
    let mut state = state();
    state.doing.clear();
    state.deadline = Some(Instant::now() + limit);
}

/// When something that may take as long as `limit` has to give up.
pub fn deadline(limit: Duration) -> Instant {
    let own = Instant::now() + limit;
    state().deadline.map_or(own, |deadline| deadline.min(own))
}

impl Drop for Doing {
    fn drop(&mut self) {
        state().doing.pop();
    }
}

fn state() -> MutexGuard<'static, State> {
    // A thread that panicked has left nothing half done in here.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}
