//! A command inside a node, as if it ran here: standard input, output and error, the terminal,
//! signals and the exit code are those of this process.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;

use crate::cli::EnterArgs;
use crate::holder::OWN_EXE;
use crate::namespace;
use crate::rootfs::SEARCH_PATH;

/// Signals that are passed on.
pub const FORWARDED: [Signal; 6] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// The origin of a signal that comes from the terminal: it went to all in the foreground.
const FROM_TERMINAL: i32 = 0x80;

/// What a shell says when a command is not there, and when it cannot be run.
pub const NOT_FOUND: u8 = 127;
pub const NOT_RUN: u8 = 126;

pub fn run(args: &EnterArgs) -> Result<ExitCode> {
    enter(args.init, &args.command)
}

/// Runs a command in the node with this process 1.
pub fn enter(init: u32, words: &[OsString]) -> Result<ExitCode> {
    namespace::enter_node(init)?;
    pass_through(words, |command| {
        // A folder of the machine would be shared by all nodes.
        command.env("PATH", SEARCH_PATH).env_remove("MARKWAY_SHM_DIR");
    })
}

/// Becomes a command that gets all signals.
pub fn become_command(words: &[OsString]) -> Result<ExitCode> {
    let (program, rest) = words.split_first().context("run: no command")?;
    SigSet::all().thread_unblock().context("let signals through")?;
    // Returns only when it fails.
    let error = Command::new(program).args(rest).exec();
    eprintln!("ovl: run {}: {error}", program.display());
    let missing = error.kind() == ErrorKind::NotFound;
    Ok(ExitCode::from(if missing { NOT_FOUND } else { NOT_RUN }))
}

/// Runs a command to its end.
pub fn pass_through(words: &[OsString], prepare: impl FnOnce(&mut Command)) -> Result<ExitCode> {
    let mut signals = SigSet::from_iter(FORWARDED);
    signals.add(Signal::SIGCHLD);
    signals.thread_block().context("block signals")?;
    let arrivals = SignalFd::new(&signals).context("wait for signals")?;
    // A process inherits what is blocked, so somebody has to let the signals through again.
    let mut command = Command::new(OWN_EXE);
    command.arg0("ovl").args(["exec", "--"]).args(words);
    prepare(&mut command);
    let mut child = command.spawn().context("start command")?;
    loop {
        // What ended before the first signal is seen at once.
        if let Some(status) = child.try_wait().context("wait for command")? {
            return Ok(ExitCode::from(code(status)));
        }
        let Some(arrived) = arrivals.read_signal().context("wait for signals")? else { continue };
        let signal = i32::try_from(arrived.ssi_signo).ok().and_then(|it| Signal::try_from(it).ok());
        if let Some(signal) = signal
            && signal != Signal::SIGCHLD
            && arrived.ssi_code != FROM_TERMINAL
        {
            pass_on(&child, signal)?;
        }
    }
}

/// The exit code of a command, as a shell tells it.
pub fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(NOT_RUN)
}

fn pass_on(child: &Child, signal: Signal) -> Result<()> {
    let id = child.id().try_into().context("pass a signal on: odd number of a process")?;
    match kill(Pid::from_raw(id), signal) {
        // It has just ended.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("pass {signal} on")),
    }
}
