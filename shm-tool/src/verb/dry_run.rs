//! What a change would do, without doing it.

use std::collections::BTreeMap;

use clap::Args;
use lb_core::table::{Move, Moves, Share, Snapshot};
use lb_core::target::{Mark, TargetError, Targets};
use lb_sys::shm::{Folder, Name};
use serde_json::{Value, json};

use crate::columns::{Align, aligned};
use crate::error::Error;
use crate::output::{print, print_json};
use crate::settings::percent;
use crate::verb::read;

// No documentation comment: clap would show it as that of the verb.
#[derive(Debug, Args)]
pub struct DryRunArgs {
    /// Change nothing; say which share of the slots would move, and from whom to whom
    #[arg(long)]
    pub dry_run: bool,
    /// With --dry-run: print one line of JSON
    #[arg(long, requires = "dry_run")]
    json: bool,
}

impl DryRunArgs {
    /// Says what the change would do.
    pub fn run<T>(
        &self,
        folder: &Folder,
        name: &Name,
        change: impl FnOnce(&mut Targets) -> Result<T, TargetError>,
    ) -> Result<(), Error> {
        let before = read(folder, name)?;
        let mut targets = before.targets.clone();
        change(&mut targets).map_err(|cause| Error::Targets { table: name.clone(), cause })?;
        // A change that changes nothing is not published.
        let after = match targets == before.targets {
            true => before.clone(),
            false => before.changed(targets),
        };
        let preview = Preview {
            moves: Moves::between(&before.slots, &after.slots),
            targets: pairs(&before.shares(), &after.shares()),
            before,
            after,
        };
        if self.json { print_json(&preview.json(name)) } else { print(preview.text()) }
    }
}

struct Preview {
    before: Snapshot,
    after: Snapshot,
    moves: Moves,
    targets: BTreeMap<Mark, Pair>,
}

/// A target before and after; it may come or go.
#[derive(Default)]
struct Pair {
    before: Option<Share>,
    after: Option<Share>,
}

fn pairs(before: &[Share], after: &[Share]) -> BTreeMap<Mark, Pair> {
    let mut pairs: BTreeMap<Mark, Pair> = BTreeMap::new();
    for share in before {
        pairs.entry(share.target.mark).or_default().before = Some(*share);
    }
    for share in after {
        pairs.entry(share.target.mark).or_default().after = Some(*share);
    }
    pairs
}

impl Preview {
    fn json(&self, name: &Name) -> Value {
        let slots = f64::from(self.before.config.slots);
        let part = |number: u32| json!({ "slots": number, "share": f64::from(number) / slots });
        let share_of = |share: &Option<Share>| {
            share.map(|share| {
                json!({
                    "weight": share.target.weight.0,
                    "index": share.index,
                    "slots": share.slots,
                    "share": f64::from(share.slots) / slots,
                })
            })
        };
        let moved = |Move { from, to, slots: number }: &Move| {
            json!({
                "from": from.map(Mark::get),
                "to": to.map(Mark::get),
                "slots": number,
                "share": f64::from(*number) / slots,
            })
        };
        let target = |(mark, pair): (&Mark, &Pair)| {
            json!({
                "mark": mark.get(),
                "before": share_of(&pair.before),
                "after": share_of(&pair.after),
            })
        };
        let (before, after) = (&self.before, &self.after);
        let fingerprints = [before, after].map(|table| table.fingerprint.to_string());
        json!({
            "name": name.to_string(),
            "m": before.config.slots,
            "moved": part(self.moves.slots()),
            "needed": part(self.moves.needed()),
            "needless": part(self.needless()),
            "generation": { "before": before.generation.0, "after": after.generation.0 },
            "fingerprint": { "before": fingerprints[0], "after": fingerprints[1] },
            "moves": self.moves.list().iter().map(moved).collect::<Vec<Value>>(),
            "targets": self.targets.iter().map(target).collect::<Vec<Value>>(),
        })
    }

    fn text(&self) -> String {
        let (before, after) = (&self.before, &self.after);
        let slots = before.config.slots;
        let part = |number: u32| {
            format!("{number} of {slots} slots, {}", percent(number.into(), slots.into()))
        };
        let head = [
            ("moved", part(self.moves.slots())),
            ("needed", part(self.moves.needed())),
            ("needless", part(self.needless())),
            ("generation", format!("{} -> {}", before.generation.0, after.generation.0)),
            ("fingerprint", format!("{} -> {}", before.fingerprint, after.fingerprint)),
        ];
        let head = head.map(|(label, value)| vec![label.to_string(), value]);
        let head = aligned(&head, &[Align::Left, Align::Left]);
        let mut text = format!("dry run: nothing was changed\n\n{head}");
        if !self.moves.list().is_empty() {
            text = format!("{text}\n{}", self.moves_text());
        }
        if !self.targets.is_empty() {
            text = format!("{text}\n{}", self.targets_text());
        }
        text
    }

    fn moves_text(&self) -> String {
        let holder = |mark: Option<Mark>| mark.map_or("none".into(), |mark| mark.to_string());
        let mut rows = vec![["from", "to", "slots", "share"].map(String::from).into()];
        rows.extend(self.moves.list().iter().map(|moved| {
            vec![
                holder(moved.from),
                holder(moved.to),
                moved.slots.to_string(),
                percent(moved.slots.into(), self.before.config.slots.into()),
            ]
        }));
        aligned(&rows, &[])
    }

    fn targets_text(&self) -> String {
        let head = ["mark", "weight", "slots", "share", "->", "weight", "slots", "share"];
        let mut rows = vec![head.map(String::from).into()];
        rows.extend(self.targets.iter().map(|(mark, pair)| {
            let before = self.share_cells(pair.before.as_ref());
            let after = self.share_cells(pair.after.as_ref());
            [vec![mark.to_string()], before, vec!["->".into()], after].concat()
        }));
        aligned(&rows, &[])
    }

    fn share_cells(&self, share: Option<&Share>) -> Vec<String> {
        match share {
            None => ["-"; 3].map(String::from).into(),
            Some(share) => vec![
                share.target.weight.0.to_string(),
                share.slots.to_string(),
                percent(share.slots.into(), self.before.config.slots.into()),
            ],
        }
    }

    fn needless(&self) -> u32 {
        self.moves.slots().saturating_sub(self.moves.needed())
    }
}
