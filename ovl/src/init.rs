//! Process 1 of a node: makes the node what it is, runs the start-up scripts, then takes note of
//! every process that has lost its parent and ended.

use std::fs::{self, File};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, sethostname};

use crate::cli::InitArgs;
use crate::holder::name_this_process;
use crate::namespace;
use crate::rootfs;

/// What it says on standard output: first that the node is there, then that it has started.
pub const THERE: &str = "there";
pub const STARTED: &str = "started";
/// Or, each line with this before it, why not.
pub const FAILURE: &str = "failure ";

/// What it waits for in between on standard input.
pub const GO: &str = "go\n";

const SCRIPTS: &str = "/etc/init.d";

/// How many lines of a failed script's output are told.
const TOLD: usize = 10;

pub fn run(args: &InitArgs) -> Result<ExitCode> {
    let started = start(args);
    if started.is_err() {
        return tell_result(started);
    }
    idle()
}

fn start(args: &InitArgs) -> Result<()> {
    name_this_process()?;
    let kinds = CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    namespace::make(kinds)?;
    sethostname(&args.host).context("set host name")?;
    rootfs::change(&args.work, &args.bin_dir)?;
    tell(THERE)?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).context("wait to go on")?;
    if line != GO {
        bail!("the one that started this node is gone");
    }
    run_scripts()?;
    tell(STARTED)
}

/// In a machine, where somebody else is process 1: runs the start-up scripts and tells what came of it.
pub fn start_up() -> Result<ExitCode> {
    tell_result(run_scripts().and_then(|()| tell(STARTED)))
}

fn run_scripts() -> Result<()> {
    scripts()?.iter().try_for_each(|script| run_script(script))
}

pub fn tell_result(result: Result<()>) -> Result<ExitCode> {
    let Err(error) = result else { return Ok(ExitCode::SUCCESS) };
    let text: String =
        format!("{error:#}").lines().map(|line| format!("{FAILURE}{line}\n")).collect();
    io::stdout().write_all(text.as_bytes()).context("tell why not")?;
    Ok(ExitCode::FAILURE)
}

pub fn tell(word: &str) -> Result<()> {
    writeln!(io::stdout(), "{word}").context("tell how far it is")
}

/// The start-up scripts in the order of their names.
fn scripts() -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(SCRIPTS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("read {SCRIPTS}"))?,
    };
    let paths = entries.map(|entry| Ok(entry.with_context(|| format!("read {SCRIPTS}"))?.path()));
    let mut paths: Vec<PathBuf> = paths.collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rc"));
    paths.sort();
    Ok(paths)
}

fn run_script(script: &Path) -> Result<()> {
    let name = script.file_name().unwrap_or_default().to_string_lossy();
    let log = Path::new("/var/log").join(format!("{name}.log"));
    let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
    let errors = output.try_clone().with_context(|| format!("open {}", log.display()))?;
    let status = Command::new(script)
        .arg("start")
        .env_clear()
        .env("PATH", rootfs::SEARCH_PATH)
        .env("HOME", "/root")
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .status()
        .with_context(|| format!("run {}", script.display()))?;
    if status.success() {
        return Ok(());
    }
    let said = fs::read(&log).with_context(|| format!("read {}", log.display()))?;
    bail!("run {}: {status}{}", script.display(), end_of(&String::from_utf8_lossy(&said)))
}

/// The last lines of a text, each on a line of its own.
fn end_of(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(TOLD);
    lines[skipped..].iter().map(|line| format!("\n  {line}")).collect()
}

fn idle() -> Result<ExitCode> {
    let null =
        File::options().read(true).write(true).open("/dev/null").context("open /dev/null")?;
    dup2_stdin(&null).context("let standard input go")?;
    dup2_stdout(&null).context("let standard output go")?;
    // Somebody may wait for the end of what these are connected to.
    dup2_stderr(&null).context("let standard error go")?;
    drop(null);
    let signals = SigSet::from_iter([Signal::SIGCHLD]);
    signals.thread_block().context("block signals")?;
    loop {
        // First, because some may have ended before the signal was blocked.
        while !matches!(
            waitpid(None, Some(WaitPidFlag::WNOHANG)),
            Ok(WaitStatus::StillAlive) | Err(_)
        ) {}
        signals.wait().context("wait for signals")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_output_is_told() {
        assert_eq!(end_of(""), "");
        assert_eq!(end_of("a\nb\n"), "\n  a\n  b");
        let many: String = (0..20).map(|line| format!("{line}\n")).collect();
        assert!(end_of(&many).starts_with("\n  10\n") && end_of(&many).ends_with("\n  19"));
    }
}
