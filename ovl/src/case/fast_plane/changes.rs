//! Tables that change, an `lb` that dies, rules that somebody takes away.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::super::table::marks_follow_table;
use super::super::verbs::{connect_all_kinds, trace_flows};
use super::super::{check, is_soak};
use super::{VIPS, install, packets, start, status};
use crate::flow;
use crate::lab::{Lab, PATIENCE, QUEUE};
use crate::packet::Extras;
use crate::progress;
use crate::random::Random;
use crate::trace::{Trace, tally};
use crate::wait;

pub(super) fn the_map_follows(lab: &mut Lab) -> Result<()> {
    lab.start_servers()?;
    start(lab, &[], &["--fast"])?;
    let trace = Trace::of_marks(lab.cluster.router()?)?;
    marks_follow_table(lab, &trace, 997)?;
    lab.table(&["deactivate", "2"])?;
    marks_follow_table(lab, &trace, 997)?;
    lab.table(&["activate", "3", "--weight", "5"])?;
    marks_follow_table(lab, &trace, 997)?;
    // Of the two chains that queue the one whose name is none of nft's own words.
    let queueing = chain_with_handles(lab, "shown")?;
    lab.table(&["init", "--keep", "--m", "10007"])?;
    marks_follow_table(lab, &trace, 10007)?;
    lab.table(&["init", "--keep", "--seed", "7"])?;
    marks_follow_table(lab, &trace, 10007)?;
    let left = chain_with_handles(lab, "shown")?;
    check(left == queueing, format!("the rules that queue as they were: {queueing}"), left)?;
    lab.table(&["init", "--force", "--m", "499"])?;
    lab.activate_all()?;
    marks_follow_table(lab, &trace, 499)?;
    connect_all_kinds(lab, 4)?;

    // Too large for the fast plane, and back.
    for (slots, plane) in [("2200013", "slow"), ("997", "fast")] {
        lab.table(&["init", "--keep", "--m", slots])?;
        wait::until(&format!("the {plane} plane"), PATIENCE, || {
            Ok((status(lab)?["plane"] == plane).then_some(()))
        })?;
        connect_all_kinds(lab, 4)?;
    }
    let told = lab.lb()?.log().matches("no fast plane").count();
    check(told == 1, "one line about a table that is too large", told)?;

    // Without a target nothing is marked, by nobody.
    lab.table(&["deactivate", "1", "2", "3", "4"])?;
    wait::until("an empty map", PATIENCE, || {
        Ok((status(lab)?["maps"][0]["filled"] == 0).then_some(()))
    })?;
    let before = lab.stats()?.sum.dropped_for("no_target");
    lab.send_flows(&flow::list_of_each(10), Extras::None)?;
    wait::until("40 packets without a target", PATIENCE, || {
        Ok((lab.stats()?.sum.dropped_for("no_target") == before + 40).then_some(()))
    })?;
    trace.remove()?;
    lab.start_lb(&[&["--queue", QUEUE, "--fast", "--no-targets-mark", "3"], &VIPS[..]].concat())?;
    let trace = Trace::of_marks(lab.cluster.router()?)?;
    let marks = trace_flows(lab, &trace, &flow::list_of_each(10))?;
    check(tally(&marks) == BTreeMap::from([(3, 40)]), "mark 3 for all", format!("{marks:?}"))?;
    check(lab.stats()?.sum.received == 0, "all marked by the kernel", format!("{:?}", lab.stats()?))
}

/// Its rules with the kernel's numbers of them.
fn chain_with_handles(lab: &Lab, chain: &str) -> Result<String> {
    let words = ["nft", "-a", "-s", "list", "chain", "inet", "markway-markway", chain];
    lab.cluster.router()?.run(&words)?.success()
}

