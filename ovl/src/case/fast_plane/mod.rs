//! The rules that `lb` makes itself, and the table mirrored into the kernel.

pub(super) mod agree;
mod beside;
pub(super) mod changes;
mod counts;
mod express;
pub(super) mod rules;

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Case, On, PLAIN, check};
use crate::lab::{Lab, PATIENCE, QUEUE, Shape};
use crate::node::Node;

/// Packets must reach the router with the sizes that they were sent with.
const UNTOUCHED: Shape = Shape { offload: false, ..Shape::STANDARD };

pub const CASES: &[Case] = &[
    Case {
        name: "rules-by-lb",
        about: "lb --vip makes its rules for several queues, and takes none but them away",
        on: On::Any,
        run: rules::rules_come_and_go,
        ..PLAIN
    },
    Case {
        name: "rules-local",
        about: "lb --vip --local balances what the router itself sends, in both planes",
        on: On::Any,
        run: rules::the_router_is_served_too,
        ..PLAIN
    },
    Case {
        name: "rules-no-consumer",
        about: "without lb what is for the queue ends or passes, and the kernel marks the rest",
        on: On::Any,
        run: rules::the_consumer_is_missed_or_not,
        ..PLAIN
    },
    Case {
        name: "fast-agrees",
        about: "both planes give random flows the mark that the table says",
        shape: UNTOUCHED,
        limit: Duration::from_secs(180),
        run: agree::planes_agree,
        ..PLAIN
    },
    Case {
        name: "fast-leaves-to-queue",
        about: "fragments, echo, extension headers, SCTP in UDP and foreign marks go to the queue",
        shape: UNTOUCHED,
        on: On::Any,
        run: agree::the_rest_goes_to_the_queue,
        ..PLAIN
    },
    Case {
        name: "fast-follows",
        about: "the kernel's map follows targets, weights and a table made anew",
        on: On::Any,
        run: changes::the_map_follows,
        ..PLAIN
    },
    Case {
        name: "fast-counts-targets",
        about: "packets of each target are counted in the kernel, whatever becomes of table and lb",
        limit: Duration::from_secs(240),
        on: On::Any,
        run: counts::targets_are_counted,
        ..PLAIN
    },
    Case {
        name: "fast-storm",
        about: "1,000 random changes under traffic leave no packet without a valid mark",
        limit: Duration::from_secs(180),
        alone: true,
        run: changes::a_storm_loses_nothing,
        ..PLAIN
    },
    Case {
        name: "fast-kill",
        about: "lb killed 100 times under traffic: the kernel goes on, the next lb takes over",
        limit: Duration::from_secs(180),
        alone: true,
        run: changes::kills_lose_nothing,
        ..PLAIN
    },
    Case {
        name: "fast-mended",
        about: "rules or slots that somebody else took away are mended, counted and told",
        on: On::Any,
        run: changes::foreign_changes_are_mended,
        ..PLAIN
    },
    Case {
        name: "fast-two-instances",
        about: "two lb with a table and a virtual address each, side by side",
        on: On::Any,
        run: beside::two_instances_do_not_meet,
        ..PLAIN
    },
    Case {
        name: "fast-beside-conntrack",
        about: "conntrack and NAT of others are active; fragments still come as such",
        shape: UNTOUCHED,
        on: On::Any,
        run: beside::conntrack_does_no_harm,
        ..PLAIN
    },
    Case {
        name: "express-agrees",
        about: "random flows reach their server, at once or through the stack, whatever they have",
        shape: UNTOUCHED,
        limit: Duration::from_secs(120),
        run: express::all_planes_agree,
        ..PLAIN
    },
    Case {
        name: "express-leaves-to-stack",
        about: "packets that die or do not fit are left to the IP stack",
        shape: UNTOUCHED,
        run: express::the_stack_keeps_its_work,
        ..PLAIN
    },
    Case {
        name: "express-follows",
        about: "next hops follow routes and devices",
        shape: UNTOUCHED,
        run: express::routes_are_followed,
        ..PLAIN
    },
    Case {
        name: "express-device-gone",
        about: "a next hop's device that goes while lb is away is told, and mended at start",
        shape: UNTOUCHED,
        run: express::a_device_goes_while_lb_is_away,
        ..PLAIN
    },
    Case {
        name: "express-comes-and-goes",
        about: "the express plane goes on without lb, is taken over, mended and taken away",
        run: express::it_comes_stays_and_goes,
        ..PLAIN
    },
    Case {
        name: "fast-user",
        about: "lb --fast --user follows the table and mends rules without other rights",
        run: beside::few_rights_suffice,
        ..PLAIN
    },
];

pub(super) const VIPS: [&str; 3] = ["--vip", "10.0.0.0/32", "1000::/128"];

/// Room for what arrives while `lb` has no processor for a second.
pub(super) const ROOM: [&str; 4] = ["--queue-length", "65535", "--receive-buffer", "256M"];

/// A table with all servers in it, and `lb` with rules of its own and these options.
pub(super) fn start(lab: &mut Lab, init: &[&str], options: &[&str]) -> Result<()> {
    lab.table(&[&["init"], init].concat())?;
    lab.activate_all()?;
    lab.start_lb(&[&["--queue", QUEUE], &VIPS[..], &ROOM[..], options].concat())
}

/// What `lb --status` says.
pub(super) fn status(lab: &Lab) -> Result<Value> {
    let report = lab.cluster.router()?.run(&["lb", "--status", "--json"])?.success()?;
    serde_json::from_str(&report).context("read lb --status")
}

/// Packets that one of the planes had, as the rules count them.
pub(super) fn packets(status: &Value, plane: &str) -> Result<u64> {
    status[plane]["packets"].as_u64().with_context(|| format!("read lb --status: no {plane}"))
}

pub(super) fn check_plane(lab: &Lab, expected: &str) -> Result<()> {
    let status = status(lab)?;
    check(status["plane"] == expected, format!("the {expected} plane"), status)
}

fn install(router: &Node, rules: &str) -> Result<()> {
    router.entry().run_with_input(&["nft", "-f", "-"], rules)?.success().map(drop)
}

/// All that is in nftables, without counts and without what `lb` made.
fn foreign_rules(router: &Node) -> Result<String> {
    let tables = router.run(&["nft", "-s", "list", "tables"])?.success()?;
    let others = tables.lines().filter(|table| !table.contains("markway-markway"));
    others
        .map(|table| {
            let words =
                [&["nft", "-s", "list"], &table.split(' ').collect::<Vec<_>>()[..]].concat();
            router.run(&words)?.success()
        })
        .collect()
}

pub(super) fn end(lab: &mut Lab) -> Result<()> {
    let lb = lab.lb_mut()?;
    lb.signal("TERM")?;
    let status = lb.wait(PATIENCE)?;
    check(status.success(), "exit code 0", status)
}
