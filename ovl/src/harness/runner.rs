//! The runner's side of tests: the process that runs them, and their ends.

use std::env;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::batch::Batch;
use super::folder;
use super::report::Finished;
use super::test::Test;
use super::verdict::Verdict;
use crate::backend::BackendArgs;
use crate::holder;
use crate::state::{ClusterName, Folder};

/// A test that does not end ends itself, and saves the state of its nodes; one that has not done so
/// after this time beyond its limit is killed.
const GRACE: Duration = Duration::from_secs(30);

/// How often the runner looks at a test.
const PAUSE: Duration = Duration::from_millis(20);

/// The most lines of its log that are shown of a test that failed.
const LOG_TAIL: usize = 12;

pub struct Runner<'a> {
    pub output: PathBuf,
    pub bin_dir: Option<PathBuf>,
    pub backend: BackendArgs,
    pub keep: bool,
    /// Shows what tests tell while they run.
    pub verbose: bool,
    /// Set when everything is to end.
    pub stop: &'a AtomicBool,
}

impl Runner<'_> {
    pub fn was_interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Runs tests in one cluster, in a new one after each failure, and tells of each what came of it;
    /// None when they were stopped.
    pub fn run(&self, batch: &Batch, tell: &dyn Fn(Option<Finished>)) {
        let mut rest = batch.0.as_slice();
        while !rest.is_empty() {
            let (mut told, mut failed) = (0, false);
            let tell_of = |finished: Finished| {
                told += 1;
                failed |= matches!(finished.verdict, Verdict::Failed(_));
                tell(Some(finished));
            };
            match self.attempt(rest, tell_of) {
                Ok(true) if failed && self.keep => return,
                Ok(true) => {}
                Ok(false) => return tell(None),
                Err(error) => {
                    let verdict = Verdict::Failed(format!("{error:#}"));
                    for test in &rest[told..] {
                        tell(Some(self.finished(test, verdict.clone(), Duration::ZERO)));
                    }
                    return;
                }
            }
            rest = &rest[told..];
        }
    }

    fn finished(&self, test: &Test, verdict: Verdict, duration: Duration) -> Finished {
        let folder = self.output.join(&test.name);
        let folder = folder.canonicalize().unwrap_or(folder);
        // That of a failure helps; without any there is nothing to show.
        let log_tail = match verdict {
            Verdict::Failed(_) => last_lines(&folder.join(folder::LOG)).unwrap_or_default(),
            _ => String::new(),
        };
        Finished { name: test.name.clone(), verdict, duration, folder, log_tail, kept: None }
    }

    /// False when it was stopped. It tells of the first test at least, and of the others in their order.
    fn attempt(&self, tests: &[Test], mut tell: impl FnMut(Finished)) -> Result<bool> {
        let mut logs = Vec::new();
        for test in tests {
            logs.push(folder::create(&self.output, &test.name)?);
        }
        let name = &tests[0].name;
        let cluster = cluster_name(name)?;
        let cluster_folder = Folder::of(&cluster)?;
        let log = logs[0].1.try_clone().context("open log again")?;
        let mut process = Process::start(self.command(tests, &cluster)?, log)?;
        let mut kept = false;
        let mut gone = false;
        for (test, (folder, _)) in tests.iter().zip(&logs) {
            let start = Instant::now();
            let limit = self.limit(test, test.name == *name);
            let mut tail = self.verbose.then(|| Tail::new(&test.name, folder)).transpose()?;
            let status = loop {
                if let Some(tail) = &mut tail {
                    tail.show()?;
                }
                // Before its result is looked for, which it writes while it is there.
                let status = process.ended()?;
                if status.is_some() || (tests.len() > 1 && Verdict::read(folder)?.is_some()) {
                    break status;
                }
                if self.was_interrupted() {
                    process.kill();
                    holder::stop(&cluster_folder)?;
                    return Ok(false);
                }
                if start.elapsed() >= limit + GRACE {
                    process.kill();
                    gone = true;
                    break None;
                }
                thread::sleep(PAUSE);
            };
            if let Some(tail) = &mut tail {
                tail.show()?;
            }
            let told = Verdict::read(folder)?;
            if told.is_none() && status.is_some_and(|status| status.success()) && test.name != *name
            {
                // Left for a new cluster.
                break;
            }
            let is_lost = gone || told.is_none();
            let verdict = verdict(status, told, limit);
            let mut finished = self.finished(test, verdict, start.elapsed());
            let failed = matches!(finished.verdict, Verdict::Failed(_));
            if self.keep && failed {
                // The process goes on only while the cluster is not ready for others.
                process.wait_for_end(GRACE)?;
                kept = cluster_folder.is_ready()?;
                finished.kept = kept.then(|| cluster.clone());
            }
            tell(finished);
            if is_lost || kept {
                break;
            }
        }
        process.wait_for_end(GRACE)?;
        process.kill();
        // Whatever became of its process, its cluster ends, unless somebody wants to look at it.
        if !kept {
            holder::stop(&cluster_folder)?;
        }
        Ok(true)
    }

    fn limit(&self, test: &Test, is_first: bool) -> Duration {
        if self.backend.is_vm() { test.limit_on_machines(is_first) } else { test.limit() }
    }

    fn command(&self, tests: &[Test], cluster: &ClusterName) -> Result<Command> {
        let ovl = env::current_exe().context("find ovl's own executable")?;
        let output = self.output.canonicalize();
        let output = output.with_context(|| format!("open {}", self.output.display()))?;
        // If the runner is killed the kernel kills the test.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(ovl).arg("run-case");
        command.arg("--output").arg(output).args(["--cluster", cluster.as_str()]);
        if self.keep {
            command.arg("--keep");
        }
        if let Some(dir) = &self.bin_dir {
            command.arg("--bin-dir").arg(dir);
        }
        command.args(self.backend.words());
        command.arg("--").args(tests.iter().map(|test| &test.spec));
        Ok(command)
    }
}

