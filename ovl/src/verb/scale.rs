//! `ovl scale`: nodes that come and go while a cluster runs.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::address::NodeId;
use crate::cli::Scale;
use crate::cluster::{Cluster, Record};
use crate::holder;
use crate::state::Folder;

/// How long another change of the same cluster may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn run(scale: &Scale) -> Result<ExitCode> {
    let (Scale::Out(args) | Scale::In(args)) = scale;
    let folder = Folder::of(&args.cluster.name)?;
    // Nobody needs to be below a cluster that is not ready.
    Record::of(&folder)?;
    let words: Vec<OsString> = env::args_os().skip(1).collect();
    holder::run_below(&folder, &words)
}

/// The same below the cluster's holder, so that new nodes stay.
pub fn below(scale: &Scale) -> Result<ExitCode> {
    let (Scale::Out(args) | Scale::In(args)) = scale;
    let name = &args.cluster.name;
    let folder = Folder::of(name)?;
    let _lock = folder.lock(PATIENCE)?.with_context(|| {
        format!("change cluster {name}: another ovl is just changing or stopping it")
    })?;
    let mut cluster = Cluster::attach(&folder)?;
    let ids: BTreeSet<NodeId> = args.nodes.iter().copied().collect();
    match scale {
        Scale::Out(_) => cluster.scale_out(&ids)?,
        Scale::In(_) => cluster.scale_in(&ids)?,
    }
    cluster.leave()?;
    println!("cluster {name} has {} nodes", cluster.record().nodes.len());
    Ok(ExitCode::SUCCESS)
}
