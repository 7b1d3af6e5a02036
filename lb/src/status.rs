//! The rules of an instance as they are, and their end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::IpAddr;

use anyhow::{Context, bail};
use lb_sys::device::Devices;
use lb_sys::nft::{Entry, Hook, MarkCount, TableId};
use lb_sys::shm::StatsFile;
use serde_json::{Value, json};

use crate::args::Settings;
use crate::express::{self, EXPRESS};
use crate::installed::{Found, InstallError, Installed, NOTHING};
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
    let tables = installed.remove()?;
    // The second one is there only with --express.
    let lines =
        tables.iter().enumerate().filter(|(place, (_, was_there))| *place == 0 || *was_there);
    let lines = lines.map(|(_, (table, was_there))| {
        format!("table {table}: {}\n", if *was_there { "removed" } else { "there was none" })
    });
    write_out(&lines.collect::<String>())
}

/// Shows them.
pub fn print(settings: &Settings, as_json: bool) -> anyhow::Result<()> {
    let mut installed = Installed::open(&settings.instance)?;
    let found = installed.look()?.into_iter();
    let tables: Vec<Table> = found
        .map(|(id, found)| Table::read(&mut installed, id, found))
        .collect::<Result<_, _>>()?;
    let status = Status { tables, running: is_running(settings) };
    write_out(&if as_json { format!("{}\n", status.json()) } else { status.text() })
}

/// Whether the instance has an `lb`.
pub fn is_running(settings: &Settings) -> bool {
    StatsFile::open(&settings.folder, &settings.instance).is_ok_and(|stats| stats.is_running())
}

fn write_out(text: &str) -> anyhow::Result<()> {
    io::stdout().lock().write_all(text.as_bytes()).context("write to standard output")
}

struct Status {
    /// The one that marks and queues, then the one that forwards.
    tables: Vec<Table>,
    running: bool,
}

/// One of our names, whoever made it.
struct Table {
    id: TableId,
    found: Found,
    /// Name, slots and how many of them have a mark.
    maps: Vec<(String, usize, usize)>,
    targets: Vec<MarkCount>,
    /// Mark, device and neighbour.
    hops: Vec<(u32, u32, IpAddr)>,
}

impl Table {
    fn read(installed: &mut Installed, id: TableId, found: Found) -> Result<Self, InstallError> {
        let (mut maps, mut targets, mut hops) = (Vec::new(), Vec::new(), Vec::new());
        if found.is_ours() {
            hops = installed.next_hops(&id, &found)?;
        }
        for map in found.maps.iter().filter(|map| found.is_ours() && !express::is_hops(&map.name)) {
            if map.name == TARGETS {
                targets = installed.counters_by_mark(&id)?;
            } else {
                let elements = installed.elements(&id, map)?;
                let filled = elements.iter().filter(|mark| **mark != NOTHING).count();
                maps.push((map.name.clone(), elements.len(), filled));
            }
        }
        Ok(Table { id, found, maps, targets, hops })
    }

    fn counter(&self, name: &str) -> Option<(u64, u64)> {
        let mut counters = self.found.counters.iter();
        let found = counters.find(|counter| counter.name == name)?;
        Some((found.packets, found.bytes))
    }

    /// Nothing of the heading.
    fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        for (label, name) in COUNTERS {
            if let Some((packets, bytes)) = self.counter(name) {
                let _ = writeln!(text, "{label:14} {packets} packets, {bytes} bytes");
            }
        }
        for MarkCount { mark, packets, bytes } in &self.targets {
            let _ = writeln!(text, "  mark {mark:<7} {packets} packets, {bytes} bytes");
        }
        let devices = Devices::open();
        for (mark, device, address) in &self.hops {
            let device = match devices.as_ref().map(|devices| devices.name(*device)) {
                Ok(Ok(Some(name))) => name,
                Ok(Ok(None)) => format!("device {device}, which is gone"),
                Ok(Err(_)) | Err(_) => format!("device {device}"),
            };
            let _ = writeln!(text, "  mark {mark:<7} goes to {address} by {device}");
        }
        for (name, slots, filled) in &self.maps {
            let _ = writeln!(text, "map {name}: {filled} of {slots} slots have a mark");
        }
        for chain in &self.found.chains {
            let _ = writeln!(text, "chain {}{}", chain.name, in_words(&chain.entry));
            for rule in self.found.rules.get(&chain.name).into_iter().flatten() {
                let _ = writeln!(text, "    {}", rule.split(" [").next().unwrap_or(rule));
            }
        }
        text
    }
}

