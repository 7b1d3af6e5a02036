//! No test runs for ever: work in a thread of its own, with a deadline.

use std::any::Any;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::activity::{self, Activities};

/// What waits in the work knows the deadline as well; this is left for it to end by itself.
const GRACE: Duration = Duration::from_secs(5);

/// How work ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended<T> {
    Done(T),
    Panicked(String),
    /// It is stuck in this, and goes on being so until the process ends.
    Stuck(String),
}

/// Does work that may take as long as `limit`.
pub fn run<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Ended<T> {
    run_with_grace(limit, GRACE, work)
}

fn run_with_grace<T: Send + 'static>(
    limit: Duration,
    grace: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Ended<T> {
    let activities = Activities::default();
    let own = activities.clone();
    let (done, result) = mpsc::channel();
    let worker = thread::spawn(move || {
        activity::begin(own, limit);
        // The other end may have lost its patience.
        let _ = done.send(work());
    });
    match result.recv_timeout(limit + grace) {
        Ok(value) => Ended::Done(value),
        Err(RecvTimeoutError::Timeout) => {
            Ended::Stuck(activities.current().unwrap_or_else(|| "computing".to_owned()))
        }
        Err(RecvTimeoutError::Disconnected) => {
            Ended::Panicked(worker.join().err().map(|panic| message(&*panic)).unwrap_or_default())
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_is_told() {
        let limit = Duration::from_secs(30);
        assert_eq!(run(limit, || 7), Ended::Done(7));
        let work = || -> u8 { panic!("a reason") };
        assert_eq!(run(limit, work), Ended::Panicked("a reason".to_owned()));
    }

    #[test]
    fn what_is_stuck_is_named() {
        let (_open, never) = mpsc::channel::<()>();
        let work = move || {
            let _doing = activity::doing("the other end to go");
            let _ = never.recv();
        };
        let ended = run_with_grace(Duration::ZERO, Duration::from_millis(50), work);
        assert_eq!(ended, Ended::Stuck("the other end to go".to_owned()));
    }
}
