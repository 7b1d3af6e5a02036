//! The holder of a cluster: process 1 of a process namespace, in a mount namespace of its own.
//!
//! Whatever a cluster starts is below that process 1. When it ends, for whatever reason, the kernel
//! kills all the rest, and namespaces without processes vanish with their mounts and devices: there
//! is nothing that could be left behind but a folder with a few small files.
//!
//! Who starts a holder has the lock of the cluster's folder. The holder waits for that lock as
//! well: when it gets it, the other one is gone, and so it ends too, unless [`Holder::keep`] has
//! let it stay.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, setsid};

use crate::cli::HoldArgs;
use crate::enter::pass_through;
use crate::namespace;
use crate::state::{ClusterName, DIR_VARIABLE, Folder, Lock, ProcessId, dir};

/// This executable, also when its file is replaced meanwhile.
pub const OWN_EXE: &str = "/proc/self/exe";

/// The verbs of a holder's launcher, of the holder, and of a holder that ends; `ovl stop --all` knows them by these.
const LAUNCHER: &str = "hold";
const HOLDER: &str = "held";
const ENDER: &str = "end-held";

/// A variable that tells a holder the name of its cluster.
pub const OWN_CLUSTER: &str = "OVL_CLUSTER";

/// The verb of a process that is put below a holder.
const BELOW: &str = "below";

/// How long somebody else may have the lock before one gives up.
const SHORTLY: Duration = Duration::from_millis(500);
const PATIENTLY: Duration = Duration::from_secs(20);

/// What a holder reports, each a line of its standard output.
const PROGRESS: &str = "progress ";
const FAILURE: &str = "failure ";
const ENDED: &str = "ended ";
const READY: &str = "ready";

/// What became of a holder that reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It stays when this process ends.
    Kept,
    /// It ended with this exit code, and with it all that was below it.
    Ended(u8),
}

/// Seen from inside: this very process.
pub struct Holder {
    folder: Folder,
    reports: bool,
    stage: Arc<Stage>,
}

/// What the thread that waits for the starter's end and the others know of each other.
#[derive(Default)]
struct Stage {
    kept: AtomicBool,
    ending: AtomicBool,
}

/// Starts a holder that does what `args`, a command line of `ovl`, says, and returns when it has
/// ended or says that it is to stay. It reports to `progress`.
pub fn run(
    name: &ClusterName,
    args: &[OsString],
    mut progress: impl FnMut(&str),
) -> Result<Outcome> {
    let folder = Folder::of(name)?;
    let lock = prepare(&folder)?;
    let outcome = run_reporting(&folder, args, &mut progress);
    if !matches!(outcome, Ok(Outcome::Kept)) {
        end_holder(&folder)?;
        folder.remove(&lock)?;
    }
    outcome
}

fn run_reporting(
    folder: &Folder,
    args: &[OsString],
    progress: &mut dyn FnMut(&str),
) -> Result<Outcome> {
    let mut launcher = command(folder, true, args)?
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start holder")?;
    let stdout = launcher.stdout.take().context("take standard output")?;
    let mut failure = Vec::new();
    let mut outcome = None;
    for line in BufReader::new(stdout).lines() {
        let line = line.context("read the holder's report")?;
        if let Some(text) = line.strip_prefix(PROGRESS) {
            progress(text);
        } else if let Some(text) = line.strip_prefix(FAILURE) {
            failure.push(text.to_owned());
        } else if let Some(code) = line.strip_prefix(ENDED) {
            outcome = code.parse().ok().map(Outcome::Ended);
        } else if line == READY {
            outcome = Some(Outcome::Kept);
            break;
        }
    }
    launcher.wait().context("wait for the holder's launcher")?;
    match outcome {
        Some(outcome) => Ok(outcome),
        None if failure.is_empty() => bail!("run cluster {}: its holder was ended", folder.name()),
        None => bail!("{}", failure.join("\n")),
    }
}

