//! Where it is measured: a client and a server, each a namespace, joined by two veth pairs. An association has
//! a path on each.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use serde_json::Value;

use crate::side_by_side::interrupt::Interrupt;
use crate::side_by_side::namespace::Namespace;
use crate::side_by_side::output::name;
use crate::side_by_side::process::{Process, built};
use crate::side_by_side::rig::{private_shared_memory, with_private_folder};
use crate::side_by_side::session::Session;

/// Who speaks SCTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stack {
    /// In the processes of client and server
    User,
    /// The kernel's
    Kernel,
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name(*self))
    }
}

/// The two paths. The first is the one in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    First,
    Second,
}

impl Way {
    const ALL: [Way; 2] = [Way::First, Way::Second];

    fn device(self) -> &'static str {
        match self {
            Way::First => "way1",
            Way::Second => "way2",
        }
    }
}

const CLIENT: &str = "10.1.0.1,10.2.0.1";
const SERVER: &str = "10.1.0.2,10.2.0.2";
/// What a server says when it listens.
const READY: &str = "Accepting connections";
/// How long starts and ends may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// In the private folder of shared memory; the point keeps them from being taken for statistics.
const SERVER_LOG: &str = "/dev/shm/.server.log";
const CLIENT_LOG: &str = "/dev/shm/.client.log";
const REPORT: &str = "/dev/shm/.report.json";
/// The name of the statistics.
const STATISTICS: &str = "bench";

/// What every case uses: the program, the signals.
#[derive(Debug)]
pub struct Bed {
    signals: Interrupt,
    program: PathBuf,
    pub stack: Stack,
    pin: bool,
    started: Instant,
}

impl Session for Bed {
    fn signals(&self) -> &Interrupt {
        &self.signals
    }

    fn started(&self) -> Instant {
        self.started
    }
}

impl Bed {
    /// The process gets a mount namespace with shared memory of its own, so there must be no other thread
    /// yet.
    pub fn new(bin_dir: &Path, stack: Stack) -> anyhow::Result<Self> {
        let program = built(bin_dir, "sctpt")?;
        let signals = Interrupt::catch().context("catch signals")?;
        private_shared_memory().context("get shared memory of our own (needs root)")?;
        let pin = thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1);
        Ok(Bed { signals, program, stack, pin, started: Instant::now() })
    }

    /// Who runs where.
    pub fn pinning(&self) -> &'static str {
        if self.pin { "client on CPU 0, server on CPU 1" } else { "both share the only CPU" }
    }

    /// A network with a server for one measurement; both ends take these options, and run anywhere.
    pub fn network(&self, options: &[String]) -> anyhow::Result<Network<'_>> {
        self.network_on([None; 2], options)
    }

    /// The same with a CPU for the client and one for the server.
    pub fn pinned_network(&self, options: &[String]) -> anyhow::Result<Network<'_>> {
        self.network_on([self.pin.then_some(0), self.pin.then_some(1)], options)
    }

    fn network_on(
        &self,
        cpus: [Option<usize>; 2],
        options: &[String],
    ) -> anyhow::Result<Network<'_>> {
        let [client_cpu, server_cpu] = cpus;
        let (client, server) = link().context("build the test network")?;
        let mut command = self.sctpt("server", options);
        command.args(["--addr", SERVER, "--log", "6"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(SERVER_LOG)?);
        let mut process = Process::start(command, &server, server_cpu)?;
        let listens = self.signals.until(PATIENCE, || {
            if let Some(status) = process.ended()? {
                bail!("the server ended ({status}): {}", last_words(SERVER_LOG));
            }
            Ok(fs::read_to_string(SERVER_LOG)?.contains(READY))
        })?;
        ensure!(listens, "the server did not listen within {PATIENCE:?}");
        let options = options.to_vec();
        Ok(Network { bed: self, client, server, process, options, client_cpu })
    }

    fn sctpt(&self, verb: &str, options: &[String]) -> Command {
        let mut command = with_private_folder(&self.program);
        command.arg(verb).args(["--stack", &self.stack.to_string()]).args(options);
        command
    }
}

