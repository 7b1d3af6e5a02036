//! Servers, clients and the two ways between them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::report::Report;
use crate::address::{NodeId, PREFIX};
use crate::cluster::Cluster;
use crate::lab::{Lab, PATIENCE};
use crate::node::Node;
use crate::process::Process;
use crate::wait;

/// The virtual addresses: one of each family, and a way for each.
pub const VIPS: [&str; 2] = ["10.0.0.1", "1000::81"];

/// The routers next to the clients, each on one of the ways.
pub const WAYS: [Way; 2] = [Way { router: 203, balancer: 201 }, Way { router: 204, balancer: 202 }];

/// A lost path is noticed within two seconds.
pub const QUICK: [&str; 6] =
    ["--rto", "200ms,100ms,500ms", "--heartbeat", "500ms", "--path-max-retrans", "2"];

/// How long until all paths of all associations are as they should be.
pub const SETTLED: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Next to the clients.
    pub router: u8,
    /// With a load balancer.
    pub balancer: u8,
}

pub struct Stage {
    pub cluster: Arc<Cluster>,
    servers: Vec<Process>,
}

impl Stage {
    /// Servers on all cluster nodes; each takes these options.
    pub fn start(lab: &Lab, options: &[&str]) -> Result<Self> {
        let mut stage = Self { cluster: Arc::clone(&lab.cluster), servers: Vec::new() };
        stage.start_servers("sctpt", options)?;
        for id in stage.cluster.servers() {
            watch_arrivals(stage.cluster.node(id)?)?;
        }
        Ok(stage)
    }

    /// More servers, beside those that are there.
    pub fn start_servers(&mut self, name: &str, options: &[&str]) -> Result<()> {
        let addresses = VIPS.join(",");
        let words = ["sctpt", "server", "--addr", &addresses, "--log", "6"];
        let first = self.servers.len();
        for id in self.cluster.servers() {
            let words = [&words, &QUICK[..], options].concat();
            self.servers.push(self.cluster.node(id)?.spawn(name, &words)?);
        }
        for server in &mut self.servers[first..] {
            server.wait_for_log("Accepting connections", PATIENCE)?;
        }
        Ok(())
    }

    pub fn tester(&self) -> Result<&Node> {
        self.cluster.tester()
    }

    pub fn node(&self, number: u8) -> Result<&Node> {
        self.cluster.node(NodeId::new(number).context("find node: odd number")?)
    }

    /// Starts clients of both ways; they end when they are told to.
    pub fn start_clients(&self, name: &str, options: &[&str]) -> Result<Clients> {
        let (vips, local) = (VIPS.join(","), client_addresses());
        let fixed = ["--addr", &vips, "--laddr", &local, "--shm", name, "--init"];
        let words = ["--duration", "10m", "--wait", "10", "--connect-timeout", "5"];
        // Its report is on standard output, and what it tells besides is its log.
        let script = format!("exec sctpt ctraffic \"$@\" >/run/{name}.json");
        let words = [&["sh", "-c", &script, "sctpt"], &fixed[..], &words, &QUICK, options].concat();
        let process = self.tester()?.spawn(name, &words)?;
        Ok(Clients { name: name.to_owned(), process, cluster: Arc::clone(&self.cluster) })
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

    /// By source port, the servers that packets of plain SCTP came to, with the device.
    pub fn arrivals(&self) -> Result<BTreeMap<u16, BTreeSet<(String, String)>>> {
        let mut arrivals: BTreeMap<u16, BTreeSet<(String, String)>> = BTreeMap::new();
        for id in self.cluster.servers() {
            let node = self.cluster.node(id)?;
            for (port, device) in arrived(node)? {
                arrivals.entry(port).or_default().insert((node.name().to_owned(), device));
            }
        }
        Ok(arrivals)
    }

    /// Runs a script on a load balancer, with the verbs of its overlays.
    pub fn on_balancer(&self, number: u8, script: &str) -> Result<String> {
        self.node(number)?.script(&format!(". /usr/lib/ovl/verbs.sh\n{script}"))
    }
}

/// The client's addresses, one on each way.
pub fn client_addresses() -> String {
    format!("192.168.2.221,{PREFIX}:192.168.6.221")
}

/// Lets a server's kernel note where packets come from.
fn watch_arrivals(node: &Node) -> Result<()> {
    let rules = "table inet arrivals {
        set seen { typeof th sport . meta iifname; flags dynamic; size 65535; }
        chain arriving {
            type filter hook prerouting priority -300;
            iifname { \"eth1\", \"eth2\" } meta l4proto 132 update @seen { th sport . meta iifname }
        }
    }
    ";
    node.entry().run_with_input(&["nft", "-f", "-"], rules)?.success().map(drop)
}

fn arrived(node: &Node) -> Result<Vec<(u16, String)>> {
    let listing = node.run(&["nft", "-j", "list", "set", "inet", "arrivals", "seen"])?.success()?;
    parse_arrivals(&listing).with_context(|| format!("read arrivals: {listing}"))
}

fn parse_arrivals(listing: &str) -> Result<Vec<(u16, String)>> {
    let listing: Value = serde_json::from_str(listing)?;
    let objects = listing["nftables"].as_array().context("no list of objects")?;
    let set = objects.iter().find_map(|object| object.get("set")).context("no set")?;
    let elements = set["elem"].as_array().map(Vec::as_slice).unwrap_or_default();
    elements
        .iter()
        .map(|element| {
            let concat = &element.pointer("/elem/val").unwrap_or(element)["concat"];
            let port = concat[0].as_u64().and_then(|port| u16::try_from(port).ok());
            let device = concat[1].as_str();
            Ok((port.context("no port")?, device.context("no device")?.to_owned()))
        })
        .collect()
}

/// Clients that run.
pub struct Clients {
    name: String,
    process: Process,
    cluster: Arc<Cluster>,
}

impl Clients {
    /// A number of their statistics, as it is now.
    pub fn now(&self, key: &str) -> Result<u64> {
        let words = ["sctpt", "stats", "json", "--shm", &self.name];
        let ran = self.cluster.tester()?.run_within(PATIENCE, &words)?.success()?;
        Report::parse(&ran)?.number(key)
    }

    /// Waits until a number is at least so large.
    pub fn wait_for(&mut self, key: &str, least: u64) -> Result<()> {
        let (mut last, mut ended) = (None, None);
        let waited = wait::until(&format!("{key} {least}"), SETTLED, || {
            ended = self.process.ended()?;
            // It may not have made them yet.
            last = self.now(key).ok();
            Ok((ended.is_some() || last >= Some(least)).then_some(()))
        });
        let log = || self.process.log();
        waited.with_context(|| format!("{key} is {last:?}: {}", log().trim_end()))?;
        if let Some(status) = ended {
            anyhow::bail!("{}: ended with {status}: {}", self.name, log().trim_end());
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
        let status = self.process.wait(SETTLED)?;
        let path = format!("/run/{}.json", self.name);
        let path = self.cluster.tester()?.entry().machine_path(&path);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let log = self.process.log();
        Report::parse(&text).with_context(|| format!("{}: {status}: {log}", self.name))
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
