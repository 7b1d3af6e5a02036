use clap::Args;
use lb_core::table::{Share, Snapshot};
use serde_json::{Value, json};

use crate::args::{JsonArg, exit_codes};
use crate::columns::{Align, aligned};
use crate::error::Error;
use crate::output::{print, print_json};
use crate::settings::{percent, settings};
use crate::source::{Source, SourceArg};

/// Show a table: its targets with their shares, and what identifies it
///
/// Evenness is how close the targets come to their ideal shares: 100 % less the largest deviation.
/// Two tables with equal fingerprints decide about every packet alike.
#[derive(Debug, Args)]
#[command(after_help = concat!(
    "Examples:
  shm-tool show
  shm-tool show --shm tier2 --json | jq -r .fingerprint
  shm-tool show ./saved

",
    exit_codes!(reading)
))]
pub struct Show {
    #[command(flatten)]
    source: SourceArg,
    #[command(flatten)]
    format: JsonArg,
}

impl Show {
    pub fn run(&self) -> Result<(), Error> {
        let source = self.source.source();
        let snapshot = source.read()?;
        if self.format.json {
            print_json(&json_of(&source, &snapshot))
        } else {
            print(text_of(&source, &snapshot))
        }
    }
}

fn json_of(source: &Source, snapshot: &Snapshot) -> Value {
    let slots = f64::from(snapshot.config.slots);
    let target = |share: &Share| {
        json!({
            "mark": share.target.mark.get(),
            "weight": share.target.weight.0,
            "index": share.index,
            "slots": share.slots,
            "share": f64::from(share.slots) / slots,
        })
    };
    let targets: Vec<Value> = snapshot.shares().iter().map(target).collect();
    let head = [("name", json!(source.to_string()))];
    let fixed = settings(&snapshot.config).map(|setting| (setting.key, setting.value));
    let state = [
        ("generation", json!(snapshot.generation.0)),
        ("fingerprint", json!(snapshot.fingerprint.to_string())),
        ("evenness", json!(snapshot.evenness())),
        ("targets", json!(targets)),
    ];
    let all = head.into_iter().chain(fixed).chain(state);
    all.map(|(key, value)| (key.to_string(), value)).collect()
}

fn text_of(source: &Source, snapshot: &Snapshot) -> String {
    let config = &snapshot.config;
    let evenness = snapshot.evenness().map(|evenness| percent(evenness, 1.0));
    let head = [(source.kind(), source.to_string())];
    let fixed = settings(config).map(|setting| (setting.label, setting.text));
    let state = [
        ("generation", snapshot.generation.0.to_string()),
        ("fingerprint", snapshot.fingerprint.to_string()),
        ("evenness", evenness.unwrap_or("no active target".into())),
    ];
    let head: Vec<Vec<String>> = (head.into_iter().chain(fixed).chain(state))
        .map(|(label, value)| vec![label.to_string(), value])
        .collect();

    let shares = snapshot.shares();
    let targets = match shares.len() {
        0 => "no targets\n".into(),
        _ => targets_text(&shares, f64::from(config.slots)),
    };
    format!("{}\n{targets}", aligned(&head, &[Align::Left, Align::Left]))
}

fn targets_text(shares: &[Share], slots: f64) -> String {
    let mut rows =
        vec![["index", "mark", "weight", "slots", "share", "ideal"].map(String::from).into()];
    rows.extend(shares.iter().map(|share| {
        vec![
            share.index.to_string(),
            share.target.mark.to_string(),
            share.target.weight.0.to_string(),
            share.slots.to_string(),
            percent(f64::from(share.slots), slots),
            percent(share.ideal, slots),
        ]
    }));
    aligned(&rows, &[])
}
