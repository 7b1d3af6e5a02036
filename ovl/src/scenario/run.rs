//! A scenario on a cluster: its steps, one after the other.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Action, Expected, Feature, Nodes, Scenario, Verb};
use crate::activity;
use crate::address::NodeId;
use crate::case::{self, Skip, check};
use crate::cluster::Cluster;
use crate::impair::Wish;
use crate::lab::{Lab, SLOWNESS_OF_MACHINES};
use crate::node::{Node, Ran};
use crate::process::Process;
use crate::progress;
use crate::wait;

/// Every command knows the variables of the cluster and the verbs of its overlays.
const PRELUDE: &str = ". /usr/lib/ovl/verbs.sh\n";

/// Exit codes of a command that ran and failed. Above are those of a command that `timeout` ended,
/// that could not be started, or that a signal ended.
const FAILURES: std::ops::RangeInclusive<i32> = 1..=123;

impl Scenario {
    /// Runs it; the error tells the step, its action, what was expected and what was seen.
    pub fn run(&self, lab: &mut Lab) -> Result<()> {
        for feature in &self.needs {
            if !feature.is_there(&lab.cluster)? {
                return Err(Skip(feature.to_string()).into());
            }
        }
        let pace = if lab.is_on_machines() { SLOWNESS_OF_MACHINES } else { 1 };
        let mut stage = Stage { cluster: &lab.cluster, programs: &mut lab.programs, pace };
        for step in &self.steps {
            progress::tell("step", &step.title);
            let limit = case::limit(step.limit) * pace;
            let _limit = activity::limit(limit);
            for action in &step.actions {
                stage.act(action, limit).with_context(|| Place {
                    step: step.title.clone(),
                    file: self.file.clone(),
                    line: action.line,
                })?;
            }
        }
        Ok(())
    }
}

/// Where in a scenario something failed.
#[derive(Debug)]
struct Place {
    step: String,
    file: String,
    line: usize,
}

/// The cluster and what was started on it.
struct Stage<'a> {
    cluster: &'a Cluster,
    programs: &'a mut BTreeMap<(NodeId, String), Process>,
    /// How much longer things may take than the file says.
    pace: u32,
}

