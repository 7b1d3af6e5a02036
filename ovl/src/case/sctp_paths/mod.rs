//! Multihomed associations over two ways, each with a load balancer and a table of its own.

mod changes;
mod kernel;
mod refused;
mod report;
mod stage;

use std::time::{Duration, Instant};

use anyhow::Result;

pub use self::kernel::through_two_routers;

use self::report::Report;
use self::stage::{Clients, Inside, Stage, VIPS, WAYS, Way};
use super::{Case, On, PLAIN, Setting, check, is_soak};
use crate::lab::{Lab, PATIENCE};
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

/// On machines with the kernel's stack.
const ON_ANY: Case = Case { on: On::Any, ..PLAIN };

/// Two servers do for what is not about the spread over them.
const PAIR: Setting = Setting { nodes: 2, ..SLOW };

const ON_MACHINES: Case = Case { on: On::Machines, ..PLAIN };

pub const CASES: &[Case] = &[
    Case {
        name: "sctp-two-ways",
        about: "one association has a path on each way, to one server",
        setting: Some(SLOW),
        run: |lab| two_ways(lab, 1, &[]),
        ..ON_ANY
    },
    Case {
        name: "sctp-two-ways-fast",
        about: "the same in the fast plane",
        setting: Some(FAST),
        run: |lab| two_ways(lab, 1, &[]),
        ..ON_ANY
    },
    Case {
        name: "sctp-large",
        about: "messages of 16 kB, which SCTP divides, come back whole",
        setting: Some(SLOW),
        run: |lab| two_ways(lab, 8, &["--size", "16384"]),
        ..ON_ANY
    },
    Case {
        name: "sctp-failover",
        about: "64 associations lose a way and get it back, then the other one, and no message",
        setting: Some(SLOW),
        alone: true,
        run: |lab| failover(lab, &[]),
        ..ON_ANY
    },
    Case {
        name: "sctp-failover-fast",
        about: "the same in the fast plane",
        setting: Some(FAST),
        alone: true,
        run: |lab| failover(lab, &[]),
        ..ON_ANY
    },
    Case {
        name: "sctp-failover-udp",
        about: "the same in UDP",
        setting: Some(SLOW),
        alone: true,
        run: |lab| failover(lab, IN_UDP),
        ..ON_ANY
    },
    Case {
        name: "sctp-target-goes",
        about: "a target removed on both ways ends its associations alone; they come back elsewhere",
        setting: Some(SLOW),
        run: |lab| changes::a_target_goes(lab),
        ..ON_ANY
    },
    Case {
        name: "sctp-lb-ends",
        about: "lb of either way is ended, killed and started again, and no message is lost",
        setting: Some(SLOW),
        run: |lab| changes::a_balancer_ends(lab, false),
        ..PLAIN
    },
    Case {
        name: "sctp-lb-ends-fast",
        about: "the same in the fast plane, where no association notices",
        setting: Some(FAST),
        run: |lab| changes::a_balancer_ends(lab, true),
        ..PLAIN
    },
    Case {
        name: "sctp-order",
        about: "both ways lead to one server, in whatever order their routers learnt of targets",
        setting: Some(SLOW),
        run: |lab| changes::order_does_not_count(lab),
        ..ON_ANY
    },
    Case {
        name: "sctp-plain-and-udp",
        about: "clients of plain SCTP beside others in UDP, to the same servers",
        setting: Some(Setting { testers: 2, ..SLOW }),
        run: |lab| changes::plain_beside_udp(lab),
        ..PLAIN
    },
    Case {
        name: "sctp-refused",
        about: "unreachable, refused, wrong family or address, port 0: told within two seconds",
        setting: Some(SLOW),
        run: |lab| refused::what_cannot_be_is_told(lab),
        ..PLAIN
    },
    Case {
        name: "sctp-power",
        about: "the power of a load balancer is cut, then of the other one, and no message is lost",
        setting: Some(SLOW),
        run: |lab| kernel::power_is_cut(lab),
        ..ON_ANY
    },
    Case {
        name: "sctp-stacks",
        about: "the kernel's stack with itself and with the other, both families, plain and in UDP",
        setting: Some(PAIR),
        run: |lab| kernel::stacks_talk(lab),
        ..ON_MACHINES
    },
    Case {
        name: "sctp-lksctp",
        about: "sctpt with the programs of lksctp-tools as servers and as clients",
        setting: Some(PAIR),
        run: |lab| kernel::others_talk(lab),
        ..ON_MACHINES
    },
];

const IN_UDP: &[&str] = &["--encap-local", "9899", "--encap-remote", "9899"];

/// How long a way is cut.
fn cut_for() -> Duration {
    if is_soak() { Duration::from_secs(15) } else { Duration::ZERO }
}

fn two_ways(lab: &Lab, count: u64, options: &[&str]) -> Result<()> {
    let stage = Stage::start(lab, &[])?;
    let number = count.to_string();
    let mut clients = stage.start_clients(&[&["--clients", &number], options].concat())?;
    clients.wait_for("active", count)?;
    clients.wait_for_more(20)?;
    // By the way that carries no messages its first packet comes when it is due.
    wait::until("packets of every association by both ways", PATIENCE, || {
        let arrivals = stage.arrivals(Inside::Ip)?;
        let are_all = arrivals.len() as u64 >= count && arrivals.values().all(|at| at.len() > 1);
        Ok(are_all.then_some(()))
    })?;
    let report = clients.end()?;
    report.check_whole(count)?;
    report.check_paths(&VIPS)?;
    check_arrivals(&stage, &report, Inside::Ip)
}

/// What was captured on the servers: packets of an association came to one of them, by both ways.
fn check_arrivals(stage: &Stage, report: &Report, inside: Inside) -> Result<()> {
    let arrivals = stage.arrivals(inside)?;
    for (port, server) in report.server_of_port()? {
        let seen = arrivals.get(&port).cloned().unwrap_or_default();
        let wanted = ["eth1", "eth2"].map(|device| (server.clone(), device.to_owned()));
        check(
            seen == wanted.clone().into(),
            format!("packets from port {port}, in {inside:?}, at {wanted:?}"),
            format!("{seen:?}"),
        )?;
    }
    Ok(())
}

fn failover(lab: &Lab, options: &[&str]) -> Result<()> {
    const ASSOCIATIONS: u64 = 64;
    let stage = Stage::start(lab, options)?;
    let number = ASSOCIATIONS.to_string();
    let rate = stage.rate(1000);
    let load = ["--clients", &number, "--rate", &rate, "--lport", "20000"];
    let mut clients = stage.start_clients(&[&load, options].concat())?;
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
    let (inside, other) = match options {
        [] => (Inside::Ip, Inside::Udp),
        _ => (Inside::Udp, Inside::Ip),
    };
    check_arrivals(&stage, &report, inside)?;
    let others = stage.arrivals(other)?;
    check(others.is_empty(), format!("no packets in {other:?}"), format!("{others:?}"))?;
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
