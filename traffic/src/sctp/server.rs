//! A server that answers every message with one message.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sctp_stack::{Association, Error, Event, Listener, MAX_MESSAGE, Sent};

use crate::process;

/// How soon it is noticed that the server is to end.
const TICK: Duration = Duration::from_millis(250);

/// How long an association may take to end.
const CLOSE: Duration = Duration::from_secs(1);

/// What the thread of an association needs: its messages are on the heap.
const THREAD_STACK: usize = 128 * 1024;

/// Gives each association a thread of its own, until `ended` is set: then all are closed. What goes wrong with one
/// of them ends that one alone. One that says nothing for `idle_limit` is closed.
pub fn serve(
    listener: &dyn Listener,
    idle_limit: Option<Duration>,
    ended: &AtomicBool,
    answer: &(dyn Fn(&[u8]) -> Vec<u8> + Sync),
) {
    // One shortage is worth one line.
    let mut failing = false;
    thread::scope(|scope| {
        while !ended.load(Ordering::Relaxed) {
            let association = match listener.accept(Some(Instant::now() + TICK)) {
                Ok(Some(association)) => association,
                Ok(None) => {
                    failing = false;
                    continue;
                }
                Err(error) => {
                    if !failing {
                        process::log(format_args!("SCTP: {error}"));
                        failing = true;
                    }
                    // At once it would be the same again, as without free descriptors.
                    thread::sleep(TICK);
                    continue;
                }
            };
            let taken = association.clone();
            let work = move || {
                match converse(&*association, idle_limit, ended, answer) {
                    // That is the peer's own affair.
                    Ok(()) | Err(Error::Ended) => {}
                    Err(error) => {
                        process::log(format_args!("SCTP: answer: {error}"));
                        association.abort();
                    }
                }
            };
            let thread = thread::Builder::new().stack_size(THREAD_STACK);
            if let Err(error) = thread.spawn_scoped(scope, work) {
                process::log(format_args!("SCTP: start a thread: {error}"));
                taken.abort();
            }
        }
    });
}

/// Answers until the association ends, however that comes.
fn converse(
    association: &dyn Association,
    idle_limit: Option<Duration>,
    ended: &AtomicBool,
    answer: &dyn Fn(&[u8]) -> Vec<u8>,
) -> sctp_stack::Result<()> {
    let mut buffer = vec![0; MAX_MESSAGE];
    let mut heard = Instant::now();
    let is_idle = |heard: Instant| idle_limit.is_some_and(|limit| heard.elapsed() >= limit);
    while !ended.load(Ordering::Relaxed) && !is_idle(heard) {
        let wake = TICK.min(idle_limit.map_or(TICK, |limit| limit.saturating_sub(heard.elapsed())));
        match association.receive(&mut buffer, Some(Instant::now() + wake)) {
            Ok(Some(Event::Message { length, stream })) => {
                heard = Instant::now();
                let message = answer(&buffer[..length]);
                while association.send(&message, stream)? == Sent::Blocked {
                    // Who asks must also take the answers.
                    while !association.writable(Instant::now() + TICK)? {
                        if ended.load(Ordering::Relaxed) || is_idle(heard) {
                            association.abort();
                            return Ok(());
                        }
                    }
                }
            }
            Ok(None | Some(Event::Path { .. })) => {}
            Ok(Some(Event::Closed)) => break,
            Ok(Some(Event::Lost(_))) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    // If that fails it is gone all the same.
    let _ = association.close(Instant::now() + CLOSE);
    Ok(())
}
