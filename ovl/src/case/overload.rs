//! More packets than `lb` takes: what is lost is counted, told and, if wanted, let pass; and what
//! happens while nobody takes any.

use std::time::Duration;

use anyhow::{Context, Result};

use super::queues::kernel_queues;
use super::verbs::{arrivals, connect_all_kinds};
use super::{Case, PLAIN, check};
use crate::address::{CLUSTER_NET, FAMILIES, Family, NodeId};
use crate::flow::{self, Transport};
use crate::lab::{Lab, PATIENCE, QUEUE};
use crate::packet::Extras;
use crate::stats::Losses;
use crate::trace::{Trace, tally};
use crate::wait;

pub const CASES: &[Case] = &[
    Case {
        name: "queue-full-closed",
        about: "a full queue drops what comes, and lb tells so",
        run: |lab| overload(lab, Full::Queue, Policy::Closed),
        ..PLAIN
    },
    Case {
        name: "queue-full-open",
        about: "with --fail-open a full queue lets pass what comes",
        run: |lab| overload(lab, Full::Queue, Policy::Open),
        ..PLAIN
    },
    Case {
        name: "socket-full-closed",
        about: "a full receive buffer drops what comes, and lb tells so",
        run: |lab| overload(lab, Full::Socket, Policy::Closed),
        ..PLAIN
    },
    Case {
        name: "socket-full-open",
        about: "what --fail-open does when the receive buffer is full",
        run: |lab| overload(lab, Full::Socket, Policy::Open),
        ..PLAIN
    },
    Case {
        name: "loss-warnings",
        about: "lb warns of lost packets at most once a second",
        alone: true,
        run: warnings_are_rare,
        ..PLAIN
    },
    Case {
        name: "no-consumer-closed",
        about: "while no lb is there packets are dropped",
        run: |lab| no_consumer(lab, Policy::Closed),
        ..PLAIN
    },
    Case {
        name: "no-consumer-open",
        about: "while no lb is there packets pass unmarked, if the rule says --queue-bypass",
        run: |lab| no_consumer(lab, Policy::Open),
        ..PLAIN
    },
];

/// What is full.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Full {
    Queue,
    Socket,
}

/// What happens to packets that cannot be decided.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Policy {
    Closed,
    Open,
}

const SENT: u16 = 100;
const QUEUE_LENGTH: u16 = 10;

/// Far more than four warnings take.
const FLOOD_LIMIT: Duration = Duration::from_secs(60);

/// How a warning begins.
const WARNING: &str = "packets lost before they could be decided";

impl Full {
    fn options(self) -> [&'static str; 2] {
        match self {
            Self::Queue => ["--queue-length", "10"],
            // The kernel doubles it, and grants 4,608 bytes at least; some packets fit in.
            Self::Socket => ["--receive-buffer", "8k"],
        }
    }

    fn cause(self) -> &'static str {
        match self {
            Self::Queue => "because the queue was full",
            Self::Socket => "because the socket's buffer was full",
        }
    }

    fn losses(self, lost: u64) -> Losses {
        match self {
            Self::Queue => Losses { queue: lost, socket: 0 },
            Self::Socket => Losses { queue: 0, socket: lost },
        }
    }
}

/// Sends 100 packets while `lb` is halted and there is room for a few.
fn overload(lab: &mut Lab, full: Full, policy: Policy) -> Result<()> {
    lab.queue(&["--queue-num", QUEUE])?;
    lab.table(&["init"])?;
    lab.activate_all()?;
    let mut words = vec!["--queue", QUEUE];
    words.extend(full.options());
    if policy == Policy::Open {
        words.push("--fail-open");
    }
    lab.start_lb(&words)?;
    route_unmarked(lab)?;
    let router = lab.cluster.router()?;
    let trace = Trace::of_marks(router)?;

    lab.lb()?.signal("STOP")?;
    lab.send_flows(&flow::list(Family::V4, Transport::Udp, SENT), Extras::None)?;
    await_at_rule(lab, Family::V4, 0, SENT)?;
    let seen = kernel_queues(router)?;
    let queue = seen.first().with_context(|| format!("find queue {QUEUE}: not in the list"))?;
    let waiting = queue.waiting;
    let left = u64::from(SENT) - waiting;
    let expected = match full {
        Full::Queue => waiting == u64::from(QUEUE_LENGTH),
        Full::Socket => (1..u64::from(SENT) - 10).contains(&waiting),
    };
    check(
        expected,
        format!("some of {SENT} packets to wait ({full:?} full)"),
        format!("{seen:?}"),
    )?;
    let (lost, passed) = match policy {
        Policy::Closed => (left, 0),
        Policy::Open => (0, left),
    };
    let unmarked = trace.wait_for(usize::try_from(passed)?)?;
    check(
        u64::try_from(unmarked.len())? == passed && unmarked.values().all(|mark| *mark == 0),
        format!("{passed} packets that pass without a mark"),
        format!("flows by mark: {:?}, {seen:?}", tally(&unmarked)),
    )?;

    // Those that wait are marked when lb goes on.
    trace.clear()?;
    lab.lb()?.signal("CONT")?;
    let marked = trace.wait_for(usize::try_from(waiting)?)?;
    check(
        u64::try_from(marked.len())? == waiting
            && marked.values().all(|mark| (1..=4).contains(mark)),
        format!("{waiting} packets marked 1 to 4"),
        format!("flows by mark: {:?}", tally(&marked)),
    )?;
    losses_are_told(lab, full, lost)
}

