//! Function tests: what a case is and how cases are run.

mod connectivity;
mod daemon;
mod drops;
mod fast_plane;
mod icmp;
mod kernel_hash;
mod keys;
mod mark;
mod overload;
mod pmtu;
mod privilege;
mod queues;
mod reconfigure;
mod table;
mod targets;
mod traffic;
mod verbs;
mod watchdog;

use std::env;
use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::process::{self, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};

use self::watchdog::Ended;
use crate::bins::Bins;
use crate::cli::TestArgs;
use crate::cluster::Layout;
use crate::lab::Lab;
use crate::shell;
use crate::style::{Colour, Style};

/// One function test. It gets a fresh cluster of its layout, in which nothing runs yet.
pub struct Case {
    name: &'static str,
    about: &'static str,
    layout: Layout,
    /// How long it may take, cluster included.
    limit: Duration,
    run: fn(&mut Lab) -> Result<()>,
}

/// Far more than a case needs that asks for no more, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(60);

/// How much longer a long form may take.
const SOAK_FACTOR: u32 = 10;

const STANDARD: Layout = Layout { servers: 4, offload: true, squeezed: false };

/// All cases in the order in which they run.
fn all() -> Vec<&'static Case> {
    let groups = [
        connectivity::CASES,
        traffic::CASES,
        targets::CASES,
        reconfigure::CASES,
        pmtu::CASES,
        queues::CASES,
        overload::CASES,
        table::CASES,
        mark::CASES,
        kernel_hash::CASES,
        keys::CASES,
        icmp::CASES,
        drops::CASES,
        daemon::CASES,
        privilege::CASES,
        fast_plane::CASES,
    ];
    groups.into_iter().flatten().collect()
}

pub fn run(args: &TestArgs) -> Result<ExitCode> {
    if args.list {
        return list();
    }
    let cases = select(&args.cases)?;
    let bins = Bins::find(args.bin_dir.as_deref())?;
    let style = Style::of_stdout();
    let mut tally = Tally::default();
    for case in cases {
        let verdict = run_one(case, &bins, style, args.keep, &tally);
        let failed = matches!(verdict, Verdict::Failed);
        tally.add(verdict);
        if failed && args.keep {
            break;
        }
    }
    println!("{tally}");
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether the long forms of cases are wanted, which `make soak` runs.
fn is_soak() -> bool {
    env::var_os("MARKWAY_SOAK").is_some_and(|value| value == "1")
}

/// Fails unless `holds`; the report shows both texts.
pub fn check(holds: bool, expected: impl fmt::Display, seen: impl fmt::Display) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Mismatch { expected: expected.to_string(), seen: seen.to_string() }.into())
}

/// A case that this machine's kernel cannot run, and why. Whatever else is missing is a failure.
#[derive(Debug)]
pub struct Skip(pub String);

#[derive(Debug)]
struct Mismatch {
    expected: String,
    seen: String,
}

enum Verdict {
    Passed,
    Failed,
    Skipped,
}

#[derive(Default)]
struct Tally {
    passed: u32,
    failed: u32,
    skipped: u32,
}

fn list() -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    for case in all() {
        writeln!(out, "{:24} {}", case.name, case.about)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn select(names: &[String]) -> Result<Vec<&'static Case>> {
    if names.is_empty() {
        return Ok(all());
    }
    names
        .iter()
        .map(|name| match all().into_iter().find(|case| case.name == *name) {
            Some(case) => Ok(case),
            None => bail!("find case {name}: there is none (see ovl test --list)"),
        })
        .collect()
}