/// Starts a holder that does what `args`, a command line of `ovl`, says, with this process' own
/// standard input, output and error, and returns its exit code.
pub fn run_on_terminal(name: &ClusterName, args: &[OsString]) -> Result<ExitCode> {
    let folder = Folder::of(name)?;
    let lock = prepare(&folder)?;
    let status = command(&folder, false, args)?.status().context("start holder");
    end_holder(&folder)?;
    folder.remove(&lock)?;
    let code = status?.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}

fn command(folder: &Folder, reports: bool, args: &[OsString]) -> Result<Command> {
    let mut command = Command::new(OWN_EXE);
    command.arg0("ovl").arg(LAUNCHER).arg(dir()?).arg(folder.name().as_str());
    if reports {
        command.arg("--reports");
    }
    command.arg("--").args(args);
    Ok(command)
}

/// Takes the lock and the remains of an earlier cluster away.
fn prepare(folder: &Folder) -> Result<Lock> {
    namespace::need_root().with_context(|| format!("start cluster {}", folder.name()))?;
    let name = folder.name();
    let lock = folder.create_and_lock(SHORTLY)?;
    if folder.holder()?.is_some() {
        bail!(
            "start cluster {name}: it is running already (end it with ovl stop, or use another name with --cluster)"
        );
    }
    let Some(lock) = lock else {
        bail!("start cluster {name}: another ovl is just starting or stopping it");
    };
    folder.clear(&lock)?;
    Ok(lock)
}

/// Ends a cluster, in whatever state it is. False when there was none.
pub fn stop(folder: &Folder) -> Result<bool> {
    namespace::need_root().with_context(|| format!("stop cluster {}", folder.name()))?;
    if !folder.exists() {
        return Ok(false);
    }
    end_holder(folder)?;
    if let Some(lock) = folder.lock(PATIENTLY)? {
        // Whoever had the lock may have started it just then. A launcher or a holder that has not told
        // its number yet writes to the folder until it is ended.
        let deadline = Instant::now() + SHORTLY;
        loop {
            end_holder(folder)?;
            for (_, process) in
                strays()?.into_iter().filter(|(name, _)| name == folder.name().as_str())
            {
                process.kill()?;
            }
            match folder.remove(&lock) {
                Err(_) if Instant::now() < deadline => {}
                removed => break removed?,
            }
        }
    } else if folder.exists() {
        bail!("stop cluster {}: another ovl is still starting or stopping it", folder.name());
    }
    Ok(true)
}

/// Ends every cluster, also those whose folder was lost. Returns the names.
pub fn stop_all() -> Result<Vec<String>> {
    let mut stopped = Vec::new();
    for folder in Folder::all()? {
        if stop(&folder)? {
            stopped.push(folder.name().to_string());
        }
    }
    for (name, process) in strays()? {
        process.kill()?;
        if !stopped.contains(&name) {
            stopped.push(name);
        }
    }
    // The next start makes it again; another cluster may just have come.
    let _ = fs::remove_dir(dir()?);
    Ok(stopped)
}

fn end_holder(folder: &Folder) -> Result<()> {
    folder.holder()?.map_or(Ok(()), ProcessId::kill)
}

/// Holders, and launchers of holders, whose clusters would be in this folder of states.
fn strays() -> Result<Vec<(String, ProcessId)>> {
    let dir = dir()?;
    let mut strays = Vec::new();
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let entry = entry.context("read /proc")?;
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid else { continue };
        // Processes end while one looks.
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let name = holder_name(&line, dir.as_os_str());
        strays.extend(name.and_then(|name| Some((name, ProcessId::of(pid)?))));
    }
    Ok(strays)
}

/// The name of the cluster when this is the command line of a holder.
fn holder_name(line: &[u8], dir: &OsStr) -> Option<String> {
    let mut words = line.split(|byte| *byte == 0).skip(1);
    let verb = words.next()?;
    let ours = [LAUNCHER, HOLDER, ENDER].iter().any(|known| known.as_bytes() == verb)
        && words.next()? == dir.as_encoded_bytes();
    let name = words.next()?;
    ours.then(|| String::from_utf8_lossy(name).into_owned())
}

