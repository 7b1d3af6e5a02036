//! Nodes on their way: launched together, given devices and files, then their start-up scripts.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::activity;
use crate::address::NodeId;
use crate::holder::OWN_EXE;
use crate::init;
use crate::namespace::{Births, in_a_thread};
use crate::node::{Entry, Node};
use crate::topology::plan::NodePlan;
use crate::vm::Machines;

/// What all nodes of a cluster have in common.
pub struct Site {
    /// The folder that has the cluster's overlays.
    pub work: PathBuf,
    /// The binaries under test.
    pub bin_dir: PathBuf,
    /// What nodes are made of that are machines.
    pub machines: Option<Machines>,
}

/// Nodes that are about to start.
pub struct Starting {
    nodes: Vec<(NodeId, Node)>,
    inputs: Vec<ChildStdin>,
    outputs: Vec<(NodeId, BufReader<ChildStdout>)>,
}

impl Starting {
    /// Starts nodes, all at the same time. They have no devices and no processes yet.
    pub fn launch(plans: &[NodePlan], site: &Site) -> Result<Self> {
        let children = in_a_thread(|| {
            let births = Births::new()?;
            let launch = |plan: &NodePlan| {
                births.start(|| launch(plan, site)).with_context(|| format!("start {}", plan.id))
            };
            plans.iter().map(launch).collect::<Result<Vec<_>>>()
        })?;
        let mut starting = Self { nodes: Vec::new(), inputs: Vec::new(), outputs: Vec::new() };
        for (NodePlan { id, .. }, mut child) in plans.iter().zip(children) {
            starting.inputs.push(child.stdin.take().context("take standard input")?);
            let output = child.stdout.take().context("take standard output")?;
            starting.outputs.push((*id, BufReader::new(output)));
            let entry = Entry::new(*id, child.id(), &site.work, site.machines.is_some());
            starting.nodes.push((*id, Node::started(entry, child)));
        }
        Ok(starting)
    }

    pub fn nodes(&self) -> &[(NodeId, Node)] {
        &self.nodes
    }

    /// Waits until every node can be given devices and files.
    pub fn wait_there(&mut self, limit: Duration, say: &mut dyn FnMut(usize)) -> Result<()> {
        self.wait_for(init::THERE, "to come up", limit, say)
    }

    /// Lets the start-up scripts run in every node, and returns when all have ended well.
    pub fn go(mut self, limit: Duration) -> Result<Vec<(NodeId, Node)>> {
        for ((id, _), mut input) in self.nodes.iter().zip(std::mem::take(&mut self.inputs)) {
            input.write_all(init::GO.as_bytes()).with_context(|| format!("start {id}"))?;
        }
        self.wait_for(init::STARTED, "to run its start-up scripts", limit, &mut |_| {})?;
        Ok(self.nodes)
    }

    /// Waits until every node has said a word; tells how many have.
    fn wait_for(
        &mut self,
        word: &'static str,
        what: &str,
        limit: Duration,
        say: &mut dyn FnMut(usize),
    ) -> Result<()> {
        let deadline = activity::deadline(limit);
        let (report, reports) = mpsc::channel();
        let mut missing: Vec<NodeId> = Vec::new();
        for (id, mut output) in std::mem::take(&mut self.outputs) {
            let report = report.clone();
            missing.push(id);
            // Reading may take longer than the deadline; then it ends with the nodes.
            thread::spawn(move || {
                let read = read_word(&mut output, word);
                // Nobody listens after the deadline.
                let _ = report.send((id, output, read));
            });
        }
        while let Some(first) = missing.first() {
            let what = format!("{first} {what}");
            let _doing = activity::doing(&what);
            let left = deadline.saturating_duration_since(Instant::now());
            let (id, output, read) = reports.recv_timeout(left).map_err(|_| {
                anyhow!("wait for {what}: not seen in time{}", self.words_of(*first))
            })?;
            read.with_context(|| format!("start {id}"))?;
            self.outputs.push((id, output));
            missing.retain(|other| *other != id);
            say(self.outputs.len());
        }
        Ok(())
    }

    /// The last words of a node that says no more.
    fn words_of(&self, id: NodeId) -> String {
        let found = self.nodes.iter().find(|(other, _)| *other == id);
        found.map(|(_, node)| node.entry().last_words()).unwrap_or_default()
    }
}

fn launch(plan: &NodePlan, site: &Site) -> Result<Child> {
    if let Some(machines) = &site.machines {
        return machines.launch(plan, &site.work);
    }
    Command::new(OWN_EXE)
        .arg0("ovl")
        .args(["init", &plan.id.to_string()])
        .args([&site.work, &site.bin_dir])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start process 1")
}

fn read_word(output: &mut impl BufRead, word: &str) -> Result<()> {
    let mut failure = Vec::new();
    for line in output.lines() {
        let line = line.context("read its report")?;
        if line == word {
            return Ok(());
        }
        failure.extend(line.strip_prefix(init::FAILURE).map(str::to_owned));
    }
    if failure.is_empty() {
        bail!("its process 1 was ended");
    }
    bail!("{}", failure.join("\n"))
}
