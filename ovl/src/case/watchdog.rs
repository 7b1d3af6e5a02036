//! No case runs for ever: work in a thread of its own, with a deadline.

use std::any::Any;
use std::fs;
use std::process::{self, Command};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::activity::{self, Activities};

/// What waits in the work knows the deadline as well; this is left for it to end by itself.
pub const GRACE: Duration = Duration::from_secs(5);

/// How work ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended<T> {
    Done(T),
    Panicked(String),
    /// It was stuck in this, and went on only when it was torn away.
    Stuck(String),
}

/// Does work that may take as long as `limit`. If it is still there after a further `grace`, `free`
/// is to end what it waits for; if that does not help either, `give_up` ends the process.
pub fn run<T: Send>(
    limit: Duration,
    grace: Duration,
    work: impl FnOnce() -> T + Send,
    free: impl FnOnce(),
    give_up: impl FnOnce(&str) -> std::convert::Infallible,
) -> Ended<T> {
    let activities = Activities::default();
    let own = activities.clone();
    thread::scope(|scope| {
        let (done, result) = mpsc::channel();
        let worker = scope.spawn(move || {
            activity::begin(own, limit);
            // The other end is there until this thread has ended.
            let _ = done.send(work());
        });
        let ended = match result.recv_timeout(limit + grace) {
            Ok(value) => Ended::Done(value),
            Err(RecvTimeoutError::Disconnected) => Ended::Panicked(String::new()),
            Err(RecvTimeoutError::Timeout) => {
                let what = activities.current().unwrap_or_else(|| "computing".to_owned());
                free();
                if matches!(result.recv_timeout(GRACE), Err(RecvTimeoutError::Timeout)) {
                    match give_up(&what) {}
                }
                Ended::Stuck(what)
            }
        };
        match worker.join() {
            Err(panic) if !matches!(ended, Ended::Stuck(_)) => Ended::Panicked(message(&*panic)),
            _ => ended,
        }
    })
}

/// Kills the children of this process. Nodes end with their holders, and with nodes all that runs
/// in them, so that nothing is left to wait for.
pub fn kill_children() {
    let children: Vec<String> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|id| parent(id) == Some(process::id()))
        .collect();
    if !children.is_empty() {
        // What has ended meanwhile needs no signal.
        let _ = Command::new("sh")
            .args(["-c", r#"kill -s KILL "$@" 2>&-"#, "sh"])
            .args(children)
            .status();
    }
}

fn parent(id: &str) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name, in brackets, may hold anything. After it: state, parent.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
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
        let unexpected = |what: &str| panic!("stuck in {what}");
        assert_eq!(run(limit, GRACE, || 7, || {}, unexpected), Ended::Done(7));
        let work = || -> u8 { panic!("a reason") };
        assert_eq!(
            run(limit, GRACE, work, || {}, unexpected),
            Ended::Panicked("a reason".to_owned())
        );
    }

    #[test]
    fn what_is_stuck_is_named_and_freed() {
        let (go, gone) = mpsc::channel::<()>();
        let work = move || {
            let _doing = activity::doing("the other end to go");
            let _ = gone.recv();
        };
        let unexpected = |what: &str| panic!("stuck in {what}");
        let ended = run(Duration::ZERO, Duration::from_millis(50), work, || drop(go), unexpected);
        assert_eq!(ended, Ended::Stuck("the other end to go".to_owned()));
    }

    #[test]
    fn children_are_found_by_their_parent() {
        let mut child = Command::new("sleep").arg("30").spawn().unwrap();
        assert_eq!(parent(&child.id().to_string()), Some(process::id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
