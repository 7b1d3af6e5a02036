//! A table that is created anew under a running `lb`.

use anyhow::Result;

use super::fast_plane::agree::explained;
use super::verbs::{connect_all_kinds, trace_flows};
use super::{Case, On, PLAIN, check};
use crate::flow;
use crate::lab::{Lab, PATIENCE};
use crate::packet::{Extras, first_packet};
use crate::trace::Trace;
use crate::wait;

pub const CASES: &[Case] = &[Case {
    name: "table-recreated",
    about: "lb follows a table of other dimensions without a restart",
    on: On::Any,
    run: lb_follows,
    ..PLAIN
}];

fn lb_follows(lab: &mut Lab) -> Result<()> {
    lab.start_service()?;
    let trace = Trace::of_marks(lab.cluster.router()?)?;
    marks_follow_table(lab, &trace, 997)?;

    lab.table(&["init", "--m", "10007", "--keep"])?;
    marks_follow_table(lab, &trace, 10007)?;
    connect_all_kinds(lab, 4)?;

    lab.table(&["init", "--m", "499", "--n", "8", "--force"])?;
    lab.activate_all()?;
    marks_follow_table(lab, &trace, 499)?;
    connect_all_kinds(lab, 4)?;

    let ended = lab.lb_mut()?.ended()?;
    check(ended.is_none(), "lb running all the time", format!("{ended:?}"))
}

/// Waits until `lb` marks every flow as the table says that is there now.
pub fn marks_follow_table(lab: &Lab, trace: &Trace, slots: u64) -> Result<()> {
    let seen = lab.table_json("show")?["m"].as_u64();
    check(seen == Some(slots), format!("a table of {slots} slots"), format!("{seen:?}"))?;
    let flows = flow::list_of_each(50);
    let packets: Vec<_> = flows.iter().map(|flow| first_packet(flow, Extras::None)).collect();
    let expected = explained(lab, &packets)?;
    wait::until(&format!("lb to follow the table of {slots} slots"), PATIENCE, || {
        // Flows are missing while lb moves over from an empty table.
        let Ok(marks) = trace_flows(lab, trace, &flows) else {
            return Ok(None);
        };
        let mut pairs = flows.iter().zip(&expected);
        Ok(pairs.all(|(flow, mark)| *mark == marks.get(flow).copied()).then_some(()))
    })
}
