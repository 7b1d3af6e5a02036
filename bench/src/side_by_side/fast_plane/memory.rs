//! Kernel memory of the map.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::router::Router;
use super::{Case, Extent, SLOTS};
use crate::side_by_side::cases::{Entrant, figures, in_turns};
use crate::side_by_side::lab::MARK_BIT;
use crate::side_by_side::output::name;
use crate::side_by_side::results::{CaseResults, Column};
use crate::side_by_side::rig::{Alternative, Rig};

const TARGETS: u32 = 10;
/// Slots of a table that takes long enough to be made for its memory to be seen meanwhile.
const MANY: u32 = 60_000;
const MIB: f64 = 1024.0 * 1024.0;
/// The kernel frees later, in pieces; what others need changes, too. So long it has to rest …
const REST: Duration = Duration::from_millis(500);
/// … within so many bytes …
const STILL: u64 = 128 << 10;
/// … and so long that is awaited.
const PATIENCE: Duration = Duration::from_secs(5);

pub fn run(rig: &Rig, extent: Extent) -> anyhow::Result<CaseResults> {
    let entrants: Vec<Entrant<u32>> = extent
        .sizes(&SLOTS)
        .map(|slots| Entrant {
            name: format!("M = {slots}"),
            ..Entrant::new(Alternative::Fast, "", slots)
        })
        .collect();
    let case = name(Case::Memory);
    let measured = in_turns(rig, &case, extent.effort.rounds, &entrants, |entrant| {
        let slots = entrant.setting;
        let marks: Vec<u32> = (MARK_BIT..).take(TARGETS as usize).collect();
        rig.make_table(slots, TARGETS, &marks)?;
        let mut router = Router::open(rig, rig.lab(Alternative::Fast))?;
        let lb = router.start(Alternative::Fast, None)?;
        let running = kernel_memory(rig)?;
        let most = most_while_made_anew(rig, &mut router)?;
        drop(lb);
        let ended = kernel_memory(rig)?;
        router.remove_rules()?;
        let nothing = kernel_memory(rig)?;
        // Signed: with a small map what others do may be more.
        let beyond = |bytes: u64| bytes as f64 - nothing as f64;
        let mut figures = figures([
            ("map", beyond(ended) / MIB),
            ("each", beyond(ended) / f64::from(slots)),
            ("running", beyond(running) / MIB),
        ]);
        if slots >= MANY {
            figures.insert("most".into(), beyond(most) / MIB);
        }
        Ok(figures)
    })?;
    Ok(CaseResults {
        name: case,
        what: "Kernel memory of rules and map: what is used less once lb has ended and lb --down has \
               removed them. \"While lb runs\" has the memory of its sockets, too; \"at most\": while the table \
               is made anew, with two maps, the request and the kernel's notes on it. Slab, Percpu and \
               VmallocUsed of /proc/meminfo, at rest: whatever else happens on the machine is in it, so \
               figures below a few MiB say little."
            .into(),
        columns: vec![
            Column::plotted("map", "rules and map, MiB", 2),
            Column::new("each", "bytes a slot", 0),
            Column::new("running", "while lb runs, MiB", 2),
            Column::new("most", "at most, MiB", 2),
        ],
        comparisons: Vec::new(),
        rows: measured.rows,
        notes: measured.notes,
    })
}

/// The most that is used until a table with another seed is in force.
fn most_while_made_anew(rig: &Rig, router: &mut Router<'_>) -> anyhow::Result<u64> {
    let before = router.generation()?;
    rig.shm_tool_with("init", &["--keep", "--seed", "1"])?;
    let mut most = 0;
    let made = rig.signals.until(PATIENCE, || {
        most = most.max(read()?);
        Ok(router.generation()? != before)
    })?;
    ensure!(made, "the kernel did not have the new table within {PATIENCE:?}");
    Ok(most)
}

/// Once it rests; or, on a machine where it never does, as it is.
fn kernel_memory(rig: &Rig) -> anyhow::Result<u64> {
    let mut last = read()?;
    let steps = PATIENCE.as_millis() / REST.as_millis();
    for _ in 0..steps {
        rig.signals.pause(REST)?;
        let now = read()?;
        if now.abs_diff(last) <= STILL {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

fn read() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    in_meminfo(&text).context("read /proc/meminfo: a line is missing")
}

/// Bytes that the kernel itself uses, of those kinds that a map is made of.
fn in_meminfo(text: &str) -> Option<u64> {
    let size = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kib: u64 = rest.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
        kib.checked_mul(1024)
    };
    Some(size("Slab")? + size("Percpu")? + size("VmallocUsed")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_memory_is_of_three_kinds() {
        let text = "MemTotal:       24683520 kB\nSlab:             100 kB\nSReclaimable:      60 kB\n\
                    VmallocTotal:   34359738367 kB\nVmallocUsed:       20 kB\nPercpu:              3 kB\n";
        assert_eq!(in_meminfo(text), Some(123 * 1024));
        assert_eq!(in_meminfo("Slab: 100 kB\n"), None);
        assert_eq!(in_meminfo("Slab: x kB\nPercpu: 1 kB\nVmallocUsed: 1 kB\n"), None);
    }

    #[test]
    fn this_kernel_tells_its_memory() {
        assert!(in_meminfo(&fs::read_to_string("/proc/meminfo").unwrap()).unwrap() > 0);
    }
}
