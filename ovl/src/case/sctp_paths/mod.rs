//! Multihomed associations over two ways, each with a load balancer and a table of its own.

mod report;
mod stage;

use std::time::{Duration, Instant};

use anyhow::Result;

use self::report::Report;
use self::stage::{Clients, Stage, VIPS, WAYS, Way};
use super::{Case, PLAIN, Setting, check, is_soak};
use crate::lab::Lab;
use crate::progress;
use crate::wait;

const SLOW: Setting = Setting {
    topology: "dual-path",
    nodes: 4,
    testers: 1,
    overlays: &["lb", "sctp"],
    variables: &[("LB_START", "yes"), ("LB_TARGET_NET", "1 4"), ("LB_INIT", "--sctp-encap 9899")],
};

const FAST: Setting = Setting {
    variables: &[
        ("LB_START", "yes"),
        ("LB_TARGET_NET", "1 4"),
        ("LB_INIT", "--sctp-encap 9899"),
        ("QMODE", "none"),
        ("LBOPT", "--fast --vip 10.0.0.0/24 1000::/120"),
    ],
    ..SLOW
};

pub const CASES: &[Case] = &[
    Case {
        name: "sctp-two-ways",
        about: "one association has a path on each way, to one server",
        setting: Some(SLOW),
        run: |lab| two_ways(lab, 1),
        ..PLAIN
    },
    Case {
        name: "sctp-failover",
        about: "64 associations lose a way and get it back, then the other one, and no message",
        setting: Some(SLOW),
        alone: true,
        run: |lab| failover(lab, &[]),
        ..PLAIN
    },
    Case {
        name: "sctp-failover-fast",
        about: "the same in the fast plane",
        setting: Some(FAST),
        alone: true,
        run: |lab| failover(lab, &[]),
        ..PLAIN
    },
    Case {
        name: "sctp-failover-udp",
        about: "the same in UDP",
        setting: Some(SLOW),
        alone: true,
        run: |lab| failover(lab, IN_UDP),
        ..PLAIN
    },
];

const IN_UDP: &[&str] = &["--encap-local", "9899", "--encap-remote", "9899"];

/// How long a way is cut.
fn cut_for() -> Duration {
    if is_soak() { Duration::from_secs(15) } else { Duration::ZERO }
}

fn two_ways(lab: &Lab, count: u64) -> Result<()> {
    let stage = Stage::start(lab, &[])?;
    let number = count.to_string();
    let mut clients = stage.start_clients("clients", &["--clients", &number])?;
    clients.wait_for("active", count)?;
    clients.wait_for_more(20)?;
    let report = clients.end()?;
    report.check_whole(count)?;
    report.check_paths(&VIPS)?;
    check_arrivals(&stage, &report)
}

/// What was captured on the servers: packets of an association came to one of them, by both ways.
fn check_arrivals(stage: &Stage, report: &Report) -> Result<()> {
    let arrivals = stage.arrivals()?;
    for (port, server) in report.server_of_port()? {
        let seen = arrivals.get(&port).cloned().unwrap_or_default();
        let wanted = ["eth1", "eth2"].map(|device| (server.clone(), device.to_owned()));
        check(
            seen == wanted.clone().into(),
            format!("packets from port {port} at {wanted:?}"),
            format!("{seen:?}"),
        )?;
    }
    Ok(())
}

fn failover(lab: &Lab, options: &[&str]) -> Result<()> {
    const ASSOCIATIONS: u64 = 64;
    let stage = Stage::start(lab, options)?;
    let number = ASSOCIATIONS.to_string();
    let load = ["--clients", &number, "--rate", "1000", "--lport", "20000"];
    let mut clients = stage.start_clients("clients", &[&load, options].concat())?;
    clients.wait_for("active", ASSOCIATIONS)?;
    clients.wait_for_more(1000)?;
    for (turn, way) in (1..).zip(WAYS) {
        lose(&stage, &mut clients, way, turn * ASSOCIATIONS)?;
    }
    clients.wait_for_more(1000)?;
    let report = clients.end()?;
    report.check_whole(ASSOCIATIONS)?;
    report.check_paths(&VIPS)?;
    let servers = report.servers()?;
    check(servers.len() == 4, "associations at all four servers", format!("{servers:?}"))?;
    if options.is_empty() {
        check_arrivals(&stage, &report)?;
    }
    let longest = Duration::from_micros(report.number("maxRttMicros")?);
    progress::tell("sctp", &format!("longest round trip {longest:?}, {servers:?}"));
    check(longest < Duration::from_secs(5), "no round trip of 5 s", format!("{longest:?}"))
}

/// A way is cut until every association has noticed, and comes back until every one uses it again.
fn lose(stage: &Stage, clients: &mut Clients, way: Way, downs: u64) -> Result<()> {
    let began = Instant::now();
    stage.cut(way, true)?;
    clients.wait_for("pathsDown", downs)?;
    let noticed = began.elapsed();
    clients.wait_for_more(1000)?;
    wait::until("the end of the cut", cut_for() + Duration::from_secs(1), || {
        Ok((began.elapsed() >= cut_for()).then_some(()))
    })?;
    stage.cut(way, false)?;
    let began = Instant::now();
    clients.wait_for("pathsUp", downs)?;
    let back = began.elapsed();
    progress::tell("sctp", &format!("{way:?}: noticed in {noticed:?}, back in {back:?}"));
    Ok(())
}
