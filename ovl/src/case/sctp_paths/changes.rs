//! What happens to associations while targets, tables and load balancers change.

use anyhow::{Context, Result};

use super::super::check;
use super::stage::{Stage, VIPS, WAYS};
use super::{check_arrivals, two_ways};
use crate::lab::Lab;
use crate::node::Node;

const ASSOCIATIONS: u64 = 32;

/// Ports that no other target's slot moves for.
const LOAD: [&str; 6] = ["--clients", "32", "--rate", "500", "--lport", "20000"];

pub fn a_target_goes(lab: &Lab) -> Result<()> {
    const GONE: &str = "vm-002";
    let stage = Stage::start(lab, &[])?;
    let mut clients = stage.start_clients("clients", &[&LOAD[..], &["--reconnect"]].concat())?;
    clients.wait_for("active", ASSOCIATIONS)?;
    clients.wait_for_more(500)?;
    for way in WAYS {
        stage.on_balancer(way.balancer, "shm-tool deactivate 102")?;
    }
    clients.wait_for("reconnects", 1)?;
    // Messages go evenly over all of them, so by then everyone has noticed.
    clients.wait_for_more(1000)?;
    clients.wait_for("active", ASSOCIATIONS)?;
    clients.wait_for_more(500)?;
    let report = clients.end()?;
    let ended = report.ended()?;
    let only_its = ended.keys().eq([GONE]);
    check(only_its, format!("only associations of {GONE} to end"), format!("{ended:?}"))?;
    let reconnects = report.number("reconnects")?;
    check(
        Some(&reconnects) == ended.get(GONE) && report.number("corrupted")? == 0,
        "as many to come back as ended",
        report.short(),
    )?;
    let lasting = report.lasting()?;
    check(
        lasting.values().sum::<u64>() == ASSOCIATIONS && !lasting.contains_key(GONE),
        format!("{ASSOCIATIONS} associations at the other targets"),
        format!("{lasting:?}"),
    )
}

/// While `lb` is away packets of its way are dropped, or in the fast plane marked by the kernel.
pub fn a_balancer_ends(lab: &Lab, fast: bool) -> Result<()> {
    let stage = Stage::start(lab, &[])?;
    let mut clients = stage.start_clients("clients", &LOAD)?;
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
    check_arrivals(&stage, &report)?;
    check(!fast || downs == 0, "no path that anybody missed", report.short())
}

/// The two routers learn of the targets in different orders, and with other targets in between.
pub fn order_does_not_count(lab: &Lab) -> Result<()> {
    let fingerprint = |node: &Node| -> Result<String> {
        let shown = node.script("shm-tool show --json")?;
        let shown: serde_json::Value = serde_json::from_str(&shown).context("read shm-tool show")?;
        Ok(shown["fingerprint"].to_string())
    };
    let balancer = |number| lab.cluster.node(crate::address::NodeId::new(number).context("node")?);
    balancer(202)?.script(
        "shm-tool deactivate 101 102 103 104
         for mark in 103 109 101 104 102; do shm-tool activate $mark; done
         shm-tool deactivate 109",
    )?;
    let (one, other) = (fingerprint(balancer(201)?)?, fingerprint(balancer(202)?)?);
    check(one == other, format!("equal tables: {one}"), other)?;
    two_ways(lab, 16, &[])
}

/// Plain associations and others in UDP at the same time.
pub fn plain_beside_udp(lab: &Lab) -> Result<()> {
    const IN_UDP: &[&str] = &["--port", "6001", "--encap-local", "9899", "--encap-remote", "9899"];
    let mut stage = Stage::start(lab, &[])?;
    stage.start_servers("sctpt-udp", IN_UDP)?;
    let mut plain = stage.start_clients("plain", &LOAD)?;
    let mut in_udp = stage.start_clients("in-udp", &[&LOAD[..], IN_UDP].concat())?;
    for clients in [&mut plain, &mut in_udp] {
        clients.wait_for("active", ASSOCIATIONS)?;
        clients.wait_for_more(500)?;
    }
    for clients in [plain, in_udp] {
        let report = clients.end()?;
        report.check_whole(ASSOCIATIONS)?;
        report.check_paths(&VIPS)?;
        let servers = report.servers()?;
        check(servers.len() == 4, "associations at all four servers", format!("{servers:?}"))?;
    }
    Ok(())
}
