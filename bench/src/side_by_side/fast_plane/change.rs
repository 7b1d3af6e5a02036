//! What a change of the table costs: the time until the kernel's map holds it.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use lb_core::counters::Counter;
use lb_sys::nft::Nft;
use lb_sys::shm::{Folder, StatsFile};

use super::generation::{Seen, watch};
use super::router::{Router, open_nft};
use super::{Case, Extent, SLOTS};
use crate::report::Spread;
use crate::side_by_side::cases::{Entrant, figures, in_turns};
use crate::side_by_side::lab::MARK_BIT;
use crate::side_by_side::output::name;
use crate::side_by_side::results::{CaseResults, Column, Figures};
use crate::side_by_side::rig::{Alternative, Rig, TABLE};

/// Changes of a round; half of them take back what the other half did.
const CHANGES: u32 = 6;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// With fewer slots it is not the slots that take the time.
const MANY: usize = 5000;

/// How much of the table is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    /// One of so many targets goes or comes back.
    OneOf(u32),
    /// The only target is replaced by another one: every slot, in the same map.
    Replaced,
    /// Another seed: a new map and new rules.
    Anew,
}

const SHARES: [Share; 4] = [Share::OneOf(100), Share::OneOf(10), Share::Replaced, Share::Anew];

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Share::OneOf(targets) => write!(f, "1 of {targets}"),
            Share::Replaced => f.write_str("all"),
            Share::Anew => f.write_str("table anew"),
        }
    }
}

impl Share {
    fn targets(self) -> u32 {
        match self {
            Share::OneOf(targets) => targets,
            Share::Replaced | Share::Anew => 1,
        }
    }

    /// The command line of `shm-tool` that makes a change of this number.
    fn command(self, number: u32) -> (&'static str, Vec<String>) {
        let there_and_back = number % 2;
        match self {
            Share::OneOf(_) if there_and_back == 0 => ("deactivate", vec![MARK_BIT.to_string()]),
            Share::OneOf(_) => ("activate", vec![MARK_BIT.to_string()]),
            Share::Replaced => {
                let mark = MARK_BIT + 1 - there_and_back;
                ("activate", vec![mark.to_string(), "--index".into(), "0".into()])
            }
            Share::Anew => {
                ("init", vec!["--keep".into(), "--seed".into(), (number + 1).to_string()])
            }
        }
    }
}

pub fn run(rig: &Rig, extent: Extent) -> anyhow::Result<CaseResults> {
    let mut entrants = Vec::new();
    for slots in extent.sizes(&SLOTS) {
        for share in SHARES {
            let name = format!("M = {slots}");
            let setting = (slots, share);
            entrants.push(Entrant {
                name,
                ..Entrant::new(Alternative::Fast, share.to_string(), setting)
            });
        }
    }
    let case = name(Case::Change);
    let measured = in_turns(rig, &case, extent.effort.rounds, &entrants, |entrant| {
        let (slots, share) = entrant.setting;
        measure(rig, slots, share)
    })?;
    Ok(CaseResults {
        name: case,
        what: format!(
            "Time from the return of shm-tool until packets meet the new table in the kernel, without \
             load; each round the median of {CHANGES} changes one after the other. A negative time: it \
             was there before the command had ended. \"1 of 100\": one of 100 targets goes, or comes \
             back; \"all\": the only target is replaced; \"table anew\": another seed, a new map. \
             The moment is that in which the generation of nftables moves, asked for every 0.05 ms; \
             \"precise to\" is the time between two answers. Nothing is pinned to a CPU."
        ),
        columns: vec![
            Column::new("slots", "slots changed", 0),
            Column::new("command", "command, ms", 2),
            Column::plotted("after", "in the kernel after, ms", 2),
            Column::new("worst", "at worst, ms", 2),
            Column::new("promised", "promised, ms", 1),
            Column::new("each", "µs a slot", 2),
            Column::new("precision", "precise to, ms", 2),
        ],
        comparisons: Vec::new(),
        rows: measured.rows,
        notes: measured.notes,
    })
}

fn measure(rig: &Rig, slots: u32, share: Share) -> anyhow::Result<Figures> {
    let marks: Vec<u32> = (MARK_BIT..).take(share.targets() as usize).collect();
    rig.make_table(slots, share.targets(), &marks)?;
    let lab = rig.lab(Alternative::Fast);
    let mut router = Router::open(rig, lab)?;
    let _lb = router.start(Alternative::Fast, None)?;
    let mut nft = open_nft(lab)?;
    let counted_before = Counted::read()?;
    let mut expected = counted_before;
    let mut changes = Vec::new();
    for number in 0..CHANGES {
        let before = rig.slots()?;
        let mut change = make(rig, &mut nft, share.command(number))?;
        change.slots = match share {
            Share::Anew => slots as usize,
            _ => differing(&before, &rig.slots()?),
        };
        expected.changes += 1;
        expected.slots += change.slots as u64;
        changes.push(change);
    }
    // What was timed was a transaction of exactly these slots.
    let mut counted = counted_before;
    rig.signals.until(PATIENCE, || {
        counted = Counted::read()?;
        Ok(counted == expected)
    })?;
    ensure!(
        counted == expected,
        "lb has counted {counted:?}, the table's changes are {expected:?}"
    );
    Ok(figures_of(slots, share, &changes))
}

