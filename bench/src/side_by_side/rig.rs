//! What every case uses: the networks, the programs, the signals.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use lb_sys::nfqueue::KernelCounters;
use lb_sys::shm::{Folder, MappedTable};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::consumer::Consumer;
use super::interrupt::Interrupt;
use super::lab::{Lab, MARKS, Way};
use super::load::{Load, Sent, generate};
use super::process::built;
use super::session::Session;
use super::substitute::CommandLine;

/// What a user can choose between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alternative {
    /// A router that balances nothing.
    Forward,
    /// Markway.
    Lb,
    /// Markway, which answers at once also where waiting a moment would save processor time.
    LbAtOnce,
    /// Markway's fast plane: the kernel marks packets by itself.
    Fast,
    /// Markway's express plane: the kernel sends packets to their next hop before its IP stack.
    Express,
    /// A consumer on the `nfq` crate.
    Nfq,
    /// The user's program.
    Peer,
}

impl fmt::Display for Alternative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Alternative::Forward => "forward",
            Alternative::Lb => "lb",
            Alternative::LbAtOnce => "lb --gather 0",
            Alternative::Fast => "lb --fast",
            Alternative::Express => "lb --express",
            Alternative::Nfq => "nfq",
            Alternative::Peer => "peer",
        })
    }
}

/// The user's program.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Makes its table and serves the queue.
    pub start: CommandLine,
    /// Puts a target in, takes a target out.
    pub change: Option<(CommandLine, CommandLine)>,
}

/// Slots of a table, if a case does not say otherwise.
pub const SLOTS: u32 = 997;
/// Room for targets.
const TARGETS: u32 = 100;
/// The table's name.
pub const TABLE: &str = "bench";
/// How long a generator may take to notice that it is done.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before what is measured.
const WARM_UP: Duration = Duration::from_millis(200);
/// How long packets may be under way after the last was sent.
const DRAIN: Duration = Duration::from_secs(2);

/// Everything at hand.
#[derive(Debug)]
pub struct Rig {
    /// Ends every wait.
    pub signals: Interrupt,
    /// The user's program.
    pub peer: Option<Peer>,
    plain: Lab,
    queued: Lab,
    marked: Lab,
    two_queues: Lab,
    bin_dir: PathBuf,
    pin: bool,
    started: Instant,
}

/// What came of a load.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// What was sent.
    pub sent: Sent,
    /// Packets that reached the sink.
    pub delivered: u64,
    /// Processor time of the consumer.
    pub consumer_cpu: Option<Duration>,
    /// Packets that the kernel could not queue.
    pub not_queued: u64,
}

impl Flow {
    /// Packets that did not arrive.
    pub fn lost(&self) -> u64 {
        self.sent.packets.saturating_sub(self.delivered)
    }
}

