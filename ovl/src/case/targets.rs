//! Targets that come and go, and what happens when there are none.

use anyhow::Result;

use super::verbs::{connect_all_kinds, trace_flows};
use super::{Case, PLAIN, check};
use crate::address::{FAMILIES, NodeId};
use crate::flow::{self, TRANSPORTS, Transport};
use crate::lab::{Lab, QUEUE};
use crate::mconnect::Connections;
use crate::trace::{Moves, Trace};

pub const CASES: &[Case] = &[
    Case {
        name: "target-removed",
        about: "only the flows of a removed target move, and they return with it",
        run: only_its_flows_move,
        ..PLAIN
    },
    Case {
        name: "no-targets",
        about: "without targets packets are dropped and counted",
        run: dropped_without_targets,
        ..PLAIN
    },
    Case {
        name: "no-targets-mark",
        about: "without targets packets get the mark that was set for it",
        run: marked_without_targets,
        ..PLAIN
    },
];

fn only_its_flows_move(lab: &mut Lab) -> Result<()> {
    let target = NodeId::VM_003;
    lab.start_service()?;
    let trace = Trace::of_marks(lab.cluster.router()?)?;
    let flows = flow::list_of_each(250);

    let before = trace_flows(lab, &trace, &flows)?;
    connect_all_kinds(lab, 4)?;

    lab.deactivate(target)?;
    let without = trace_flows(lab, &trace, &flows)?;
    let moves = Moves::between(&before, &without, target.number().into());
    check(
        moves.stale == 0 && moves.of_removed > 0 && moves.of_others * 100 <= moves.flows,
        "all flows of the target moved and at most 1 % of all flows besides",
        format!("{moves:?}"),
    )?;
    connect_all_kinds(lab, 3)?;

    lab.activate(target)?;
    let again = trace_flows(lab, &trace, &flows)?;
    let moved = before.iter().filter(|(flow, mark)| again.get(flow) != Some(mark)).count();
    check(moved == 0, "every flow where it was at first", format!("{moved} elsewhere"))?;
    connect_all_kinds(lab, 4)
}

fn dropped_without_targets(lab: &mut Lab) -> Result<()> {
    lab.start_servers()?;
    lab.queue(&["--queue-num", QUEUE])?;
    lab.table(&["init"])?;
    lab.start_lb(&["--queue", QUEUE])?;
    for family in FAMILIES {
        let answers =
            lab.connect(Connections { family, transport: Transport::Udp, count: 20, seconds: 1 })?;
        check(
            answers.hosts.is_empty() && answers.failed == 20,
            "20 connections that fail",
            format!("{answers:?}"),
        )?;
    }
    let counted = lab.stats()?.sum;
    check(
        counted.dropped_for("no_target") == 40 && counted.marked == 0,
        "40 packets dropped for no_target, none marked",
        format!("{counted:?}"),
    )
}

fn marked_without_targets(lab: &mut Lab) -> Result<()> {
    lab.start_servers()?;
    lab.queue(&["--queue-num", QUEUE])?;
    lab.table(&["init"])?;
    lab.start_lb(&["--queue", QUEUE, "--no-targets-mark", "3"])?;
    for family in FAMILIES {
        for transport in TRANSPORTS {
            let answers = lab.connect(Connections { family, transport, count: 20, seconds: 5 })?;
            check(
                answers.failed == 0 && answers.hosts.keys().eq(["vm-003"]),
                "20 answers of vm-003, where mark 3 leads to",
                format!("{answers:?}"),
            )?;
        }
    }
    // With targets the mark is out of use.
    lab.activate_all()?;
    connect_all_kinds(lab, 4)
}
