//! What the mirror shares with the other threads.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use lb_core::counters::{Counter, Counts};

/// What the kernel does for a running `lb`, and what was done about it.
#[derive(Debug, Default)]
pub struct Mirrored {
    pub(super) fast_packets: AtomicU64,
    pub(super) fast_bytes: AtomicU64,
    pub(super) express_packets: AtomicU64,
    pub(super) express_bytes: AtomicU64,
    pub(super) queued_packets: AtomicU64,
    pub(super) queued_bytes: AtomicU64,
    pub(super) map_changes: AtomicU64,
    pub(super) map_slots: AtomicU64,
    pub(super) map_repairs: AtomicU64,
    pub(super) rules_mended: AtomicU64,
}

impl Mirrored {
    /// Puts the numbers among the counters.
    pub fn add_to(&self, counts: &mut Counts) {
        counts.set(Counter::FastPackets, self.fast_packets.load(Relaxed));
        counts.set(Counter::FastBytes, self.fast_bytes.load(Relaxed));
        counts.set(Counter::ExpressPackets, self.express_packets.load(Relaxed));
        counts.set(Counter::ExpressBytes, self.express_bytes.load(Relaxed));
        counts.set(Counter::QueuedPackets, self.queued_packets.load(Relaxed));
        counts.set(Counter::QueuedBytes, self.queued_bytes.load(Relaxed));
        counts.set(Counter::MapChanges, self.map_changes.load(Relaxed));
        counts.set(Counter::MapSlots, self.map_slots.load(Relaxed));
        counts.set(Counter::MapRepairs, self.map_repairs.load(Relaxed));
        counts.set(Counter::RulesMended, self.rules_mended.load(Relaxed));
    }
}

/// Tells the mirror that there may be something new.
#[derive(Debug, Default)]
pub struct Wake {
    called: Mutex<bool>,
    changed: Condvar,
}

impl Wake {
    /// Ends the wait.
    pub fn call(&self) {
        *self.called.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    pub(super) fn wait(&self, timeout: Duration) {
        let called = self.called.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(called, timeout, |called| !*called);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

pub(super) fn add(counter: &AtomicU64, number: usize) {
    counter.fetch_add(u64::try_from(number).unwrap_or(u64::MAX), Relaxed);
}
