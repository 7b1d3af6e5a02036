//! The table in force, handed to the workers when its file was replaced.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, Mutex, PoisonError};

use lb_sys::shm::MappedTable;

/// The mapping that workers use. A change of what is in a table needs nothing of this: it is for
/// tables made anew.
#[derive(Debug)]
pub struct Current {
    table: Mutex<Arc<MappedTable>>,
    epoch: AtomicU64,
}

impl Current {
    /// Begins with a table.
    pub fn new(table: MappedTable) -> Self {
        Current { table: Mutex::new(Arc::new(table)), epoch: AtomicU64::new(0) }
    }

    /// Replaces it.
    pub fn replace(&self, table: MappedTable) {
        *self.lock() = Arc::new(table);
        self.epoch.fetch_add(1, Release);
    }

    /// The table, with the number that [`Current::epoch`] gives until there is another one.
    pub fn get(&self) -> (Arc<MappedTable>, u64) {
        // The number first: if the table is replaced in between, the next look at it tells.
        let epoch = self.epoch();
        (Arc::clone(&self.lock()), epoch)
    }

    /// Changes when the table is replaced.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Acquire)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<MappedTable>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
