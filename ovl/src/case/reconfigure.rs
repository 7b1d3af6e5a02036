//! A table that changes all the time under traffic: nothing may be lost by it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result};

use super::verbs::{arrivals, count_arrivals};
use super::{Case, PLAIN, check, is_soak};
use crate::address::{FAMILIES, NodeId};
use crate::lab::{Lab, PATIENCE, QUEUE};
use crate::wait;

pub const CASES: &[Case] = &[Case {
    name: "reconfigure",
    about: "800 changes of 65,537 slots under 60,000 packets/s lose no packet",
    limit: Duration::from_secs(180),
    alone: true,
    run: nothing_is_lost,
    ..PLAIN
}];

/// Packets per second that are asked for.
const RATE: u32 = 60_000;

/// Packets per second below which the case says nothing.
const LEAST_RATE: u32 = 10_000;

/// The same for the long form, which is to run on an idle machine.
const LEAST_SOAK_RATE: u32 = 55_000;

/// Of each family.
const FLOWS: u16 = 1000;

const CHANGES: u64 = 800;

/// As many as a busy machine makes in far less time than a command may take.
const CHANGES_A_COMMAND: u64 = 100;

/// Far more than 800 changes take.
const FLOOD_LIMIT: Duration = Duration::from_secs(150);

/// How long each table of the long form is changed.
const SOAK: Duration = Duration::from_secs(90);

/// Room for what arrives while `lb` has no processor for a second.
const ROOM: [&str; 4] = ["--queue-length", "65535", "--receive-buffer", "256M"];

fn nothing_is_lost(lab: &mut Lab) -> Result<()> {
    lab.queue(&["--queue-num", QUEUE])?;
    for server in lab.cluster.servers() {
        for family in FAMILIES {
            count_arrivals(lab.cluster.node(server)?, family)?;
        }
    }
    let (tables, duration): (&[u64], _) =
        if is_soak() { (&[997, 10_007, 65_537], SOAK) } else { (&[65_537], Duration::ZERO) };
    for slots in tables {
        lab.table(&["init", "--force", "--m", &slots.to_string()])?;
        lab.activate_all()?;
        lab.start_lb(&[&["--queue", QUEUE], &ROOM[..]].concat())?;
        change_under_traffic(lab, duration).with_context(|| format!("{slots} slots"))?;
    }
    Ok(())
}

/// Makes 800 changes, and more until `least` has passed.
fn change_under_traffic(lab: &Lab, least: Duration) -> Result<()> {
    let arrived_before = arrived(lab)?;
    let backlog_before = backlog_drops()?;
    let flood = lab.start_flood(RATE, FLOWS, least + FLOOD_LIMIT)?;
    wait::until("the flood to reach lb", PATIENCE, || {
        Ok((lab.stats()?.sum.received > 0).then_some(()))
    })?;
    let start = Instant::now();
    let mut changes = 0;
    let before = generation(lab)?;
    while changes < CHANGES || start.elapsed() < least {
        change(lab)?;
        changes += CHANGES_A_COMMAND;
    }
    let published = generation(lab)? - before;
    let flood = lab.stop_flood(flood)?;

    let settled = wait::until("all packets to arrive", PATIENCE, || {
        let arrived = arrived(lab)? - arrived_before;
        Ok((arrived >= flood.sent).then_some(arrived))
    });
    let arrived = settled.or_else(|_| Ok::<_, Error>(arrived(lab)? - arrived_before))?;
    let counted = lab.stats()?.sum;
    let backlog = backlog_drops()? - backlog_before;

    check(published == changes, format!("{changes} tables published"), published)?;
    check(
        counted.losses == Default::default(),
        "a kernel that loses no packet before lb has it (not lb's doing: is the machine too busy?)",
        format!("{:?} of {} packets", counted.losses, flood.sent),
    )?;
    check(
        counted.received == counted.marked && counted.marked > 0,
        "every packet marked, none dropped for no_target",
        format!("{counted:?}"),
    )?;
    let where_lost = if counted.received < flood.sent { "before the queue" } else { "after lb" };
    check(
        arrived == flood.sent,
        format!("all {} packets at the servers", flood.sent),
        format!(
            "{arrived}; {} went through lb, so the others were lost {where_lost}; \
             backlogs of this machine dropped {backlog} meanwhile",
            counted.received
        ),
    )?;
    let least_rate = if is_soak() { LEAST_SOAK_RATE } else { LEAST_RATE };
    check(
        flood.has_rate(least_rate),
        format!("at least {least_rate} packets/s (is the machine too busy?)"),
        format!("{flood:?}"),
    )
}

/// Takes a target out and in again, fifty times.
fn change(lab: &Lab) -> Result<()> {
    let (target, turns) = (NodeId::VM_003.number(), CHANGES_A_COMMAND / 2);
    let script = format!(
        "i=0\nwhile [ $i -lt {turns} ]; do\n\
         shm-tool deactivate {target}; shm-tool activate {target}; i=$((i + 1))\ndone >/dev/null"
    );
    lab.cluster.router()?.script(&script).map(drop)
}

fn generation(lab: &Lab) -> Result<u64> {
    let show = lab.table_json("show")?;
    show["generation"].as_u64().context("read show: no generation")
}

/// The packets that came to the servers.
fn arrived(lab: &Lab) -> Result<u64> {
    let each = lab.cluster.servers().flat_map(|server| FAMILIES.map(|family| (server, family)));
    each.map(|(server, family)| arrivals(lab.cluster.node(server)?, family)).sum()
}

/// Packets that the kernel dropped between devices because a processor's backlog was full; of all
/// namespaces, for there is no other figure.
fn backlog_drops() -> Result<u64> {
    let softnet = fs::read_to_string("/proc/net/softnet_stat").context("read softnet_stat")?;
    let drops = softnet.lines().map(|line| {
        let field = line.split_whitespace().nth(1).context("read softnet_stat: odd line")?;
        u64::from_str_radix(field, 16).context("read softnet_stat")
    });
    drops.sum()
}
