//! A cluster with the load balancer's parts in it: the verbs that scenarios are made of.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::address::{CLUSTER_NET, EXTERNAL_NET, FAMILIES, Family, NodeId, Role};
use crate::bins::Bins;
use crate::cluster::Cluster;
use crate::flood::Flood;
use crate::flow::{Flow, Transport};
use crate::mconnect::{Answers, Connections, PORT};
use crate::packet::{Extras, first_packet};
use crate::process::Process;
use crate::progress;
use crate::rootfs::BIN_DIR;
use crate::sender::to_hex;
use crate::stats::Stats;
use crate::topology::plan::{Size, Variables};
use crate::wait;

/// The queue that the router's rules lead to when there is one only.
pub const QUEUE: &str = "2";

/// How long a program may take to start or to end, on a busy machine too. No success waits so long, and no case
/// longer than it may take itself.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How much longer things may take on machines, which may lack hardware support.
pub const SLOWNESS_OF_MACHINES: u32 = 4;

/// A file on the tester that ends a flood.
const FLOOD_END: &str = "/run/flood.end";

/// What a cluster is made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    pub topology: String,
    pub size: Size,
    /// Besides those that every cluster has.
    pub overlays: Vec<String>,
    pub variables: Variables,
}

/// The cluster of a lab: servers, a router and a tester.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    pub servers: u8,
    pub routers: u8,
    /// Whether devices may pass large segments and unfinished checksums on, as real ones do.
    pub offload: bool,
    /// Whether a link between router and tester takes less than the others: a node in front of it,
    /// beyond the router, tells senders so.
    pub squeezed: bool,
    /// Whether a node before the routers spreads packets over them.
    pub spread: bool,
    /// Whether routes lead over the first router alone, although there may be more.
    pub by_first: bool,
}

/// The MTU of the narrow link; 1,280 is the least that IPv6 allows.
const NARROW_MTU: u16 = 1300;

pub struct Lab {
    // Before the cluster, so that they end while their nodes are there.
    balancer: Option<Process>,
    servers: Vec<Process>,
    /// Those of scenario files, by node and name.
    pub programs: BTreeMap<(NodeId, String), Process>,
    pub cluster: Arc<Cluster>,
    bins: Bins,
}

/// What `shm-tool lookup` says about a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    pub slot: u32,
    /// None when there is no target.
    pub mark: Option<u32>,
}

impl Shape {
    pub const STANDARD: Self = Self {
        servers: 4,
        offload: true,
        squeezed: false,
        routers: 1,
        spread: false,
        by_first: false,
    };

    /// The cluster that it wants.
    pub fn layout(self) -> Layout {
        // In evil-tester another tester stands between the router and the first one.
        let has_between = self.squeezed || self.spread;
        let (topology, testers) = if has_between { ("evil-tester", 2) } else { ("xnet", 1) };
        Layout {
            topology: topology.to_owned(),
            size: Size {
                nodes: Some(self.servers),
                routers: Some(self.routers),
                testers: Some(testers),
            },
            ..Layout::default()
        }
    }
}

impl Lab {
    pub fn new(cluster: Arc<Cluster>, bins: Bins) -> Self {
        Self { balancer: None, servers: Vec::new(), programs: BTreeMap::new(), cluster, bins }
    }

    /// Whether nodes have a kernel of their own.
    pub fn is_on_machines(&self) -> bool {
        self.cluster.nodes().any(|(_, node)| node.is_machine())
    }

    /// Prepares a cluster that has the layout of `shape`: the virtual addresses, the tester's
    /// sources and, on the router, a table for each mark.
    pub fn prepare(&self, shape: Shape) -> Result<()> {
        for (id, node) in self.cluster.nodes() {
            let script = node_script(id, shape);
            node.script(&script).with_context(|| format!("set up {id}"))?;
        }
        Ok(())
    }

    /// Takes everything away that a case may have left, so that another one can be prepared.
    pub fn clear(&mut self) -> Result<()> {
        self.balancer = None;
        self.servers.clear();
        self.programs.clear();
        for (id, node) in self.cluster.nodes() {
            node.script(&clearing_script(id)).with_context(|| format!("clear {id}"))?;
        }
        Ok(())
    }

    /// Everything: servers, rules, a table with all servers as targets, `lb`.
    pub fn start_service(&mut self) -> Result<()> {
        self.start_servers()?;
        self.queue(&["--queue-num", QUEUE])?;
        self.table(&["init"])?;
        self.activate_all()?;
        self.start_lb(&["--queue", QUEUE])
    }