/// A change as it went.
#[derive(Clone, Copy, Debug)]
struct Change {
    slots: usize,
    command: Duration,
    /// From the command's return, in milliseconds.
    after: f64,
    precision: Duration,
}

fn make(rig: &Rig, nft: &mut Nft, command: (&str, Vec<String>)) -> anyhow::Result<Change> {
    let before = nft.generation()?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(nft, before, &stop));
        let (verb, rest) = &command;
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        let start = Instant::now();
        let made = rig.shm_tool_with(verb, &rest);
        let returned = Instant::now();
        let seen = made.and_then(|()| rig.signals.until(PATIENCE, || Ok(watcher.is_finished())));
        stop.store(true, Relaxed);
        let watched = watcher.join().map_err(|_| anyhow!("the watcher panicked"))?;
        seen?;
        let missing = || format!("the kernel did not have the change within {PATIENCE:?}");
        let Seen { at, precision } = watched?.with_context(missing)?;
        let after = signed_millis(returned, at);
        Ok(Change { slots: 0, command: returned - start, after, precision })
    })
}

fn signed_millis(from: Instant, to: Instant) -> f64 {
    let (later, earlier) = (to.saturating_duration_since(from), from.saturating_duration_since(to));
    (later.as_secs_f64() - earlier.as_secs_f64()) * 1e3
}

fn differing(before: &[u32], after: &[u32]) -> usize {
    before.iter().zip(after).filter(|(before, after)| before != after).count()
}

/// What `lb` says that it has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    changes: u64,
    slots: u64,
}

impl Counted {
    fn read() -> anyhow::Result<Self> {
        let name = TABLE.parse().context("read the counters")?;
        let stats = StatsFile::open(&Folder::new(Folder::DEFAULT), &name)?;
        let (_, counts) = stats.queues().flatten().next().context("read the counters: none")?;
        Ok(Counted {
            changes: counts.get(Counter::MapChanges),
            slots: counts.get(Counter::MapSlots),
        })
    }
}

/// What is promised, in milliseconds: 20 up to M = 65,537 and a tenth of the targets, else 10 and 2 µs a slot.
fn promised(slots: u32, share: Share, changed: f64) -> f64 {
    match share {
        Share::OneOf(10..) if slots <= 65_537 => 20.0,
        _ => 10.0 + 0.002 * changed,
    }
}

fn figures_of(slots: u32, share: Share, changes: &[Change]) -> Figures {
    let spread = |of: fn(&Change) -> f64| Spread::of(changes.iter().map(of).collect());
    let changed = spread(|change| change.slots as f64).median;
    let after = spread(|change| change.after);
    let mut figures = figures([
        ("slots", changed),
        ("command", spread(|change| change.command.as_secs_f64() * 1e3).median),
        ("after", after.median),
        ("worst", after.max),
        ("promised", promised(slots, share, changed)),
        ("precision", spread(|change| change.precision.as_secs_f64() * 1e3).median),
    ]);
    if changed >= MANY as f64 {
        figures.insert("each".into(), after.median * 1e3 / changed);
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_change_takes_the_first_back() {
        let line = |share: Share, number| {
            let (verb, rest) = share.command(number);
            format!("{verb} {}", rest.join(" "))
        };
        assert_eq!(line(Share::OneOf(10), 0), "deactivate 4096");
        assert_eq!(line(Share::OneOf(10), 1), "activate 4096");
        assert_eq!(line(Share::Replaced, 0), "activate 4097 --index 0");
        assert_eq!(line(Share::Replaced, 1), "activate 4096 --index 0");
        assert_ne!(line(Share::Anew, 0), line(Share::Anew, 1));
    }

    #[test]
    fn slots_that_differ_are_counted() {
        assert_eq!(differing(&[1, 2, 3, 0], &[1, 5, 3, 4]), 2);
        assert_eq!(differing(&[], &[]), 0);
    }

    #[test]
    fn promises_depend_on_size_and_share() {
        assert_eq!(promised(65_537, Share::OneOf(10), 6_700.0), 20.0);
        assert_eq!(promised(65_537, Share::Replaced, 65_000.0), 140.0);
        assert_eq!(promised(1_000_003, Share::OneOf(100), 10_000.0), 30.0);
    }

    #[test]
    fn a_round_is_told_by_its_middle_and_its_worst() {
        let change = |after| Change {
            slots: 8000,
            command: Duration::from_millis(3),
            after,
            precision: Duration::from_micros(80),
        };
        let round = figures_of(65_537, Share::OneOf(10), &[change(4.0), change(-1.0), change(6.0)]);
        assert_eq!((round["after"], round["worst"], round["each"]), (4.0, 6.0, 0.5));
        assert_eq!((round["slots"], round["command"], round["precision"]), (8000.0, 3.0, 0.08));
        let few = figures_of(997, Share::OneOf(100), &[Change { slots: 10, ..change(1.0) }]);
        assert_eq!(few.get("each"), None);
    }

    #[test]
    fn what_was_before_the_command_ended_is_negative() {
        let now = Instant::now();
        let later = now + Duration::from_micros(1500);
        assert_eq!(signed_millis(now, later), 1.5);
        assert_eq!(signed_millis(later, now), -1.5);
    }
}
