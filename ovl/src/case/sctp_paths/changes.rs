//! What happens to associations while targets, tables and load balancers change.

use anyhow::{Context, Result};

use super::super::check;
use super::stage::{Inside, Stage, VIPS, WAYS};
use super::{IN_UDP, check_arrivals, two_ways};
use crate::address::NodeId;
use crate::lab::Lab;
use crate::node::Node;

const ASSOCIATIONS: u64 = 32;

/// Messages a second.
const RATE: u32 = 500;

const PORTS: [&str; 4] = ["--clients", "32", "--lport", "20000"];

pub fn a_target_goes(lab: &Lab) -> Result<()> {
    const GONE: &str = "vm-002";
    let stage = Stage::start(lab, &[])?;
    // Any ports: those of an association that was lost may not be free at once.
    let options = ["--clients", "32", "--rate", &stage.rate(RATE), "--reconnect"];
    let mut clients = stage.start_clients(&options)?;
    clients.wait_for("active", ASSOCIATIONS)?;
    clients.wait_for_more(500)?;
    for way in WAYS {
        stage.on_balancer(way.balancer, "shm-tool deactivate 102")?;
    }
    // Messages go evenly over all of them, so after so many everyone has noticed.
    clients.wait_for_more(1000)?;
    clients.wait_for("active", ASSOCIATIONS)?;
    clients.wait_for_more(500)?;
    let report = clients.end()?;
    let (ended, lasting) = (report.ended()?, report.lasting()?);
    let after = stage.lookup(ended.keys().chain(lasting.keys()).copied())?;
    stage.on_balancer(WAYS[0].balancer, "shm-tool activate 102")?;
    let before = stage.lookup(ended.keys().copied())?;
    check(ended == before, format!("those that ended at {before:?}"), format!("{ended:?}"))?;
    // A change may move a slot or two that it need not.
    let moved = ended.iter().filter(|(port, _)| before[port] != after[port]).count();
    let its = ended.values().filter(|server| *server == GONE).count();
    check(
        its > 0 && moved == ended.len() && ended.len() - its <= 3,
        format!("associations of {GONE} to end, and none whose slot stays"),
        format!("{ended:?}, then {after:?}"),
    )?;
    let there = lasting.iter().all(|(port, server)| after[port] == *server && server != GONE);
    check(
        there && lasting.len() as u64 == ASSOCIATIONS,
        format!("{ASSOCIATIONS} associations at the other targets, as the table says"),
        format!("{lasting:?}"),
    )?;
    let numbers = ["reconnects", "corrupted", "duplicates"].map(|key| report.number(key));
    let [reconnects, corrupted, duplicates] = numbers;
    check(
        reconnects? >= its as u64 && corrupted? == 0 && duplicates? == 0,
        "clients that come back, and nothing else wrong",
        report.short(),
    )
}

/// While `lb` is away packets of its way are dropped, or in the fast plane marked by the kernel.
pub fn a_balancer_ends(lab: &Lab, fast: bool) -> Result<()> {
    let stage = Stage::start(lab, &[])?;
    let rate = stage.rate(RATE);
    let mut clients = stage.start_clients(&[&PORTS[..], &["--rate", &rate]].concat())?;
    clients.wait_for("active", ASSOCIATIONS)?;
    for (signal, way) in [("TERM", WAYS[0]), ("KILL", WAYS[0]), ("KILL", WAYS[1])] {
        clients.wait_for_more(200)?;
        stage.on_balancer(way.balancer, &format!("lb_stop {signal}"))?;
        clients.wait_for_more(500)?;
        stage.on_balancer(way.balancer, "lb_start")?;
    }
    clients.wait_for_more(500)?;
    // Heartbeats bring back what was noticed to be away.
    let downs = clients.now("pathsDown")?;
    clients.wait_for("pathsUp", downs)?;
    clients.wait_for_more(500)?;
    let report = clients.end()?;
    report.check_whole(ASSOCIATIONS)?;
    report.check_paths(&VIPS)?;
    check_arrivals(&stage, &report, Inside::Ip)?;
    check(!fast || downs == 0, "no path that anybody missed", report.short())
}

/// The two routers learn of the targets in different orders, and with other targets in between.
pub fn order_does_not_count(lab: &Lab) -> Result<()> {
    let fingerprint = |node: &Node| -> Result<String> {
        let shown = node.script("shm-tool show --json")?;
        let shown: serde_json::Value =
            serde_json::from_str(&shown).context("read shm-tool show")?;
        Ok(shown["fingerprint"].to_string())
    };
    let balancer = |number| lab.cluster.node(NodeId::new(number).context("node")?);
    balancer(202)?.script(
        "shm-tool deactivate 101 102 103 104
         for mark in 103 109 101 104 102; do shm-tool activate $mark; done
         shm-tool deactivate 109",
    )?;
    let (one, other) = (fingerprint(balancer(201)?)?, fingerprint(balancer(202)?)?);
    check(one == other, format!("equal tables: {one}"), other)?;
    two_ways(lab, 16, &[])
}

/// Servers take both kinds at the same time.
pub fn plain_beside_udp(lab: &Lab) -> Result<()> {
    let stage = Stage::start(lab, IN_UDP)?;
    let rate = stage.rate(RATE);
    let load = [&PORTS[..], &["--rate", &rate]].concat();
    let mut plain = stage.start_clients(&load)?;
    let mut in_udp = stage.start_clients_on(NodeId::BETWEEN, &[&load[..], IN_UDP].concat())?;
    for clients in [&mut plain, &mut in_udp] {
        clients.wait_for("active", ASSOCIATIONS)?;
        clients.wait_for_more(500)?;
    }
    let (plain, in_udp) = (plain.end()?, in_udp.end()?);
    for (report, inside) in [(&plain, Inside::Ip), (&in_udp, Inside::Udp)] {
        check_arrivals(&stage, report, inside)?;
        report.check_whole(ASSOCIATIONS)?;
        report.check_paths(&VIPS)?;
        let servers = report.servers()?;
        check(servers.len() == 4, "associations at all four servers", format!("{servers:?}"))?;
    }
    // The same ports lead to the same server, in whatever way they come.
    let (one, other) = (plain.server_of_port()?, in_udp.server_of_port()?);
    check(one == other, format!("{one:?}"), format!("{other:?}"))
}
