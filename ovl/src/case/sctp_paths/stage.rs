//! Servers, clients and the two ways between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::report::Report;
use crate::address::{NodeId, PREFIX, Role};
use crate::cluster::Cluster;
use crate::lab::{Lab, PATIENCE, SLOWNESS_OF_MACHINES};
use crate::node::Node;
use crate::process::Process;
use crate::trace::elements;
use crate::wait;

/// The virtual addresses: one of each family, and a way for each.
pub const VIPS: [&str; 2] = ["10.0.0.1", "1000::81"];

/// The routers next to the clients, each on one of the ways.
pub const WAYS: [Way; 2] = [Way { router: 203, balancer: 201 }, Way { router: 204, balancer: 202 }];

/// A lost path is noticed within two seconds.
const QUICK: [&str; 6] =
    ["--rto", "200ms,100ms,500ms", "--heartbeat", "500ms", "--path-max-retrans", "2"];

/// On machines, where an answer may need longer than that for no reason but the processor.
const SLOWER: [&str; 6] = ["--rto", "1s,500ms,1s", "--heartbeat", "1s", "--path-max-retrans", "2"];

/// How long until all paths of all associations are as they should be.
const SETTLED: Duration = Duration::from_secs(20);

/// Where clients leave what they found.
const REPORT: &str = "/run/clients.json";

#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Next to the clients.
    pub router: u8,
    /// With a load balancer.
    pub balancer: u8,
}

/// What SCTP goes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside {
    Ip,
    Udp,
}

pub struct Stage {
    pub cluster: Arc<Cluster>,
    on_machines: bool,
    /// They end with it.
    _servers: Vec<Process>,
}

impl Stage {
    /// Servers on all cluster nodes; each takes these options.
    pub fn start(lab: &Lab, options: &[&str]) -> Result<Self> {
        let cluster = Arc::clone(&lab.cluster);
        let addresses = VIPS.join(",");
        let words = ["sctpt", "server", "--addr", &addresses, "--log", "6"];
        let on_machines = lab.is_on_machines();
        let words = [&words, &timers(on_machines), options].concat();
        if on_machines && options.iter().any(|option| option.starts_with("--encap")) {
            for (id, node) in cluster.nodes().filter(|(id, _)| id.role() != Role::Router) {
                kernel_in_udp(node, true).with_context(|| format!("SCTP in UDP on {id}"))?;
            }
        }
        let mut servers = Vec::new();
        for id in cluster.servers() {
            watch_arrivals(cluster.node(id)?)?;
            servers.push(cluster.node(id)?.spawn("sctpt", &words)?);
        }
        for server in &mut servers {
            server.wait_for_log("Accepting connections", PATIENCE)?;
        }
        Ok(Self { cluster, on_machines, _servers: servers })
    }

    pub fn tester(&self) -> Result<&Node> {
        self.cluster.tester()
    }

    pub fn node(&self, number: u8) -> Result<&Node> {
        self.cluster.node(NodeId::new(number).context("find node: odd number")?)
    }

    /// Starts clients of both ways; they end when they are told to.
    pub fn start_clients(&self, options: &[&str]) -> Result<Clients> {
        self.start_clients_on(NodeId::TESTER, options)
    }

    /// The same on any tester. The stack in user space takes all of a node's SCTP, so there can be one program
    /// on each.
    pub fn start_clients_on(&self, tester: NodeId, options: &[&str]) -> Result<Clients> {
        const NAME: &str = "clients";
        let (vips, local) = (VIPS.join(","), client_addresses(tester));
        let fixed = ["--addr", &vips, "--laddr", &local, "--shm", NAME, "--init"];
        let words = ["--duration", "10m", "--wait", "10", "--connect-timeout", "5"];
        // Its report is on standard output, and what it tells besides is its log.
        let script = format!("exec sctpt ctraffic \"$@\" >{REPORT}");
        let timers = timers(self.on_machines);
        let words =
            [&["sh", "-c", &script, "sctpt"], &fixed[..], &words, &timers, options].concat();
        let process = self.cluster.node(tester)?.spawn(NAME, &words)?;
        let settled = SETTLED * if self.on_machines { SLOWNESS_OF_MACHINES } else { 1 };
        Ok(Clients { tester, process, settled, cluster: Arc::clone(&self.cluster) })
    }

    /// What nodes of this kind can do of so many messages a second.
    pub fn rate(&self, wanted: u32) -> String {
        let share = if self.on_machines { 10 } else { 1 };
        (wanted / share).to_string()
    }

    /// Nothing passes this way any more, or all does again.
    pub fn cut(&self, way: Way, cut: bool) -> Result<()> {
        const TABLE: &str = "inet cut";
        let script = match cut {
            true => format!(
                "nft 'table {TABLE} {{ chain nothing {{ type filter hook forward priority 0; policy drop; }}; }}'"
            ),
            false => format!("nft delete table {TABLE}"),
        };
        self.node(way.router)?.script(&script).map(drop)
    }

    /// By SCTP's source port, the servers that packets came to, with the device.
    pub fn arrivals(&self, inside: Inside) -> Result<BTreeMap<u16, BTreeSet<(String, String)>>> {
        let mut arrivals: BTreeMap<u16, BTreeSet<(String, String)>> = BTreeMap::new();
        for id in self.cluster.servers() {
            let node = self.cluster.node(id)?;
            for (port, device) in arrived(node, inside)? {
                arrivals.entry(port).or_default().insert((node.name().to_owned(), device));
            }
        }
        Ok(arrivals)
    }

