//! Links that lose, delay, double, reorder or corrupt what passes them.
//!
//! A link joins a device of a node with its network. Either the kernel impairs it, by a netem queue
//! for each direction that suffers, or a process that stands between: the port of the switch that
//! leads to the node moves to a bridge of its own, which a process (`evil`) joins with the network by
//! two taps.
//!
//! What leaves the node queues on its device. What comes to it queues at the switch's end of the
//! link; where this side's kernel has no netem, but that of a machine has, it queues in the machine:
//! all that comes in is led through a device `back-…` (ifb) first.

use std::fmt;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::address::{NetId, NodeId};
use crate::net::{Switch, network, port};
use crate::node::{Node, Ran};
use crate::state::ProcessId;
use crate::wait;

/// What impairs a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Means {
    Kernel,
    Process,
}

/// How a link is to be impaired, in the words of `evil`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    pub words: Vec<String>,
    /// None for the kernel if it can do it, else a process.
    pub means: Option<Means>,
    /// For a process: the same seed has the same effect on the same packets.
    pub seed: Option<u32>,
}

/// A link of a running cluster.
pub struct Link<'a> {
    pub switch: &'a Switch,
    pub node: &'a Node,
    pub id: NodeId,
    pub device: &'a str,
    pub net: NetId,
    /// Where the cluster keeps what belongs to it.
    pub work: PathBuf,
    pub bin_dir: &'a Path,
}

/// What is kept about a link that is impaired.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Impairment {
    pub means: Means,
    pub words: Vec<String>,
    seed: Option<u32>,
    process: Option<ProcessId>,
    /// Whether the kernel's queue for the way back is in the node.
    back_in_node: bool,
}

/// Where the kernel's queue for the way back is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Back {
    Switch,
    Node,
}

const PROGRAM: &str = "evil";

/// What a link takes at most, so that none is narrower than before.
const WIDEST_MTU: &str = "65521";

/// How long the process may take to start, or to say what it has done.
const PATIENCE: Duration = Duration::from_secs(10);

impl Wish {
    /// What it says must make sense to the program that carries it out.
    pub fn check(&self, bin_dir: &Path) -> Result<()> {
        let ran = Command::new(bin_dir.join(PROGRAM)).arg("-check").args(self.operands()?).output();
        let ran = ran.with_context(|| format!("run {PROGRAM} of {}", bin_dir.display()))?;
        if !ran.status.success() {
            let said = String::from_utf8_lossy(&ran.stderr);
            let said = said.trim();
            bail!("{}", said.strip_prefix("evil: ").unwrap_or(said));
        }
        Ok(())
    }

    fn operands(&self) -> Result<impl Iterator<Item = &str>> {
        let words = || self.words.iter().flat_map(|word| word.split_whitespace());
        if let Some(word) = words().find(|word| word.starts_with('-')) {
            bail!("read {word}: no word of an impairment begins with a dash");
        }
        Ok(words())
    }
}

