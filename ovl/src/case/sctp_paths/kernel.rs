//! The kernel's SCTP, on machines: beside the other stack, other programs, and routers without power.

use std::collections::BTreeSet;

use anyhow::{Context, Result};

use super::super::check;
use super::IN_UDP;
use super::report::Report;
use super::stage::{Stage, VIPS, WAYS, kernel_in_udp};
use crate::address::{NodeId, PREFIX, Role};
use crate::lab::{Lab, PATIENCE};
use crate::node::Node;
use crate::process::Process;
use crate::progress;
use crate::wait;

/// Addresses of a server and of its client, in pairs that belong to one way.
struct Ends {
    what: &'static str,
    server: &'static [&'static str],
    /// Below the network of each way.
    client: &'static [&'static str],
}

const ENDS: [Ends; 4] = [
    Ends { what: "IPv4", server: &["10.0.0.1"], client: &["192.168.2.221"] },
    Ends { what: "IPv6", server: &["1000::81"], client: &["1000::1:192.168.6.221"] },
    Ends {
        what: "two of IPv4",
        server: &["10.0.0.1", "10.0.0.129"],
        client: &["192.168.2.221", "192.168.6.221"],
    },
    Ends {
        what: "two of each family",
        server: &["10.0.0.1", "10.0.0.129", "1000::1", "1000::81"],
        client: &[
            "192.168.2.221",
            "192.168.6.221",
            "1000::1:192.168.2.221",
            "1000::1:192.168.6.221",
        ],
    },
];

const PORT: &str = "6000";

/// Every stack with every other, over all kinds of addresses, plain and in UDP.
pub fn stacks_talk(lab: &Lab) -> Result<()> {
    for id in lab.cluster.servers() {
        lab.cluster.node(id)?.script(
            "ip address add 10.0.0.129/32 dev vip0
             ip address add 1000::1/128 dev vip0 nodad",
        )?;
    }
    for (server, client) in [("kernel", "kernel"), ("kernel", "user"), ("user", "kernel")] {
        for in_udp in [false, true] {
            for (id, node) in lab.cluster.nodes() {
                let stack = match id.role() {
                    Role::Server => server,
                    Role::Tester => client,
                    Role::Router => continue,
                };
                use_stack(node, stack, in_udp).with_context(|| format!("{stack} on {id}"))?;
            }
            let options = if in_udp { IN_UDP } else { &[] };
            for ends in &ENDS {
                let what = format!("{} in UDP {in_udp}, {client} to {server}", ends.what);
                progress::tell("sctp", &what);
                talk(lab, ends, (server, client), options).context(what)?;
            }
        }
    }
    Ok(())
}

/// A kernel that has the module answers what is for the stack in user space, and so ends its associations.
fn use_stack(node: &Node, stack: &str, in_udp: bool) -> Result<()> {
    if stack == "kernel" {
        return kernel_in_udp(node, in_udp);
    }
    // Sockets that were closed may be there for a moment.
    wait::until("the kernel to be without SCTP", PATIENCE, || {
        let script = "[ ! -d /sys/module/sctp ] || modprobe -r sctp";
        Ok(node.run(&["sh", "-c", script])?.succeeded().then_some(()))
    })
}

fn talk(lab: &Lab, ends: &Ends, stacks: (&str, &str), options: &[&str]) -> Result<()> {
    const CLIENTS: u64 = 4;
    let _servers = start_servers(lab, ends.server, &[&["--stack", stacks.0], options].concat())?;
    let local: Vec<String> =
        ends.client.iter().map(|address| address.replace("1000::1", PREFIX)).collect();
    let (vips, local) = (ends.server.join(","), local.join(","));
    let words = ["sctpt", "ctraffic", "--addr", &vips, "--laddr", &local, "--stack", stacks.1];
    let load = ["--clients", "4", "--rate", "40", "--duration", "3", "--connect-timeout", "5"];
    let words = [&words, &load[..], &["--shm", "stacks", "--init"], options].concat();
    let ran = lab.cluster.tester()?.run_within(3 * PATIENCE, &words)?.success()?;
    let report = Report::parse(&ran)?;
    report.check_whole(CLIENTS)?;
    report.check_paths(ends.server)?;
    check(report.stack() == Some(stacks.1), format!("the stack {}", stacks.1), report.short())
}

/// Servers on all cluster nodes, which end with what is returned.
fn start_servers(lab: &Lab, addresses: &[&str], options: &[&str]) -> Result<Vec<Process>> {
    let addresses = addresses.join(",");
    let words = ["sctpt", "server", "--addr", &addresses, "--log", "6"];
    let words = [&words[..], options].concat();
    let mut servers = Vec::new();
    for id in lab.cluster.servers() {
        servers.push(lab.cluster.node(id)?.spawn("sctpt", &words)?);
    }
    for server in &mut servers {
        server.wait_for_log("Accepting connections", PATIENCE)?;
    }
    Ok(servers)
}

/// The power of each load balancer is cut under traffic.
pub fn power_is_cut(lab: &Lab) -> Result<()> {
    const ASSOCIATIONS: u64 = 32;
    let stage = Stage::start(lab, &[])?;
    let rate = stage.rate(500);
    let mut clients =
        stage.start_clients(&["--clients", "32", "--lport", "20000", "--rate", &rate])?;
    clients.wait_for("active", ASSOCIATIONS)?;
    clients.wait_for_more(200)?;
    for way in WAYS {
        let router = BTreeSet::from([NodeId::new(way.balancer).context("no such node")?]);
        let downs = clients.now("pathsDown")?;
        lab.cluster.power_off(&router)?;
        clients.wait_for("pathsDown", downs + ASSOCIATIONS)?;
        clients.wait_for_more(200)?;
        lab.cluster.power_on(&router)?;
        let downs = clients.now("pathsDown")?;
        clients.wait_for("pathsUp", downs)?;
        clients.wait_for_more(200)?;
    }
    let report = clients.end()?;
    report.check_whole(ASSOCIATIONS)?;
    report.check_paths(&VIPS)
}
