//! Several queues, and a queue that is full.

use anyhow::{Context, Result};

use super::verbs::connect_all_kinds;
use super::{Case, STANDARD, check};
use crate::address::{CLUSTER_NET, Family, NodeId};
use crate::flow::{self, Transport};
use crate::lab::{Lab, QUEUE};
use crate::node::Node;
use crate::packet::Extras;
use crate::trace::{Trace, tally};

pub const CASES: &[Case] = &[
    Case {
        name: "two-queues",
        about: "the kernel balances over two queues and lb serves both",
        layout: STANDARD,
        run: both_queues_serve,
    },
    Case {
        name: "overflow-closed",
        about: "a full queue drops what comes",
        layout: STANDARD,
        run: |lab| overflow(lab, Overflow::Drops),
    },
    Case {
        name: "overflow-open",
        about: "with --fail-open a full queue lets pass what comes",
        layout: STANDARD,
        run: |lab| overflow(lab, Overflow::Passes),
    },
];

fn both_queues_serve(lab: &mut Lab) -> Result<()> {
    lab.start_servers()?;
    lab.queue(&["--queue-balance", "0:1"])?;
    lab.table(&["init"])?;
    lab.activate_all()?;
    lab.start_lb(&["--queue", "0:1"])?;

    let queues = kernel_queues(lab.cluster.router()?)?;
    let numbers: Vec<u64> = queues.iter().map(|queue| queue.number).collect();
    check(numbers == [0, 1], "queues 0 and 1 in the kernel's list", format!("{numbers:?}"))?;

    connect_all_kinds(lab, 4)?;
    let stats = lab.stats()?;
    check(
        stats.queues.len() == 2 && stats.queues.iter().all(|queue| queue.marked > 0),
        "packets through both queues",
        format!("{stats:?}"),
    )
}

#[derive(Clone, Copy, PartialEq)]
enum Overflow {
    Drops,
    Passes,
}

const SENT: u16 = 100;
const LENGTH: u16 = 10;

/// Sends 100 packets while `lb` is halted and its queue takes 10.
fn overflow(lab: &mut Lab, overflow: Overflow) -> Result<()> {
    lab.queue(&["--queue-num", QUEUE])?;
    lab.table(&["init"])?;
    lab.activate_all()?;
    let length = LENGTH.to_string();
    let mut words = vec!["--queue", QUEUE, "--queue-length", &length];
    if overflow == Overflow::Passes {
        words.push("--fail-open");
    }
    lab.start_lb(&words)?;
    route_unmarked(lab.cluster.router()?)?;

    lab.lb()?.signal("STOP")?;
    let flows = flow::list(Family::V4, Transport::Udp, SENT);
    let router = lab.cluster.router()?;
    let trace = Trace::of_marks(router)?;
    lab.send_flows(&flows, Extras::None)?;
    let (dropped, passed) = match overflow {
        Overflow::Drops => (SENT - LENGTH, 0),
        Overflow::Passes => (0, SENT - LENGTH),
    };
    let unmarked = trace.wait_for(passed.into())?;
    check(
        unmarked.len() == usize::from(passed) && unmarked.values().all(|mark| *mark == 0),
        format!("{passed} packets that pass without a mark"),
        format!("flows by mark: {:?}", tally(&unmarked)),
    )?;
    let expected = KernelQueue { number: 2, waiting: LENGTH.into(), dropped: dropped.into() };
    let queues = kernel_queues(router)?;
    check(queues == [expected], format!("{expected:?}"), format!("{queues:?}"))?;

    // Those that wait are marked when lb goes on.
    trace.clear()?;
    lab.lb()?.signal("CONT")?;
    let marked = trace.wait_for(LENGTH.into())?;
    check(
        marked.len() == usize::from(LENGTH) && marked.values().all(|mark| (1..=4).contains(mark)),
        format!("{LENGTH} packets marked 1 to 4"),
        format!("flows by mark: {:?}", tally(&marked)),
    )
}

/// Gives packets without a mark a way, so that they can be seen to pass.
fn route_unmarked(router: &Node) -> Result<()> {
    let family = Family::V4;
    let server = family.address(CLUSTER_NET, NodeId::VM_003);
    let route = format!("{} route add {} via {server}", family.ip(), family.vip_prefix());
    router.script(&route).map(drop)
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct KernelQueue {
    number: u64,
    waiting: u64,
    dropped: u64,
}

fn kernel_queues(router: &Node) -> Result<Vec<KernelQueue>> {
    router.proc_net("netfilter/nfnetlink_queue")?.lines().map(parse_queue).collect()
}

fn parse_queue(line: &str) -> Result<KernelQueue> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|field| field.parse().ok());
    // Number, port id, waiting, copy mode, copy range, dropped by the queue.
    let queue =
        || Some(KernelQueue { number: number(0)?, waiting: number(2)?, dropped: number(5)? });
    queue().with_context(|| format!("read nfnetlink_queue: odd line {line:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_a_line() {
        let line = "    2  -4211     7 2   512     9     0       17  1";
        let queue = KernelQueue { number: 2, waiting: 7, dropped: 9 };
        assert_eq!(parse_queue(line).unwrap(), queue);
        assert!(parse_queue("    2  -4211").is_err());
    }
}
