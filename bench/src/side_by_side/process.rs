//! A process in a namespace: what it costs, and that it ends with this program.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::time::ClockId;
use nix::unistd::Pid;

use super::namespace::Namespace;

/// How long it may take to end when asked.
const FAREWELL: Duration = Duration::from_secs(2);

/// The path of a program that was built before.
pub fn built(bin_dir: &Path, program: &str) -> anyhow::Result<PathBuf> {
    let path = bin_dir.join(program);
    ensure!(
        path.is_file(),
        "{}: not there; build it (`cargo build --release`) or give --bin-dir",
        path.display()
    );
    Ok(path)
}

/// A running program with all its processes. It ends when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    group: Pid,
}

impl Process {
    /// Starts it, on a CPU if one is given. Called by the main thread: the kernel ends the process when
    /// the thread that started it ends.
    pub fn start(
        mut command: Command,
        namespace: &Namespace,
        cpu: Option<usize>,
    ) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.process_group(0);
        let prepare = move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            SigSet::empty().thread_set_mask()?;
            if let Some(cpu) = cpu {
                let mut set = CpuSet::new();
                set.set(cpu)?;
                sched_setaffinity(Pid::from_raw(0), &set)?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec it makes three system calls and allocates nothing.
        unsafe { command.pre_exec(prepare) };
        let child =
            namespace.enter(|| Ok(command.spawn()?)).with_context(|| format!("run {name}"))?;
        let group = Pid::from_raw(child.id().try_into()?);
        Ok(Process { name, child, group })
    }

    /// What was started.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("wait for {}", self.name))
    }

    /// What it writes, if its command had pipes for that. Only once.
    pub fn outputs(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.child.stdout.take(), self.child.stderr.take())
    }

    /// Processor time that all its threads and processes have used.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let mut sum = Duration::ZERO;
        for process in group_members(self.group)? {
            // One that has just ended has no clock any more.
            if let Ok(clock) = ClockId::pid_cpu_clock_id(process)
                && let Ok(time) = clock.now()
            {
                sum += Duration::from(time);
            }
        }
        Ok(sum)
    }

    /// Its memory.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        let path = format!("/proc/{}/status", self.group);
        let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        Memory::of(&status).with_context(|| format!("read {path}: no sizes in it"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = killpg(self.group, Signal::SIGTERM);
        let deadline = Instant::now() + FAREWELL;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(2));
        }
        // Also what it may have left behind.
        let _ = killpg(self.group, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Resident memory in KiB, as the kernel counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Its own.
    pub anonymous: u64,
    /// Of the program and libraries.
    pub files: u64,
    /// Of tables and counters.
    pub shared: u64,
}

impl Memory {
    fn of(status: &str) -> Option<Self> {
        let size = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.strip_prefix(':')?.trim().strip_suffix(" kB")?.parse().ok()
        };
        Some(Memory {
            anonymous: size("RssAnon")?,
            files: size("RssFile")?,
            shared: size("RssShmem")?,
        })
    }
}

fn group_members(group: Pid) -> anyhow::Result<Vec<Pid>> {
    let mut members = Vec::new();
    for entry in fs::read_dir("/proc").context("read /proc")?.flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end while we look.
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if process_group(&stat) == Some(group) {
            members.push(Pid::from_raw(process));
        }
    }
    Ok(members)
}

/// The group of a line of /proc/PID/stat. The name before it is in parentheses and may hold anything.
fn process_group(stat: &str) -> Option<Pid> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let group = behind_name.split_ascii_whitespace().nth(2)?;
    group.parse().ok().map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_stands_behind_any_name() {
        for name in ["lb", "a b", ") 1 2 (", "((", ""] {
            let stat = format!("42 ({name}) S 1 77 42 0 -1 4194560 100 0");
            assert_eq!(process_group(&stat), Some(Pid::from_raw(77)), "{name}");
        }
        assert_eq!(process_group(""), None);
        assert_eq!(process_group("42 (lb) S 1"), None);
    }

    #[test]
    fn this_process_is_in_its_group() {
        let members = group_members(nix::unistd::getpgrp()).unwrap();
        assert!(members.contains(&nix::unistd::getpid()));
    }

    #[test]
    fn memory_by_its_kinds() {
        let status = "Name:\tlb\nVmRSS:\t    4000 kB\nRssAnon:\t     700 kB\n\
                      RssFile:\t    3200 kB\nRssShmem:\t     100 kB\nThreads:\t2\n";
        let expected = Memory { anonymous: 700, files: 3200, shared: 100 };
        assert_eq!(Memory::of(status), Some(expected));
        assert_eq!(Memory::of("Name:\tlb\n"), None);
    }
}