/// What is counted, in words and by its name.
const COUNTERS: [(&str, &str); 3] =
    [("by the kernel", FAST), ("to the queue", QUEUED), ("sent at once", EXPRESS)];

impl Status {
    fn is_installed(&self) -> bool {
        self.tables.first().is_some_and(|table| table.found.is_ours())
    }

    fn plane(&self) -> &'static str {
        match self.tables.iter().filter(|table| !table.maps.is_empty()).count() {
            _ if !self.is_installed() => "none",
            0 => "slow",
            1 => "fast",
            _ => "express",
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let lb = if self.running { "is running" } else { "is not running" };
        for (place, table) in self.tables.iter().enumerate() {
            let (id, is_first) = (&table.id, place == 0);
            let _ = match (&table.found.table, table.found.is_ours()) {
                (None, _) if !is_first => continue,
                (None, _) => writeln!(text, "table {id}: there is none; lb {lb}"),
                (_, false) => writeln!(text, "table {id}: not made by lb"),
                _ if is_first => writeln!(text, "table {id}: {} plane; lb {lb}", self.plane()),
                _ => writeln!(text, "table {id}"),
            };
            if table.found.is_ours() {
                text.push_str(&table.text());
            }
        }
        text
    }

    fn json(&self) -> Value {
        let counter = |name| {
            let found = self.tables.iter().find_map(|table| table.counter(name));
            let (packets, bytes) = found.unwrap_or((0, 0));
            json!({"packets": packets, "bytes": bytes})
        };
        let tables = || self.tables.iter();
        let maps = tables().flat_map(|table| &table.maps);
        let maps = maps
            .map(|(name, slots, filled)| json!({"name": name, "slots": slots, "filled": filled}));
        let mut targets: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for count in tables().flat_map(|table| &table.targets) {
            let (packets, bytes) = targets.entry(count.mark).or_default();
            *packets += count.packets;
            *bytes += count.bytes;
        }
        let targets = targets.into_iter().map(
            |(mark, (packets, bytes))| json!({"mark": mark, "packets": packets, "bytes": bytes}),
        );
        let hops = tables().flat_map(|table| &table.hops);
        let hops = hops.map(
            |(mark, device, address)| json!({"mark": mark, "device": device, "address": address}),
        );
        let chains = tables().filter(|table| table.found.is_ours()).flat_map(|table| {
            table.found.chains.iter().map(|chain| {
                let rules = table.found.rules.get(&chain.name);
                json!({"name": chain.name, "rules": rules.map_or(&[][..], Vec::as_slice)})
            })
        });
        json!({
            "table": self.tables.first().map(|table| &table.id.name),
            "installed": self.is_installed(),
            "plane": self.plane(),
            "running": self.running,
            "fast": counter(FAST),
            "express": counter(EXPRESS),
            "queued": counter(QUEUED),
            "targets": targets.collect::<Vec<_>>(),
            "next_hops": hops.collect::<Vec<_>>(),
            "maps": maps.collect::<Vec<_>>(),
            "chains": chains.collect::<Vec<_>>(),
        })
    }
}

fn in_words(entry: &Entry) -> &'static str {
    match entry {
        Entry::None => "",
        Entry::Hook(Hook::Prerouting) => " (packets that come in)",
        Entry::Hook(Hook::Output) => " (packets of this machine)",
        Entry::Hook(Hook::Ingress(_)) => " (all that comes in by the device)",
        Entry::Other => " (a hook that lb did not make)",
    }
}