/// Counts what comes to the router for the virtual addresses, and what leaves it, by mark.
const COUNT_MARKS: &str = "table inet marks {
    counter arrived { packets 0 bytes 0; }
    counter valid { packets 0 bytes 0; }
    counter other { packets 0 bytes 0; }
    chain arriving {
        type filter hook prerouting priority -500;
        ip daddr 10.0.0.0 counter name arrived
        ip6 daddr 1000:: counter name arrived
    }
    chain count {
        type filter hook postrouting priority 0;
        ip daddr 10.0.0.0 meta mark 1-4 counter name valid return
        ip6 daddr 1000:: meta mark 1-4 counter name valid return
        ip daddr 10.0.0.0 counter name other
        ip6 daddr 1000:: counter name other
    }
}
";

fn counted(lab: &Lab, name: &str) -> Result<u64> {
    let words = ["nft", "-j", "list", "counter", "inet", "marks", name];
    let listing: Value = serde_json::from_str(&lab.cluster.router()?.run(&words)?.success()?)?;
    let counters = listing["nftables"].as_array().into_iter().flatten();
    let mut packets = counters.filter_map(|object| object["counter"]["packets"].as_u64());
    packets.next().with_context(|| format!("read counter {name}"))
}

/// Every packet of the flood must have left the router with the mark of a server. A machine that has no processor
/// for a while does not even get what is sent to it.
fn check_all_marked(lab: &Lab, sent: u64) -> Result<()> {
    let to_router = || if lab.is_on_machines() { counted(lab, "arrived") } else { Ok(sent) };
    let marked = wait::until("all packets to leave the router", PATIENCE, || {
        let expected = to_router()?;
        Ok((counted(lab, "valid")? >= expected).then_some(()))
    });
    let other = counted(lab, "other")?;
    let stats = lab.stats()?.sum;
    check(
        marked.is_ok() && other == 0,
        format!("{} packets with marks 1 to 4", to_router()?),
        format!("{}, and {other} with others; {stats:?}", counted(lab, "valid")?),
    )
}

/// How much happens during a storm.
pub struct Storm {
    pub slots: u64,
    /// Packets per second that are asked for, and that there must be at least.
    pub rate: u32,
    pub least_rate: u32,
    /// How often 50 changes are made.
    pub turns: u32,
}

pub(super) fn a_storm_loses_nothing(lab: &mut Lab) -> Result<()> {
    storm(lab, &Storm { slots: 65_537, rate: 40_000, least_rate: 5_000, turns: 20 })
}

/// The first server stays, the others come and go.
pub fn storm(lab: &mut Lab, storm: &Storm) -> Result<()> {
    let others = u64::try_from(lab.cluster.servers().count())? - 1;
    install(lab.cluster.router()?, COUNT_MARKS)?;
    start(lab, &["--m", &storm.slots.to_string()], &["--fast"])?;
    let mut random = Random::seeded();
    let flood = lab.start_flood(storm.rate, 1000, Duration::from_secs(150))?;
    wait::until("the flood to reach the router", PATIENCE, || {
        Ok((counted(lab, "valid")? > 0).then_some(()))
    })?;
    for _ in 0..storm.turns {
        let changes: String = (0..50)
            .map(|_| {
                let mark = 2 + random.below(others);
                match random.below(3) {
                    0 => format!("shm-tool deactivate {mark} 2>/dev/null || true\n"),
                    1 => format!("shm-tool activate {mark}\n"),
                    _ => format!("shm-tool activate {mark} --weight {}\n", 1 + random.below(9)),
                }
            })
            .collect();
        lab.cluster.router()?.script(&format!("exec >/dev/null\n{changes}"))?;
    }
    let flood = lab.stop_flood(flood)?;
    let queued = packets(&status(lab)?, "queued")?;
    progress::tell("ovl", &format!("{queued} of {} packets missed the map", flood.sent));
    check_all_marked(lab, flood.sent).with_context(|| format!("seed {}", random.seed()))?;
    let least = storm.least_rate;
    check(flood.has_rate(least), format!("at least {least} packets/s"), format!("{flood:?}"))?;
    let trace = Trace::of_marks(lab.cluster.router()?)?;
    marks_follow_table(lab, &trace, storm.slots)?;
    let sum = &lab.table_json("stats")?["sum"];
    check(
        sum["map_repairs"] == 0 && sum["rules_mended"] == 0 && sum["map_changes"] != 0,
        "changes of the map, and nothing to mend",
        sum,
    )
}