    /// Starts `mconnect` on every server and waits until all listen.
    pub fn start_servers(&mut self) -> Result<()> {
        self.serve("mconnect", PORT)
    }

    /// Starts one of the traffic tools on every server, for TCP and UDP, and waits until all listen.
    pub fn serve(&mut self, tool: &str, port: u16) -> Result<()> {
        let address = format!("[::]:{port}");
        for id in self.cluster.servers() {
            let words = [tool, "-server", "-udp", "-address", &address];
            self.servers.push(self.cluster.node(id)?.spawn(tool, &words)?);
        }
        for id in self.cluster.servers() {
            let node = self.cluster.node(id)?;
            wait::until(&format!("{tool} to listen on {id}"), PATIENCE, || {
                let serves = |table| Ok::<_, anyhow::Error>(listens(&node.proc_net(table)?, port));
                Ok((serves("tcp6")? && serves("udp6")?).then_some(()))
            })?;
        }
        Ok(())
    }

    /// Leads packets for the virtual addresses to queues; `target` is for iptables.
    pub fn queue(&self, target: &[&str]) -> Result<()> {
        for family in FAMILIES {
            let (iptables, vip) = (family.iptables(), family.vip_prefix());
            let rule = [iptables, "-t", "mangle", "-A", "PREROUTING", "-d", &vip, "-j", "NFQUEUE"];
            self.cluster.router()?.run(&[&rule, target].concat())?.success()?;
        }
        Ok(())
    }

    /// Runs `shm-tool` on the router; it must succeed.
    pub fn table(&self, words: &[&str]) -> Result<String> {
        self.cluster.router()?.run(&[&["shm-tool"], words].concat())?.success()
    }

    /// What a reading verb of `shm-tool` says.
    pub fn table_json(&self, verb: &str) -> Result<Value> {
        let report = self.table(&[verb, "--json"])?;
        serde_json::from_str(&report).with_context(|| format!("read shm-tool {verb}"))
    }

    pub fn activate_all(&self) -> Result<()> {
        let marks: Vec<String> =
            self.cluster.servers().map(|server| server.number().to_string()).collect();
        let marks: Vec<&str> = marks.iter().map(String::as_str).collect();
        self.table(&[&["activate"], marks.as_slice()].concat()).map(drop)
    }

    pub fn activate(&self, target: NodeId) -> Result<()> {
        self.table(&["activate", &target.number().to_string()]).map(drop)
    }

    pub fn deactivate(&self, target: NodeId) -> Result<()> {
        self.table(&["deactivate", &target.number().to_string()]).map(drop)
    }

    /// Starts `lb` on the router and waits until it is ready.
    pub fn start_lb(&mut self, words: &[&str]) -> Result<()> {
        self.balancer = None;
        let words = [&["lb"], words].concat();
        let balancer = self.cluster.router()?.spawn("lb", &words)?;
        self.balancer.insert(balancer).wait_for_log("ready", PATIENCE)
    }

    pub fn lb(&self) -> Result<&Process> {
        self.balancer.as_ref().context("lb was not started")
    }

    pub fn lb_mut(&mut self) -> Result<&mut Process> {
        self.balancer.as_mut().context("lb was not started")
    }

    pub fn has_lb(&self) -> bool {
        self.balancer.is_some()
    }

    /// The end of `lb`'s log, when there is one.
    pub fn lb_log_tail(&self, lines: usize) -> Option<String> {
        let log = self.balancer.as_ref()?.log();
        let skipped = log.lines().count().saturating_sub(lines);
        Some(log.lines().skip(skipped).collect::<Vec<_>>().join("\n"))
    }

    /// Lets the tester connect; failed connections are no error here.
    pub fn connect(&self, connections: Connections) -> Result<Answers> {
        let words = connections.words();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ran = self.cluster.tester()?.run(&words)?;
        Answers::parse(&ran.stdout()).with_context(|| ran.stderr())
    }

    /// Sends the first packet of every flow.
    pub fn send_flows(&self, flows: &[Flow], extras: Extras) -> Result<()> {
        self.send_packets(flows.iter().map(|flow| first_packet(flow, extras)))
    }

    pub fn send_packets(&self, packets: impl Iterator<Item = Vec<u8>>) -> Result<()> {
        let lines: Vec<String> = packets.map(|packet| to_hex(&packet)).collect();
        progress::tell(self.cluster.tester()?.name(), &format!("send {} packets", lines.len()));
        let ovl = self.ovl()?;
        let tester = self.cluster.tester()?.entry();
        tester.run_with_input(&[&ovl, "send-packets"], &lines.join("\n"))?.success().map(drop)
    }

