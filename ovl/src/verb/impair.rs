//! `ovl impair`: a link of a running cluster that loses, delays or corrupts packets.

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cli::ImpairArgs;
use crate::cluster::{Cluster, Record};
use crate::holder;
use crate::impair::{Means, Wish};
use crate::state::Folder;

/// How long another change of the same cluster may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn run(args: &ImpairArgs) -> Result<ExitCode> {
    let folder = Folder::of(&args.cluster.name)?;
    Record::of(&folder)?.node(args.node)?;
    let words: Vec<OsString> = env::args_os().skip(1).collect();
    holder::run_below(&folder, &words)
}

/// The same below the cluster's holder, so that a process of the link stays.
pub fn below(args: &ImpairArgs) -> Result<ExitCode> {
    let name = &args.cluster.name;
    let folder = Folder::of(name)?;
    let _lock = folder.lock(PATIENCE)?.with_context(|| {
        format!("change cluster {name}: another ovl is just changing or stopping it")
    })?;
    let cluster = Cluster::attach(&folder)?;
    let link = cluster.link(args.node, &args.device)?;
    match args.words.as_slice() {
        [] => match link.impairment()? {
            None => println!("{link} is as it should be"),
            Some(impairment) => {
                let by = by(impairment.means);
                println!("{link} is impaired by {by}: {}", impairment.words.join(" "));
                println!("{}", link.statistics(&impairment)?.trim_end());
            }
        },
        [off] if off == "off" => match link.mend()? {
            true => println!("{link} is as it should be again"),
            false => println!("{link} is as it should be already"),
        },
        words => {
            let wish = Wish { words: words.to_vec(), means: args.by, seed: args.seed };
            println!("{link} is impaired by {}", by(link.impair(&wish)?));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn by(means: Means) -> &'static str {
    match means {
        Means::Kernel => "the kernel",
        Means::Process => "a process",
    }
}