impl Link<'_> {
    /// Impairs the link; what was wished before is over.
    pub fn impair(&self, wish: &Wish) -> Result<Means> {
        wish.check(self.bin_dir).with_context(|| format!("impair {self}"))?;
        self.mend()?;
        let words: Vec<&str> = wish.operands()?.collect();
        let by_kernel = match (wish.means, netem(&words)) {
            (Some(Means::Process), _) => None,
            (Some(Means::Kernel), None) => {
                bail!("impair {self}: the kernel cannot do {}", words.join(" "))
            }
            (_, None) => None,
            (asked, Some(lanes)) => match self.impair_by_kernel(&lanes)? {
                Ok(back) => Some(back),
                Err(reason) if asked == Some(Means::Kernel) => bail!("impair {self}: {reason}"),
                Err(_) => None,
            },
        };
        let (means, process) = match by_kernel {
            Some(_) => (Means::Kernel, None),
            None => (Means::Process, Some(self.impair_by_process(&words, wish.seed)?)),
        };
        let words = words.into_iter().map(str::to_owned).collect();
        let back_in_node = by_kernel == Some(Back::Node);
        self.keep(&Impairment { means, words, seed: wish.seed, process, back_in_node })?;
        Ok(means)
    }

    /// The same again after the node was started anew: what its kernel knew of it is gone.
    pub fn renew(&self) -> Result<()> {
        let Some(Impairment { means, words, seed, .. }) = self.impairment()? else { return Ok(()) };
        self.impair(&Wish { words, means: Some(means), seed }).map(drop)
    }

    /// Makes the link what it was. False when it was that already.
    pub fn mend(&self) -> Result<bool> {
        let Some(impairment) = self.impairment()? else { return Ok(false) };
        match impairment.process {
            Some(process) => {
                // First, so that the link is cut for as short as can be.
                self.switch.ip_batch(&self.rejoin())?;
                process.kill()?;
            }
            None => self.remove_queues()?,
        }
        let record = self.file("json");
        fs::remove_file(&record).with_context(|| format!("remove {}", record.display()))?;
        Ok(true)
    }

    /// None when the link is as it should be.
    pub fn impairment(&self) -> Result<Option<Impairment>> {
        let path = self.file("json");
        let what = || format!("read {}", path.display());
        match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            text => serde_json::from_slice(&text.with_context(what)?).with_context(what),
        }
    }

    /// What has happened to frames so far: a line of JSON by a process, else the kernel's own text.
    pub fn statistics(&self, impairment: &Impairment) -> Result<String> {
        let Some(process) = impairment.process else {
            let node = |device: &str| {
                self.node.run(&["tc", "-s", "qdisc", "show", "dev", device])?.success()
            };
            let back = match impairment.back_in_node {
                true => node(&self.back_device())?,
                false => self.tc("-s qdisc show", "")?.success()?,
            };
            return Ok(format!("there: {}back: {back}", node(self.device)?));
        };
        let log = self.file("log");
        let lines = || fs::read_to_string(&log).with_context(|| format!("read {}", log.display()));
        let before = lines()?.lines().count();
        process.signal_user()?;
        wait::until("the process of the link to tell what it has done", PATIENCE, || {
            let text = lines()?;
            // A line that is not complete yet has no end.
            let complete = text.ends_with('\n').then_some(&text);
            Ok(complete.and_then(|text| Some(text.lines().nth(before)?.to_owned())))
        })
    }

    /// The inner error says why the kernel cannot do it.
    fn impair_by_kernel(&self, lanes: &[Vec<&str>; 2]) -> Result<Result<Back, String>> {
        let [there, back] = lanes;
        let queued = self.queue_there(there).and_then(|queued| match queued {
            Ok(()) => self.queue_back(back),
            Err(reason) => Ok(Err(reason)),
        })?;
        if queued.is_err() {
            self.remove_queues()?;
        }
        Ok(queued)
    }

    /// Where nothing is to be done there is no queue.
    fn queue_there(&self, lane: &[&str]) -> Result<Result<(), String>> {
        if lane.is_empty() {
            return Ok(Ok(()));
        }
        let add = ["tc", "qdisc", "add", "dev", self.device, "root", "netem"];
        Ok(done(&self.node.run(&[&add[..], lane].concat())?))
    }

    fn queue_back(&self, lane: &[&str]) -> Result<Result<Back, String>> {
        if lane.is_empty() {
            return Ok(Ok(Back::Switch));
        }
        let netem = format!("root netem {}", lane.join(" "));
        let reason = match done(&self.tc("qdisc add", &netem)?) {
            Ok(()) => return Ok(Ok(Back::Switch)),
            Err(reason) => reason,
        };
        // Others have the same kernel as the switch.
        if !self.node.is_machine() {
            return Ok(Err(reason));
        }
        let (device, back) = (self.device, self.back_device());
        // Asked for by its kind alone, the module would make two more.
        let script = format!(
            "modprobe -q ifb numifbs=0 || true
             ip link add {back} type ifb
             echo 1 >/proc/sys/net/ipv6/conf/{back}/disable_ipv6
             ip link set {back} up
             tc qdisc add dev {back} {netem}
             tc qdisc add dev {device} ingress
             tc filter add dev {device} ingress matchall action mirred egress redirect dev {back}"
        );
        let ran = self.node.entry().run_with_input(&["sh", "-eu"], &script)?;
        Ok(done(&ran).map(|()| Back::Node))
    }

    /// Those that are not there need not be removed.
    fn remove_queues(&self) -> Result<()> {
        self.node.run(&["tc", "qdisc", "del", "dev", self.device, "root"])?;
        if self.node.is_machine() {
            self.node.run(&["tc", "qdisc", "del", "dev", self.device, "ingress"])?;
            self.node.run(&["ip", "link", "del", &self.back_device()])?;
        }
        self.tc("qdisc del", "root").map(drop)
    }

    /// In a machine: where what comes to it queues.
    fn back_device(&self) -> String {
        format!("back-{}", self.device)
    }

    /// `tc` at the switch's end.
    fn tc(&self, verb: &str, rest: &str) -> Result<Ran> {
        let port = port(self.id, self.net);
        let words: Vec<&str> =
            verb.split(' ').chain(["dev", &port]).chain(rest.split_whitespace()).collect();
        let mut command = Command::new("tc");
        command.args(&words);
        self.switch.run(command, "tc on the switch", "")
    }

    fn impair_by_process(&self, words: &[&str], seed: Option<u32>) -> Result<ProcessId> {
        let (near, far, middle) = (self.name("near"), self.name("far"), self.name("mid"));
        let log = self.file("log");
        let folder = log.parent().unwrap_or(&self.work);
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let errors = output.try_clone().context("share its log")?;
        let mut command = Command::new(self.bin_dir.join(PROGRAM));
        command.args(["-link", &format!("{near},{far}"), "-mtu", WIDEST_MTU]).args(words);
        if let Some(seed) = seed {
            command.args(["-seed", &seed.to_string()]);
        }
        // Signals of a terminal are not for it.
        command.process_group(0).stdin(Stdio::null()).stdout(output).stderr(errors);
        let mut child =
            self.switch.spawn(&mut command).with_context(|| format!("start {PROGRAM}"))?;
        let ready = wait::until(&format!("{PROGRAM} to be ready"), PATIENCE, || {
            let said = fs::read_to_string(&log).context("read its log")?;
            if let Some(status) = child.try_wait().context("wait for it")? {
                bail!("start {PROGRAM}: ended with {status}: {}", said.trim());
            }
            Ok(said.contains("ready:").then_some(()))
        });
        let joined = ready.and_then(|()| {
            self.switch.ip_batch(&format!(
                "link add {middle} type bridge mcast_snooping 0\n\
                 link set {near} master {middle}\n\
                 link set {far} master {}\n\
                 link set {middle} up\n\
                 link set {} master {middle}\n",
                network(self.net),
                port(self.id, self.net)
            ))?;
            ProcessId::of(child.id()).context("find the process of the link: it has ended")
        });
        if joined.is_err() {
            // These fail when there is nothing to undo, which is what is wanted.
            let _ = self.switch.ip_batch(&self.rejoin());
            let _ = child.kill();
            let _ = child.wait();
        }
        joined
    }

    /// The port is on its network again.
    fn rejoin(&self) -> String {
        let (port, network) = (port(self.id, self.net), network(self.net));
        format!("link set {port} master {network}\nlink del {}\n", self.name("mid"))
    }

    fn keep(&self, impairment: &Impairment) -> Result<()> {
        let path = self.file("json");
        let folder = path.parent().unwrap_or(&self.work);
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, serde_json::to_vec(impairment)?))
            .with_context(|| format!("write {}", path.display()))
    }

    fn file(&self, kind: &str) -> PathBuf {
        self.work.join("impaired").join(format!("{}.{kind}", port(self.id, self.net)))
    }

    /// The name of a device of the switch.
    fn name(&self, kind: &str) -> String {
        format!("{kind}{}-{}", self.net.0, self.id)
    }
}

