//! What a packet costs against the number of targets.

use super::router::Router;
use super::{Case, Extent, PLANES};
use crate::side_by_side::cases::{Entrant, SMALL, in_turns, pinning, udp};
use crate::side_by_side::lab::{Lab, MARK_BIT, Way};
use crate::side_by_side::load::Pace;
use crate::side_by_side::output::name;
use crate::side_by_side::results::{CaseResults, Comparison};
use crate::side_by_side::rig::Rig;

const TARGETS: [u32; 4] = [1, 10, 100, 1000];
const SLOTS: u32 = 65_537;

pub fn run(rig: &Rig, extent: Extent) -> anyhow::Result<CaseResults> {
    let effort = extent.effort;
    let lab = Lab::new(&Way::MarkBit)?;
    let mut entrants = Vec::new();
    for plane in PLANES {
        let of = |targets| Entrant {
            name: title(targets),
            ..Entrant::new(plane, plane.to_string(), targets)
        };
        entrants.extend(TARGETS.map(of));
    }
    let case = name(Case::Targets);
    let measured = in_turns(rig, &case, effort.rounds, &entrants, |entrant| {
        let targets = entrant.setting;
        let marks: Vec<u32> = (MARK_BIT..).take(targets as usize).collect();
        rig.make_table(SLOTS, targets, &marks)?;
        let mut lb = Router::open(rig, &lab)?.start(entrant.alternative, rig.consumer_cpu())?;
        let load = effort.load(rig, SMALL, Pace::Flood);
        let (flow, ()) = rig.measure(&lab, Some(&mut lb), load, || Ok(()))?;
        Ok(udp::figures_of(&flow))
    })?;
    let first = title(TARGETS[0]);
    Ok(CaseResults {
        name: case,
        what: format!(
            "64-byte UDP packets as fast as one core can send, M = 65,537, rules by lb. One ip rule, by \
             a bit that all marks have, leads to one route, whatever the number of targets: a rule for \
             each mark would cost by itself. {}.",
            pinning(rig)
        ),
        columns: udp::columns(true),
        comparisons: vec![
            Comparison::ratio("all", "all", &first),
            Comparison::ratio("delivered", "delivered", &first),
        ],
        rows: measured.rows,
        notes: measured.notes,
    })
}

fn title(targets: u32) -> String {
    format!("N = {targets}")
}
