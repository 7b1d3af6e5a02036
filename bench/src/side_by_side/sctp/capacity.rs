//! What a server with all its associations can do.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::bed::Bed;
use super::{Case, Extent};
use crate::side_by_side::cases::{Entrant, figures, in_turns};
use crate::side_by_side::output::name;
use crate::side_by_side::results::{CaseResults, Column, Figures};
use crate::side_by_side::table::grouped;

/// Over raw IP or in UDP.
const CARRIERS: [(&str, &[&str]); 2] =
    [("", &[]), (" in UDP", &["--encap-local", "9899", "--encap-remote", "9899"])];
const ASSOCIATIONS: [u32; 2] = [100, 1_000];
/// More than anybody can do.
const MANY: &str = "1000000";
/// For all associations to come up.
const START: Duration = Duration::from_secs(8);

#[derive(Clone, Copy, Debug)]
struct Setting {
    carrier: &'static [&'static str],
    associations: u32,
    size: u32,
}

impl Setting {
    fn options(self) -> Vec<String> {
        self.carrier.iter().map(|word| (*word).into()).collect()
    }
}

/// They all begin at once.
pub fn associations(bed: &Bed, extent: Extent) -> anyhow::Result<CaseResults> {
    let mut entrants = Vec::new();
    for associations in ASSOCIATIONS {
        for (name, carrier) in CARRIERS {
            let variant = format!("{}{name}", grouped(associations.into(), 0));
            let setting = Setting { carrier, associations, size: 128 };
            entrants.push(Entrant::new(bed.stack, variant, setting));
        }
    }
    let case = name(Case::Associations);
    let measured =
        in_turns(bed, &case, extent.rounds, &entrants, |entrant| come_up(bed, entrant.setting))?;
    Ok(CaseResults {
        name: case,
        what: format!(
            "Associations with two paths that all begin at once, of one process to another, until the last is up; {}.",
            bed.pinning()
        ),
        columns: vec![
            Column::plotted("rate", "associations/s", 0),
            Column::new("last", "last one up, s", 2),
            Column::new("failed", "failed connects", 0),
        ],
        comparisons: Vec::new(),
        rows: measured.rows,
        notes: measured.notes,
    })
}

fn come_up(bed: &Bed, setting: Setting) -> anyhow::Result<Figures> {
    let network = bed.pinned_network(&setting.options())?;
    let (number, seconds) = (setting.associations.to_string(), START.as_secs().to_string());
    // Each has one message in its time.
    let words = ["--clients", &number, "--connect-rate", MANY, "--rate", &number];
    let rest = ["--size", "128", "--duration", &seconds, "--connect-timeout", &seconds];
    let report = network.start(&[&words[..], &rest].concat())?.report(START)?;
    let up = report["associations"].as_array().context("the report has no associations")?;
    let times = up.iter().filter_map(|association| association["connected"].as_f64());
    let last = times.fold(0.0, f64::max);
    ensure!(last > 0.0, "no association came up: {}", report["causes"]);
    Ok(figures([
        ("rate", up.len() as f64 / last),
        ("last", last),
        ("failed", number_of(&report, "failedConnects")?),
    ]))
}

/// As fast as they are taken.
pub fn messages(bed: &Bed, extent: Extent) -> anyhow::Result<CaseResults> {
    let mut entrants = Vec::new();
    for (associations, size) in [(1, 128), (100, 128), (100, 1_024)] {
        for (name, carrier) in CARRIERS {
            let plural = if associations == 1 { "" } else { "s" };
            let size_text = grouped(size.into(), 0);
            let variant = format!("{associations} association{plural}, {size_text} bytes{name}");
            let setting = Setting { carrier, associations, size };
            entrants.push(Entrant::new(bed.stack, variant, setting));
        }
    }
    let case = name(Case::Messages);
    let measured = in_turns(bed, &case, extent.rounds, &entrants, |entrant| {
        exchange(bed, entrant.setting, extent.duration)
    })?;
    Ok(CaseResults {
        name: case,
        what: format!(
            "Messages that a server answers, sent by one process as fast as its stack takes them; {}.",
            bed.pinning()
        ),
        columns: vec![
            Column::plotted("rate", "answers/s", 0),
            Column::plotted("server", "server, µs/message", 1),
            Column::new("lost", "unanswered after 5 s", 0),
        ],
        comparisons: Vec::new(),
        rows: measured.rows,
        notes: measured.notes,
    })
}

fn exchange(bed: &Bed, setting: Setting, duration: Duration) -> anyhow::Result<Figures> {
    let network = bed.pinned_network(&setting.options())?;
    let before = network.server_cpu()?;
    let (number, size) = (setting.associations.to_string(), setting.size.to_string());
    let seconds = duration.as_secs_f64().to_string();
    let words = ["--clients", &number, "--rate", MANY, "--size", &size, "--duration", &seconds];
    let report =
        network.start(&[&words[..], &["--detail", "summary"]].concat())?.report(duration)?;
    let server = network.server_cpu()?.saturating_sub(before);
    let received = number_of(&report, "received")?;
    ensure!(received > 0.0, "nothing was answered: {}", report["causes"]);
    let took = report["took"].as_f64().context("the report does not say how long it took")?;
    Ok(figures([
        ("rate", received / took),
        ("server", server.as_secs_f64() * 1e6 / received),
        ("lost", number_of(&report, "lost")?),
    ]))
}

fn number_of(report: &Value, key: &str) -> anyhow::Result<f64> {
    report[key].as_f64().with_context(|| format!("the report has no {key}"))
}
