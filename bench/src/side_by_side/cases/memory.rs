//! Memory of `lb` against the dimensions of its table.

use std::time::Duration;

use super::{Case, Effort, Entrant, SMALL, figures, in_turns};
use crate::side_by_side::load::{Load, Pace};
use crate::side_by_side::output::name;
use crate::side_by_side::results::{CaseResults, Column};
use crate::side_by_side::rig::{Alternative, Rig};

const SLOTS: [u32; 4] = [997, 10_007, 65_537, 1_000_003];
const TARGETS: [u32; 3] = [10, 100, 1000];
const MOMENT: Duration = Duration::from_millis(300);

pub fn run(rig: &Rig, effort: Effort) -> anyhow::Result<CaseResults> {
    let mut entrants = Vec::new();
    let mut notes = Vec::new();
    for slots in SLOTS {
        for targets in TARGETS {
            if targets > slots {
                notes.push(format!("M = {slots}, N = {targets}: there can be no such table"));
                continue;
            }
            let name = format!("M = {slots}, N = {targets}");
            let entrant = Entrant::new(Alternative::Lb, "", (slots, targets));
            entrants.push(Entrant { name, ..entrant });
        }
    }
    let measured = in_turns(rig, &name(Case::Memory), 1, &entrants, |entrant| {
        let (slots, targets) = entrant.setting;
        let mut consumer = rig.start_lb_with(slots, targets)?;
        // What is allocated or mapped lazily is there once packets have passed.
        let load = Load { duration: MOMENT, ..effort.load(rig, SMALL, Pace::PerSecond(50_000.0)) };
        rig.measure(rig.lab(Alternative::Lb), Some(&mut consumer), load, || Ok(()))?;
        let memory = consumer.memory()?;
        let mib = |kib: u64| kib as f64 / 1024.0;
        Ok(figures([
            ("file", rig.table_len()? as f64 / 1024.0 / 1024.0),
            ("shared", mib(memory.shared)),
            ("own", mib(memory.anonymous)),
            ("program", mib(memory.files)),
        ]))
    })?;
    notes.extend(measured.notes);
    Ok(CaseResults {
        name: name(Case::Memory),
        what: "Resident memory of lb with one queue, all N targets active, after 15,000 packets."
            .into(),
        columns: vec![
            Column::plotted("file", "table's file, MiB", 2),
            Column::new("shared", "shared (table, counters), MiB", 2),
            Column::plotted("own", "own, MiB", 2),
            Column::new("program", "program and libraries, MiB", 2),
        ],
        comparisons: Vec::new(),
        rows: measured.rows,
        notes,
    })
}