pub(super) fn kills_lose_nothing(lab: &mut Lab) -> Result<()> {
    let kills = if is_soak() { 500 } else { 100 };
    install(lab.cluster.router()?, COUNT_MARKS)?;
    start(lab, &[], &["--fast"])?;
    let rules = status(lab)?["chains"].clone();
    let mut random = Random::seeded();
    let flood = lab.start_flood(20_000, 1000, Duration::from_secs(170))?;
    for kill in 0..kills {
        // Sometimes at work on a change, sometimes while it starts.
        let server = (2 + random.below(3)).to_string();
        lab.table(&["deactivate", &server])?;
        let lb = lab.lb_mut()?;
        lb.signal("KILL")?;
        lb.wait(PATIENCE)?;
        lab.table(&["activate", &server])?;
        if kill % 10 == 0 {
            let now = status(lab)?;
            check(now["chains"] == rules && now["plane"] == "fast", "the same rules", now)?;
        }
        lab.start_lb(&[&["--queue", QUEUE, "--fast"], &VIPS[..]].concat())?;
        let log = lab.lb()?.log();
        check(log.contains("taken over"), "rules taken over", log)?;
    }
    let flood = lab.stop_flood(flood)?;
    check_all_marked(lab, flood.sent)?;
    // In control: what is changed now is followed.
    let trace = Trace::of_marks(lab.cluster.router()?)?;
    lab.table(&["deactivate", "3"])?;
    marks_follow_table(lab, &trace, 997)
}

pub(super) fn foreign_changes_are_mended(lab: &mut Lab) -> Result<()> {
    lab.start_servers()?;
    start(lab, &[], &["--fast"])?;
    let rules = status(lab)?["chains"].clone();
    let map = status(lab)?["maps"][0]["name"].as_str().context("no map")?.to_owned();
    let table = "inet markway-markway";
    let number = |key: &str| Ok::<_, anyhow::Error>(lab.table_json("stats")?["sum"][key].as_u64());
    let harms = [
        format!("delete table {table}"),
        format!("flush chain {table} prerouting"),
        format!("flush chain {table} ip4"),
        format!("insert rule {table} ip4 drop"),
        format!("add table {table} {{ flags dormant; }}"),
        "flush ruleset".to_owned(),
    ];
    for (harm, mended) in harms.iter().zip(1..) {
        lab.cluster
            .router()?
            .run(&[&["nft"], &harm.split(' ').collect::<Vec<_>>()[..]].concat())?
            .success()?;
        wait::until(&format!("the rules after '{harm}'"), PATIENCE, || {
            let now = status(lab)?["chains"].clone();
            Ok((now == rules && number("rules_mended")? == Some(mended)).then_some(()))
        })?;
    }
    let told = lab.lb()?.log().matches("somebody else changed the rules").count();
    check(told == harms.len(), format!("{} warnings", harms.len()), told)?;
    // At once: a check in between would mend the first of it.
    let harm = format!(
        "delete element {table} {map} {{ 5, 6 }}\nadd element {table} {map} {{ 6 : 77 }}\n"
    );
    install(lab.cluster.router()?, &harm)?;
    wait::until("two slots to be mended", PATIENCE, || {
        Ok((number("map_repairs")? == Some(2)).then_some(()))
    })?;
    check(status(lab)?["maps"][0]["filled"] == 997, "997 slots with a mark", status(lab)?)?;
    let trace = Trace::of_marks(lab.cluster.router()?)?;
    marks_follow_table(lab, &trace, 997)?;
    connect_all_kinds(lab, 4)
}
