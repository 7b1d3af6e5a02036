//! A node: a machine of the cluster, held as a set of namespaces or as a virtual machine.
//!
//! This is the one place that knows what a node is made of; all others start, stop and run things
//! in it, copy files to it and attach its devices to networks.

use std::ffi::OsStr;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::activity;
use crate::address::NodeId;
use crate::holder::OWN_EXE;
use crate::process::Process;
use crate::progress;
use crate::state::ProcessId;
use crate::vm::client::Line;

/// How long a command in a node may take that was given no other limit.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Stops when it is dropped, unless it was left alone: all its processes are killed and its
/// namespaces vanish.
pub struct Node {
    entry: Entry,
    own: Mutex<Option<Child>>,
}

/// The way into a node.
#[derive(Clone)]
pub struct Entry {
    name: String,
    /// Process 1 of its namespaces, or the keeper of its machine; another one when it was started anew.
    init: Arc<AtomicU32>,
    /// The way into a machine.
    line: Option<Line>,
}

/// What came of a command in a node.
pub struct Ran {
    what: String,
    output: Output,
}

impl Node {
    /// A node that this process has started.
    pub fn started(entry: Entry, init: Child) -> Self {
        Self { entry, own: Mutex::new(Some(init)) }
    }

    /// A node of a cluster that somebody else has started.
    pub fn of_running(entry: Entry) -> Self {
        Self { entry, own: Mutex::default() }
    }

    /// Takes the place of this one, which has ended, where everybody knows it.
    pub fn replace_by(&self, new: Self) {
        self.entry.init.store(new.entry.init(), Ordering::Relaxed);
        let child = new.child().take();
        *self.child() = child;
    }

    /// Ends it without a warning if this process has started it; false if it has not.
    pub fn kill(&self) -> Result<bool> {
        let Some(mut child) = self.child().take() else { return Ok(false) };
        // Fails only when it has ended already.
        let _ = child.kill();
        child.wait().with_context(|| format!("end {}", self.name()))?;
        Ok(true)
    }

    /// Whether it runs and this process has started it.
    pub fn is_running(&self) -> bool {
        self.child().as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the node be there when this value is gone.
    pub fn leave(&self) {
        *self.child() = None;
    }

    pub fn name(&self) -> &str {
        &self.entry.name
    }

    /// Whether it has a kernel of its own.
    pub fn is_machine(&self) -> bool {
        self.entry.line.is_some()
    }

    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Runs a command to its end.
    pub fn run(&self, words: &[&str]) -> Result<Ran> {
        progress::tell(self.name(), &words.join(" "));
        let ran = self.entry.run(words)?;
        if !ran.succeeded() {
            progress::tell(self.name(), &format!("{}\n{}", ran.output.status, ran.stderr()));
        }
        Ok(ran)
    }

    /// Runs a command to its end, or kills it after `limit` (then its exit code is 124 or
    /// 137), or when the time of what goes on here is over.
    pub fn run_within(&self, limit: Duration, words: &[&str]) -> Result<Ran> {
        self.entry.run_for(limit, words, "")
    }

    /// Runs a shell script that must succeed; returns what it printed.
    pub fn script(&self, script: &str) -> Result<String> {
        progress::tell(self.name(), script);
        self.entry.run_with_input(&["sh", "-eu"], script)?.success()
    }

    /// Starts a command in the background.
    pub fn spawn(&self, name: &str, words: &[&str]) -> Result<Process> {
        progress::tell(self.name(), &format!("start {name}: {}", words.join(" ")));
        Process::start(&self.entry, name, words)
    }

    /// Writes a file in the node; makes its folder if it is not there.
    pub fn write(&self, path: &str, content: &str) -> Result<()> {
        self.entry.write_file(path, content.as_bytes())
    }

    /// A file below /proc/net as the node sees it.
    pub fn proc_net(&self, file: &str) -> Result<String> {
        let what = || format!("read /proc/net/{file} on {}", self.name());
        if self.entry.line.is_some() {
            let content = self.entry.read_file(&format!("/proc/net/{file}"))?;
            return content.with_context(|| format!("{}: it is not there", what()));
        }
        let path = format!("/proc/{}/net/{file}", self.entry.init());
        fs::read_to_string(path).with_context(what)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut init) = self.child().take() {
            // Fails only when it has ended already, and so the node with it.
            let _ = init.kill();
            let _ = init.wait();
        }
    }
}

