use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use clap::Args;
use lb_core::table::{Moves, Snapshot};
use lb_core::target::Mark;
use serde_json::{Value, json};

use crate::args::JsonArg;
use crate::columns::{Align, aligned};
use crate::error::Error;
use crate::output::{print, print_json};
use crate::settings::{Setting, percent, settings};
use crate::source::Source;

/// Compare two tables, also saved ones
///
/// Compares what was fixed when they were made, the targets, and slot by slot what the slots hold.
/// Generations may differ. Two tables with equal fingerprints decide about every packet alike, even if
/// their room, own marks, or the indexes of their targets differ.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shm-tool compare markway ./before
  shm-tool compare tier1 tier2 --json | jq .slots.share

Exit codes: 0 equal; 1 different; 2 not to be read (one line on stderr says why), or wrong usage.")]
pub struct Compare {
    /// A table, or a file as `export` writes it: what has a '/', such as ./saved, is a file
    #[arg(value_name = "A")]
    a: Source,
    /// The table or file that it is compared with
    #[arg(value_name = "B")]
    b: Source,
    #[command(flatten)]
    format: JsonArg,
}

impl Compare {
    pub fn run(&self) -> Result<ExitCode, Error> {
        self.compare().map_err(|error| Error::Trouble(Box::new(error)))
    }

    fn compare(&self) -> Result<ExitCode, Error> {
        let (a, b) = (self.a.read()?, self.b.read()?);
        let differences = Differences::between(&a, &b);
        let names = [&self.a, &self.b].map(Source::to_string);
        let shown = if self.format.json {
            print_json(&differences.json(&names, [&a, &b]))
        } else {
            print(differences.text(&names, [&a, &b]))
        };
        match shown {
            // Who does not read on asks for the exit code alone.
            Err(error) if !error.is_nobody_reading() => Err(error),
            _ => Ok(ExitCode::from(u8::from(!differences.are_none()))),
        }
    }
}

struct Differences {
    settings: Vec<(Setting, Setting)>,
    targets: BTreeMap<Mark, [Option<Place>; 2]>,
    /// Slots that hold another mark; tables of different M have no slots in common.
    slots: Option<u32>,
}

/// A target without its mark.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    weight: u16,
    index: u32,
}

impl Differences {
    fn between(a: &Snapshot, b: &Snapshot) -> Self {
        let pairs = settings(&a.config).into_iter().zip(settings(&b.config));
        let (in_a, in_b) = (places(a), places(b));
        let marks: BTreeSet<&Mark> = in_a.keys().chain(in_b.keys()).collect();
        let both =
            marks.into_iter().map(|mark| (*mark, [&in_a, &in_b].map(|all| all.get(mark).copied())));
        let same_m = a.config.slots == b.config.slots;
        Differences {
            settings: pairs.filter(|(a, b)| a != b).collect(),
            targets: both.filter(|(_, [a, b])| a != b).collect(),
            slots: same_m.then(|| Moves::between(&a.slots, &b.slots).slots()),
        }
    }

    fn are_none(&self) -> bool {
        self.settings.is_empty() && self.targets.is_empty() && self.slots == Some(0)
    }

    fn json(&self, names: &[String; 2], tables: [&Snapshot; 2]) -> Value {
        let [a, b] = [0, 1].map(|i| {
            json!({
                "name": names[i],
                "m": tables[i].config.slots,
                "generation": tables[i].generation.0,
                "fingerprint": tables[i].fingerprint.to_string(),
            })
        });
        let setting =
            |(a, b): &(Setting, Setting)| (a.key.into(), json!({ "a": a.value, "b": b.value }));
        let place = |place: Option<Place>| {
            place.map(|Place { weight, index }| json!({ "weight": weight, "index": index }))
        };
        let target = |(mark, [a, b]): (&Mark, &[Option<Place>; 2])| json!({ "mark": mark.get(), "a": place(*a), "b": place(*b) });
        let total = f64::from(tables[0].config.slots);
        let slots =
            self.slots.map(|slots| json!({ "differ": slots, "share": f64::from(slots) / total }));
        json!({
            "equal": self.are_none(),
            "decide_alike": decide_alike(tables),
            "a": a,
            "b": b,
            "settings": self.settings.iter().map(setting).collect::<serde_json::Map<String, Value>>(),
            "targets": self.targets.iter().map(target).collect::<Vec<Value>>(),
            "slots": slots,
        })
    }

    fn text(&self, names: &[String; 2], tables: [&Snapshot; 2]) -> String {
        let mut rows = vec![["".into(), "A".into(), "B".into()].into()];
        let mut row = |label: &str, [a, b]: [String; 2]| rows.push(vec![label.into(), a, b]);
        row("table", names.clone());
        row("generation", tables.map(|table| table.generation.0.to_string()));
        row("fingerprint", tables.map(|table| table.fingerprint.to_string()));
        for (a, b) in &self.settings {
            row(a.label, [a.text.clone(), b.text.clone()]);
        }
        for (mark, [a, b]) in &self.targets {
            row(&format!("mark {mark}"), place_texts(*a, *b));
        }
        let head = aligned(&rows, &[Align::Left; 3]);
        let slots = tables[0].config.slots;
        let slots = match self.slots {
            None => "slots of tables of different M cannot be compared".into(),
            Some(0) => format!("all {slots} slots hold the same"),
            Some(differ) => {
                let share = percent(differ.into(), slots.into());
                format!("{differ} of {slots} slots differ, {share}")
            }
        };
        let verdict = match (self.are_none(), decide_alike(tables)) {
            (true, _) => "equal",
            (false, true) => "different, but they decide about every packet alike",
            (false, false) => "different",
        };
        format!("{head}\n{slots}\n{verdict}\n")
    }
}

fn decide_alike(tables: [&Snapshot; 2]) -> bool {
    tables[0].fingerprint == tables[1].fingerprint
}

fn places(table: &Snapshot) -> BTreeMap<Mark, Place> {
    let place = |(index, target): (u32, lb_core::target::Target)| {
        (target.mark, Place { weight: target.weight.0, index })
    };
    table.targets.iter().map(place).collect()
}

/// What there is of a target on both sides: of the weight and the index those that differ.
fn place_texts(a: Option<Place>, b: Option<Place>) -> [String; 2] {
    let same = |of: fn(&Place) -> u32| a.as_ref().map(of) == b.as_ref().map(of);
    let show_weight = !same(|place| place.weight.into());
    let show_index = a.is_some() && b.is_some() && !same(|place| place.index);
    [a, b].map(|place| match place {
        None => "-".into(),
        Some(Place { weight, index }) => match (show_weight, show_index) {
            (true, true) => format!("weight {weight}, index {index}"),
            (true, false) => format!("weight {weight}"),
            _ => format!("index {index}"),
        },
    })
}
