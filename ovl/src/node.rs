//! A node: a machine of the cluster, held as a set of namespaces.
//!
//! This is the one place that knows what a node is made of; all others start, stop and run things
//! in it, copy files to it and attach its devices to networks.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};

use crate::activity;
use crate::process::Process;

/// What process 1 of a node does: private file systems, a name, then nothing but reaping orphans
/// (an ignored SIGCHLD makes the kernel do it).
const INIT: &str = r#"
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
echo "$1" >/proc/sys/kernel/hostname
ip link set lo up
echo ready
exec env --ignore-signal=CHLD sleep infinity <&- >&-
"#;

/// The longest that a command in a node may take, in seconds.
const COMMAND_LIMIT: &str = "60";

/// Stops when it is dropped: all its processes are killed and its namespaces vanish.
pub struct Node {
    name: String,
    holder: Child,
    entry: Entry,
}

/// The way into a node.
#[derive(Clone)]
pub struct Entry {
    name: String,
    holder: u32,
    search_path: OsString,
}

/// What came of a command in a node.
pub struct Ran {
    what: String,
    output: Output,
}

impl Node {
    /// Starts a node; it can be used after [`Node::wait_ready`].
    pub fn start(name: &str, search_path: &OsStr) -> Result<Self> {
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=KILL"])
            .args(["--", "sh", "-eus", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start unshare (of util-linux)")?;
        let mut stdin = holder.stdin.take().context("take standard input")?;
        stdin.write_all(INIT.as_bytes()).with_context(|| format!("start node {name}"))?;
        let entry =
            Entry { name: name.to_owned(), holder: holder.id(), search_path: search_path.into() };
        Ok(Self { name: name.to_owned(), holder, entry })
    }

    pub fn wait_ready(&mut self) -> Result<()> {
        let stdout = self.holder.stdout.take().context("node is already up")?;
        let _doing = activity::doing(&format!("node {} to start", self.name));
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .with_context(|| format!("start node {}", self.name))?;
        if line != "ready\n" {
            bail!("start node {}: its set-up failed (reason above)", self.name);
        }
        Ok(())
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Runs a command to its end.
    pub fn run(&self, words: &[&str]) -> Result<Ran> {
        self.entry.run(words)
    }

    /// Runs a shell script that must succeed; returns what it printed.
    pub fn script(&self, script: &str) -> Result<String> {
        self.entry.run_with_input(&["sh", "-eu"], script)?.success()
    }

    /// Starts a command in the background.
    pub fn spawn(&self, name: &str, words: &[&str]) -> Result<Process> {
        Process::start(&self.entry, name, words)
    }

    /// Writes a file in the node.
    pub fn write(&self, path: &str, content: &str) -> Result<()> {
        fs::write(self.entry.machine_path(path), content)
            .with_context(|| format!("write {path} on {}", self.name))
    }

    /// A file below /proc/net as the node sees it.
    pub fn proc_net(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/net/{file}", self.entry.holder);
        fs::read_to_string(path).with_context(|| format!("read /proc/net/{file} on {}", self.name))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Fails only when the holder has ended already, and so the node with it.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

impl Entry {
    /// A command inside the node, without a limit of time.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(self.nsenter_args()).arg(program);
        self.set_environment(&mut command);
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, words: &[&str]) -> Result<Ran> {
        self.run_with_input(words, "")
    }

    /// Runs a command to its end with `input` on its standard input.
    pub fn run_with_input(&self, words: &[&str], input: &str) -> Result<Ran> {
        let mut command = self.command("timeout");
        command.args(["--kill-after=1", COMMAND_LIMIT]).args(words);
        let what = format!("{} on {}", words.join(" "), self.name);
        feed(command, &what, input).with_context(|| format!("run {what}"))
    }

    /// Runs `ip -batch` in the node's network but outside its other namespaces, so that process
    /// numbers mean what they mean to the runner.
    pub fn ip_batch_outside(&self, batch: &str) -> Result<()> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder)).args(["ip", "-batch", "-"]);
        let what = format!("ip -batch on {}", self.name);
        let ran = feed(command, &what, batch).with_context(|| format!("run {what}"))?;
        ran.success().map(drop)
    }

    /// Where the machine sees a file of the node.
    pub fn machine_path(&self, path: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.holder.to_string())
            .join("root")
            .join(path.trim_start_matches('/'))
    }

    /// The process whose namespaces are the node's.
    pub fn holder(&self) -> u32 {
        self.holder
    }

    /// Where programs are looked for: those under test first.
    pub fn search_path(&self) -> &OsStr {
        &self.search_path
    }

    /// What `nsenter` needs to enter, up to and including `--`.
    ///
    /// The holder itself is in the node's namespaces but for that of processes, where only its
    /// child is.
    pub fn nsenter_args(&self) -> Vec<String> {
        let holder = self.holder;
        let mut args: Vec<String> =
            ["mount=mnt", "net=net", "uts=uts", "ipc=ipc", "pid=pid_for_children"]
                .iter()
                .filter_map(|pair| pair.split_once('='))
                .map(|(option, file)| format!("--{option}=/proc/{holder}/ns/{file}"))
                .collect();
        args.push("--".to_owned());
        args
    }

    fn set_environment(&self, command: &mut Command) {
        // A folder of the machine would be shared by all nodes.
        command.env("PATH", &self.search_path).env_remove("MARKWAY_SHM_DIR");
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

fn feed(mut command: Command, what: &str, input: &str) -> Result<Ran> {
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
