//! Waking who waits for a socket.
//!
//! The library calls back after a packet; what its timers find (a path that is down) it reports to nobody. So
//! one thread looks after the sockets that somebody waits for.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::ffi;
use std::sync::Arc;

/// How often the sockets are looked after: what a timer found is seen that much later.
pub(super) const ROUND: Duration = Duration::from_millis(50);

/// What may be waited for at one socket.
#[derive(Debug, Default)]
pub(super) struct Signal {
    state: Mutex<State>,
    readable: Condvar,
    writable: Condvar,
}

/// Counts what happened, so that nobody waits for what is there already.
#[derive(Debug, Default)]
struct State {
    reads: u64,
    writes: u64,
    readers: u32,
    writers: u32,
}

impl Signal {
    /// To be called before one looks at the socket, and given to `wait_for_read`.
    pub fn reads(&self) -> u64 {
        self.lock().reads
    }

    /// To be called before one tries to send, and given to `wait_for_write`.
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// Waits until something came since `seen`; false when the time is over.
    pub fn wait_for_read(&self, seen: u64, deadline: Option<Instant>) -> bool {
        let mut state = self.lock();
        state.readers += 1;
        let came = loop {
            if state.reads != seen {
                break true;
            }
            state = match wait(&self.readable, state, deadline) {
                Ok(state) => state,
                Err(late) => {
                    state = late;
                    break state.reads != seen;
                }
            };
        };
        state.readers -= 1;
        came
    }

    /// Waits until there may be room since `seen`; false when the time is over.
    pub fn wait_for_write(&self, seen: u64, deadline: Instant) -> bool {
        let mut state = self.lock();
        state.writers += 1;
        let came = loop {
            if state.writes != seen {
                break true;
            }
            state = match wait(&self.writable, state, Some(deadline)) {
                Ok(state) => state,
                Err(late) => {
                    state = late;
                    break state.writes != seen;
                }
            };
        };
        state.writers -= 1;
        came
    }

    /// Something came, or there is room, or both.
    pub fn wake(&self, read: bool, write: bool) {
        let mut state = self.lock();
        if read {
            state.reads = state.reads.wrapping_add(1);
            // Waking nobody would cost a system call for each packet.
            if state.readers > 0 {
                self.readable.notify_all();
            }
        }
        if write {
            state.writes = state.writes.wrapping_add(1);
            if state.writers > 0 {
                self.writable.notify_all();
            }
        }
    }

    fn has_waiters(&self) -> bool {
        let state = self.lock();
        state.readers > 0 || state.writers > 0
    }

    /// Callbacks must not panic, so a lock is taken also after a panic of another thread.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Err when the time is over.
fn wait<'a, T>(
    condition: &Condvar,
    state: MutexGuard<'a, T>,
    deadline: Option<Instant>,
) -> Result<MutexGuard<'a, T>, MutexGuard<'a, T>> {
    let Some(deadline) = deadline else {
        return Ok(condition.wait(state).unwrap_or_else(PoisonError::into_inner));
    };
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(state);
    }
    Ok(condition.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0)
}

/// Sockets of the library that may be waited for. A callback gets a number and no pointer: it may still
/// come when the socket is gone here.
static SOCKETS: RwLock<Places> = RwLock::new(Places { all: Vec::new(), free: Vec::new() });

struct Places {
    all: Vec<Option<Registered>>,
    free: Vec<usize>,
}

struct Registered {
    socket: *mut ffi::RawSocket,
    signal: Arc<Signal>,
}

// SAFETY: the library's sockets may be used by every thread; the entry is removed before the socket is closed.
unsafe impl Send for Registered {}
// SAFETY: as above.
unsafe impl Sync for Registered {}

/// A socket's place among those that are woken.
#[derive(Debug)]
pub(super) struct Registration(usize);

impl Registration {
    /// From now on `signal` is woken for this socket.
    ///
    /// # Safety
    /// The socket is open until the registration is dropped.
    pub unsafe fn new(socket: *mut ffi::RawSocket, signal: Arc<Signal>) -> Self {
        let mut sockets = SOCKETS.write().unwrap_or_else(PoisonError::into_inner);
        let entry = Some(Registered { socket, signal });
        let index = match sockets.free.pop() {
            Some(index) => {
                sockets.all[index] = entry;
                index
            }
            None => {
                sockets.all.push(entry);
                sockets.all.len() - 1
            }
        };
        drop(sockets);
        let argument = ptr::without_provenance_mut(index);
        // SAFETY: the caller promises an open socket.
        unsafe { ffi::usrsctp_set_upcall(socket, Some(upcall), argument) };
        Registration(index)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut sockets = SOCKETS.write().unwrap_or_else(PoisonError::into_inner);
        sockets.all[self.0] = None;
        sockets.free.push(self.0);
    }
}

/// The library's call after a packet. A number whose socket is gone wakes nobody, or another socket's
/// waiter for nothing, who looks and waits on.
unsafe extern "C" fn upcall(socket: *mut ffi::RawSocket, argument: *mut c_void, _wait: c_int) {
    let sockets = SOCKETS.read().unwrap_or_else(PoisonError::into_inner);
    let Some(Some(entry)) = sockets.all.get(argument.addr()) else { return };
    let signal = Arc::clone(&entry.signal);
    drop(sockets);
    // SAFETY: the library holds a reference to the socket during its call.
    let events = unsafe { ffi::usrsctp_get_events(socket) };
    wake(&signal, events);
}

/// Wakes those who wait for a socket at which something happened without a packet.
pub(super) fn look_after_all() {
    let sockets = SOCKETS.read().unwrap_or_else(PoisonError::into_inner);
    for entry in sockets.all.iter().flatten().filter(|entry| entry.signal.has_waiters()) {
        // SAFETY: the entry is there, so the socket is open; it cannot be removed while the lock is held.
        let events = unsafe { ffi::usrsctp_get_events(entry.socket) };
        wake(&entry.signal, events);
    }
}

fn wake(signal: &Signal, events: c_int) {
    let error = events & ffi::EVENT_ERROR != 0;
    let (read, write) = (events & ffi::EVENT_READ != 0, events & ffi::EVENT_WRITE != 0);
    signal.wake(read || error, write || error);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn what_came_before_the_wait_ends_it() {
        let signal = Signal::default();
        let (reads, writes) = (signal.reads(), signal.writes());
        let soon = Instant::now() + Duration::from_millis(20);
        assert!(!signal.wait_for_read(reads, Some(soon)));
        assert!(!signal.wait_for_write(writes, soon));
        signal.wake(true, false);
        assert!(signal.wait_for_read(reads, None));
        assert!(!signal.wait_for_write(writes, soon));
    }

    #[test]
    fn another_thread_ends_a_wait() {
        let signal = Arc::new(Signal::default());
        let seen = signal.writes();
        let other = Arc::clone(&signal);
        let waiter = thread::spawn(move || {
            other.wait_for_write(seen, Instant::now() + Duration::from_secs(20))
        });
        signal.wake(false, true);
        assert!(waiter.join().unwrap());
    }
}
