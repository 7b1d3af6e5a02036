//! The kernel counts packets of each target.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::super::verbs::trace_flows;
use super::super::{check, is_soak};
use super::{VIPS, packets, start, status};
use crate::address::FAMILIES;
use crate::flow::{self, Flow, Transport};
use crate::lab::{Lab, PATIENCE, QUEUE};
use crate::trace::{Trace, tally};
use crate::wait;

const SPOKEN: [Transport; 3] = [Transport::Tcp, Transport::Udp, Transport::Sctp];
const TABLE: &str = "inet markway-markway";

pub(super) fn targets_are_counted(lab: &mut Lab) -> Result<()> {
    start(lab, &[], &["--fast"])?;
    let flows: Vec<Flow> = FAMILIES
        .iter()
        .flat_map(|family| SPOKEN.map(|transport| flow::list(*family, transport, 50)))
        .flatten()
        .collect();
    let mut expected: BTreeMap<u32, u64> = (1..=4).map(|mark| (mark, 0)).collect();
    let mut send = |lab: &Lab, what: &str| {
        let trace = Trace::of_marks(lab.cluster.router()?)?;
        let marks = trace_flows(lab, &trace, &flows)?;
        trace.remove()?;
        for (mark, flows) in tally(&marks) {
            *expected.entry(mark).or_default() += u64::from(flows);
        }
        let now = status(lab)?;
        let counted = counted(&now)?;
        check(
            counted == expected && packets(&now, "fast")? == expected.values().sum::<u64>(),
            format!("{what}: packets by mark {expected:?}"),
            now,
        )
    };
    send(lab, "at first")?;
    lab.start_lb(&[&["--queue", QUEUE, "--fast"], &VIPS[..]].concat())?;
    send(lab, "with the next lb")?;
    for (change, what) in [
        (&["init", "--keep", "--m", "10007"][..], "with a table made anew"),
        (&["deactivate", "4"], "without a target"),
        (&["activate", "4"], "with it again"),
    ] {
        let before = map_changes(lab)?;
        lab.table(change)?;
        wait::until("the kernel to have the change", PATIENCE, || {
            Ok((map_changes(lab)? > before).then_some(()))
        })?;
        send(lab, what)?;
    }

    lab.cluster.router()?.script(&format!("nft delete element {TABLE} targets '{{ 2 }}'"))?;
    wait::until("the counter that somebody took away", PATIENCE, || {
        Ok((counted(&status(lab)?)?.get(&2) == Some(&0)).then_some(()))
    })?;
    if is_soak() {
        lab.table(&["deactivate", "3"])?;
        wait::until("the end of a counter", Duration::from_secs(150), || {
            Ok((!counted(&status(lab)?)?.contains_key(&3)).then_some(()))
        })?;
    }

    let options = ["--queue", QUEUE, "--fast", "--count-targets", "off"];
    lab.start_lb(&[&options[..], &VIPS[..]].concat())?;
    let now = status(lab)?;
    check(counted(&now)?.is_empty() && now["plane"] == "fast", "no counters by mark", now)
}

fn map_changes(lab: &Lab) -> Result<u64> {
    let changes = lab.table_json("stats")?["sum"]["map_changes"].as_u64();
    changes.context("read shm-tool stats: no map_changes")
}

fn counted(status: &Value) -> Result<BTreeMap<u32, u64>> {
    let targets = status["targets"].as_array().context("read lb --status: no targets")?;
    let number = |target: &Value, key: &str| {
        target[key].as_u64().with_context(|| format!("read lb --status: no {key}"))
    };
    targets
        .iter()
        .map(|target| Ok((u32::try_from(number(target, "mark")?)?, number(target, "packets")?)))
        .collect()
}
