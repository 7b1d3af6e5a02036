//! `ovl stop`: ends clusters.

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::cli::StopArgs;
use crate::holder;
use crate::state::Folder;

pub fn run(args: &StopArgs) -> Result<ExitCode> {
    if args.all {
        let stopped = holder::stop_all()?;
        match stopped.as_slice() {
            [] => println!("no cluster is there"),
            names => println!("stopped {}", names.join(" ")),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let name = &args.cluster.name;
    if !holder::stop(&Folder::of(name)?)? {
        bail!("stop cluster {name}: it is not running");
    }
    println!("stopped {name}");
    Ok(ExitCode::SUCCESS)
}
