//! `ovl run`, `ovl shell` and `ovl tcpdump`: a program on a node, on this terminal.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::address::NodeId;
use crate::cli::{RunArgs, ShellArgs, TcpdumpArgs};
use crate::cluster::Record;
use crate::enter::enter;
use crate::holder;
use crate::order::Backend;
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

fn run_on(name: &ClusterName, id: NodeId, words: &[OsString]) -> Result<ExitCode> {
    let folder = Folder::of(name)?;
    let record = Record::of(&folder)?;
    holder::enter_files(&folder)?;
    let init = record.running(id)?;
    if record.order.backend != Backend::Namespaces {
        return Line::new(&folder.work(), &id.to_string()).run(words);
    }
    enter(init, words)
}
