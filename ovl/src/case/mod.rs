//! Function tests: what a case is and how cases are run.

mod connectivity;
mod daemon;
mod drops;
mod kernel_hash;
mod mark;
mod queues;
mod table;
mod targets;
mod traffic;
mod verbs;

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};

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
    run: fn(&mut Lab) -> Result<()>,
}

const STANDARD: Layout = Layout { servers: 4, offload: true };

/// All cases in the order in which they run.
fn all() -> Vec<&'static Case> {
    let groups = [
        connectivity::CASES,
        traffic::CASES,
        targets::CASES,
        queues::CASES,
        table::CASES,
        mark::CASES,
        kernel_hash::CASES,
        drops::CASES,
        daemon::CASES,
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
        let verdict = run_one(case, &bins, style, args.keep);
        let failed = matches!(verdict, Verdict::Failed);
        tally.add(verdict);
        if failed && args.keep {
            break;
        }
    }
    println!("{tally}");
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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

fn run_one(case: &Case, bins: &Bins, style: Style, keep: bool) -> Verdict {
    let start = Instant::now();
    let (lab, result) = match Lab::start(case.layout, bins) {
        Ok(mut lab) => {
            let result = (case.run)(&mut lab).and_then(|()| check_balance(&lab));
            (Some(lab), result)
        }
        Err(error) => (None, Err(error)),
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
    if let Some(lab) = &lab {
        if let Some(tail) = lab.lb_log_tail(20) {
            println!("    the end of lb's log:\n      {}", tail.replace('\n', "\n      "));
        }
        if keep {
            print!("{}", shell::hints());
            if let Err(error) = shell::open(lab) {
                println!("    {error:#}");
            }
        }
    }
    Verdict::Failed
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
