//! From a command to the first packet at a new target, and to the last one at a target that was removed.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};

use super::arrivals::{Arrivals, now};
use super::router::Router;
use super::{Case, Extent, PLANES, millis_between};
use crate::report::Spread;
use crate::side_by_side::cases::{Effort, Entrant, SMALL, figures, in_turns, pinning};
use crate::side_by_side::lab::{Lab, MARK_BIT, Way};
use crate::side_by_side::load::{Load, Pace};
use crate::side_by_side::output::name;
use crate::side_by_side::results::{CaseResults, Column, Figures};
use crate::side_by_side::rig::{Alternative, Rig};

const SLOTS: [u32; 3] = [997, 65_537, 1_000_003];
const RATE: f64 = 20_000.0;
/// With the one that comes and goes.
const TARGETS: u32 = 10;
/// Of the one that comes and goes. Another rule than that of the others leads to it.
const MARK: u32 = 2 * MARK_BIT;
/// A target is quiet when nothing has come for so long; otherwise 2,000 come every second.
const QUIET: Duration = Duration::from_millis(100);
/// Packets that are awaited before the target is removed.
const SOME: u64 = 100;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The load ends with the work. This is beyond what the work may take.
const LOAD: Duration = Duration::from_secs(600);

pub fn run(rig: &Rig, extent: Extent) -> anyhow::Result<CaseResults> {
    let lab = Lab::new(&Way::MarkBit)?;
    let target = lab.add_target(MARK)?;
    let arrivals = Arrivals::open(&target)?;
    let mut entrants = Vec::new();
    for slots in extent.sizes(&SLOTS) {
        let of = |plane| Entrant::new(plane, format!("M = {slots}"), slots);
        entrants.extend(PLANES.map(of));
    }
    let case = name(Case::FirstPacket);
    let effort = extent.effort;
    let measured = in_turns(rig, &case, effort.rounds, &entrants, |entrant| {
        measure(rig, effort, &lab, &arrivals, entrant.alternative, entrant.setting)
    })?;
    Ok(CaseResults {
        name: case,
        what: format!(
            "A tenth target comes and goes, in turns, under 64-byte UDP packets of 4,000 flows, 20,000/s \
             one by one: from the return of shm-tool to the first packet at the new target and to the \
             last at the one removed, by the kernel's clock; medians and the worst of each round. A \
             negative time: it was before the command had ended. Every tenth packet is for that target, \
             so the first comes 0.5 ms after it could, the last 0.5 ms before, on average. {}.",
            pinning(rig)
        ),
        columns: vec![
            Column::new("changes", "changes", 0),
            Column::plotted("first", "first packet after, ms", 2),
            Column::new("first worst", "at worst, ms", 2),
            Column::new("first start", "after the command's start, ms", 2),
            Column::plotted("last", "last packet after, ms", 2),
            Column::new("last worst", "at worst, ms", 2),
            Column::new("last start", "after the command's start, ms", 2),
        ],
        comparisons: Vec::new(),
        rows: measured.rows,
        notes: measured.notes,
    })
}

fn measure(
    rig: &Rig,
    effort: Effort,
    lab: &Lab,
    arrivals: &Arrivals,
    plane: Alternative,
    slots: u32,
) -> anyhow::Result<Figures> {
    let others: Vec<u32> = (MARK_BIT..).take(TARGETS as usize - 1).collect();
    rig.make_table(slots, TARGETS, &others)?;
    let _lb = Router::open(rig, lab)?.start(plane, rig.consumer_cpu())?;
    let load = Load { burst: 1, duration: LOAD, ..effort.load(rig, SMALL, Pace::PerSecond(RATE)) };
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let tap = scope.spawn(|| arrivals.watch(&stop));
        let come_and_go = |has_ended: &dyn Fn() -> bool| {
            let mut all = Vec::new();
            let start = Instant::now();
            while all.is_empty() || start.elapsed() < effort.duration {
                all.push(come_and_go(rig, arrivals)?);
                ensure!(!has_ended(), "the load ended before its time");
            }
            Ok(all)
        };
        let sent = rig.send_while(lab, load, come_and_go);
        stop.store(true, Relaxed);
        tap.join().map_err(|_| anyhow!("the tap panicked"))??;
        sent.map(|(_, all)| figures_of(&all))
    })
}

/// When a target came and went; nanoseconds of the kernel's clock.
#[derive(Clone, Copy, Debug)]
struct Visit {
    came: Command,
    first: u64,
    went: Command,
    last: u64,
}

#[derive(Clone, Copy, Debug)]
struct Command {
    start: u64,
    end: u64,
}

fn come_and_go(rig: &Rig, arrivals: &Arrivals) -> anyhow::Result<Visit> {
    arrivals.forget();
    let came = command(rig, "activate")?;
    let enough = rig.signals.until(PATIENCE, || Ok(arrivals.count() >= SOME))?;
    ensure!(enough, "no packets came to the new target within {PATIENCE:?}");
    let went = command(rig, "deactivate")?;
    let mut seen = (arrivals.count(), Instant::now());
    let quiet = rig.signals.until(PATIENCE, || {
        let count = arrivals.count();
        if count != seen.0 {
            seen = (count, Instant::now());
        }
        Ok(seen.1.elapsed() >= QUIET)
    })?;
    ensure!(quiet, "packets still came to the removed target after {PATIENCE:?}");
    let times = arrivals.first().zip(arrivals.last());
    let (first, last) = times.context("the kernel told no time of packets")?;
    Ok(Visit { came, first, went, last })
}

fn command(rig: &Rig, verb: &str) -> anyhow::Result<Command> {
    let start = now()?;
    rig.shm_tool_with(verb, &[&MARK.to_string()])?;
    Ok(Command { start, end: now()? })
}

fn figures_of(visits: &[Visit]) -> Figures {
    let spread = |of: fn(&Visit) -> (u64, u64)| {
        let millis = |(from, to): (u64, u64)| millis_between(from.into(), to.into());
        Spread::of(visits.iter().map(of).map(millis).collect())
    };
    let first = spread(|visit| (visit.came.end, visit.first));
    let last = spread(|visit| (visit.went.end, visit.last));
    figures([
        ("changes", 2.0 * visits.len() as f64),
        ("first", first.median),
        ("first worst", first.max),
        ("first start", spread(|visit| (visit.came.start, visit.first)).median),
        ("last", last.median),
        ("last worst", last.max),
        ("last start", spread(|visit| (visit.went.start, visit.last)).median),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_from_the_return_and_from_the_start() {
        let visit = |late: u64| Visit {
            came: Command { start: 1_000_000, end: 4_000_000 },
            first: 3_500_000 + late,
            went: Command { start: 10_000_000, end: 12_000_000 },
            last: 13_000_000 + late,
        };
        let figures = figures_of(&[visit(0), visit(500_000), visit(2_000_000)]);
        assert_eq!(
            (figures["first"], figures["first worst"], figures["first start"]),
            (0.0, 1.5, 3.0)
        );
        assert_eq!(
            (figures["last"], figures["last worst"], figures["last start"]),
            (1.5, 3.0, 3.5)
        );
        assert_eq!(figures["changes"], 6.0);
    }
}
