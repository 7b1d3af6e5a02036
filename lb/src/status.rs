//! The rules of an instance as they are, and their end.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use anyhow::{Context, bail};
use lb_sys::nft::{Entry, Hook, MarkCount};
use lb_sys::shm::StatsFile;
use serde_json::{Value, json};

use crate::args::Settings;
use crate::installed::{Found, Installed, NOTHING};
use crate::rules::{FAST, QUEUED, TARGETS};

/// Removes the rules.
pub fn down(settings: &Settings) -> anyhow::Result<()> {
    if is_running(settings) {
        let instance = &settings.instance;
        bail!(
            "remove the rules of {instance}: its lb is running and would make them anew; end it first"
        );
    }
    let mut installed = Installed::open(&settings.instance)?;
    let what = if installed.remove()? { "removed" } else { "there was none" };
    write_out(&format!("table inet {}: {what}\n", installed.table()))
}

/// Shows them.
pub fn print(settings: &Settings, as_json: bool) -> anyhow::Result<()> {
    let mut installed = Installed::open(&settings.instance)?;
    let found = installed.look()?;
    let mut maps = Vec::new();
    let (sets, slots): (Vec<_>, _) = found.maps.iter().partition(|map| map.name == TARGETS);
    let targets = if found.is_ours() && !sets.is_empty() {
        installed.counters_by_mark()?
    } else {
        Vec::new()
    };
    for map in slots {
        let elements = installed.elements(map)?;
        let filled = elements.iter().filter(|mark| **mark != NOTHING).count();
        maps.push((map.name.clone(), elements.len(), filled));
    }
    let running = is_running(settings);
    let status = Status { table: installed.table(), running, found, maps, targets };
    write_out(&if as_json { format!("{}\n", status.json()) } else { status.text() })
}

fn is_running(settings: &Settings) -> bool {
    StatsFile::open(&settings.folder, &settings.instance).is_ok_and(|stats| stats.is_running())
}

fn write_out(text: &str) -> anyhow::Result<()> {
    io::stdout().lock().write_all(text.as_bytes()).context("write to standard output")
}

struct Status<'a> {
    table: &'a str,
    running: bool,
    found: Found,
    /// Name, slots and how many of them have a mark.
    maps: Vec<(String, usize, usize)>,
    targets: Vec<MarkCount>,
}

impl Status<'_> {
    fn plane(&self) -> &'static str {
        match (self.found.is_ours(), self.maps.is_empty()) {
            (false, _) => "none",
            (true, true) => "slow",
            (true, false) => "fast",
        }
    }

    fn counter(&self, name: &str) -> (u64, u64) {
        let found = self.found.counters.iter().find(|counter| counter.name == name);
        found.map_or((0, 0), |counter| (counter.packets, counter.bytes))
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let lb = if self.running { "is running" } else { "is not running" };
        // Writing to a String cannot fail.
        let _ = match (&self.found.table, self.found.is_ours()) {
            (None, _) => writeln!(text, "table inet {}: there is none; lb {lb}", self.table),
            (_, false) => writeln!(text, "table inet {}: not made by lb", self.table),
            _ => writeln!(text, "table inet {}: {} plane; lb {lb}", self.table, self.plane()),
        };
        if !self.found.is_ours() {
            return text;
        }
        for (label, name) in [("by the kernel", FAST), ("to the queue", QUEUED)] {
            let (packets, bytes) = self.counter(name);
            let _ = writeln!(text, "{label:14} {packets} packets, {bytes} bytes");
        }
        for MarkCount { mark, packets, bytes } in &self.targets {
            let _ = writeln!(text, "  mark {mark:<7} {packets} packets, {bytes} bytes");
        }
        for (name, slots, filled) in &self.maps {
            let _ = writeln!(text, "map {name}: {filled} of {slots} slots have a mark");
        }
        for chain in &self.found.chains {
            let _ = writeln!(text, "chain {}{}", chain.name, in_words(chain.entry));
            for rule in self.found.rules.get(&chain.name).into_iter().flatten() {
                let _ = writeln!(text, "    {}", rule.split(" [").next().unwrap_or(rule));
            }
        }
        text
    }

    fn json(&self) -> Value {
        let counter = |name| {
            let (packets, bytes) = self.counter(name);
            json!({"packets": packets, "bytes": bytes})
        };
        let maps = self
            .maps
            .iter()
            .map(|(name, slots, filled)| json!({"name": name, "slots": slots, "filled": filled}));
        let targets = self.targets.iter().map(|MarkCount { mark, packets, bytes }| {
            json!({"mark": mark, "packets": packets, "bytes": bytes})
        });
        let chains = self.found.chains.iter().map(|chain| {
            let rules = self.found.rules.get(&chain.name);
            json!({"name": chain.name, "rules": rules.map_or(&[][..], Vec::as_slice)})
        });
        json!({
            "table": self.table,
            "installed": self.found.is_ours(),
            "plane": self.plane(),
            "running": self.running,
            "fast": counter(FAST),
            "queued": counter(QUEUED),
            "targets": targets.collect::<Vec<_>>(),
            "maps": maps.collect::<Vec<_>>(),
            "chains": chains.collect::<Vec<_>>(),
        })
    }
}

fn in_words(entry: Entry) -> &'static str {
    match entry {
        Entry::None => "",
        Entry::Hook(Hook::Prerouting) => " (packets that come in)",
        Entry::Hook(Hook::Output) => " (packets of this machine)",
        Entry::Other => " (a hook that lb did not make)",
    }
}