    /// What `shm-tool` says about each flow.
    pub fn lookup(&self, flows: &[Flow]) -> Result<BTreeMap<Flow, Lookup>> {
        let ends = flows.iter().map(|flow| (flow.transport, flow.source, flow.destination()));
        Ok(flows.iter().copied().zip(self.lookup_each(ends)?).collect())
    }

    /// What `shm-tool` says about packets of a transport, from a source to a destination.
    pub fn lookup_each(
        &self,
        packets: impl Iterator<Item = (Transport, SocketAddr, SocketAddr)>,
    ) -> Result<Vec<Lookup>> {
        let mut count = 0;
        let script = packets.fold(String::new(), |mut script, (transport, from, to)| {
            let options = format!("--src '{from}' --dst '{to}' --proto {transport}");
            let _ = writeln!(script, "shm-tool lookup --json {options}");
            count += 1;
            script
        });
        let reports = self.cluster.router()?.script(&script)?;
        let reports = serde_json::Deserializer::from_str(&reports).into_iter::<Value>();
        let lookups = reports.map(|report| {
            let report = report.context("read shm-tool lookup")?;
            parse_lookup(&report)
                .with_context(|| format!("read shm-tool lookup: odd report {report}"))
        });
        let lookups: Vec<_> = lookups.collect::<Result<_>>()?;
        if lookups.len() != count {
            bail!("read shm-tool lookup: {} reports for {count} packets", lookups.len());
        }
        Ok(lookups)
    }

    /// Starts a flood on the tester; it ends with [`Lab::stop_flood`].
    pub fn start_flood(&self, rate: u32, flows: u16, limit: Duration) -> Result<Process> {
        let tester = self.cluster.tester()?;
        tester.script(&format!("rm -f {FLOOD_END}"))?;
        let (rate, flows) = (rate.to_string(), flows.to_string());
        let seconds = limit.as_secs().to_string();
        let words = ["flood", "--rate", &rate, "--flows", &flows];
        let end = ["--until", FLOOD_END, "--seconds", &seconds];
        tester.spawn("flood", &[&[self.ovl()?.as_str()], &words[..], &end[..]].concat())
    }

    /// Ends a flood; returns what it sent.
    pub fn stop_flood(&self, mut flood: Process) -> Result<Flood> {
        self.cluster.tester()?.write(FLOOD_END, "")?;
        flood.wait(PATIENCE)?;
        let log = flood.log();
        Flood::parse(&log).with_context(|| format!("read report of flood: {}", log.trim()))
    }

    /// This executable as nodes see it.
    pub fn ovl(&self) -> Result<String> {
        if self.is_on_machines() {
            return Ok(format!("{BIN_DIR}/ovl"));
        }
        let path = self.bins.ovl_in_node().into_os_string().into_string();
        path.ok().context("name ovl: its path is not UTF-8")
    }

    pub fn stats(&self) -> Result<Stats> {
        Stats::parse(&self.table(&["stats", "--json"])?)
    }
}

/// The shell script that prepares a node.
fn node_script(id: NodeId, shape: Shape) -> String {
    let mut script = String::new();
    if !shape.offload {
        script.push_str(
            "for path in /sys/class/net/eth*; do\n\
             ethtool -K ${path##*/} tx off tso off gso off gro off\ndone\n",
        );
    }
    // The tester's end stays wide, so that its connections ask for large segments.
    if shape.squeezed && id == NodeId::BETWEEN {
        let _ = writeln!(script, "ip link set eth2 mtu {NARROW_MTU}");
    }
    if id == NodeId::TESTER {
        script.push_str(
            "echo 1 >/proc/sys/net/ipv4/ip_nonlocal_bind\n\
             echo 1 >/proc/sys/net/ipv6/ip_nonlocal_bind\n",
        );
    }
    for family in FAMILIES {
        let batch = ip_batch(id, family, shape);
        let _ = write!(script, "{} -batch - <<END\n{batch}END\n", family.ip());
    }
    script
}

/// The shell script that takes away what a case may have left on a node.
fn clearing_script(id: NodeId) -> String {
    let mut script = "nft flush ruleset\nrm -rf /dev/shm/*\n".to_owned();
    if id.role() == Role::Router {
        for family in FAMILIES {
            let (ip, vip) = (family.ip(), family.vip_prefix());
            // The rule that leads to the kernel's own table stays.
            let _ = write!(
                script,
                "{ip} rule flush\n{ip} rule add priority 32766 lookup main\n\
                 {ip} route flush {vip}\n"
            );
        }
    }
    script
}

