//! `ovl scale` and `ovl power`: nodes that come and go while a cluster runs.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::address::NodeId;
use crate::cli::{ChangeArgs, Power, Scale};
use crate::cluster::{Cluster, Record};
use crate::holder;
use crate::state::Folder;

/// How long another change of the same cluster may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn scale(scale: &Scale) -> Result<ExitCode> {
    let (Scale::Out(args) | Scale::In(args)) = scale;
    run(args)
}

pub fn power(power: &Power) -> Result<ExitCode> {
    let (Power::Off(args) | Power::On(args) | Power::Cycle(args)) = power;
    run(args)
}

fn run(args: &ChangeArgs) -> Result<ExitCode> {
    let folder = Folder::of(&args.cluster.name)?;
    // Nobody needs to be below a cluster that is not ready.
    Record::of(&folder)?;
    let words: Vec<OsString> = env::args_os().skip(1).collect();
    holder::run_below(&folder, &words)
}

/// The same below the cluster's holder, so that new nodes stay.
pub fn scale_below(scale: &Scale) -> Result<ExitCode> {
    let (Scale::Out(args) | Scale::In(args)) = scale;
    let nodes = change(args, |cluster, ids| match scale {
        Scale::Out(_) => cluster.scale_out(ids),
        Scale::In(_) => cluster.scale_in(ids),
    })?;
    println!("cluster {} has {nodes} nodes", args.cluster.name);
    Ok(ExitCode::SUCCESS)
}

pub fn power_below(power: &Power) -> Result<ExitCode> {
    let (Power::Off(args) | Power::On(args) | Power::Cycle(args)) = power;
    change(args, |cluster, ids| {
        if !matches!(power, Power::On(_)) {
            cluster.power_off(ids)?;
        }
        if !matches!(power, Power::Off(_)) {
            cluster.power_on(ids)?;
        }
        cluster.note_processes();
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Changes a cluster; returns how many nodes it has then.
fn change(
    args: &ChangeArgs,
    work: impl FnOnce(&mut Cluster, &BTreeSet<NodeId>) -> Result<()>,
) -> Result<usize> {
    let name = &args.cluster.name;
    let folder = Folder::of(name)?;
    let _lock = folder.lock(PATIENCE)?.with_context(|| {
        format!("change cluster {name}: another ovl is just changing or stopping it")
    })?;
    let mut cluster = Cluster::attach(&folder)?;
    work(&mut cluster, &args.nodes.iter().copied().collect())?;
    cluster.leave()?;
    Ok(cluster.record().nodes.len())
}
