use clap::Args;
use lb_core::table::Snapshot;
use lb_sys::shm::{self, Cause, Folder, Name};
use serde_json::{Value, json};

use crate::args::{JsonArg, exit_codes};
use crate::columns::{Align, aligned};
use crate::error::Error;
use crate::output::{print, print_json};
use crate::verb::read;

/// List all tables
///
/// A table that cannot be read is listed with the reason.
#[derive(Debug, Args)]
#[command(after_help = concat!(
    "Examples:
  shm-tool list
  shm-tool list --json | jq -r '.[] | select(.error) | .name'

",
    exit_codes!("listed, also if some tables are damaged", "not listed")
))]
pub struct List {
    #[command(flatten)]
    format: JsonArg,
}

type Entry = (Name, Result<Snapshot, Error>);

impl List {
    pub fn run(&self, folder: &Folder) -> Result<(), Error> {
        let entries: Vec<Entry> = shm::list(folder)?
            .into_iter()
            .map(|name| (name.clone(), read(folder, &name)))
            .filter(|(_, read)| !is_gone(read))
            .collect();
        if self.format.json {
            print_json(&entries.iter().map(json_of).collect())
        } else if entries.is_empty() {
            print(format!("no tables in {}\n", folder.path().display()))
        } else {
            print(text_of(&entries))
        }
    }
}

/// Whether the table was deleted since its name was read.
fn is_gone(read: &Result<Snapshot, Error>) -> bool {
    matches!(read, Err(Error::Shm(error)) if matches!(error.cause, Cause::MissingTable(_)))
}

fn json_of((name, read): &Entry) -> Value {
    match read {
        Ok(snapshot) => json!({
            "name": name.to_string(),
            "m": snapshot.config.slots,
            "n": snapshot.config.targets,
            "targets": snapshot.targets.iter().count(),
            "generation": snapshot.generation.0,
            "fingerprint": snapshot.fingerprint.to_string(),
        }),
        Err(error) => json!({ "name": name.to_string(), "error": reason(error) }),
    }
}

fn text_of(entries: &[Entry]) -> String {
    let head = ["name", "M", "N", "targets", "generation", "fingerprint"];
    let mut rows = vec![head.map(String::from).into()];
    rows.extend(entries.iter().map(|(name, read)| match read {
        Ok(snapshot) => vec![
            name.to_string(),
            snapshot.config.slots.to_string(),
            snapshot.config.targets.to_string(),
            snapshot.targets.iter().count().to_string(),
            snapshot.generation.0.to_string(),
            snapshot.fingerprint.to_string(),
        ],
        Err(error) => vec![name.to_string(), reason(error)],
    }));
    aligned(&rows, &[Align::Left])
}

/// Why a table could not be read; its name stands beside.
fn reason(error: &Error) -> String {
    match error {
        Error::Shm(error) => error.cause.to_string(),
        Error::Table { cause, .. } => cause.to_string(),
        other => other.to_string(),
    }
}
