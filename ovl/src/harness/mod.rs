//! `ovl test`: runs function tests, each in a process and a cluster of its own.

mod batch;
mod folder;
mod junit;
mod report;
mod runner;
mod schedule;
mod select;
mod state;
mod test;
mod verdict;
mod watchdog;
mod worker;

use std::fs;
use std::io::{self, Write};
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

pub use self::worker::{RunCaseArgs, hold as hold_case, run as run_case};

use self::batch::Batch;
use self::report::Finished;
use self::runner::Runner;
use self::schedule::Next;
use self::test::Test;
use self::verdict::{Tally, Verdict};
use crate::backend::Backend;
use crate::backend::BackendArgs;
use crate::bins::Bins;
use crate::namespace;
use crate::style::Style;

/// As a shell tells of a program that an interrupt ended.
const INTERRUPTED: u8 = 130;

/// Most cases wait more than they work; those that measure time run alone.
const JOBS_OF_A_PROCESSOR: usize = 2;

#[derive(clap::Args)]
pub struct TestArgs {
    /// List the cases and end
    #[arg(long)]
    pub list: bool,
    /// Run so many cases at once [default: two for each processor; with --backend vm one]
    #[arg(long, value_name = "N")]
    pub jobs: Option<NonZero<usize>>,
    /// Begin nothing more after a failure, and let the cluster of the failed case run on
    #[arg(long)]
    pub keep: bool,
    /// Where logs and the state of failed cases go [default: target/ovl-test, or ovl-test]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Write a report in JUnit's XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Show what the cases do while they run
    #[arg(long, short)]
    pub verbose: bool,
    #[command(flatten)]
    pub backend: BackendArgs,
    /// Where lb, shm-tool and mconnect are [default: beside ovl]
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Names of cases, beginnings of names, patterns with * and ?, scenario files [default: all
    /// that ovl has]
    #[arg(value_name = "CASE")]
    pub cases: Vec<String>,
}

pub fn run(args: &TestArgs) -> Result<ExitCode> {
    let on_machines = args.backend.wanted()? != Backend::Namespaces;
    let tests = select::select(&args.cases, on_machines)?;
    if args.list {
        return list(&tests);
    }
    namespace::need_root().context("run tests")?;
    // What every case needs, told once.
    Bins::find(args.bin_dir.as_deref())?;
    let stop = end_on_signals()?;
    let runner = Runner {
        output: args.output.clone().unwrap_or_else(folder::default),
        bin_dir: args.bin_dir.clone(),
        backend: args.backend.clone(),
        keep: args.keep,
        verbose: args.verbose,
        stop: &stop,
    };
    let start = Instant::now();
    let usual = if on_machines { 1 } else { JOBS_OF_A_PROCESSOR * processors() };
    let jobs = args.jobs.map_or(usual, NonZero::get);
    let batches = if on_machines { batch::gather(tests, jobs) } else { batch::single(tests) };
    let (finished, tally) = run_all(batches, jobs, &runner)?;
    if let Some(path) = &args.junit {
        let document = junit::document(&finished, start.elapsed());
        fs::write(path, document).with_context(|| format!("write {}", path.display()))?;
    }
    if runner.was_interrupted() {
        println!("interrupted: the other cases were ended or not begun");
    }
    println!("{tally}");
    Ok(match tally.failed {
        _ if runner.was_interrupted() => ExitCode::from(INTERRUPTED),
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

fn list(tests: &[Test]) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    for test in tests {
        writeln!(out, "{:24} {}", test.name, test.about()).context("write standard output")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn run_all(batches: Vec<Batch>, jobs: usize, runner: &Runner) -> Result<(Vec<Finished>, Tally)> {
    let style = Style::of_stdout();
    let (mut finished, mut tally) = (Vec::new(), Tally::default());
    let mut written = Ok(());
    let no_more = AtomicBool::new(false);
    let work = |batch: Batch, tell: &dyn Fn(_)| runner.run(&batch, tell);
    schedule::run(batches, jobs, Batch::is_alone, &no_more, work, |ended: Option<Finished>| {
        // A case that was interrupted says nothing.
        let Some(ended) = ended else { return Next::Stop };
        tally.add(&ended.verdict);
        written = io::stdout().lock().write_all(ended.block(style).as_bytes());
        let failed = matches!(ended.verdict, Verdict::Failed(_));
        finished.push(ended);
        if (failed && runner.keep) || written.is_err() { Next::Stop } else { Next::GoOn }
    });
    written.context("write standard output")?;
    Ok((finished, tally))
}

/// From now on signals that end a program only set the answer.
fn end_on_signals() -> Result<Arc<AtomicBool>> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    // Threads inherit it, and so do programs that are started: they have to unblock them.
    signals.thread_block().context("block signals")?;
    let stop = Arc::new(AtomicBool::new(false));
    let set = stop.clone();
    thread::spawn(move || {
        // Fails only for an odd set.
        let _ = signals.wait();
        set.store(true, Ordering::Relaxed);
    });
    Ok(stop)
}