/// The counters and one line of the log tell of them, or nothing does if there are none.
fn losses_are_told(lab: &mut Lab, full: Full, lost: u64) -> Result<()> {
    if lost > 0 {
        let cause = format!("{WARNING}: queue {QUEUE}: {lost} {}", full.cause());
        lab.lb_mut()?.wait_for_log(&cause, PATIENCE)?;
    }
    let expected = full.losses(lost);
    // A worker publishes what the kernel lost with its next packets.
    let flows = flow::list(Family::V6, Transport::Udp, 1);
    wait::until(&format!("{expected:?} in the counters"), PATIENCE, || {
        lab.send_flows(&flows, Extras::None)?;
        Ok((lab.stats()?.sum.losses == expected).then_some(()))
    })?;
    let log = lab.lb()?.log();
    let warnings = log.lines().filter(|line| line.contains(WARNING)).count();
    check(warnings == usize::from(lost > 0), format!("{} warning(s)", usize::from(lost > 0)), log)
}

/// Overloads a tiny queue for some seconds.
fn warnings_are_rare(lab: &mut Lab) -> Result<()> {
    lab.queue(&["--queue-num", QUEUE])?;
    lab.table(&["init"])?;
    lab.activate_all()?;
    lab.start_lb(&["--queue", QUEUE, "--queue-length", "1"])?;
    let flood = lab.start_flood(60_000, 100, FLOOD_LIMIT)?;
    let warnings = |lab: &Lab| -> Result<Vec<f64>> {
        let log = lab.lb()?.log();
        log.lines().filter(|line| line.contains(WARNING)).map(second_of_minute).collect()
    };
    let times = wait::until("four warnings", PATIENCE, || {
        let times = warnings(lab)?;
        Ok((times.len() >= 4).then_some(times))
    })?;
    lab.stop_flood(flood)?;
    let rare = times.windows(2).all(|pair| (pair[1] - pair[0]).rem_euclid(60.0) >= 0.999);
    check(rare, "a second between warnings at least", format!("seconds {times:?}"))?;
    let losses = lab.stats()?.sum.losses;
    check(losses.queue > 0, "packets lost at the queue in the counters", format!("{losses:?}"))
}

/// The seconds of the time that a line of the log begins with: 2026-01-31T12:34:56.789012Z.
fn second_of_minute(line: &str) -> Result<f64> {
    let seconds = line.split_once('Z').and_then(|(time, _)| time.rsplit(':').next());
    seconds.and_then(|text| text.parse().ok()).with_context(|| format!("read log: {line:?}"))
}

fn no_consumer(lab: &mut Lab, policy: Policy) -> Result<()> {
    lab.start_servers()?;
    let bypass = ["--queue-num", QUEUE, "--queue-bypass"];
    match policy {
        Policy::Closed => lab.queue(&bypass[..2])?,
        Policy::Open => lab.queue(&bypass)?,
    }
    lab.table(&["init"])?;
    lab.activate_all()?;
    route_unmarked(lab)?;
    // Before the first lb, and after it.
    unserved(lab, policy)?;
    lab.start_lb(&["--queue", QUEUE])?;
    connect_all_kinds(lab, 4)?;
    let lb = lab.lb_mut()?;
    lb.signal("TERM")?;
    lb.wait(Duration::from_secs(10))?;
    unserved(lab, policy)
}

fn unserved(lab: &Lab, policy: Policy) -> Result<()> {
    let router = lab.cluster.router()?;
    let trace = Trace::of_marks(router)?;
    let flows = flow::list_of_each(25);
    let before = FAMILIES.map(|family| arrivals(router, family));
    lab.send_flows(&flows, Extras::None)?;
    for (family, before) in FAMILIES.into_iter().zip(before) {
        await_at_rule(lab, family, before?, 2 * 25)?;
    }
    let expected = match policy {
        Policy::Closed => 0,
        Policy::Open => flows.len(),
    };
    let seen = trace.wait_for(expected)?;
    trace.remove()?;
    check(
        seen.len() == expected && seen.values().all(|mark| *mark == 0),
        format!("{expected} of {} flows pass, unmarked", flows.len()),
        format!("flows by mark: {:?}", tally(&seen)),
    )
}

/// Waits until the rule that leads to the queue has met `count` packets more than `before`.
fn await_at_rule(lab: &Lab, family: Family, before: u64, count: u16) -> Result<()> {
    wait::until(&format!("{count} {family} packets to meet the rule"), PATIENCE, || {
        let met = arrivals(lab.cluster.router()?, family)?;
        Ok((met >= before + u64::from(count)).then_some(()))
    })
}

/// Gives packets without a mark a way, so that they can be seen to pass.
fn route_unmarked(lab: &Lab) -> Result<()> {
    for family in FAMILIES {
        let server = family.address(CLUSTER_NET, NodeId::VM_003);
        let route = format!("{} route add {} via {server}", family.ip(), family.vip_prefix());
        lab.cluster.router()?.script(&route)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_line_is_read() {
        assert_eq!(second_of_minute("2026-11-20T14:28:26.5Z  WARN queue").unwrap(), 26.5);
        assert!(second_of_minute("no time").is_err());
    }
}
