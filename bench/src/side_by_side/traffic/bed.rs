//! Where generators run: a client and a server, each a namespace, joined by a veth pair.

use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;

use crate::side_by_side::interrupt::Interrupt;
use crate::side_by_side::namespace::Namespace;
use crate::side_by_side::process::{Process, built};
use crate::side_by_side::session::Session;

/// A program that makes traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generator {
    Ctraffic,
    Kahttp,
    Mconnect,
    Iperf,
    Wrk,
    Hping3,
}

impl Generator {
    fn is_ours(self) -> bool {
        matches!(self, Generator::Ctraffic | Generator::Kahttp | Generator::Mconnect)
    }
}

impl fmt::Display for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Generator::Ctraffic => "ctraffic",
            Generator::Kahttp => "kahttp",
            Generator::Mconnect => "mconnect",
            Generator::Iperf => "iperf",
            Generator::Wrk => "wrk",
            Generator::Hping3 => "hping3",
        })
    }
}

/// The server's address.
pub const SERVER: &str = "10.0.0.2";
/// Packets to this port are counted and dropped by the server's kernel.
pub const SINK_PORT: u16 = 9;
/// How long a server may take until it listens.
const PATIENCE: Duration = Duration::from_secs(10);

/// What every case uses: the programs, the signals.
#[derive(Debug)]
pub struct Bed {
    signals: Interrupt,
    bin_dir: PathBuf,
    installed: Vec<Generator>,
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
    /// Looks which programs there are.
    pub fn new(bin_dir: PathBuf) -> anyhow::Result<Self> {
        for ours in [Generator::Ctraffic, Generator::Kahttp, Generator::Mconnect] {
            built(&bin_dir, &ours.to_string())?;
        }
        let signals = Interrupt::catch().context("catch signals")?;
        raise_open_file_limit().context("raise the limit of open files")?;
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let is_installed = |rival: &Generator| {
            std::env::split_paths(&folders).any(|folder| folder.join(rival.to_string()).is_file())
        };
        let rivals = [Generator::Iperf, Generator::Wrk, Generator::Hping3];
        let installed = rivals.into_iter().filter(is_installed).collect();
        Ok(Bed { signals, bin_dir, installed, started: Instant::now() })
    }

    /// Whether this program can be run.
    pub fn has(&self, generator: Generator) -> bool {
        generator.is_ours() || self.installed.contains(&generator)
    }

    /// A program with its arguments, separated by spaces.
    pub fn command(&self, generator: Generator, arguments: &str) -> Command {
        let name = generator.to_string();
        let program = if generator.is_ours() { self.bin_dir.join(name) } else { name.into() };
        let mut command = Command::new(program);
        command.args(arguments.split_whitespace());
        command
    }

    /// A network for one measurement: no connection of another lingers in it.
    pub fn network(&self) -> anyhow::Result<Network<'_>> {
        Network::new(self).context("build the test network")
    }
}

/// The two namespaces.
#[derive(Debug)]
pub struct Network<'a> {
    bed: &'a Bed,
    client: Namespace,
    server: Namespace,
}

/// What a client did.
#[derive(Debug)]
pub struct Ended {
    /// What it wrote, on stdout and stderr.
    pub said: String,
    /// Processor time that it used.
    pub cpu: Duration,
}

/// What a client did, and what its server needed for that.
#[derive(Debug)]
pub struct Both {
    /// What the client wrote.
    pub said: String,
    /// Processor time of the client.
    pub client_cpu: Duration,
    /// Processor time of the server.
    pub server_cpu: Duration,
}

impl Both {
    /// Processor time of the two.
    pub fn cpu(&self) -> Duration {
        self.client_cpu + self.server_cpu
    }
}

impl<'a> Network<'a> {
    fn new(bed: &'a Bed) -> anyhow::Result<Self> {
        const CLIENT_MAC: &str = "02:00:00:00:01:01";
        const SERVER_MAC: &str = "02:00:00:00:02:01";
        let (client, server) = (Namespace::new()?, Namespace::new()?);
        for namespace in [&client, &server] {
            for conf in ["all", "default"] {
                // Nothing but the test's packets. A kernel without IPv6 sends none anyway.
                let _ = namespace.sysctl(&format!("ipv6/conf/{conf}/disable_ipv6"), "1");
            }
            // Ports do not run out while connections come and go.
            namespace.sysctl("ipv4/ip_local_port_range", "10000 65000")?;
            namespace.sysctl("ipv4/tcp_tw_reuse", "1")?;
        }
        let path = server.path();
        client.ip(&[
            format!("link add server address {CLIENT_MAC} type veth peer name client address {SERVER_MAC} netns {path}"),
            "link set server up".into(),
            "address add 10.0.0.1/24 dev server".into(),
            format!("neighbour add {SERVER} dev server lladdr {SERVER_MAC} nud permanent"),
        ])?;
        server.ip(&[
            "link set client up".into(),
            format!("address add {SERVER}/24 dev client"),
            format!("neighbour add 10.0.0.1 dev client lladdr {CLIENT_MAC} nud permanent"),
        ])?;
        let sink = format!("-t mangle -A PREROUTING -p udp --dport {SINK_PORT} -j DROP");
        server.iptables(&sink)?;
        Ok(Network { bed, client, server })
    }

