use clap::Args;
use lb_core::table::{Inspection, Problem, inspect};
use serde_json::{Value, json};

use crate::args::{JsonArg, exit_codes};
use crate::error::Error;
use crate::output::{print, print_json};
use crate::source::{Source, SourceArg};

/// Check a table, and say everything that is wrong with it
///
/// Looks at magic, layout, check word, dimensions, length, generation, targets, slots and fingerprint,
/// and builds the slots once more from the targets. A table that is in use may be checked at any time.
#[derive(Debug, Args)]
#[command(after_help = concat!(
    "Examples:
  shm-tool verify
  shm-tool verify ./saved
  shm-tool verify --shm tier2 --json | jq -r '.problems[].text'

",
    exit_codes!("sound", "not sound, or not to be read")
))]
pub struct Verify {
    #[command(flatten)]
    source: SourceArg,
    #[command(flatten)]
    format: JsonArg,
}

impl Verify {
    pub fn run(&self) -> Result<(), Error> {
        let source = self.source.source();
        let inspection = inspect(&source.bytes()?);
        let shown = if self.format.json {
            print_json(&json_of(&source, &inspection))
        } else {
            print(text_of(&source, &inspection))
        };
        match inspection.problems.len() {
            0 => shown,
            // Also if nobody reads what they are.
            problems => Err(Error::Unsound { object: source, problems }),
        }
    }
}

fn json_of(source: &Source, inspection: &Inspection) -> Value {
    let problem =
        |problem: &Problem| json!({ "problem": problem.name(), "text": problem.to_string() });
    json!({
        "name": source.to_string(),
        "ok": inspection.problems.is_empty(),
        "m": inspection.config.map(|config| config.slots),
        "n": inspection.config.map(|config| config.targets),
        "generation": inspection.generation.map(|generation| generation.0),
        "fingerprint": inspection.fingerprint.map(|fingerprint| fingerprint.to_string()),
        "problems": inspection.problems.iter().map(problem).collect::<Vec<Value>>(),
    })
}

fn text_of(source: &Source, inspection: &Inspection) -> String {
    let lines: String =
        inspection.problems.iter().map(|problem| format!("{source}: {problem}\n")).collect();
    match (inspection.config, inspection.generation, inspection.fingerprint) {
        (Some(config), Some(generation), Some(fingerprint)) if lines.is_empty() => {
            let (slots, generation) = (config.slots, generation.0);
            format!(
                "{source}: OK, M = {slots}, generation {generation}, fingerprint {fingerprint}\n"
            )
        }
        _ => lines,
    }
}
