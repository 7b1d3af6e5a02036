//! `ovl start`: a cluster that stays until it is stopped.

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use crate::cli::StartArgs;
use crate::cluster::Cluster;
use crate::holder::{self, Holder};
use crate::order::Order;
use crate::state::Folder;

pub fn run(args: &StartArgs) -> Result<ExitCode> {
    let start = Instant::now();
    let name = &args.cluster.name;
    // What makes no sense is found before anything is touched.
    let plan = order(args)?.plan()?;
    if args.restart {
        holder::stop(&Folder::of(name)?)?;
    }
    let words: Vec<OsString> = env::args_os().skip(1).collect();
    holder::run(name, &words, |line| println!("  {line}"))?;
    println!(
        "cluster {name} is up: {}, {} nodes, in {:.1} s",
        plan.topology,
        plan.nodes.len(),
        start.elapsed().as_secs_f64()
    );
    Ok(ExitCode::SUCCESS)
}

/// The same in the holder.
pub fn hold(holder: &Holder, args: &StartArgs) -> Result<ExitCode> {
    let order = order(args)?;
    let mut cluster = Cluster::start(holder.folder(), &order, |line| holder.report(line))?;
    cluster.leave()?;
    holder.keep()
}

fn order(args: &StartArgs) -> Result<Order> {
    Order::new(args)
}
