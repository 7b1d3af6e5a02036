//! Rules come, change and go, and nobody else's are touched.

use std::net::SocketAddr;

use anyhow::{Error, Result};

use super::super::check;
use super::super::verbs::connect_all_kinds;
use super::{VIPS, check_plane, end, foreign_rules, install, packets, status};
use crate::address::{CLUSTER_NET, FAMILIES, NodeId};
use crate::flow;
use crate::lab::{Lab, PATIENCE, QUEUE};
use crate::mconnect::{Answers, PORT};
use crate::packet::Extras;
use crate::trace::{Trace, tally};
use crate::wait;

/// A table of somebody else, with all that could be disturbed.
const FOREIGN: &str = "table inet foreign {
    set seen { type ipv4_addr; elements = { 192.0.2.1 } }
    chain early { type filter hook prerouting priority -500; ip saddr 192.0.2.9 drop; }
    chain late { type filter hook prerouting priority 10; }
}
table ip markway {
    chain own { ip saddr 192.0.2.8 drop; }
}
table inet markway-others {
    chain own { ip saddr 192.0.2.7 drop; }
}
";

pub(super) fn rules_come_and_go(lab: &mut Lab) -> Result<()> {
    lab.start_servers()?;
    lab.table(&["init"])?;
    lab.activate_all()?;
    install(lab.cluster.router()?, FOREIGN)?;
    let before = foreign_rules(lab.cluster.router()?)?;
    check(before.contains("192.0.2.9"), "rules of somebody else", &before)?;

    lab.start_lb(&[&["--queue", "0:3", "--device", "eth2"], &VIPS[..]].concat())?;
    check_plane(lab, "slow")?;
    connect_all_kinds(lab, 4)?;
    let stats = lab.stats()?;
    check(
        stats.queues.len() == 4 && stats.queues.iter().all(|queue| queue.marked > 0),
        "packets through all 4 queues",
        format!("{stats:?}"),
    )?;
    let refused = lab.cluster.router()?.run(&["lb", "--down"])?;
    check(
        refused.code() == Some(1) && refused.stderr().contains("is running"),
        "lb --down refused while lb is running",
        refused.stderr(),
    )?;

    // Another device, another queue, the other plane: the rules are changed under way.
    lab.start_lb(&[&["--queue", QUEUE, "--device", "eth1", "--fast"], &VIPS[..]].concat())?;
    check_plane(lab, "fast")?;
    let flows = flow::list_of_each(5);
    lab.send_flows(&flows, Extras::None)?;
    let status_of = status(lab)?;
    check(
        packets(&status_of, "fast")? == 0 && lab.stats()?.sum.received == 0,
        "nothing from a device that was not given",
        status_of,
    )?;
    lab.start_lb(&[&["--queue", QUEUE, "--fast", "--notrack"], &VIPS[..]].concat())?;
    connect_all_kinds(lab, 4)?;
    check(
        lab.stats()?.sum.received == 0,
        "no packet for the queue",
        format!("{:?}", lab.stats()?),
    )?;

    end(lab)?;
    let down = || lab.cluster.router()?.run(&["lb", "--down"])?.success();
    check(down()?.contains("removed"), "lb --down that removes", "something else")?;
    check(down()?.contains("none"), "nothing left for lb --down", "something")?;
    check_plane(lab, "none")?;
    let after = foreign_rules(lab.cluster.router()?)?;
    check(after == before, before, after)?;

    lab.cluster.router()?.script("nft add table inet markway-markway")?;
    for words in [&["lb", "--down"][..], &[&["lb"], &VIPS[..]].concat()] {
        let ran = lab.cluster.router()?.run(words)?;
        let told = ran.stderr().contains("was not made by lb");
        check(ran.code() == Some(1) && told, "a table of others left alone", ran.stderr())?;
    }
    Ok(())
}

/// A route for packets without a mark, by which the kernel also judges whether it can send any.
pub fn route_unmarked(lab: &Lab) -> Result<()> {
    for family in FAMILIES {
        let (ip, vip) = (family.ip(), family.vip());
        let server = family.address(CLUSTER_NET, NodeId::VM_003);
        lab.cluster.router()?.script(&format!("{ip} route add {vip} via {server}"))?;
    }
    Ok(())
}

pub(super) fn the_router_is_served_too(lab: &mut Lab) -> Result<()> {
    lab.start_servers()?;
    route_unmarked(lab)?;
    for plane in ["slow", "fast"] {
        lab.table(&["init", "--force"])?;
        lab.activate_all()?;
        let fast: &[&str] = if plane == "fast" { &["--fast"] } else { &[] };
        lab.start_lb(&[&["--queue", QUEUE, "--local"], &VIPS[..], fast].concat())?;
        check_plane(lab, plane)?;
        for family in FAMILIES {
            let router = lab.cluster.router()?;
            let target = SocketAddr::new(family.vip(), PORT).to_string();
            let words = ["mconnect", "-address", &target, "-nconn", "100", "-output", "json"];
            let answers = Answers::parse(&router.run(&words)?.stdout())?;
            check(
                answers.failed == 0 && answers.unevenness(4, 75).is_none(),
                format!("100 connections of the router over 4 servers, {family}, {plane} plane"),
                format!("{answers:?}"),
            )?;
        }
    }
    Ok(())
}

pub(super) fn the_consumer_is_missed_or_not(lab: &mut Lab) -> Result<()> {
    lab.table(&["init"])?;
    lab.activate_all()?;
    route_unmarked(lab)?;
    for (action, plane, marks) in [
        ("drop", &[][..], &[][..]),
        ("accept", &[], &[0]),
        ("drop", &["--fast"], &[1, 2, 3, 4]),
        ("accept", &["--fast"], &[1, 2, 3, 4]),
    ] {
        let options = ["--queue", QUEUE, "--no-consumer", action];
        lab.start_lb(&[&options[..], &VIPS[..], plane].concat())?;
        end(lab)?;
        let trace = Trace::of_marks(lab.cluster.router()?)?;
        let flows = flow::list_of_each(25);
        let before = status(lab)?;
        lab.send_flows(&flows, Extras::None)?;
        let met = wait::until("100 packets to meet the rules", PATIENCE, || {
            let now = status(lab)?;
            let all =
                |status| Ok::<_, Error>(packets(status, "fast")? + packets(status, "queued")?);
            Ok((all(&now)? == all(&before)? + 100).then_some(now))
        })?;
        let expected = if marks.is_empty() { 0 } else { flows.len() };
        let seen = trace.wait_for(expected)?;
        trace.remove()?;
        let found: Vec<u32> = tally(&seen).into_keys().collect();
        check(
            found == marks && seen.len() == expected,
            format!("{expected} flows with marks {marks:?}, {action}, {plane:?}"),
            format!("{} with {found:?}; {met}", seen.len()),
        )?;
    }
    Ok(())
}