impl Entry {
    /// The way into the node with this process 1, or keeper, of a cluster with this work folder.
    pub fn new(id: NodeId, init: u32, work: &Path, is_machine: bool) -> Self {
        let name = id.to_string();
        let line = is_machine.then(|| Line::new(work, &name));
        Self { name, init: Arc::new(AtomicU32::new(init)), line }
    }

    /// A command inside the node, without a limit of time.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(OWN_EXE);
        command.arg0("ovl");
        match &self.line {
            Some(line) => command.arg("enter-machine").arg(line.work()).arg(&self.name),
            None => command.args(["enter", &self.init().to_string()]),
        };
        command.arg("--").arg(program);
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, words: &[&str]) -> Result<Ran> {
        self.run_with_input(words, "")
    }

    /// Runs a command to its end with `input` on its standard input.
    pub fn run_with_input(&self, words: &[&str], input: &str) -> Result<Ran> {
        self.run_for(COMMAND_LIMIT, words, input)
    }

    fn run_for(&self, limit: Duration, words: &[&str], input: &str) -> Result<Ran> {
        let left = activity::deadline(limit).saturating_duration_since(Instant::now());
        // Nought would be no limit at all.
        let seconds = format!("{:.3}", left.as_secs_f64().max(0.001));
        let mut command = self.command("timeout");
        command.args(["--kill-after=1", &seconds]).args(words);
        let what = format!("{} on {}", words.join(" "), self.name);
        feed(command, &what, input).with_context(|| format!("run {what}"))
    }

    /// Writes a file in the node; makes its folder if it is not there.
    pub fn write_file(&self, path: &str, content: &[u8]) -> Result<()> {
        if let Some(line) = &self.line {
            return line.write_file(path.as_ref(), content);
        }
        let seen = self.seen_path(path);
        let folder = seen.parent().map_or(Ok(()), fs::create_dir_all);
        folder
            .and_then(|()| fs::write(&seen, content))
            .with_context(|| format!("write {path} on {}", self.name))
    }

    /// The text of a file in the node; None if it is not there.
    pub fn read_file(&self, path: &str) -> Result<Option<String>> {
        let content = match &self.line {
            Some(line) => line.read_file(path.as_ref())?,
            None => match fs::read(self.seen_path(path)) {
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                content => Some(content.with_context(|| format!("read {path} on {}", self.name))?),
            },
        };
        Ok(content.map(|content| String::from_utf8_lossy(&content).into_owned()))
    }

    /// Where the holder of the cluster sees a file of a node that is made of namespaces.
    fn seen_path(&self, path: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.init().to_string())
            .join("root")
            .join(path.trim_start_matches('/'))
    }

    /// The end of the console of a node that is a machine.
    pub fn console(&self) -> Option<PathBuf> {
        self.line.as_ref().map(Line::console)
    }

    /// What is on the console of a machine in the end, for an error message.
    pub fn last_words(&self) -> String {
        self.line.as_ref().map(Line::console_end).unwrap_or_default()
    }

    /// The node's process 1, by its number for the holder of the cluster.
    pub fn init(&self) -> u32 {
        self.init.load(Ordering::Relaxed)
    }

    /// None when the node has ended.
    pub fn process(&self) -> Option<ProcessId> {
        ProcessId::of(self.init())
    }
}

impl Ran {
    pub fn succeeded(&self) -> bool {
        self.output.status.success()
    }

    pub fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// The standard output of a command that must have succeeded.
    pub fn success(self) -> Result<String> {
        if self.succeeded() {
            return Ok(self.stdout());
        }
        let stderr = self.stderr();
        let reason = if stderr.trim().is_empty() { "no message" } else { stderr.trim() };
        bail!("run {}: {}: {reason}", self.what, self.output.status)
    }
}

/// Runs a command to its end with `input` on its standard input.
pub fn feed(mut command: Command, what: &str, input: &str) -> Result<Ran> {
    let _doing = activity::doing(&format!("{what} to end"));
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("take standard input")?;
    let output = thread::scope(|scope| {
        // A command may end without having read all: not this side's error.
        scope.spawn(move || {
            let _ = stdin.write_all(input.as_bytes());
        });
        child.wait_with_output()
    })?;
    Ok(Ran { what: what.to_owned(), output })
}

/// The file of a background process: its number or its log.
pub fn run_path(name: &str, kind: &str) -> String {
    format!("/run/{name}.{kind}")
}