impl Stage<'_> {
    fn act(&mut self, action: &Action, limit: Duration) -> Result<()> {
        match &action.verb {
            Verb::Run { nodes, expected, command } => {
                let nodes = each(self.cluster, nodes)?;
                let expected = match *expected {
                    Expected::SuccessWithin(limit) => Expected::SuccessWithin(limit * self.pace),
                    other => other,
                };
                let printed = nodes.iter().map(|(_, node)| run(node, expected, command, limit));
                let printed = printed.collect::<Result<Vec<_>>>()?;
                if expected == Expected::Same {
                    check_same(&nodes, &printed)?;
                }
            }
            Verb::Start { nodes, program, command } => {
                for (id, node) in each(self.cluster, nodes)? {
                    let key = (id, program.clone());
                    if self.programs.contains_key(&key) {
                        bail!("start {program} on {id}: it was started before");
                    }
                    let command = format!("{PRELUDE}exec {command}");
                    let process = node.spawn(program, &["sh", "-euc", &command])?;
                    self.programs.insert(key, process);
                }
            }
            Verb::Impair { nodes, device, words } => {
                for (id, _) in each(self.cluster, nodes)? {
                    let link = self.cluster.link(id, device)?;
                    progress::tell(
                        &id.to_string(),
                        &format!("impair {device}: {}", words.join(" ")),
                    );
                    match words.as_slice() {
                        [off] if off == "off" => {
                            let was_impaired = link.mend()?;
                            check(was_impaired, format!("{link} to be impaired"), "it was not")?;
                        }
                        _ => {
                            link.impair(&Wish { words: words.clone(), ..Wish::default() })?;
                        }
                    }
                }
            }
            Verb::Await { nodes, program } => {
                for (id, _) in each(self.cluster, nodes)? {
                    let mut process = self.take(id, program)?;
                    let status = process.wait(limit)?;
                    let log = process.log();
                    progress::tell(&id.to_string(), &log);
                    check(
                        status.success(),
                        format!("{program} on {id} to end with exit code 0"),
                        format!("{status} and\n{log}"),
                    )?;
                }
            }
            Verb::Stop { nodes, program } => {
                for (id, _) in each(self.cluster, nodes)? {
                    let mut process = self.take(id, program)?;
                    let ended = process.ended()?;
                    check(
                        ended.is_none(),
                        format!("{program} on {id} to be there still"),
                        format!("{ended:?} and\n{}", process.log()),
                    )?;
                    process.signal("TERM")?;
                    process.wait(limit)?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, id: NodeId, program: &str) -> Result<Process> {
        self.programs
            .remove(&(id, program.to_owned()))
            .with_context(|| format!("find {program} on {id}: it was not started"))
    }
}

/// The nodes of a cluster that are meant.
fn each<'a>(cluster: &'a Cluster, nodes: &Nodes) -> Result<Vec<(NodeId, &'a Node)>> {
    let found: Vec<_> = cluster.nodes().filter(|(id, _)| nodes.holds(*id)).collect();
    // Nodes that are named must be there, of a range or a role at least one.
    let absent = nodes.named().find(|id| found.iter().all(|(other, _)| other != id));
    match absent {
        Some(id) => bail!("find node {id}: not in this cluster"),
        None if found.is_empty() => bail!("find nodes {nodes}: none in this cluster"),
        None => Ok(found),
    }
}

fn check_same(nodes: &[(NodeId, &Node)], printed: &[String]) -> Result<()> {
    // One node is always like itself.
    if nodes.len() < 2 {
        bail!("compare nodes: there is one only");
    }
    let all: Vec<String> =
        nodes.iter().zip(printed).map(|((id, _), text)| format!("{id}: {text}")).collect();
    let same = printed.windows(2).all(|pair| pair[0] == pair[1]);
    check(same, "the same on all nodes", all.join("\n"))
}

/// Returns what the command printed on standard output.
fn run(node: &Node, expected: Expected, command: &str, limit: Duration) -> Result<String> {
    if let Expected::SuccessWithin(limit) = expected {
        return run_until_success(node, command, limit);
    }
    progress::tell(node.name(), command);
    let ran = attempt(node, command, limit)?;
    let output = describe(&ran);
    progress::tell(node.name(), &output);
    let expect =
        |holds, what: &str| check(holds, format!("{what} of\n{}: {command}", node.name()), &output);
    if expected == Expected::Failure {
        let failed = ran.code().is_some_and(|code| FAILURES.contains(&code));
        expect(failed, "an exit code of 1 to 123")?;
    } else {
        expect(ran.succeeded(), "exit code 0")?;
    }
    Ok(ran.stdout())
}

fn run_until_success(node: &Node, command: &str, limit: Duration) -> Result<String> {
    progress::tell(node.name(), &format!("within {limit:?}: {command}"));
    // The last attempt must not take longer either.
    let _limit = activity::limit(limit);
    let mut output = String::new();
    let succeeded = wait::until(&format!("{command} to succeed"), limit, || {
        let ran = attempt(node, command, limit)?;
        output = describe(&ran);
        Ok(ran.succeeded().then(|| ran.stdout()))
    });
    progress::tell(node.name(), &output);
    // Without any it never ran.
    if succeeded.is_err() && !output.is_empty() {
        let expected = format!("exit code 0 within {limit:?} of\n{}: {command}", node.name());
        check(false, expected, output)?;
    }
    succeeded
}

fn attempt(node: &Node, command: &str, limit: Duration) -> Result<Ran> {
    let script = format!("{PRELUDE}{command}");
    node.run_within(limit, &["sh", "-euc", &script])
}

fn describe(ran: &Ran) -> String {
    let code = match ran.code() {
        // Of `timeout`: it ended in time, or had to be killed.
        Some(124 | 137) => "killed at the end of its time".to_owned(),
        Some(code) => format!("exit code {code}"),
        None => "killed by a signal".to_owned(),
    };
    let (stdout, stderr) = (ran.stdout(), ran.stderr());
    [code.as_str(), stdout.trim_end(), stderr.trim_end()]
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join("\n")
}

impl Feature {
    /// Nodes of namespaces have the kernel of this machine, and all machines the same one.
    fn is_there(self, cluster: &Cluster) -> Result<bool> {
        let Some((_, node)) = cluster.nodes().next() else { return Ok(false) };
        match self {
            Self::Nfqueue => {
                if node.is_machine() {
                    // Fails when it is built in, or not there at all, which is seen next.
                    node.run(&["modprobe", "-q", "nfnetlink_queue"])?;
                }
                let file = "/proc/net/netfilter/nfnetlink_queue";
                Ok(node.run(&["test", "-e", file])?.succeeded())
            }
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nfqueue => "NFQUEUE",
        })
    }
}

impl Error for Place {}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {:?} ({}:{})", self.step, self.file, self.line)
    }
}
