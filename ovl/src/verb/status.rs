//! `ovl status`: which clusters run, and what they consist of.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use crate::cli::StatusArgs;
use crate::cluster::{NodeRecord, Record, now};
use crate::state::{Folder, ProcessId};

/// A cluster as it is found.
struct Found {
    folder: Folder,
    holder: Option<ProcessId>,
    record: Option<Record>,
}

pub fn run(args: &StatusArgs) -> Result<ExitCode> {
    let folders = match &args.cluster {
        Some(name) => vec![Folder::of(name)?],
        None => Folder::all()?,
    };
    let found = folders.into_iter().map(Found::new).collect::<Result<Vec<_>>>()?;
    let runs = found.iter().any(|found| found.holder.is_some());
    if args.json {
        let list: Vec<Value> = found.iter().map(Found::to_json).collect();
        println!("{}", serde_json::to_string_pretty(&list)?);
    } else if found.is_empty() {
        println!("no cluster is running");
    } else {
        let texts: Vec<String> = found.iter().map(Found::to_text).collect();
        print!("{}", texts.join("\n"));
    }
    // Who asks for one wants to know whether it runs.
    Ok(if runs || args.cluster.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Found {
    fn new(folder: Folder) -> Result<Self> {
        let (holder, record) = (folder.holder()?, folder.cluster()?);
        Ok(Self { folder, holder, record })
    }

    fn state(&self) -> &'static str {
        match (self.holder, &self.record) {
            (Some(_), Some(_)) => "running",
            (Some(_), None) => "starting",
            (None, _) if self.folder.exists() => "left behind",
            (None, _) => "not running",
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "cluster": self.folder.name().as_str(),
            "state": self.state(),
            "holder": self.holder.map(|holder| holder.pid),
            "topology": self.record.as_ref().map(|record| &record.topology),
            "backend": self.record.as_ref().map(|record| record.order.backend.name()),
            "started": self.record.as_ref().map(|record| record.started),
            "overlays": self.record.as_ref().map(|record| &record.order.overlays),
            "variables": self.record.as_ref().map(|record| &record.order.variables),
            "nets": self.record.as_ref().map(|record| &record.nets),
            "nodes": self.record.as_ref().map(|record| self.nodes_json(record)),
        })
    }

    fn nodes_json(&self, record: &Record) -> Vec<Value> {
        let node = |node: &NodeRecord| {
            let alive = self.holder.is_some_and(|holder| node.init.is_alive_below(holder));
            json!({ "number": node.number, "name": node.name, "role": node.role, "running": alive, "devices": node.devices })
        };
        record.nodes.iter().map(node).collect()
    }

    fn to_text(&self) -> String {
        let mut text = format!("{}: {}", self.folder.name(), self.state());
        let (Some(holder), Some(record)) = (self.holder, &self.record) else {
            return text + "\n";
        };
        let up = now().saturating_sub(record.started);
        let _ = writeln!(
            text,
            " for {up} s, {}, {} nodes ({}), process {}",
            record.topology,
            record.nodes.len(),
            record.order.backend.name(),
            holder.pid
        );
        let _ = writeln!(text, "  overlays {}", record.order.overlays.join(" "));
        for node in &record.nodes {
            let ended = if node.init.is_alive_below(holder) { "" } else { "  ENDED" };
            text += &format!("{}{ended}\n", node_line(node));
        }
        text
    }
}

fn node_line(node: &NodeRecord) -> String {
    let devices: Vec<String> =
        node.devices.iter().map(|device| format!("{}=net{}", device.name, device.net)).collect();
    format!("  {} {:6} {}", node.name, node.role, devices.join(" "))
}