/// Clusters of several runs can stand side by side.
fn cluster_name(test: &str) -> Result<ClusterName> {
    let name = format!("test-{test}-{}", std::process::id());
    name.parse().with_context(|| format!("name cluster {name}"))
}

fn verdict(status: Option<ExitStatus>, told: Option<Verdict>, limit: Duration) -> Verdict {
    match (status, told) {
        (_, Some(verdict)) => verdict,
        (Some(status), None) => {
            Verdict::Failed(format!("its process ended without a result: {status}"))
        }
        (None, None) => Verdict::Failed(format!(
            "killed {} s after its limit of {} s",
            GRACE.as_secs(),
            limit.as_secs()
        )),
    }
}

/// The process of a test. It is killed when this is dropped.
struct Process(Child);

impl Process {
    fn start(mut command: Command, log: fs::File) -> Result<Self> {
        let errors = log.try_clone().context("open log again")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // An interrupt at the terminal is the runner's business.
            .process_group(0)
            .spawn()
            .context("start setpriv (of util-linux)")?;
        Ok(Self(child))
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.0.try_wait().context("wait for the test's process")
    }

    /// Gives it time to end by itself.
    fn wait_for_end(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while self.ended()?.is_none() && Instant::now() < deadline {
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn kill(&mut self) {
        // Fails only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Shows a log while it grows.
struct Tail {
    test: String,
    log: fs::File,
    /// The beginning of a line whose end is not there yet.
    rest: Vec<u8>,
}

impl Tail {
    fn new(test: &str, folder: &Path) -> Result<Self> {
        let path = folder.join(folder::LOG);
        let log = fs::File::open(&path).with_context(|| format!("open {}", path.display()))?;
        Ok(Self { test: test.to_owned(), log, rest: Vec::new() })
    }

    fn show(&mut self) -> Result<()> {
        self.log.read_to_end(&mut self.rest).context("read log")?;
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut out = io::stdout().lock();
        for line in String::from_utf8_lossy(&self.rest[..whole]).lines() {
            writeln!(out, "{}: {line}", self.test).context("write standard output")?;
        }
        self.rest.drain(..whole);
        Ok(())
    }
}

/// The last lines of a file, which may be long.
fn last_lines(path: &Path) -> Result<String> {
    const MOST: i64 = 8192;
    let mut file = fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    // Fails when it is shorter.
    if file.seek(SeekFrom::End(-MOST)).is_err() {
        file.rewind().with_context(|| format!("read {}", path.display()))?;
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).with_context(|| format!("read {}", path.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    let skipped = text.lines().count().saturating_sub(LOG_TAIL);
    Ok(text.lines().skip(skipped).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn what_a_test_told_counts_and_silence_is_a_failure() {
        let limit = Duration::from_secs(60);
        let killed = ExitStatus::from_raw(9);
        assert_eq!(verdict(Some(killed), Some(Verdict::Passed), limit), Verdict::Passed);
        for (status, expected) in [
            (Some(killed), "its process ended without a result: signal: 9 (SIGKILL)"),
            (None, "killed 30 s after its limit of 60 s"),
        ] {
            assert_eq!(verdict(status, None, limit), Verdict::Failed(expected.to_owned()));
        }
    }

    #[test]
    fn the_end_of_a_long_log_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(folder::LOG);
        fs::write(&path, "short").unwrap();
        assert_eq!(last_lines(&path).unwrap(), "short");
        let lines: Vec<String> = (0..5000).map(|line| line.to_string()).collect();
        fs::write(&path, lines.join("\n")).unwrap();
        assert_eq!(last_lines(&path).unwrap(), lines[5000 - LOG_TAIL..].join("\n"));
    }
}
