//! `lb --check`: whether `lb` can work here with these options, and what would spoil fragments or errors.
//! Nothing is changed.

mod devices;
mod hops;
mod memory;
mod own_errors;
mod rules;
mod system;

use std::fmt::Write as _;
use std::io::{self, Write as _};

use anyhow::Context;
use lb_sys::nft::Nft;
use serde_json::{Value, json};
use tracing::{debug, warn};

use crate::args::Settings;
use memory::Memory;

/// What a check came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was checked.
    check: &'static str,
    level: Level,
    /// What is so.
    what: String,
    /// What to do about it; empty if nothing need be done.
    advice: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// As it should be.
    Ok,
    /// It could not be told, or is good to know.
    Note,
    /// `lb` runs, but packets may be lost or meet another target.
    Warning,
    /// `lb` cannot run so.
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

impl Finding {
    fn new(
        check: &'static str,
        level: Level,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Finding { check, level, what: what.into(), advice: advice.into() }
    }

    fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Finding::new(check, Level::Ok, what, "")
    }

    fn text(&self) -> String {
        let Finding { check, level, what, advice } = self;
        let line = format!("{:8} {check:13} {what}", level.name());
        if advice.is_empty() { line } else { format!("{line}; {advice}") }
    }

    fn json(&self) -> Value {
        let Finding { check, level, what, advice } = self;
        json!({ "check": check, "level": level.name(), "what": what, "do": advice })
    }
}

/// Checks all and prints it; whether all is well.
pub fn run(settings: &Settings, as_json: bool) -> anyhow::Result<bool> {
    let mut findings = system::findings(settings);
    // Not at start, which repairs them.
    findings.extend(hops::finding(settings));
    findings.extend(machine(settings));
    let memory = Memory::of(settings);
    let bad = findings.iter().filter(|finding| finding.level >= Level::Warning).count();
    let text = if as_json {
        let findings: Vec<Value> = findings.iter().map(Finding::json).collect();
        format!("{}\n", json!({"ok": bad == 0, "findings": findings, "memory": memory.json()}))
    } else {
        let mut text = String::new();
        for finding in &findings {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", finding.text());
        }
        let verdict = match bad {
            0 => "all is well".into(),
            1 => "one thing is not as it should be".into(),
            bad => format!("{bad} things are not as they should be"),
        };
        format!("{text}\n{}\n{verdict}\n", memory.text())
    };
    io::stdout().lock().write_all(text.as_bytes()).context("write to standard output")?;
    Ok(bad == 0)
}

/// Logs what a running `lb` has to live with.
pub fn warn_at_start(settings: &Settings) {
    for finding in machine(settings) {
        let text = match finding.advice.as_str() {
            "" => finding.what.clone(),
            advice => format!("{}; {advice}", finding.what),
        };
        match finding.level {
            Level::Warning | Level::Error => warn!("{}: {text}", finding.check),
            Level::Ok | Level::Note => debug!("{}: {text}", finding.check),
        }
    }
}

/// What others have set up on this machine: rules and devices.
fn machine(settings: &Settings) -> Vec<Finding> {
    let surveyed = Nft::open().and_then(|mut nft| nft.survey());
    let mut findings = match surveyed {
        Ok(survey) => rules::findings(settings, &survey),
        Err(error) => {
            let advice = "look at the rules yourself: what uses connection tracking must come after the queue";
            vec![Finding::new("rules", Level::Note, format!("could not be read: {error}"), advice)]
        }
    };
    findings.extend(devices::findings(settings));
    findings.extend(own_errors::findings(settings));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_what_to_do() {
        let finding = Finding::new("tun", Level::Error, "there is none", "load the module tun");
        assert_eq!(finding.text(), "error    tun           there is none; load the module tun");
        assert_eq!(Finding::ok("tun", "frag0").text(), "ok       tun           frag0");
        let json = json!({"check": "tun", "level": "error", "what": "there is none", "do": "load the module tun"});
        assert_eq!(finding.json(), json);
        assert!(Level::Ok < Level::Note && Level::Note < Level::Warning);
    }
}
