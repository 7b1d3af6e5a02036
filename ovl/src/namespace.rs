//! Going into namespaces of other processes, and making new ones.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns, unshare};

/// Those of a node, in the order in which one can go into them: the mounts come last, because /proc
/// is another one then.
const OF_A_NODE: [(&str, CloneFlags); 5] = [
    ("pid", CloneFlags::CLONE_NEWPID),
    ("net", CloneFlags::CLONE_NEWNET),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("mnt", CloneFlags::CLONE_NEWNS),
];

const MISSING: &str = "does this kernel have namespaces, and may they be used here?";

pub fn need_root() -> Result<()> {
    let user = fs::metadata("/proc/self").context("read /proc/self")?.uid();
    if user != 0 {
        bail!("namespaces and bridges need root: run it with sudo");
    }
    Ok(())
}

/// Moves this thread, which must be the only one, into the namespaces of a node's process 1.
/// Processes that it starts are in the node then altogether.
pub fn enter_node(init: u32) -> Result<()> {
    enter(init, &OF_A_NODE)
}

/// Moves this thread, which must be the only one, to where the holder of a cluster sees the
/// cluster's processes and mounts.
pub fn enter_holder(holder: u32) -> Result<()> {
    enter(holder, &[OF_A_NODE[0], OF_A_NODE[4]])
}

/// Moves this thread, which must be the only one, to the files of a process.
pub fn enter_files(pid: u32) -> Result<()> {
    enter(pid, &[OF_A_NODE[4]])
}

fn enter(pid: u32, kinds: &[(&str, CloneFlags)]) -> Result<()> {
    let opened = kinds.iter().map(|(name, kind)| {
        let path = format!("/proc/{pid}/ns/{name}");
        let file = File::open(&path).with_context(|| format!("open {path}"))?;
        Ok((path, file, *kind))
    });
    for (path, file, kind) in opened.collect::<Result<Vec<_>>>()? {
        setns(file, kind).with_context(|| format!("enter {path}"))?;
    }
    Ok(())
}

pub fn make(kinds: CloneFlags) -> Result<()> {
    unshare(kinds).with_context(|| format!("make namespaces ({MISSING})"))
}

/// Does something in a thread of its own, which may go where it likes.
pub fn in_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        scope.spawn(work).join().unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
    })
}

/// Does something in a thread that is in another network namespace.
pub fn in_network<T: Send>(namespace: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    in_a_thread(|| {
        let what = || format!("enter network {}", namespace.display());
        let file = File::open(namespace).with_context(what)?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(what)?;
        work()
    })
}

/// Each call starts a process that is process 1 of a new process namespace; only in a thread of
/// [`in_a_thread`].
pub struct Births(File);

impl Births {
    pub fn new() -> Result<Self> {
        let own = "/proc/self/ns/pid";
        Ok(Self(File::open(own).with_context(|| format!("open {own}"))?))
    }

    pub fn start<T>(&self, start: impl FnOnce() -> Result<T>) -> Result<T> {
        // Only from its own namespace can a thread make one for its children.
        setns(&self.0, CloneFlags::CLONE_NEWPID).context("return to own processes")?;
        make(CloneFlags::CLONE_NEWPID)?;
        start()
    }
}
