//! The tables in force, handed to the workers when a file was replaced.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, Mutex, PoisonError};

use lb_sys::shm::MappedTable;

/// The mapping that workers use. A change of what is in a table needs nothing of this: it is for
/// tables made anew.
pub type Current = Latest<Arc<MappedTable>>;

/// The same of the tier, of which there may be no table yet.
pub type CurrentTier = Latest<Option<Arc<MappedTable>>>;

/// A value that is replaced now and then, and a number that tells when.
#[derive(Debug)]
pub struct Latest<T> {
    value: Mutex<T>,
    epoch: AtomicU64,
}

impl<T: Clone> Latest<T> {
    /// Begins with a value.
    pub fn new(value: T) -> Self {
        Latest { value: Mutex::new(value), epoch: AtomicU64::new(0) }
    }

    /// Replaces it.
    pub fn replace(&self, value: T) {
        *self.lock() = value;
        self.epoch.fetch_add(1, Release);
    }

    /// The value, with the number that [`Latest::epoch`] gives until there is another one.
    pub fn get(&self) -> (T, u64) {
        // The number first: if the value is replaced in between, the next look at it tells.
        let epoch = self.epoch();
        (self.lock().clone(), epoch)
    }

    /// Changes when the value is replaced.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Acquire)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
