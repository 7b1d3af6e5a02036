//! `ovl run`, `ovl shell` and `ovl tcpdump`: a program on a node, on this terminal.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::address::NodeId;
use crate::backend::Backend;
use crate::cli::{RunArgs, ShellArgs, TcpdumpArgs};
use crate::cluster::Record;
use crate::enter::enter;
use crate::holder;
use crate::state::{ClusterName, Folder};
use crate::vm::client::Line;

/// A shell that has the variables of the cluster, on a terminal or not.
const SHELL: &str = r#"cd; [ ! -r /etc/profile ] || . /etc/profile
PS1='\[\e[1m\]\h\[\e[0m\]:\w# ' exec bash --norc"#;

pub fn run(args: &RunArgs) -> Result<ExitCode> {
    run_on(&args.cluster.name, args.node, &args.command)
}

pub fn shell(args: &ShellArgs) -> Result<ExitCode> {
    run_on(&args.cluster.name, args.node, &["bash", "-c", SHELL].map(OsString::from))
}

pub fn tcpdump(args: &TcpdumpArgs) -> Result<ExitCode> {
    let words = ["tcpdump", "-n", "-i"].map(OsString::from);
    let words = [&words[..], std::slice::from_ref(&args.device), &args.more].concat();
    run_on(&args.cluster.name, args.node, &words)
}

pub fn console(args: &ShellArgs) -> Result<ExitCode> {
    let folder = Folder::of(&args.cluster.name)?;
    let record = Record::of(&folder)?;
    record.node(args.node)?;
    if record.order.backend == Backend::Namespaces {
        bail!("show console of {}: it has none, it is made of namespaces", args.node);
    }
    holder::enter_files(&folder)?;
    let path = Line::new(&folder.work(), &args.node.to_string()).console();
    let what = || format!("read {}", path.display());
    let mut console = File::open(&path).with_context(what)?;
    io::copy(&mut console, &mut io::stdout()).with_context(what)?;
    Ok(ExitCode::SUCCESS)
}

fn run_on(name: &ClusterName, id: NodeId, words: &[OsString]) -> Result<ExitCode> {
    let folder = Folder::of(name)?;
    let record = Record::of(&folder)?;
    holder::enter_files(&folder)?;
    if record.order.backend != Backend::Namespaces {
        // One that has ended is told with the end of its console.
        record.node(id)?;
        return Line::new(&folder.work(), &id.to_string()).run(words);
    }
    enter(record.running(id)?, words)
}
