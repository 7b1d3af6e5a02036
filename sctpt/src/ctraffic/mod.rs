//! Steady traffic: clients with an association each, one thread that sends for all of them at an even pace, and a
//! thread for each client that receives.

mod client;
pub mod fail_on;
mod ledger;
pub mod progress;
pub mod report;
mod sender;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use sctp_stack::{Addresses, Stack};

use crate::log;
use crate::stats::figures::{Counter, Figures};

use self::progress::Progress;
use self::report::Record;
use self::sender::{Order, Schedule};

pub struct Settings {
    pub local: Addresses,
    pub remote: Addresses,
    pub sctp: sctp_stack::Settings,
    pub clients: u32,
    /// Messages a second of all clients together.
    pub rate: f64,
    pub duration: Duration,
    /// How long late answers are waited for.
    pub wait: Duration,
    pub connect_timeout: Duration,
    /// Clients that begin to connect in a second.
    pub connect_rate: f64,
    pub reconnect: bool,
    /// Bytes of a message.
    pub size: u16,
}

/// What the run waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    Signal,
    /// The last client has ended.
    AllEnded,
}

/// What a run found.
pub struct Outcome {
    pub figures: Figures,
    pub records: Vec<Record>,
    /// What went wrong, and how often.
    pub causes: BTreeMap<String, u64>,
    /// Clients that never had an association.
    pub unconnected: u32,
    pub took: Duration,
}

/// What all threads of a run know.
struct Run<'a> {
    settings: &'a Settings,
    stack: &'a dyn Stack,
    begin: Instant,
    end: Instant,
    /// What associations of this run are numbered from.
    first_id: u64,
    shared: &'a Figures,
    own: Figures,
    phase: Mutex<Phase>,
    phase_changed: Condvar,
    records: Mutex<Vec<Record>>,
    causes: Mutex<BTreeMap<String, u64>>,
    unconnected: AtomicU32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Sending,
    /// Nothing more is sent; answers are waited for until then.
    Waiting(Instant),
    Over,
}

/// Time from one line of progress to the next.
const PROGRESS: Duration = Duration::from_millis(500);
/// What a client's thread needs: its message is on the heap.
const STACK_SIZE: usize = 256 * 1024;

/// Sends until the time is over or a signal comes, and waits for what is under way. `wake` is where signals are told.
pub fn run(
    settings: &Settings,
    stack: &dyn Stack,
    shared: &Figures,
    (wake, waker): (Sender<Wake>, &Receiver<Wake>),
    progress: &mut Progress,
) -> Outcome {
    let begin = Instant::now();
    let run = Run {
        settings,
        stack,
        begin,
        end: begin + settings.duration,
        first_id: RandomState::new().hash_one(()),
        shared,
        own: Figures::own(shared.shape()),
        phase: Mutex::new(Phase::Sending),
        phase_changed: Condvar::new(),
        records: Mutex::default(),
        causes: Mutex::default(),
        unconnected: AtomicU32::new(0),
    };
    let (orders, schedule) = channel();
    let running = AtomicU32::new(settings.clients);
    thread::scope(|scope| {
        let run = &run;
        let sender = scope.spawn(move || Schedule::new(run).run(&schedule));
        for number in 0..settings.clients {
            let leaving = Leaving { running: &running, wake: wake.clone() };
            start(run, scope, number, orders.clone(), leaving);
        }
        // The run ends when all clients have ended, too: nothing would be sent any more.
        let last = run.watch(waker, run.end, progress);
        // Who is told has gone only if it panicked, which the scope passes on.
        let _ = orders.send(Order::Stop);
        let _ = sender.join();
        let patience = Instant::now() + settings.wait;
        run.set_phase(Phase::Waiting(patience));
        if last != Some(Wake::AllEnded)
            && run.watch(waker, patience, progress) == Some(Wake::Signal)
        {
            run.set_phase(Phase::Over);
        }
    });
    progress.show(&run.own, run.begin.elapsed());
    progress.finish();
    Outcome {
        figures: run.own,
        records: run.records.into_inner().unwrap_or_else(PoisonError::into_inner),
        causes: run.causes.into_inner().unwrap_or_else(PoisonError::into_inner),
        unconnected: run.unconnected.into_inner(),
        took: begin.elapsed(),
    }
}

fn start<'scope, 'env>(
    run: &'scope Run<'env>,
    scope: &'scope Scope<'scope, 'env>,
    number: u32,
    orders: Sender<Order>,
    leaving: Leaving<'scope>,
) {
    let client = move || {
        let _leaving = leaving;
        client::run(run, number, &orders);
    };
    let thread = thread::Builder::new().name(format!("client {number}")).stack_size(STACK_SIZE);
    if let Err(error) = thread.spawn_scoped(scope, client) {
        run.unconnected.fetch_add(1, Ordering::Relaxed);
        run.failed(Counter::FailedConnects, format!("start thread: {error}"));
    }
}

/// Tells when the last client has ended, however it did.
struct Leaving<'a> {
    running: &'a AtomicU32,
    wake: Sender<Wake>,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            // The run may not be waiting for it any more.
            let _ = self.wake.send(Wake::AllEnded);
        }
    }
}

impl Run<'_> {
    /// Shows the progress until something happens or the time has come.
    fn watch(
        &self,
        waker: &Receiver<Wake>,
        until: Instant,
        progress: &mut Progress,
    ) -> Option<Wake> {
        loop {
            let now = Instant::now();
            if now >= until {
                return None;
            }
            match waker.recv_timeout(until.min(now + PROGRESS) - now) {
                Ok(wake) => return Some(wake),
                Err(RecvTimeoutError::Timeout) => progress.show(&self.own, self.begin.elapsed()),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn add(&self, counter: Counter, number: u64) {
        if number > 0 {
            self.own.add(counter, number);
            self.shared.add(counter, number);
        }
    }

    fn record(&self, round_trip: Duration) {
        self.own.record(round_trip);
        self.shared.record(round_trip);
    }

    /// Takes note of what went wrong; the first time it is told at once.
    fn failed(&self, counter: Counter, cause: String) {
        self.add(counter, 1);
        self.cause(cause);
    }

    fn cause(&self, cause: String) {
        match lock(&self.causes).entry(cause) {
            Entry::Occupied(mut known) => *known.get_mut() += 1,
            Entry::Vacant(new) => {
                log::warning(new.key());
                new.insert(1);
            }
        }
    }

    fn phase(&self) -> Phase {
        *lock(&self.phase)
    }

    fn set_phase(&self, phase: Phase) {
        *lock(&self.phase) = phase;
        self.phase_changed.notify_all();
    }

    /// Waits until then, or until nothing more is to be sent; says whether there is still something to do.
    fn pause(&self, until: Instant) -> bool {
        let mut phase = lock(&self.phase);
        while *phase == Phase::Sending {
            let left = until.min(self.end).saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Instant::now() < self.end;
            }
            let woken = self.phase_changed.wait_timeout(phase, left);
            phase = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }
}

/// What a thread that panicked left is as good as any: counters and lists.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
