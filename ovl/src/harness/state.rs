//! The state of every node, for those who look for the reason of a failure.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::node::Node;

/// A file, and the shell command that it holds the output of.
const VIEWS: &[(&str, &str)] = &[
    ("addresses", "ip -d -s address"),
    ("routes", "ip -4 route show table all; ip -6 route show table all"),
    ("rules", "ip -4 rule; ip -6 rule"),
    ("neighbours", "ip neighbour"),
    ("nft", "nft list ruleset"),
    ("iptables", "iptables-save -c; ip6tables-save -c"),
    ("queues", "cat /proc/net/netfilter/nfnetlink_queue"),
    ("snmp", "cat /proc/net/snmp /proc/net/snmp6 /proc/net/netstat"),
    ("sockets", "cat /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6"),
    ("processes", "ps -ef"),
    ("mounts", "cat /proc/self/mountinfo"),
    ("table", "shm-tool show"),
    ("stats", "shm-tool stats"),
];

/// For one view of one node.
const LIMIT: Duration = Duration::from_secs(5);

/// Logs of this node alone: what lies below its root of the machine's is older.
const LOGS: &str =
    "find /var/log /run -xdev -type f -newer /etc/ovl/node -name '*.log*' 2>/dev/null";

/// The most of a log that is copied; its end tells most.
const LOG_SIZE: &str = "1000000";

/// Writes a folder for every node.
pub fn collect(cluster: &Cluster, folder: &Path) -> Result<()> {
    for (id, node) in cluster.nodes() {
        let folder = folder.join(id.to_string());
        collect_node(node, &folder).with_context(|| format!("save state of {id}"))?;
    }
    Ok(())
}

fn collect_node(node: &Node, folder: &Path) -> Result<()> {
    let logs = folder.join("log");
    fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
    if let Some(console) = node.entry().console() {
        let copy = logs.join("console");
        fs::copy(&console, &copy).with_context(|| format!("copy {}", console.display()))?;
    }
    for (name, command) in VIEWS {
        let ran = node.run_within(LIMIT, &["sh", "-c", command])?;
        write(&folder.join(name), &(ran.stdout() + &ran.stderr()))?;
    }
    let found = node.run_within(LIMIT, &["sh", "-c", LOGS])?.stdout();
    for path in found.lines() {
        let ran = node.run_within(LIMIT, &["tail", "-c", LOG_SIZE, path])?;
        let name = path.trim_start_matches('/').replace('/', "-");
        write(&logs.join(name), &(ran.stdout() + &ran.stderr()))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
