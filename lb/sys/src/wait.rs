//! Waiting for several things at once.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Waits until one of the descriptors is readable or the time is over; says which are.
pub fn wait<const N: usize>(fds: [BorrowedFd<'_>; N], timeout: Duration) -> io::Result<[bool; N]> {
    let mut polled =
        fds.map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    // Rounded up: rounded down, a caller with a deadline would spin through its last millisecond.
    let millis = i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    // SAFETY: `polled` is valid for reads and writes of its length.
    let result = unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, millis) };
    match io::Error::last_os_error() {
        error if result < 0 && error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ if result < 0 => Ok([false; N]),
        _ => Ok(polled.map(|polled| polled.revents != 0)),
    }
}

/// How late the kernel may end a wait of this thread, and of threads that it starts from now on, to
/// spare the processor.
pub fn set_timer_slack(slack: Duration) -> io::Result<()> {
    let nanos = libc::c_ulong::try_from(slack.as_nanos()).unwrap_or(libc::c_ulong::MAX);
    // SAFETY: the call takes numbers only.
    match unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, nanos) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The signals that ask a program to end, as something to wait for.
#[derive(Debug)]
pub struct EndSignals(OwnedFd);

impl EndSignals {
    /// Catches SIGTERM and SIGINT from now on. Threads started later inherit this; so it is called
    /// before there are any.
    pub fn catch() -> io::Result<Self> {
        // SAFETY: a signal set of zeros is valid storage for `sigemptyset`.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is valid.
        unsafe { libc::sigemptyset(&raw mut set) };
        for signal in [libc::SIGTERM, libc::SIGINT] {
            // SAFETY: `set` was initialised above.
            unsafe { libc::sigaddset(&raw mut set, signal) };
        }
        // SAFETY: `set` is initialised; no old set is asked for.
        let result =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if result != 0 {
            return Err(io::Error::from_raw_os_error(result));
        }
        // SAFETY: `set` is initialised.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(EndSignals(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

impl AsFd for EndSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    /// A wait that ends early makes its caller spin until the time is over.
    #[test]
    fn fractions_of_a_millisecond_are_waited_too() {
        let (silent, _other) = UnixStream::pair().unwrap();
        for micros in [1, 300, 1_900] {
            let (start, timeout) = (Instant::now(), Duration::from_micros(micros));
            assert_eq!(wait([silent.as_fd()], timeout).unwrap(), [false]);
            assert!(start.elapsed() >= timeout, "{micros} µs");
        }
    }
}
