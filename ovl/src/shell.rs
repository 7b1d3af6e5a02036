//! A shell on the router of a running cluster.

use std::fmt::Write;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::lab::Lab;
use crate::node::Node;
use crate::rootfs::SEARCH_PATH;

const START_FILE: &str = "/run/shell.rc";

/// Opens the shell and returns when it ends. Without a terminal it reads its commands from
/// standard input.
///
/// It is on the router but for processes: there it sees the whole cluster, so that `vm` can enter
/// every node from it.
pub fn open(lab: &Lab) -> Result<()> {
    let cluster = &lab.cluster;
    let router = cluster.router()?;
    router.write(START_FILE, &start_file(&lab.ovl()?, cluster))?;
    let init = router.entry().init();
    let namespace = |kind: &str, file: &str| format!("--{kind}=/proc/{init}/ns/{file}");
    Command::new("nsenter")
        .args([namespace("mount", "mnt"), namespace("net", "net")])
        .args([namespace("uts", "uts"), namespace("ipc", "ipc")])
        // A /proc that shows those processes.
        .args(["--", "unshare", "--mount", "--", "sh", "-euc"])
        .arg(r#"mount -t proc proc /proc; cd; exec bash --rcfile "$0""#)
        .arg(START_FILE)
        .env("BASH_ENV", START_FILE)
        .env("PATH", SEARCH_PATH)
        .env_remove("MARKWAY_SHM_DIR")
        .status()
        .context("start shell")?;
    Ok(())
}

fn start_file(ovl: &str, cluster: &Cluster) -> String {
    let mut cases = String::new();
    let mut names = Vec::new();
    for (id, node) in cluster.nodes() {
        let _ = writeln!(cases, "    {}|{id}) set -- {} ;;", id.number(), enter_words(ovl, node));
        names.push(format!("{} ({id})", id.number()));
    }
    let names = names.join(", ");
    format!(
        r#"vm() {{
    if [ $# -eq 0 ]; then echo "usage: vm NODE [COMMAND...]; nodes: {names}" >&2; return 2; fi
    local node=$1; shift
    local words=("$@")
    case $node in
{cases}    *) echo "vm: no node $node; nodes: {names}" >&2; return 2 ;;
    esac
    [ ${{#words[@]}} -gt 0 ] || words=(bash --norc)
    "$@" "${{words[@]}}"
}}
export -f vm
export PS1='\[\e[1m\]\h\[\e[0m\]:\w# '
unset BASH_ENV
"#
    )
}

fn enter_words(ovl: &str, node: &Node) -> String {
    format!("'{ovl}' enter {} --", node.entry().init())
}

/// What to try, for the one who sits before the shell.
pub fn hints() -> &'static str {
    "  You are on the router (vm-201). Its tools work here: shm-tool show, ip rule, iptables -t mangle -vL.
  `vm NODE COMMAND` runs a command on any node, `vm NODE` opens a shell on it (vm-001 .. are 1 ..):
    vm 221 mconnect -address 10.0.0.0:5001 -nconn 100 -srccidr 20.0.0.0/16
    shm-tool deactivate 3
    shm-tool stats
    cat /run/lb.log
    vm 2 ip addr
  Leave with exit or Ctrl-D: the cluster ends with this shell.
"
}