    /// The server that the first load balancer has for each of these source ports.
    pub fn lookup(&self, ports: impl Iterator<Item = u16>) -> Result<BTreeMap<u16, String>> {
        let ports: Vec<u16> = ports.collect();
        let script: String = ports
            .iter()
            .map(|port| {
                format!(
                    "shm-tool lookup --json --proto sctp --src 192.168.2.221:{port} --dst {}:6000\n",
                    VIPS[0]
                )
            })
            .collect();
        let said = self.node(WAYS[0].balancer)?.script(&script)?;
        let said = serde_json::Deserializer::from_str(&said).into_iter::<Value>();
        ports
            .iter()
            .zip(said)
            .map(|(port, found)| {
                let mark = found?["mark"].as_u64().context("read shm-tool lookup: no mark")?;
                // Mark 100+n is that of node n.
                Ok((*port, format!("vm-{:03}", mark - 100)))
            })
            .collect()
    }

    /// Runs a script on a load balancer, with the verbs of its overlays.
    pub fn on_balancer(&self, number: u8, script: &str) -> Result<String> {
        self.node(number)?.script(&format!(". /usr/lib/ovl/verbs.sh\n{script}"))
    }
}

fn timers(on_machines: bool) -> [&'static str; 6] {
    if on_machines { SLOWER } else { QUICK }
}

/// Lets a machine's kernel take SCTP in UDP, or no longer.
pub fn kernel_in_udp(node: &Node, takes: bool) -> Result<()> {
    let port = if takes { "9899" } else { "0" };
    let script = format!("modprobe sctp\necho {port} >/proc/sys/net/sctp/udp_port");
    node.script(&script).map(drop)
}

/// The addresses of a tester's clients, one on each way.
pub fn client_addresses(tester: NodeId) -> String {
    let number = tester.number();
    format!("192.168.2.{number},{PREFIX}:192.168.6.{number}")
}

/// Lets a server's kernel note where packets come from. Behind the header of UDP stand SCTP's ports.
fn watch_arrivals(node: &Node) -> Result<()> {
    let rules = "table inet arrivals {
        set in_ip { typeof th sport . meta iifname; flags dynamic; size 65535; }
        set in_udp { typeof @th,64,16 . meta iifname; flags dynamic; size 65535; }
        chain arriving {
            type filter hook prerouting priority -300;
            iifname { \"eth1\", \"eth2\" } meta l4proto 132 update @in_ip { th sport . meta iifname }
            iifname { \"eth1\", \"eth2\" } udp dport 9899 update @in_udp { @th,64,16 . meta iifname }
        }
    }
    ";
    node.entry().run_with_input(&["nft", "-f", "-"], rules)?.success().map(drop)
}

fn arrived(node: &Node, inside: Inside) -> Result<Vec<(u16, String)>> {
    let set = match inside {
        Inside::Ip => "in_ip",
        Inside::Udp => "in_udp",
    };
    let listing = node.run(&["nft", "-j", "list", "set", "inet", "arrivals", set])?.success()?;
    parse_arrivals(&listing).with_context(|| format!("read arrivals: {listing}"))
}

fn parse_arrivals(listing: &str) -> Result<Vec<(u16, String)>> {
    let parse = |parts: &Value| {
        let port = parts[0].as_u64().and_then(|port| u16::try_from(port).ok());
        Some((port?, parts[1].as_str()?.to_owned()))
    };
    let elements = elements(listing)?;
    elements
        .iter()
        .map(|parts| parse(parts).with_context(|| format!("odd element {parts}")))
        .collect()
}

/// Clients that run.
pub struct Clients {
    tester: NodeId,
    process: Process,
    settled: Duration,
    cluster: Arc<Cluster>,
}

impl Clients {
    /// A number of their statistics, as it is now.
    pub fn now(&self, key: &str) -> Result<u64> {
        let words = ["sctpt", "stats", "json", "--shm", "clients"];
        let ran = self.cluster.node(self.tester)?.run_within(PATIENCE, &words)?.success()?;
        Report::parse(&ran)?.number(key)
    }

    /// Waits until a number is at least so large.
    pub fn wait_for(&mut self, key: &str, least: u64) -> Result<()> {
        let (mut last, mut ended) = (None, None);
        let waited = wait::until(&format!("{key} {least}"), self.settled, || {
            ended = self.process.ended()?;
            // It may not have made them yet.
            last = self.now(key).ok();
            Ok((ended.is_some() || last >= Some(least)).then_some(()))
        });
        let log = || self.process.log();
        waited.with_context(|| format!("{key} is {last:?}: {}", log().trim_end()))?;
        if let Some(status) = ended {
            bail!("clients on {}: ended with {status}: {}", self.tester, log().trim_end());
        }
        Ok(())
    }

    /// Waits until so many more messages have been answered than now.
    pub fn wait_for_more(&mut self, messages: u64) -> Result<()> {
        let now = self.now("received")?;
        self.wait_for("received", now + messages)
    }

    /// Ends them.
    pub fn end(mut self) -> Result<Report> {
        self.process.signal("TERM")?;
        let status = self.process.wait(self.settled)?;
        let tester = self.cluster.node(self.tester)?;
        let text = tester.entry().read_file(REPORT)?.context("the clients made no report")?;
        let log = self.process.log();
        Report::parse(&text).with_context(|| format!("clients: {status}: {log}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_read() {
        let listing = r#"{"nftables": [{"set": {"elem": [{"concat": [5000, "eth1"]},
            {"elem": {"val": {"concat": [5001, "eth2"]}, "expires": 5}}]}}]}"#;
        let expected = [(5000, "eth1".to_owned()), (5001, "eth2".to_owned())];
        assert_eq!(parse_arrivals(listing).unwrap(), expected);
        assert_eq!(parse_arrivals(r#"{"nftables": [{"set": {}}]}"#).unwrap(), []);
        assert!(parse_arrivals("{}").is_err());
    }
}