fn ip_batch(id: NodeId, family: Family, shape: Shape) -> String {
    let mut batch = String::new();
    match id.role() {
        Role::Server => {
            let nodad = if family == Family::V6 { " nodad" } else { "" };
            let _ = writeln!(batch, "addr replace {} dev lo{nodad}", family.vip_prefix());
        }
        Role::Router => {
            for server in (1..=shape.servers).filter_map(NodeId::new) {
                let mark = server.number();
                let address = family.address(CLUSTER_NET, server);
                let _ = writeln!(batch, "rule add fwmark {mark} lookup {mark}");
                let _ = writeln!(batch, "route replace default via {address} table {mark}");
            }
        }
        Role::Tester if id == NodeId::TESTER => {
            let _ = writeln!(batch, "route replace local {} dev lo", family.source_prefix());
        }
        Role::Tester => {}
    }
    let net = match id.role() {
        Role::Server => CLUSTER_NET,
        Role::Tester => EXTERNAL_NET,
        Role::Router => return batch,
    };
    if shape.by_first {
        let router = family.address(net, NodeId::ROUTER);
        let _ = writeln!(batch, "route replace default via {router}");
    }
    batch
}

fn parse_lookup(report: &Value) -> Option<Lookup> {
    let number = |value: &Value| u32::try_from(value.as_u64()?).ok();
    let mark = match report.get("mark")? {
        Value::Null => None,
        mark => Some(number(mark)?),
    };
    Some(Lookup { slot: number(&report["slot"])?, mark })
}

/// Whether a table of /proc/net holds a socket without a peer on a port.
fn listens(table: &str, port: u16) -> bool {
    let port = format!(":{port:04X}");
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote) = (fields.next(), fields.next());
        local.is_some_and(|local| local.ends_with(&port))
            && remote.is_some_and(|remote| remote.ends_with(":0000"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_router_has_a_table_for_each_mark() {
        let shape = Shape { servers: 2, ..Shape::STANDARD };
        assert_eq!(
            ip_batch(NodeId::ROUTER, Family::V4, shape),
            "rule add fwmark 1 lookup 1\n\
             route replace default via 192.168.1.1 table 1\n\
             rule add fwmark 2 lookup 2\n\
             route replace default via 192.168.1.2 table 2\n"
        );
        let server = ip_batch(NodeId::VM_003, Family::V6, shape);
        assert_eq!(server, "addr replace 1000::/128 dev lo nodad\n");
        let tester = ip_batch(NodeId::TESTER, Family::V4, Shape { by_first: true, ..shape });
        assert!(tester.ends_with("route replace default via 192.168.2.201\n"), "{tester}");
    }

    #[test]
    fn offload_and_mtu_are_left_alone_unless_it_is_asked_for() {
        let plain = Shape::STANDARD;
        let nodes = [NodeId::VM_003, NodeId::ROUTER, NodeId::TESTER, NodeId::BETWEEN];
        for id in nodes {
            let script = node_script(id, plain);
            assert!(!script.contains("ethtool") && !script.contains("mtu"), "{script}");
            assert!(node_script(id, Shape { offload: false, ..plain }).contains("tso off"));
        }
        let squeezed = |id| node_script(id, Shape { squeezed: true, ..plain }).contains("mtu 1300");
        assert_eq!(nodes.map(squeezed), [false, false, false, true]);
    }

    #[test]
    fn finds_a_listening_socket() {
        let line = |local: &str, remote: &str| {
            format!("   0: {}:{local} {}:{remote} 0A 0 0", "0".repeat(32), "0".repeat(32))
        };
        assert!(listens(&format!("  sl  local_address\n{}", line("1389", "0000")), 5001));
        assert!(!listens(&line("1389", "C001"), 5001));
        assert!(!listens(&line("138A", "0000"), 5001));
        assert!(!listens("", 5001));
    }

    #[test]
    fn reads_a_lookup() {
        let read = |report: Value| parse_lookup(&report);
        let found = Some(Lookup { slot: 996, mark: Some(3) });
        assert_eq!(read(json!({"hash": 1, "slot": 996, "mark": 3})), found);
        assert_eq!(read(json!({"slot": 0, "mark": null})), Some(Lookup { slot: 0, mark: None }));
        assert_eq!(read(json!({"slot": 0})), None);
        assert_eq!(read(json!({"mark": 1})), None);
    }
}