impl Rig {
    /// Builds it all. The process gets a mount namespace with shared memory of its own, so there must
    /// be no other thread yet.
    pub fn new(bin_dir: PathBuf, peer: Option<Peer>) -> anyhow::Result<Self> {
        for program in ["lb", "shm-tool"] {
            built(&bin_dir, program)?;
        }
        let signals = Interrupt::catch().context("catch signals")?;
        private_shared_memory().context("get shared memory of our own (needs root)")?;
        let pin = thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1);
        Ok(Rig {
            signals,
            peer,
            plain: Lab::new(&Way::Plain)?,
            queued: Lab::new(&Way::Queues(0..=0))?,
            marked: Lab::new(&Way::Marks)?,
            two_queues: Lab::new(&Way::Queues(0..=1))?,
            bin_dir,
            pin,
            started: Instant::now(),
        })
    }

    /// The alternatives that there are.
    pub fn alternatives(&self) -> Vec<Alternative> {
        let mut all = vec![
            Alternative::Forward,
            Alternative::Fast,
            Alternative::Express,
            Alternative::Lb,
            Alternative::Nfq,
        ];
        all.extend(self.peer.as_ref().map(|_| Alternative::Peer));
        all
    }

    /// The same with `lb` at once: for what waiting trades one for the other.
    pub fn alternatives_at_once(&self) -> Vec<Alternative> {
        let mut all = self.alternatives();
        all.insert(4, Alternative::LbAtOnce);
        all
    }

    /// The network of an alternative.
    pub fn lab(&self, alternative: Alternative) -> &Lab {
        match alternative {
            Alternative::Forward => &self.plain,
            Alternative::Fast | Alternative::Express => &self.marked,
            Alternative::Lb | Alternative::LbAtOnce | Alternative::Nfq | Alternative::Peer => {
                &self.queued
            }
        }
    }

    /// The network with two queues.
    pub fn two_queues(&self) -> &Lab {
        &self.two_queues
    }

    /// Whether generator and consumer have a CPU each.
    pub fn is_pinned(&self) -> bool {
        self.pin
    }

    /// The generator's CPU.
    pub fn generator_cpu(&self) -> Option<usize> {
        self.pin.then_some(0)
    }

    /// The consumer's CPU.
    pub fn consumer_cpu(&self) -> Option<usize> {
        self.pin.then_some(1)
    }

    /// Starts the consumer of an alternative, with a new table, on its CPU.
    pub fn start(&self, alternative: Alternative, slots: u32) -> anyhow::Result<Option<Consumer>> {
        let command = match alternative {
            Alternative::Forward => return Ok(None),
            Alternative::Lb => {
                self.make_table(slots, TARGETS, &MARKS)?;
                self.lb("0")
            }
            Alternative::LbAtOnce => {
                self.make_table(slots, TARGETS, &MARKS)?;
                let mut command = self.lb("0");
                command.args(["--gather", "0"]);
                command
            }
            Alternative::Fast => {
                self.make_table(slots, TARGETS, &MARKS)?;
                let mut command = self.lb("0");
                command.args(["--vip", "10.0.0.0/24", "--fast"]);
                command
            }
            Alternative::Express => {
                self.make_table(slots, TARGETS, &MARKS)?;
                let mut command = self.lb("0");
                let device = ["--device", Lab::INGRESS];
                command.args(["--vip", "10.0.0.0/24", "--fast", "--express"]).args(device);
                command
            }
            Alternative::Nfq => {
                self.make_table(slots, TARGETS, &MARKS)?;
                let itself = std::env::current_exe().context("find this program")?;
                let mut command = with_private_folder(&itself);
                command.args(["nfq-consumer", "--queue", "0", "--shm", TABLE]);
                command
            }
            Alternative::Peer => {
                let peer = self.peer.as_ref().context("there is no --peer")?;
                peer.start.start(slots, 0)
            }
        };
        let lab = self.lab(alternative);
        Consumer::start(command, lab, 1, self.consumer_cpu(), &self.signals).map(Some)
    }

    /// The same with a device by which fragments that come early are sent round. The peer brings its own.
    pub fn start_with_fragments(
        &self,
        alternative: Alternative,
    ) -> anyhow::Result<Option<Consumer>> {
        if alternative != Alternative::Lb {
            return self.start(alternative, SLOTS);
        }
        self.make_table(SLOTS, TARGETS, &MARKS)?;
        let command = self.lb_with(&["--queue", "0", "--tun", "frag0"]);
        let lab = self.lab(alternative);
        Consumer::start(command, lab, 1, self.consumer_cpu(), &self.signals).map(Some)
    }

    /// Starts `lb` on queues of this lab, wherever the scheduler puts it.
    pub fn start_lb_unpinned(&self, lab: &Lab, queues: usize) -> anyhow::Result<Consumer> {
        self.make_table(SLOTS, TARGETS, &MARKS)?;
        let range = format!("0:{}", queues - 1);
        Consumer::start(self.lb(&range), lab, queues, None, &self.signals)
    }

    /// Starts `lb` on its CPU with a table of these dimensions and as many targets as there is room.
    pub fn start_lb_with(&self, slots: u32, targets: u32) -> anyhow::Result<Consumer> {
        let marks: Vec<u32> = (MARKS[0]..).take(targets as usize).collect();
        self.make_table(slots, targets, &marks)?;
        let lab = self.lab(Alternative::Lb);
        Consumer::start(self.lb("0"), lab, 1, self.consumer_cpu(), &self.signals)
    }

    fn lb(&self, queues: &str) -> Command {
        self.lb_with(&["--queue", queues])
    }

    /// Makes the table anew.
    pub fn make_table(&self, slots: u32, targets: u32, marks: &[u32]) -> anyhow::Result<()> {
        let (slots, targets) = (slots.to_string(), targets.to_string());
        run(self.shm_tool("init").args(["--m", &slots, "--n", &targets, "--force"]))?;
        run(self.shm_tool("activate").args(marks.iter().map(u32::to_string)))
    }

    /// How many bytes the table takes.
    pub fn table_len(&self) -> anyhow::Result<u64> {
        let path = Path::new(Folder::DEFAULT).join(TABLE);
        let table = std::fs::metadata(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(table.len())
    }

    /// Puts a target in or takes it out, by the program that a user of the alternative would use.
    pub fn change(&self, alternative: Alternative, mark: u32, put_in: bool) -> anyhow::Result<()> {
        match (alternative, &self.peer) {
            (Alternative::Lb | Alternative::Fast, _) => {
                let verb = if put_in { "activate" } else { "deactivate" };
                run(self.shm_tool(verb).arg(mark.to_string()))
            }
            (Alternative::Peer, Some(Peer { change: Some((activate, deactivate)), .. })) => {
                run(&mut if put_in { activate } else { deactivate }.change(mark))
            }
            _ => bail!("{alternative} has no command for that"),
        }
    }

    fn shm_tool(&self, verb: &str) -> Command {
        let mut command = with_private_folder(&self.bin_dir.join("shm-tool"));
        command.args([verb, "--shm", TABLE]);
        command
    }

    /// Changes the table: a verb of `shm-tool` and the rest of its command line.
    pub fn shm_tool_with(&self, verb: &str, rest: &[&str]) -> anyhow::Result<()> {
        run(self.shm_tool(verb).args(rest))
    }

    /// The words of all slots, as they are now.
    pub fn slots(&self) -> anyhow::Result<Vec<u32>> {
        let name = TABLE.parse().context("read the table")?;
        let table = MappedTable::open(&Folder::new(Folder::DEFAULT), &name)?;
        Ok(table.snapshot().context("read the table")?.slots)
    }

    /// `lb` for the bench's table.
    pub fn lb_with(&self, rest: &[&str]) -> Command {
        let mut command = with_private_folder(&self.bin_dir.join("lb"));
        command.args(["--shm", TABLE]).args(rest);
        command
    }

    /// Sends a load, and measures it from a quiet moment to a quiet moment. Meanwhile the main thread
    /// does `beside`.
    pub fn measure<T>(
        &self,
        lab: &Lab,
        consumer: Option<&mut Consumer>,
        load: Load,
        beside: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<(Flow, T)> {
        let mut consumer = consumer;
        self.send(lab, Load { duration: WARM_UP, ..load }, || Ok(()))?;
        let delivered_before = self.drained(lab)?;
        let not_queued_before = not_queued(&lab.queues()?);
        let cpu_before = consumer.as_mut().map(|consumer| consumer.cpu()).transpose()?;
        let (sent, outcome) = self.send(lab, load, beside)?;
        let delivered = self.drained(lab)? - delivered_before;
        let cpu_after = consumer.as_mut().map(|consumer| consumer.cpu()).transpose()?;
        ensure!(sent.packets > 0, "the generator could not send a single packet");
        let flow = Flow {
            sent,
            delivered,
            consumer_cpu: cpu_after.zip(cpu_before).map(|(after, before)| after - before),
            not_queued: not_queued(&lab.queues()?) - not_queued_before,
        };
        Ok((flow, outcome))
    }

    fn send<T>(
        &self,
        lab: &Lab,
        load: Load,
        beside: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<(Sent, T)> {
        self.send_while(lab, load, |has_ended| {
            let outcome = beside()?;
            let limit = load.longest() + PATIENCE;
            let ended = self.signals.until(limit, || Ok(has_ended()))?;
            ensure!(ended, "the generator is stuck in the kernel");
            Ok(outcome)
        })
    }

    /// Sends a load until the work, which the main thread does meanwhile, is done.
    pub fn send_while<T>(
        &self,
        lab: &Lab,
        load: Load,
        work: impl FnOnce(&dyn Fn() -> bool) -> anyhow::Result<T>,
    ) -> anyhow::Result<(Sent, T)> {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let generator = scope.spawn(|| lab.source.enter(|| generate(&load, &stop)));
            let outcome = work(&|| generator.is_finished());
            stop.store(true, Relaxed);
            let sent = generator.join().map_err(|_| anyhow!("the generator panicked"))?;
            Ok((sent?, outcome?))
        })
    }

    /// Packets that have reached the sink once no more come.
    fn drained(&self, lab: &Lab) -> anyhow::Result<u64> {
        let mut last = lab.delivered()?;
        let quiet = self.signals.until(DRAIN, || {
            let now = lab.delivered()?;
            let waiting = lab.queues()?.iter().any(|queue| queue.waiting > 0);
            Ok(std::mem::replace(&mut last, now) == now && !waiting)
        })?;
        ensure!(quiet, "packets were still arriving {DRAIN:?} after the last was sent");
        Ok(last)
    }
}

impl Session for Rig {
    fn signals(&self) -> &Interrupt {
        &self.signals
    }

    fn started(&self) -> Instant {
        self.started
    }
}

/// A mount namespace of our own with an empty folder of shared memory. It goes with the process.
pub(super) fn private_shared_memory() -> anyhow::Result<()> {
    const NOTHING: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING)?;
    mount(Some("tmpfs"), Folder::DEFAULT, Some("tmpfs"), MsFlags::empty(), NOTHING)?;
    Ok(())
}

/// A program of ours, whatever folder the user's environment names.
pub(super) fn with_private_folder(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env(Folder::VARIABLE, Folder::DEFAULT);
    command
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("run {name}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{name} ended ({}): {}", output.status, complaint.trim());
    }
    Ok(())
}

fn not_queued(queues: &[KernelCounters]) -> u64 {
    queues.iter().map(|queue| queue.queue_drops + queue.socket_drops).sum()
}
