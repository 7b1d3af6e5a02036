//! A node: a machine of the cluster, held as a set of namespaces.
//!
//! This is the one place that knows what a node is made of; all others start, stop and run things
//! in it, copy files to it and attach its devices to networks.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::activity;
use crate::address::NodeId;
use crate::holder::OWN_EXE;
use crate::init;
use crate::namespace::{Births, in_a_thread};
use crate::process::Process;
use crate::progress;
use crate::state::ProcessId;

/// How long a command in a node may take that was given no other limit.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// What all nodes of a cluster have in common.
pub struct Site {
    /// The folder that has the cluster's overlays.
    pub work: PathBuf,
    /// The binaries under test.
    pub bin_dir: PathBuf,
}

/// Stops when it is dropped, unless it was left alone: all its processes are killed and its
/// namespaces vanish.
pub struct Node {
    entry: Entry,
    own: Option<Child>,
}

/// Nodes that are about to start.
pub struct Starting {
    nodes: Vec<(NodeId, Node)>,
    inputs: Vec<ChildStdin>,
    outputs: Vec<(NodeId, BufReader<ChildStdout>)>,
}

/// The way into a node.
#[derive(Clone)]
pub struct Entry {
    name: String,
    init: u32,
}

/// What came of a command in a node.
pub struct Ran {
    what: String,
    output: Output,
}

impl Starting {
    /// Starts nodes, all at the same time. They have no devices and no processes yet.
    pub fn launch(ids: &[NodeId], site: &Site) -> Result<Self> {
        let children = in_a_thread(|| {
            let births = Births::new()?;
            let launch =
                |id: &NodeId| births.start(|| launch(*id, site)).context(format!("start {id}"));
            ids.iter().map(launch).collect::<Result<Vec<_>>>()
        })?;
        let mut starting = Self { nodes: Vec::new(), inputs: Vec::new(), outputs: Vec::new() };
        for (id, mut child) in ids.iter().zip(children) {
            starting.inputs.push(child.stdin.take().context("take standard input")?);
            let output = child.stdout.take().context("take standard output")?;
            starting.outputs.push((*id, BufReader::new(output)));
            let entry = Entry { name: id.to_string(), init: child.id() };
            starting.nodes.push((*id, Node { entry, own: Some(child) }));
        }
        Ok(starting)
    }

    pub fn nodes(&self) -> &[(NodeId, Node)] {
        &self.nodes
    }

    /// Waits until every node can be given devices and files.
    pub fn wait_there(&mut self, limit: Duration) -> Result<()> {
        self.wait_for(init::THERE, "to come up", limit)
    }

    /// Lets the start-up scripts run in every node, and returns when all have ended well.
    pub fn go(mut self, limit: Duration) -> Result<Vec<(NodeId, Node)>> {
        for ((id, _), mut input) in self.nodes.iter().zip(std::mem::take(&mut self.inputs)) {
            input.write_all(init::GO.as_bytes()).with_context(|| format!("start {id}"))?;
        }
        self.wait_for(init::STARTED, "to run its start-up scripts", limit)?;
        Ok(self.nodes)
    }

    fn wait_for(&mut self, word: &'static str, what: &str, limit: Duration) -> Result<()> {
        let deadline = activity::deadline(limit);
        let (report, reports) = mpsc::channel();
        let outputs = std::mem::take(&mut self.outputs);
        // Reading may take longer than the deadline; then it ends with the nodes.
        thread::spawn(move || {
            for (id, mut output) in outputs {
                let read = read_word(&mut output, word);
                // Nobody listens after the deadline.
                let _ = report.send((id, output, read));
            }
        });
        for (id, _) in &self.nodes {
            let what = format!("{id} {what}");
            let _doing = activity::doing(&what);
            let left = deadline.saturating_duration_since(Instant::now());
            let (id, output, read) = reports
                .recv_timeout(left)
                .with_context(|| format!("wait for {what}: not seen in time"))?;
            read.with_context(|| format!("start {id}"))?;
            self.outputs.push((id, output));
        }
        Ok(())
    }
}

fn launch(id: NodeId, site: &Site) -> Result<Child> {
    Command::new(OWN_EXE)
        .arg0("ovl")
        .args(["init", &id.to_string()])
        .args([&site.work, &site.bin_dir])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start process 1")
}

fn read_word(output: &mut impl BufRead, word: &str) -> Result<()> {
    let mut failure = Vec::new();
    for line in output.lines() {
        let line = line.context("read its report")?;
        if line == word {
            return Ok(());
        }
        failure.extend(line.strip_prefix(init::FAILURE).map(str::to_owned));
    }
    if failure.is_empty() {
        bail!("its process 1 was ended");
    }
    bail!("{}", failure.join("\n"))
}

impl Node {
    /// A node of a cluster that somebody else has started.
    pub fn of_running(id: NodeId, init: u32) -> Self {
        Self { entry: Entry { name: id.to_string(), init }, own: None }
    }

    /// Lets the node be there when this value is gone.
    pub fn leave(&mut self) {
        self.own = None;
    }

    pub fn name(&self) -> &str {
        &self.entry.name
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
        let path = self.entry.machine_path(path);
        let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
        folder
            .and_then(|()| fs::write(&path, content))
            .with_context(|| format!("write {} on {}", path.display(), self.name()))
    }

    /// A file below /proc/net as the node sees it.
    pub fn proc_net(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/net/{file}", self.entry.init);
        fs::read_to_string(path)
            .with_context(|| format!("read /proc/net/{file} on {}", self.name()))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(init) = &mut self.own {
            // Fails only when it has ended already, and so the node with it.
            let _ = init.kill();
            let _ = init.wait();
        }
    }
}

impl Entry {
    /// A command inside the node, without a limit of time.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(OWN_EXE);
        command.arg0("ovl").args(["enter", &self.init.to_string(), "--"]).arg(program);
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

    /// Where the holder of the cluster sees a file of the node.
    pub fn machine_path(&self, path: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.init.to_string())
            .join("root")
            .join(path.trim_start_matches('/'))
    }

    /// The node's process 1, by its number for the holder of the cluster.
    pub fn init(&self) -> u32 {
        self.init
    }

    /// None when the node has ended.
    pub fn process(&self) -> Option<ProcessId> {
        ProcessId::of(self.init)
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
