//! Path MTU discovery: routers beyond the balancer complain to the VIP, and the server that sent
//! too much must hear of it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

use super::fast_plane::VIPS;
use super::fast_plane::rules::route_unmarked;
use super::{Case, PLAIN, check};
use crate::address::{FAMILIES, Family};
use crate::lab::{Lab, PATIENCE, QUEUE, Shape};
use crate::process::Process;
use crate::wait;

pub const CASES: &[Case] = &[
    Case {
        name: "pmtu",
        about: "path MTU discovery: replies larger than a link in the middle come through",
        shape: Shape { squeezed: true, ..Shape::STANDARD },
        run: replies_come_through,
        ..PLAIN
    },
    Case {
        name: "pmtu-own",
        about: "the same where it is a link of the router that is narrow, with lb --local",
        limit: Duration::from_secs(120),
        run: own_errors_reach_their_server,
        ..PLAIN
    },
];

/// Of each family.
const TRANSFERS: u16 = 20;

const SIZE: usize = 200_000;

/// More than a transfer needs whose server is told the MTU, on a busy machine too. The others never
/// end: what they sent is too large and stays so.
const SECONDS: u8 = 10;

/// The same where some must not come through.
const SECONDS_ASTRAY: u8 = 2;

fn replies_come_through(lab: &mut Lab) -> Result<()> {
    let _servers = start_web_servers(lab)?;
    lab.queue(&["--queue-num", QUEUE])?;
    lab.table(&["init"])?;
    lab.activate_all()?;
    lab.start_lb(&["--queue", QUEUE])?;
    for family in FAMILIES {
        let before = lab.stats()?.sum.class("icmp_error");
        let done = transfer(lab, family, 1, SECONDS)?;
        check(
            done.values().all(|size| *size == SIZE),
            format!("{TRANSFERS} {family} transfers of {SIZE} bytes"),
            format!("bytes by source: {done:?}"),
        )?;
        let errors = lab.stats()?.sum.class("icmp_error") - before;
        check(
            errors >= TRANSFERS.into(),
            format!("an ICMP error for each of {TRANSFERS} {family} transfers"),
            errors,
        )?;
    }
    // The other way round: where errors meet one server only, just its transfers come through.
    lead_errors_astray(lab)?;
    for family in FAMILIES {
        let done = transfer(lab, family, 1 + TRANSFERS, SECONDS_ASTRAY)?;
        let through = done.values().filter(|size| **size == SIZE).count();
        check(
            through < done.len(),
            format!("{family} transfers that stall while their errors meet another server"),
            format!("{through} of {} came through", done.len()),
        )?;
    }
    Ok(())
}

/// The router's own errors come in by no device: they need a route, and a rule for packets of this machine.
fn own_errors_reach_their_server(lab: &mut Lab) -> Result<()> {
    let _servers = start_web_servers(lab)?;
    // They are many to one address.
    lab.cluster.router()?.script(
        "ip link set eth2 mtu 1300
         echo 0 >/proc/sys/net/ipv4/icmp_ratelimit
         echo 0 >/proc/sys/net/ipv6/icmp/ratelimit",
    )?;
    route_unmarked(lab)?;
    lab.table(&["init"])?;
    lab.activate_all()?;
    let mut first = 1;
    for plane in [&[][..], &["--fast"]] {
        lab.start_lb(&[&["--queue", QUEUE, "--local"], &VIPS[..], plane].concat())?;
        for family in FAMILIES {
            let done = transfer(lab, family, first, SECONDS)?;
            check(
                done.values().all(|size| *size == SIZE),
                format!("{TRANSFERS} {family} transfers of {SIZE} bytes, {plane:?}"),
                format!("bytes by source: {done:?}"),
            )?;
        }
        first += TRANSFERS;
    }
    // Without the rule errors meet the server of the route only.
    lab.start_lb(&[&["--queue", QUEUE], &VIPS[..]].concat())?;
    for family in FAMILIES {
        let done = transfer(lab, family, first, SECONDS_ASTRAY)?;
        let through = done.values().filter(|size| **size == SIZE).count();
        check(
            through < done.len(),
            format!("{family} transfers that stall without --local"),
            format!("{through} of {} came through", done.len()),
        )?;
    }
    Ok(())
}

/// Starts busybox's web server on every server.
fn start_web_servers(lab: &Lab) -> Result<Vec<Process>> {
    let mut processes = Vec::new();
    for id in lab.cluster.servers() {
        let node = lab.cluster.node(id)?;
        node.script("mkdir /run/www")?;
        node.write("/run/www/reply", &"x".repeat(SIZE))?;
        let words = ["busybox", "httpd", "-f", "-p", "[::]:80", "-h", "/run/www"];
        processes.push(node.spawn("httpd", &words)?);
        wait::until(&format!("httpd to listen on {id}"), PATIENCE, || {
            // Port 80, any peer, listening.
            Ok(node
                .proc_net("tcp6")?
                .contains(&format!(":0050 {}:0000 0A", "0".repeat(32)))
                .then_some(()))
        })?;
    }
    Ok(processes)
}

/// Fetches from many sources at a time, each one new, because servers remember the MTU to it.
/// Returns how many bytes came to each source.
fn transfer(lab: &Lab, family: Family, first: u16, seconds: u8) -> Result<BTreeMap<u16, usize>> {
    let url = match family {
        Family::V4 => format!("http://{}/reply", family.vip()),
        Family::V6 => format!("http://[{}]/reply", family.vip()),
    };
    let fetches: String = (first..first + TRANSFERS)
        .map(|index| {
            let source = family.source(index);
            format!(
                "curl --silent --globoff --max-time {seconds} --interface '{source}' \
                 --output /dev/null --write-out '{index} %{{size_download}}\\n' '{url}' &\n"
            )
        })
        .collect();
    let report = lab.cluster.tester()?.script(&format!("{fetches}wait\n"))?;
    let done: Option<BTreeMap<u16, usize>> = report
        .lines()
        .map(|line| {
            let (index, size) = line.split_once(' ')?;
            Some((index.parse().ok()?, size.parse().ok()?))
        })
        .collect();
    let done = done.with_context(|| format!("read report of curl: {report}"))?;
    check(done.len() == usize::from(TRANSFERS), format!("{TRANSFERS} reports of curl"), &report)?;
    Ok(done)
}

/// Gives every ICMP error the mark of the first server, after `lb` has decided.
fn lead_errors_astray(lab: &Lab) -> Result<()> {
    let rules = FAMILIES.map(|family| {
        let (ip, vip) = (family.nft(), family.vip());
        let error = match family {
            Family::V4 => "icmp type destination-unreachable",
            Family::V6 => "icmpv6 type packet-too-big",
        };
        format!("{ip} daddr {vip} {error} meta mark set 1\n")
    });
    // After the rule that leads to the queue, before routing.
    let chain = "chain astray { type filter hook prerouting priority -140;";
    let rules = format!("table inet astray {{\n{chain}\n{}}}\n}}\n", rules.concat());
    let ran = lab.cluster.router()?.entry().run_with_input(&["nft", "-f", "-"], &rules)?;
    ran.success().map(drop)
}
