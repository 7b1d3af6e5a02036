//! How `lb` scales from one queue to two.

use super::{Case, Effort, Entrant, SMALL, in_turns, udp};
use crate::side_by_side::load::{Load, Pace};
use crate::side_by_side::output::name;
use crate::side_by_side::results::{CaseResults, Comparison};
use crate::side_by_side::rig::{Alternative, Rig};

pub fn run(rig: &Rig, effort: Effort) -> anyhow::Result<CaseResults> {
    let one = rig.lab(Alternative::Lb);
    let two = rig.two_queues();
    let entrant = |name: &str, setting| Entrant {
        name: name.into(),
        ..Entrant::new(Alternative::Lb, "", setting)
    };
    let entrants = [entrant("one queue", (one, 1)), entrant("two queues", (two, 2))];
    let measured = in_turns(rig, &name(Case::Queues), effort.rounds, &entrants, |entrant| {
        let (lab, queues) = entrant.setting;
        let mut consumer = rig.start_lb_unpinned(lab, queues)?;
        let load = Load { cpu: None, ..effort.load(rig, SMALL, Pace::Flood) };
        let (flow, ()) = rig.measure(lab, Some(&mut consumer), load, || Ok(()))?;
        Ok(udp::figures_of(&flow))
    })?;
    Ok(CaseResults {
        name: name(Case::Queues),
        what:
            "lb with one queue and with two (--queue-balance 0:1), 64-byte UDP packets as fast as \
               one core can send; nothing is pinned to a CPU, and the generator takes one of them."
                .into(),
        columns: udp::columns(true),
        comparisons: vec![
            Comparison::ratio("delivered", "delivered", "one queue"),
            Comparison::ratio("consumer", "consumer", "one queue"),
        ],
        rows: measured.rows,
        notes: measured.notes,
    })
}