impl fmt::Display for Link<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.device, self.id)
    }
}

/// The error is what a command said that failed.
fn done(ran: &Ran) -> Result<(), String> {
    if ran.succeeded() { Ok(()) } else { Err(ran.stderr().trim().to_owned()) }
}

/// The same in the words of netem, there and back; None when it has none for it.
fn netem<'a>(words: &[&'a str]) -> Option<[Vec<&'a str>; 2]> {
    let mut lanes = [Vec::new(), Vec::new()];
    let mut meant = [true, true];
    let mut words = words.iter().copied().peekable();
    while let Some(word) = words.next() {
        match word {
            "there" => meant = [true, false],
            "back" => meant = [false, true],
            "both" => meant = [true, true],
            "all" => {}
            "loss" | "duplicate" | "corrupt" | "delay" | "rate" | "limit" => {
                let mut part = vec![word];
                let is_value = |word: &&str| {
                    *word == "reorder" || word.starts_with(|c: char| c.is_ascii_digit())
                };
                part.extend(std::iter::from_fn(|| words.next_if(is_value)));
                if part.iter().any(|value| value.starts_with("1/")) {
                    return None;
                }
                for (lane, _) in lanes.iter_mut().zip(meant).filter(|(_, meant)| *meant) {
                    // It does each but once, in an order of its own.
                    if lane.contains(&word) {
                        return None;
                    }
                    lane.extend(&part);
                }
            }
            _ => return None,
        }
    }
    Some(lanes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(words: &str) -> Option<[String; 2]> {
        let lanes = netem(&words.split(' ').collect::<Vec<_>>())?;
        Some(lanes.map(|lane| lane.join(" ")))
    }

    #[test]
    fn the_kernel_has_words_for_most() {
        let same =
            "loss 1% delay 10ms 2ms reorder 5% duplicate 0.5% corrupt 1% rate 10mbit limit 50";
        assert_eq!(lanes(same), Some([same, same].map(str::to_owned)));
        let [there, back] = lanes("loss 1% there delay 1ms back rate 1mbit").unwrap();
        assert_eq!((there.as_str(), back.as_str()), ("loss 1% delay 1ms", "loss 1% rate 1mbit"));
        assert_eq!(lanes("back loss 1%"), Some([String::new(), "loss 1%".to_owned()]));
    }

    #[test]
    fn it_has_none_for_the_rest() {
        for words in
            ["reverse", "loss 1/20", "first loss 1%", "corrupt 1% mended", "loss 1% loss 2%"]
        {
            assert_eq!(lanes(words), None, "{words}");
        }
    }
}
