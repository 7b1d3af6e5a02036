//! What a tool asks of its process: the host's name, signals, open files.

use std::fmt::Display;
use std::io::{self, Write as _};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The kernel's name for this host.
pub fn host_name() -> io::Result<String> {
    Ok(nix::unistd::gethostname()?.to_string_lossy().into_owned())
}

/// Writes a line to stderr. Nobody may be reading there any more, which is no
/// reason to end (as `eprintln!` would).
pub fn log(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// From now on SIGTERM and SIGINT end nothing by themselves: the returned
/// descriptor becomes readable. To be called before any thread is started,
/// since a thread inherits which signals are held back.
pub fn termination_signals() -> io::Result<SignalFd> {
    signals(&[Signal::SIGTERM, Signal::SIGINT])
}

/// The same for any signals.
pub fn signals(signals: &[Signal]) -> io::Result<SignalFd> {
    let signals: SigSet = signals.iter().copied().collect();
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)?)
}

/// Raises the limit of open files as far as this process may, and returns it.
pub fn raise_open_file_limit() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}
