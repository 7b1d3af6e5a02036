//! Network namespaces without a name: they end with the process, however it ends.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, anyhow, bail};
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace of our own.
#[derive(Debug)]
pub struct Namespace(File);

const OF_THIS_THREAD: &str = "/proc/thread-self/ns/net";

impl Namespace {
    /// Makes one, with the loopback device up.
    pub fn new() -> anyhow::Result<Self> {
        let made = thread::spawn(|| -> anyhow::Result<Namespace> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(Namespace(File::open(OF_THIS_THREAD)?))
        });
        let made = made.join().map_err(|_| anyhow!("the thread panicked"))?;
        let namespace = made.context("make a network namespace (needs root)")?;
        namespace.ip(&["link set lo up"])?;
        Ok(namespace)
    }

    /// Does the work in this namespace, and returns to the one before.
    pub fn enter<T>(&self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let before = File::open(OF_THIS_THREAD).context("open the network namespace")?;
        setns(&self.0, CloneFlags::CLONE_NEWNET).context("enter a network namespace")?;
        let result = work();
        setns(&before, CloneFlags::CLONE_NEWNET).context("leave a network namespace")?;
        result
    }

    /// A path by which other programs find it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Has `ip` carry out these lines.
    pub fn ip(&self, lines: &[impl AsRef<str>]) -> anyhow::Result<()> {
        let mut batch = String::new();
        for line in lines {
            writeln!(batch, "{}", line.as_ref())?;
        }
        self.run(Command::new("ip").args(["-batch", "-"]), &batch).map(drop)
    }

    /// Has `iptables` carry out a command line; what it says.
    pub fn iptables(&self, line: &str) -> anyhow::Result<String> {
        self.run(Command::new("iptables").arg("-w").args(line.split_whitespace()), "")
    }

    /// Sets a sysctl of the network.
    pub fn sysctl(&self, name: &str, value: &str) -> anyhow::Result<()> {
        let path = format!("/proc/sys/net/{name}");
        self.enter(|| std::fs::write(&path, value).with_context(|| format!("write {path}")))
    }

    /// Runs a program to its end in this namespace; what it wrote.
    pub fn run(&self, command: &mut Command, input: &str) -> anyhow::Result<String> {
        let program = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            self.enter(|| Ok(command.spawn()?)).with_context(|| format!("run {program}"))?;
        let mut stdin = child.stdin.take().with_context(|| format!("run {program}: no input"))?;
        // A program that ends early is judged by its exit code.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().with_context(|| format!("run {program}"))?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!("{program}: {}", complaint.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