/// What the launcher does: starts the holder in a new process namespace.
pub fn launch(args: &HoldArgs) -> Result<ExitCode> {
    match launch_holder(args) {
        Err(error) if args.reports => {
            tell(FAILURE, &format!("{error:#}"));
            Ok(ExitCode::FAILURE)
        }
        result => result,
    }
}

fn launch_holder(args: &HoldArgs) -> Result<ExitCode> {
    if args.reports {
        // Away from the terminal, whose signals are for others.
        setsid().context("start a session")?;
    }
    namespace::make(CloneFlags::CLONE_NEWPID)?;
    let mut command = Command::new(OWN_EXE);
    command.arg0("ovl").arg(HOLDER).arg(&args.dir).arg(args.name.as_str());
    command.env(DIR_VARIABLE, &args.dir).env(OWN_CLUSTER, args.name.as_str());
    if args.reports {
        let folder = Folder::of(&args.name)?;
        let log = folder.log();
        let file = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        command.arg("--reports").stderr(file);
    }
    let mut child = command.arg("--").args(&args.args).spawn().context("start holder")?;
    if args.reports {
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait().context("wait for holder")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}

/// What the holder does: gets ready, then `work`.
pub fn hold(
    args: &HoldArgs,
    work: impl FnOnce(&Holder, &[OsString]) -> Result<ExitCode>,
) -> Result<ExitCode> {
    let folder = Folder::of(&args.name)?;
    let holder = Holder { folder: folder.clone(), reports: args.reports, stage: Arc::default() };
    let result = holder.set_up().and_then(|()| work(&holder, &args.args));
    if holder.stage.ending.load(Ordering::SeqCst) {
        // The other thread makes this process another program, which tidies up.
        loop {
            thread::park();
        }
    }
    if !args.reports {
        return result;
    }
    match &result {
        Ok(_) if holder.stage.kept.load(Ordering::SeqCst) => {}
        Ok(code) => tell(ENDED, if *code == ExitCode::SUCCESS { "0" } else { "1" }),
        Err(error) => tell(FAILURE, &format!("{error:#}")),
    }
    result.or(Ok(ExitCode::FAILURE))
}

impl Holder {
    fn set_up(&self) -> Result<()> {
        name_this_process()?;
        // As the machine sees it: /proc is the machine's still.
        self.folder.set_holder(ProcessId::of_self()?)?;
        namespace::make(CloneFlags::CLONE_NEWNS)?;
        let work = self.folder.work();
        fs::create_dir_all(&work).with_context(|| format!("create {}", work.display()))?;
        mount_on("/".as_ref(), None, MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
        mount_on("/proc".as_ref(), Some("proc"), MsFlags::empty())?;
        mount_on(&work, Some("tmpfs"), MsFlags::empty())?;
        let (folder, stage) = (self.folder.clone(), self.stage.clone());
        thread::spawn(move || end_with_starter(&folder, &stage));
        Ok(())
    }

    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Tells the one who started this holder how far it is.
    pub fn report(&self, text: &str) {
        if self.reports {
            tell(PROGRESS, text);
        } else {
            println!("{text}");
        }
    }

    /// Stays, with all that was started, until somebody stops it.
    pub fn keep(&self) -> Result<ExitCode> {
        // Not before, because what is started would have them blocked too.
        ending_signals().thread_block().context("block signals")?;
        self.stage.kept.store(true, Ordering::SeqCst);
        tell("", READY);
        // No folder of the machine is kept busy.
        std::env::set_current_dir("/").context("change to folder /")?;
        loop {
            // First, because some may have ended before the signal was blocked.
            reap();
            let signal = ending_signals().wait().context("wait for signals")?;
            if signal == Signal::SIGTERM {
                vanish(&self.folder)?;
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
}

/// Otherwise lists of processes show the link that it was started by.
pub fn name_this_process() -> Result<()> {
    fs::write("/proc/self/comm", "ovl").context("name this process")
}

fn tell(kind: &str, text: &str) {
    let lines: String = text.lines().map(|line| format!("{kind}{line}\n")).collect();
    // When nobody listens any more, this process is about to end.
    let _ = io::stdout().lock().write_all(lines.as_bytes());
}

fn ending_signals() -> SigSet {
    SigSet::from_iter([Signal::SIGCHLD, Signal::SIGTERM])
}

/// Takes note of all children that have ended: nodes whose starter is gone.
fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}

fn end_with_starter(folder: &Folder, stage: &Stage) {
    // They are for the thread that waits for them.
    if let Err(error) = SigSet::all().thread_block() {
        eprintln!("ovl: block signals: {error}");
    }
    let lock = folder.wait_for_lock();
    if stage.kept.load(Ordering::SeqCst) {
        return;
    }
    stage.ending.store(true, Ordering::SeqCst);
    drop(lock);
    // As another program, because that ends the thread that works: once the cluster's files are
    // unmounted, what it writes would come to lie in the machine's folder below.
    let become_ender = || -> Result<()> {
        let mut command = Command::new(OWN_EXE);
        command.arg0("ovl").arg(ENDER).arg(dir()?).arg(folder.name().as_str());
        Err(command.exec()).context("become the one that ends the cluster")
    };
    if let Err(error) = become_ender() {
        eprintln!("ovl: {error:#}");
    }
    process::exit(1);
}

/// What a holder does whose starter is gone.
pub fn end(args: &HoldArgs) -> Result<ExitCode> {
    name_this_process()?;
    vanish(&Folder::of(&args.name)?)?;
    Ok(ExitCode::FAILURE)
}

/// Ends all that is below this process, then removes the folder.
fn vanish(folder: &Folder) -> Result<()> {
    match kill(Pid::from_raw(-1), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => return Err(error).context("end all processes"),
    }
    // Until there are no children any more.
    while waitpid(None, None).is_ok() {}
    let Some(lock) = folder.lock(PATIENTLY)? else { return Ok(()) };
    let work = folder.work();
    umount2(&work, MntFlags::MNT_DETACH).with_context(|| format!("unmount {}", work.display()))?;
    folder.remove(&lock)
}

fn mount_on(target: &Path, kind: Option<&str>, flags: MsFlags) -> Result<()> {
    mount(kind, target, kind, flags, None::<&str>)
        .with_context(|| format!("mount {} on {}", kind.unwrap_or("private"), target.display()))
}

/// Does what `args`, a command line of `ovl`, says in a process that is below the holder of a
/// running cluster: what it starts stays with the cluster.
pub fn run_below(folder: &Folder, args: &[OsString]) -> Result<ExitCode> {
    let holder = of_running(folder)?;
    namespace::enter_holder(holder.pid)?;
    let below = [OWN_EXE, BELOW, "--"].map(OsString::from);
    pass_through(&[&below[..], args].concat(), |_| {})
}

/// Moves this process to where it sees the files of the holder, and in /proc the cluster's
/// processes.
pub fn enter_files(folder: &Folder) -> Result<()> {
    namespace::enter_files(of_running(folder)?.pid)
}

/// Moves this process' files and its children to where the holder sees the cluster.
pub fn enter(folder: &Folder) -> Result<()> {
    namespace::enter_holder(of_running(folder)?.pid)
}

fn of_running(folder: &Folder) -> Result<ProcessId> {
    let name = folder.name();
    namespace::need_root().with_context(|| format!("enter cluster {name}"))?;
    folder.holder()?.with_context(|| format!("find cluster {name}: it is not running"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_known_by_its_command_line() {
        let name = |line: &str| holder_name(line.replace(' ', "\0").as_bytes(), "/run/x".as_ref());
        assert_eq!(name("ovl held /run/x one --reports -- start "), Some("one".to_owned()));
        assert_eq!(name("ovl hold /run/x two -- test "), Some("two".to_owned()));
        assert_eq!(name("ovl end-held /run/x three "), Some("three".to_owned()));
        assert_eq!(name("ovl held /run/y one -- start "), None);
        assert_eq!(name("ovl run /run/x one "), None);
        assert_eq!(name("ovl held /run/x"), None);
        assert_eq!(name(""), None);
    }
}
