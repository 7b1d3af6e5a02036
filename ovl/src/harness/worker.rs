//! The process of one test, or of several that share a cluster: builds the cluster, runs them, and
//! tells what came of each.

use std::ffi::OsString;
use std::mem;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Error, Result, anyhow};
use nix::sys::signal::SigSet;

use super::folder;
use super::state;
use super::test::{self, Test};
use super::verdict::Verdict;
use super::watchdog::{self, Ended};
use crate::address::{NodeId, Role};
use crate::backend::Backend;
use crate::backend::BackendArgs;
use crate::bins::Bins;
use crate::case::{Mismatch, Skip, check};
use crate::cluster::Cluster;
use crate::holder::{self, Holder};
use crate::lab::Lab;
use crate::order::Order;
use crate::progress;
use crate::state::{ClusterName, Folder};
use crate::stats::Stats;

#[derive(clap::Args)]
pub struct RunCaseArgs {
    /// The folder with a folder for each case, for what is to be told
    #[arg(long)]
    pub output: PathBuf,
    /// The name for the cluster
    #[arg(long)]
    pub cluster: ClusterName,
    /// Let the cluster run on when a case fails
    #[arg(long)]
    pub keep: bool,
    #[arg(long)]
    pub bin_dir: Option<PathBuf>,
    #[command(flatten)]
    pub backend: BackendArgs,
    /// One after the other, in one cluster
    #[arg(required = true)]
    pub cases: Vec<String>,
}

/// What came of the work, and what it worked on.
struct Outcome {
    /// None when there is no cluster, or a test was stuck or panicked.
    lab: Option<Lab>,
    result: Result<()>,
}

/// The cluster, as soon as it is there, for those who do not do the work.
type Started = OnceLock<Arc<Cluster>>;

/// On the machine: starts the holder of the test's cluster, which goes on.
pub fn run(args: &RunCaseArgs, words: &[OsString]) -> Result<ExitCode> {
    // The runner has blocked those that it waits for.
    SigSet::all().thread_unblock().context("unblock signals")?;
    holder::run(&args.cluster, words, |_| {})?;
    Ok(ExitCode::SUCCESS)
}

/// In the holder.
pub fn hold(holder: &Holder, args: &RunCaseArgs) -> Result<ExitCode> {
    let started = Arc::new(Started::new());
    let mut lab = None;
    for case in &args.cases {
        let test = test::find(case)?;
        let folder = args.output.join(&test.name);
        progress::begin(&folder.join(folder::LOG))?;
        let Outcome { lab: left, result } = attempt(holder.folder(), args, test, lab, &started);
        lab = left;
        let verdict = match result {
            Ok(()) => Verdict::Passed,
            Err(error) => match error.downcast_ref::<Skip>() {
                Some(skip) => Verdict::Skipped(skip.to_string()),
                None => Verdict::Failed(describe(&error)),
            },
        };
        let failed = matches!(verdict, Verdict::Failed(_));
        if let Some(cluster) = started.get().filter(|_| failed) {
            // The failure counts, whatever becomes of this.
            if let Err(error) = state::collect(cluster, &folder) {
                progress::tell("ovl", &format!("{error:#}"));
            }
        }
        if let Some(cluster) = started.get().filter(|_| failed && args.keep) {
            cluster.publish()?;
            verdict.write(&folder)?;
            mem::forget(lab);
            return holder.keep();
        }
        verdict.write(&folder)?;
        if failed {
            // Nobody knows what it left behind: the others begin with a new cluster.
            break;
        }
    }
    if started.get().is_none() {
        // It would not start for the others either.
        for case in args.cases.iter().skip(1) {
            let reason = "not begun: there is no cluster, see the case before";
            let folder = args.output.join(test::find(case)?.name);
            Verdict::Failed(reason.to_owned()).write(&folder)?;
        }
    }
    // Nothing is to be ended one by one: all ends with this process.
    mem::forget(lab);
    Ok(ExitCode::SUCCESS)
}

/// Runs a test in a lab, or starts one first.
fn attempt(
    folder: &Folder,
    args: &RunCaseArgs,
    test: Test,
    lab: Option<Lab>,
    started: &Arc<Started>,
) -> Outcome {
    let backend = match args.backend.wanted() {
        Ok(backend) => backend,
        Err(error) => return Outcome { lab, result: Err(error) },
    };
    let limit = match backend {
        Backend::Namespaces => test.limit(),
        Backend::Machines(_) => test.limit_on_machines(lab.is_none()),
    };
    let (folder, bin_dir, started) = (folder.clone(), args.bin_dir.clone(), started.clone());
    let work = move || {
        let mut lab = lab;
        let result = match &mut lab {
            Some(lab) => lab.clear().context("clear up after the case before"),
            None => start(&test, &folder, bin_dir.as_deref(), backend, &started)
                .map(|new| lab = Some(new)),
        };
        let result = result.and_then(|()| {
            let lab = lab.as_mut().context("start cluster: there is none")?;
            test.run(lab)?;
            check_balance(lab)
        });
        Outcome { lab, result }
    };
    let outcome = |result| Outcome { lab: None, result };
    match watchdog::run(limit, work) {
        Ended::Done(outcome) => outcome,
        Ended::Panicked(message) => outcome(Err(anyhow!("panicked: {message}"))),
        Ended::Stuck(what) => {
            outcome(Err(anyhow!("stuck after {} s: waited for {what}", limit.as_secs())))
        }
    }
}

fn start(
    test: &Test,
    folder: &Folder,
    bin_dir: Option<&Path>,
    backend: Backend,
    started: &Started,
) -> Result<Lab> {
    let bins = Bins::find(bin_dir)?;
    let order = Order::of_test(&test.layout(), bins.dir(), backend)?;
    let say = |text: &str| progress::tell("ovl", text);
    let cluster = Arc::new(Cluster::start(folder, &order, say).context("start cluster")?);
    // Nobody else sets it.
    let _ = started.set(cluster.clone());
    Ok(Lab::new(cluster, bins))
}

/// However a case went, no packet may be missing in the counters.
fn check_balance(lab: &Lab) -> Result<()> {
    for (id, router) in lab.cluster.nodes().filter(|(id, _)| id.role() == Role::Router) {
        let ran = router.run(&["shm-tool", "stats", "--json"])?;
        let had_lb = lab.has_lb() && id == NodeId::ROUTER;
        // Where no lb was there are none.
        if !ran.succeeded() && !had_lb {
            continue;
        }
        if let Some(imbalance) = Stats::parse(&ran.success()?)?.imbalance() {
            check(false, format!("received = marked + held + dropped on {id}"), imbalance)?;
        }
    }
    Ok(())
}

/// The text of a failure: what was done, and below what was expected and seen.
fn describe(error: &Error) -> String {
    let Some(mismatch) = error.chain().last().and_then(|cause| cause.downcast_ref::<Mismatch>())
    else {
        return format!("{error:#}");
    };
    let contexts: Vec<String> = error.chain().map(ToString::to_string).collect();
    match contexts.split_last() {
        Some((_, contexts)) if !contexts.is_empty() => {
            format!("{}:\n{mismatch}", contexts.join(": "))
        }
        _ => mismatch.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_where_it_was_first() {
        let error = check(false, "4", "5").context("count").context("step").unwrap_err();
        assert_eq!(describe(&error), "step: count:\nexpected: 4\nseen:     5");
        assert_eq!(describe(&check(false, "4", "5").unwrap_err()), "expected: 4\nseen:     5");
        assert_eq!(describe(&anyhow!("b").context("a")), "a: b");
    }
}
