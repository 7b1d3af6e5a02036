//! Packets lost while targets are taken out and put back.

use std::time::{Duration, Instant};

use super::{Case, Effort, Entrant, SMALL, figures, in_turns, pinning};
use crate::side_by_side::lab::MARKS;
use crate::side_by_side::load::{Load, Pace};
use crate::side_by_side::output::name;
use crate::side_by_side::results::{CaseResults, Column};
use crate::side_by_side::rig::{Alternative, Peer, Rig};

const SLOTS: [u32; 3] = [997, 10_007, 65_537];
const RATE: f64 = 60_000.0;
const DURATION: Duration = Duration::from_secs(4);
const CHANGES: u32 = 800;
/// The promise is that nothing is lost; more rounds do not make it clearer.
const ROUNDS: u32 = 3;

pub fn run(rig: &Rig, effort: Effort) -> anyhow::Result<CaseResults> {
    let mut alternatives = vec![Alternative::Fast, Alternative::Lb];
    let mut notes = Vec::new();
    match &rig.peer {
        Some(Peer { change: Some(_), .. }) => alternatives.push(Alternative::Peer),
        Some(_) => notes.push(
            "peer: not measured, --peer-activate and --peer-deactivate were not given".into(),
        ),
        None => {}
    }
    let mut entrants = Vec::new();
    for slots in SLOTS {
        let of =
            |alternative: &Alternative| Entrant::new(*alternative, format!("M = {slots}"), slots);
        entrants.extend(alternatives.iter().map(of));
    }
    let rounds = effort.rounds.min(ROUNDS);
    let measured = in_turns(rig, &name(Case::Reconfigure), rounds, &entrants, |entrant| {
        let Entrant { alternative, setting: slots, .. } = *entrant;
        let mut consumer = rig.start(alternative, slots)?;
        let load = Load { duration: DURATION, ..effort.load(rig, SMALL, Pace::PerSecond(RATE)) };
        let lab = rig.lab(alternative);
        let change = || change(rig, alternative);
        let (flow, changes) = rig.measure(lab, consumer.as_mut(), load, change)?;
        let by_change = flow.lost().saturating_sub(flow.not_queued);
        Ok(figures([
            ("changes", f64::from(changes)),
            ("sent", flow.sent.packets as f64),
            ("lost", flow.lost() as f64),
            ("not queued", flow.not_queued as f64),
            ("by change", by_change as f64),
        ]))
    })?;
    notes.extend(measured.notes);
    Ok(CaseResults {
        name: name(Case::Reconfigure),
        what: format!(
            "800 changes of the table, each a command of its own, one of four targets taken out and \
             put back, spread over 240,000 64-byte UDP packets at 60,000/s; at most {ROUNDS} rounds; \
             {}.",
            pinning(rig)
        ),
        columns: vec![
            Column::new("changes", "changes made", 0),
            Column::new("sent", "sent", 0),
            Column::plotted("lost", "lost packets", 0),
            Column::new("not queued", "of these: queue was full", 0),
            Column::plotted("by change", "of these: by the change", 0),
        ],
        comparisons: Vec::new(),
        rows: measured.rows,
        notes,
    })
}

/// Takes a target out and puts it back, evenly over the time; says how often that was possible.
fn change(rig: &Rig, alternative: Alternative) -> anyhow::Result<u32> {
    let start = Instant::now();
    for number in 0..CHANGES {
        let due = start + DURATION * number / CHANGES;
        rig.signals.pause(due.saturating_duration_since(Instant::now()))?;
        if start.elapsed() >= DURATION {
            return Ok(number);
        }
        rig.change(alternative, MARKS[1], number % 2 == 1)?;
    }
    Ok(CHANGES)
}