    /// Starts a server and waits until it listens on its port.
    pub fn serve(&self, mut command: Command, port: u16) -> anyhow::Result<Process> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process::start(command, &self.server, None)?;
        let ready = self.bed.signals.until(PATIENCE, || {
            if let Some(status) = process.ended()? {
                bail!("{} ended ({status})", process.name());
            }
            is_bound(&self.server, port)
        })?;
        ensure!(ready, "{} did not listen on port {port} within {PATIENCE:?}", process.name());
        Ok(process)
    }

    /// Starts a client and leaves it running.
    pub fn start(&self, mut command: Command) -> anyhow::Result<Process> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Process::start(command, &self.client, None)
    }

    /// Runs a client to its end, which comes after about this time. What its exit code means differs:
    /// whoever reads what it said knows better.
    pub fn run(&self, mut command: Command, time: Duration) -> anyhow::Result<Ended> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let before = children_cpu()?;
        let mut process = Process::start(command, &self.client, None)?;
        let (stdout, stderr) = process.outputs();
        let readers = [reader(stdout), reader(stderr)];
        let limit = time * 2 + PATIENCE;
        let ended = self.bed.signals.until(limit, || Ok(process.ended()?.is_some()))?;
        ensure!(ended, "{} did not end within {limit:?}", process.name());
        let cpu = children_cpu()?.saturating_sub(before);
        let mut said = String::new();
        for reader in readers {
            said += &reader.join().map_err(|_| anyhow!("a reader panicked"))?;
        }
        Ok(Ended { said, cpu })
    }

    /// Runs a client to its end, with a server that it can reach at this port.
    pub fn run_both(
        &self,
        server: Command,
        port: u16,
        client: Command,
        time: Duration,
    ) -> anyhow::Result<Both> {
        let server = self.serve(server, port)?;
        let before = server.cpu()?;
        let Ended { said, cpu } = self.run(client, time)?;
        let server_cpu = server.cpu()?.saturating_sub(before);
        Ok(Both { said, client_cpu: cpu, server_cpu })
    }

    /// UDP packets that the server's kernel has counted and dropped.
    pub fn sunk(&self) -> anyhow::Result<u64> {
        let listing = self.server.iptables("-t mangle -nvxL PREROUTING")?;
        crate::side_by_side::lab::dropped_packets(&listing)
            .context("iptables: no counter in its listing")
    }

    /// Sockets of the client's namespace that are in use, TCP and UDP.
    pub fn sockets_in_use(&self) -> anyhow::Result<u64> {
        const FILE: &str = "/proc/thread-self/net/sockstat";
        let text = self.client.enter(|| fs::read_to_string(FILE).context("read sockstat"))?;
        in_use(&text).with_context(|| format!("read {FILE}: a line is missing"))
    }

    /// Waits; an error if a signal came.
    pub fn pause(&self, duration: Duration) -> anyhow::Result<()> {
        self.bed.signals.pause(duration)
    }

    /// Waits until the condition holds, at most so long; says whether it does.
    pub fn until(
        &self,
        patience: Duration,
        condition: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<bool> {
        self.bed.signals.until(patience, condition)
    }
}

fn raise_open_file_limit() -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
}

/// Processor time of all that was started by this process and has ended.
fn children_cpu() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("read the children's clock")?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(micros.try_into().unwrap_or(0)))
}

fn reader(from: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What could be read before an error is as good as it gets.
        let _ = from.map(|mut from| from.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn is_bound(namespace: &Namespace, port: u16) -> anyhow::Result<bool> {
    namespace.enter(|| {
        let tables =
            ["tcp", "tcp6", "udp", "udp6"].map(|name| format!("/proc/thread-self/net/{name}"));
        // A kernel without IPv6 has no tables of it.
        let texts = tables.iter().filter_map(|path| fs::read_to_string(Path::new(path)).ok());
        Ok(texts.into_iter().any(|text| has_listener(&text, port)))
    })
}

/// Whether a socket listens (TCP), or is not connected (UDP), at this port.
fn has_listener(table: &str, port: u16) -> bool {
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().unwrap_or_default();
        let state = fields.nth(1).unwrap_or_default();
        local.ends_with(&format!(":{port:04X}")) && matches!(state, "0A" | "07")
    })
}

fn in_use(sockstat: &str) -> Option<u64> {
    let of = |name: &str| -> Option<u64> {
        let rest = sockstat.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_whitespace().nth(1)?.parse().ok()
    };
    Some(of("TCP:")? + of("UDP:")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_by_its_port() {
        let tcp = "  sl  local_address rem_address   st tx_queue\n   0: 00000000:138B 00000000:0000 0A 0:0\n   \
                   1: 0200000A:138C 0100000A:A000 01 0:0\n";
        assert!(has_listener(tcp, 5003));
        assert!(!has_listener(tcp, 5004), "that is a connection");
        assert!(!has_listener("", 5003));
    }

    #[test]
    fn sockets_in_use_are_of_two_kinds() {
        let text = "sockets: used 1\nTCP: inuse 10000 orphan 0 tw 3 alloc 20 mem 1\nUDP: inuse 7 mem 0\nUDPLITE: inuse 0\n";
        assert_eq!(in_use(text), Some(10_007));
        assert_eq!(in_use("TCP: inuse x"), None);
    }
}