fn link() -> anyhow::Result<(Namespace, Namespace)> {
    let (client, server) = (Namespace::new()?, Namespace::new()?);
    for (number, way) in (1..).zip(Way::ALL) {
        let (device, path) = (way.device(), server.path());
        client.ip(&[
            format!("link add {device} type veth peer name {device} netns {path}"),
            format!("link set {device} up"),
            format!("address add 10.{number}.0.1/24 dev {device}"),
        ])?;
        server.ip(&[
            format!("link set {device} up"),
            format!("address add 10.{number}.0.2/24 dev {device}"),
        ])?;
    }
    Ok((client, server))
}

/// The two namespaces, with a server that listens.
#[derive(Debug)]
pub struct Network<'a> {
    bed: &'a Bed,
    client: Namespace,
    server: Namespace,
    process: Process,
    options: Vec<String>,
    client_cpu: Option<usize>,
}

impl Network<'_> {
    /// Starts clients with these words besides.
    pub fn start(&self, words: &[&str]) -> anyhow::Result<Clients<'_>> {
        let mut command = self.bed.sctpt("ctraffic", &self.options);
        command.args(["--addr", SERVER, "--laddr", CLIENT, "--shm", STATISTICS, "--init"]);
        command.args(words);
        command.stdin(Stdio::null());
        command.stdout(File::create(REPORT)?).stderr(File::create(CLIENT_LOG)?);
        let process = Process::start(command, &self.client, self.client_cpu)?;
        Ok(Clients { bed: self.bed, process })
    }

    /// Nothing passes this way any more, in no direction, or all does again. Who sends is not told.
    pub fn cut(&self, way: Way, cut: bool) -> anyhow::Result<()> {
        let verb = if cut { "-A" } else { "-D" };
        for end in [&self.client, &self.server] {
            end.iptables(&format!("-t mangle {verb} PREROUTING -i {} -j DROP", way.device()))?;
        }
        Ok(())
    }

    /// Processor time that the server has used.
    pub fn server_cpu(&self) -> anyhow::Result<Duration> {
        self.process.cpu()
    }
}

/// Clients that run.
#[derive(Debug)]
pub struct Clients<'a> {
    bed: &'a Bed,
    process: Process,
}

impl Clients<'_> {
    /// A number of their statistics, as it is now; none before there are any.
    fn now(&self, key: &str) -> anyhow::Result<Option<u64>> {
        let mut command = with_private_folder(&self.bed.program);
        command.args(["stats", "json", "--shm", STATISTICS]);
        let output = command.output().context("run sctpt stats")?;
        let said: Option<Value> = serde_json::from_slice(&output.stdout).ok();
        Ok(said.and_then(|said| said[key].as_u64()))
    }

    /// The same, when there must be one.
    pub fn number(&self, key: &str) -> anyhow::Result<u64> {
        self.now(key)?.with_context(|| format!("sctpt stats: no number {key}"))
    }

    /// Waits until a number is at least so large; how long that took.
    pub fn reach(&mut self, key: &str, least: u64, patience: Duration) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let mut last = None;
        let reached = self.bed.signals.until(patience, || {
            if let Some(status) = self.process.ended()? {
                bail!("the clients ended ({status}): {}", last_words(CLIENT_LOG));
            }
            last = self.now(key)?;
            Ok(last >= Some(least))
        })?;
        ensure!(reached, "{key} was {last:?} after {patience:?}, not {least}");
        Ok(began.elapsed())
    }

    /// Waits until so many more messages have been answered than now.
    pub fn answer(&mut self, messages: u64) -> anyhow::Result<()> {
        let now = self.number("received")?;
        self.reach("received", now + messages, PATIENCE).map(drop)
    }

    /// Waits until they end by themselves, which takes about so long; what they report.
    pub fn report(mut self, time: Duration) -> anyhow::Result<Value> {
        let limit = time + 2 * PATIENCE;
        let ended = self.bed.signals.until(limit, || Ok(self.process.ended()?.is_some()))?;
        ensure!(ended, "the clients did not end within {limit:?}");
        let text = fs::read_to_string(REPORT)?;
        serde_json::from_str(&text)
            .with_context(|| format!("read the clients' report: {}", last_words(CLIENT_LOG)))
    }
}

/// The last thing that it said.
fn last_words(log: &str) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing").into()
}