fn run_one(case: &Case, bins: &Bins, style: Style, keep: bool, before: &Tally) -> Verdict {
    let start = Instant::now();
    let limit = if is_soak() { case.limit * SOAK_FACTOR } else { case.limit };
    let give_up = |what: &str| {
        println!("{} {:24}", style.paint(Colour::Red, "FAILED "), case.name);
        println!("    cannot be ended after {} s: waits for {what}", limit.as_secs());
        println!("{}", Tally { failed: before.failed + 1, ..*before });
        // All that was started ends with this process.
        process::exit(1)
    };
    let work = || attempt(case, bins, keep);
    let ended = watchdog::run(limit, watchdog::GRACE, work, watchdog::kill_children, give_up);
    let Outcome { lab, log_tail, result } = match ended {
        Ended::Done(outcome) => outcome,
        Ended::Panicked(message) => Outcome::of_error(anyhow!("panicked: {message}")),
        Ended::Stuck(what) => {
            let seconds = limit.as_secs();
            Outcome::of_error(anyhow!("stuck after {seconds} s: waited for {what}"))
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    let line = |colour, word: &str| {
        println!("{} {:24} {seconds:5.1} s", style.paint(colour, &format!("{word:7}")), case.name);
    };
    let Err(error) = result else {
        line(Colour::Green, "passed");
        return Verdict::Passed;
    };
    if let Some(skip) = error.downcast_ref::<Skip>() {
        line(Colour::Yellow, "SKIPPED");
        println!("    {skip}");
        return Verdict::Skipped;
    }
    line(Colour::Red, "FAILED");
    println!("    {}", format!("{error:#}").replace('\n', "\n    "));
    if let Some(tail) = log_tail {
        println!("    the end of lb's log:\n      {}", tail.replace('\n', "\n      "));
    }
    if let Some(lab) = lab {
        print!("{}", shell::hints());
        if let Err(error) = shell::open(&lab) {
            println!("    {error:#}");
        }
    }
    Verdict::Failed
}

/// What came of a case.
struct Outcome<'a> {
    /// Still there when the case failed and its cluster is wanted.
    lab: Option<Lab<'a>>,
    log_tail: Option<String>,
    result: Result<()>,
}

impl Outcome<'_> {
    fn of_error(error: anyhow::Error) -> Self {
        Self { lab: None, log_tail: None, result: Err(error) }
    }
}

fn attempt<'a>(case: &Case, bins: &'a Bins, keep: bool) -> Outcome<'a> {
    let mut lab = match Lab::start(case.layout, bins) {
        Ok(lab) => lab,
        Err(error) => return Outcome::of_error(error),
    };
    let result = (case.run)(&mut lab).and_then(|()| check_balance(&lab));
    let log_tail = lab.lb_log_tail(20);
    // A cluster that is not looked at any more ends here, where the deadline holds.
    let lab = (keep && result.is_err()).then_some(lab);
    Outcome { lab, log_tail, result }
}

/// However a case went, no packet may be missing in the counters.
fn check_balance(lab: &Lab) -> Result<()> {
    if !lab.has_lb() {
        return Ok(());
    }
    match lab.stats()?.imbalance() {
        None => Ok(()),
        Some(imbalance) => check(false, "received = marked + held + dropped", imbalance),
    }
}

impl Tally {
    fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed => self.failed += 1,
            Verdict::Skipped => self.skipped += 1,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected: {}\nseen:     {}", self.expected, self.seen)
    }
}

impl Error for Mismatch {}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this kernel cannot: {}", self.0)
    }
}

impl Error for Skip {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_fit_their_column() {
        let names: BTreeSet<_> = all().iter().map(|case| case.name).collect();
        assert_eq!(names.len(), all().len());
        assert!(names.iter().all(|name| name.len() <= 24));
    }

    #[test]
    fn an_unknown_case_is_named() {
        let error = select(&["no-such".to_owned()]).err().unwrap();
        assert_eq!(error.to_string(), "find case no-such: there is none (see ovl test --list)");
    }

    #[test]
    fn the_last_line_counts_every_verdict() {
        let mut tally = Tally::default();
        for verdict in [Verdict::Passed, Verdict::Passed, Verdict::Failed, Verdict::Skipped] {
            tally.add(verdict);
        }
        assert_eq!(tally.to_string(), "2 passed, 1 failed, 1 skipped");
    }
}
