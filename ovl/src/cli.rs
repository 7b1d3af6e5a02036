//! The command line: what may be asked for, not how it is done.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::address::NodeId;
use crate::backend::BackendArgs;
use crate::flood::FloodArgs;
use crate::harness::{RunCaseArgs, TestArgs};
use crate::impair::Means;
use crate::state::ClusterName;
use crate::topology;

/// Runs test clusters of servers, routers and testers in namespaces.
#[derive(Parser)]
#[command(name = "ovl", version)]
pub struct Args {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Subcommand)]
pub enum Verb {
    /// Start a cluster
    Start(StartArgs),
    /// Stop a cluster
    Stop(StopArgs),
    /// Show the clusters that run, or one of them
    Status(StatusArgs),
    /// Run a command on a node; input, output, signals and the exit code pass through
    Run(RunArgs),
    /// Open a shell on a node
    Shell(ShellArgs),
    /// Copy files to, from or between nodes
    Cp(CpArgs),
    /// Add nodes to a running cluster, or take nodes out
    #[command(subcommand)]
    Scale(Scale),
    /// Let a link lose, delay or corrupt packets, or show what it does to them
    Impair(ImpairArgs),
    /// Cut the power of nodes, or start them again
    #[command(subcommand)]
    Power(Power),
    /// Show the console of a node that is a machine
    Console(ShellArgs),
    /// Watch the packets of a node's device
    Tcpdump(TcpdumpArgs),
    /// Look at overlays
    #[command(subcommand)]
    Overlay(OverlayVerb),
    /// Show a load balancer at work in a small cluster
    Demo(DemoArgs),
    /// Run the function tests, each in a cluster of its own
    Test(TestArgs),
    /// List topologies, or show one
    #[command(subcommand)]
    Topology(TopologyVerb),
    /// Print completions for a shell
    Completions {
        /// The shell to write them for
        shell: Shell,
    },
    /// Print the manual page (roff)
    Man,
    /// Run a function test in this process
    #[command(hide = true)]
    RunCase(RunCaseArgs),
    /// Send raw IP packets, read from standard input as one line of hex digits each
    #[command(hide = true)]
    SendPackets,
    /// Open an SCTP socket of the kernel and let somebody connect to it
    #[command(hide = true)]
    OpenSctp,
    /// Send packets of many flows at a steady rate
    #[command(hide = true)]
    Flood(FloodArgs),
    /// Start a process that holds a cluster
    #[command(hide = true)]
    Hold(HoldArgs),
    /// Be the process that holds a cluster
    #[command(hide = true)]
    Held(HoldArgs),
    /// End the cluster that this process holds
    #[command(hide = true)]
    EndHeld(HoldArgs),
    /// Do what a command line says, as a process below the holder of a cluster
    #[command(hide = true)]
    Below {
        #[arg(last = true, required = true)]
        args: Vec<OsString>,
    },
    /// Become a command that gets all signals
    #[command(hide = true)]
    Exec {
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Be process 1 of a node
    #[command(hide = true)]
    Init(InitArgs),
    /// Run a command in a node, which its process 1 names
    #[command(hide = true)]
    Enter(EnterArgs),
    /// Run a command in a node that is a machine
    #[command(hide = true)]
    EnterMachine(EnterMachineArgs),
    /// Be the keeper of a machine
    #[command(hide = true)]
    Keeper(KeeperArgs),
    /// Be process 1 of a machine
    #[command(hide = true)]
    Guest(GuestArgs),
    /// Be the agent in a machine
    #[command(hide = true)]
    Agent,
    /// Run the start-up scripts of a machine
    #[command(hide = true)]
    StartUp,
}

#[derive(clap::Args)]
pub struct ClusterArg {
    /// The name of the cluster; several run side by side
    #[arg(long = "cluster", value_name = "NAME", default_value = "default")]
    pub name: ClusterName,
}

#[derive(clap::Args)]
pub struct StartArgs {
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// A topology of `ovl topology list`, or a file with one
    #[arg(long, value_name = "NAME|FILE", default_value = topology::DEFAULT)]
    pub topology: String,
    #[command(flatten)]
    pub size: SizeArgs,
    /// A variable for overlays and start-up scripts; may be repeated
    #[arg(long = "set", value_name = "VAR=VALUE", value_parser = parse_variable)]
    pub variables: Vec<(String, String)>,
    /// Leave out the overlays that every cluster has: base and network-topology
    #[arg(long)]
    pub bare: bool,
    /// Stop a cluster of this name first, if there is one
    #[arg(long)]
    pub restart: bool,
    #[command(flatten)]
    pub backend: BackendArgs,
    /// Where lb, shm-tool and the other binaries under test are [default: beside ovl]
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Overlays in the order in which they are laid: names of `ovl overlay list`, folders or tars
    #[arg(value_name = "OVERLAY")]
    pub overlays: Vec<String>,
}

#[derive(clap::Args)]
pub struct StopArgs {
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// Stop every cluster, and whatever a killed ovl has left
    #[arg(long)]
    pub all: bool,
}

#[derive(clap::Args)]
pub struct StatusArgs {
    /// The name of the cluster [default: all]
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<ClusterName>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// The node: 1, 201, vm-001…
    #[arg(value_parser = parse_node)]
    pub node: NodeId,
    /// The command and its arguments
    #[arg(
        value_name = "CMD",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub command: Vec<OsString>,
}

#[derive(clap::Args)]
pub struct ShellArgs {
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// The node: 1, 201, vm-001…
    #[arg(value_parser = parse_node)]
    pub node: NodeId,
}

#[derive(clap::Args)]
pub struct CpArgs {
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// A file or folder: PATH, or NODE:PATH on a node
    pub from: Place,
    /// Where it is to be: PATH, or NODE:PATH on a node; in this folder when it is one
    pub to: Place,
}

/// A path on the machine or on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub node: Option<NodeId>,
    pub path: PathBuf,
}

#[derive(Subcommand)]
pub enum Scale {
    /// Add nodes, with the topology's settings for them
    Out(ChangeArgs),
    /// Take nodes out
    In(ChangeArgs),
}

#[derive(Subcommand)]
pub enum Power {
    /// End nodes as they are, without a warning
    Off(ChangeArgs),
    /// Start nodes that have ended
    On(ChangeArgs),
    /// Both
    Cycle(ChangeArgs),
}

#[derive(clap::Args)]
pub struct ChangeArgs {
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// The nodes: 5, vm-005…
    #[arg(value_name = "NODE", required = true, value_parser = parse_node)]
    pub nodes: Vec<NodeId>,
}

#[derive(clap::Args)]
pub struct ImpairArgs {
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// The node: 1, 201, vm-001…
    #[arg(value_parser = parse_node)]
    pub node: NodeId,
    /// Its device at the end of the link: eth1…
    pub device: String,
    /// What impairs the link [default: the kernel if it can, else a process]
    #[arg(long, value_name = "MEANS")]
    pub by: Option<Means>,
    /// Makes what a process does repeatable
    #[arg(long, value_name = "N")]
    pub seed: Option<u32>,
    /// What happens to packets, as `evil -words` explains: loss 1% delay 10ms 2ms…; `there` is
    /// from the node, `back` to it. Or `off`. Without a word the link is shown
    #[arg(value_name = "WORD")]
    pub words: Vec<String>,
}

#[derive(clap::Args)]
pub struct TcpdumpArgs {
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// The node: 1, 201, vm-001…
    #[arg(value_parser = parse_node)]
    pub node: NodeId,
    /// The device: eth1…
    pub device: OsString,
    /// More for tcpdump
    #[arg(value_name = "ARG", trailing_var_arg = true, allow_hyphen_values = true)]
    pub more: Vec<OsString>,
}

#[derive(clap::Args)]
pub struct DemoArgs {
    /// Start the same cluster and open a shell on its router; the cluster ends with the shell
    #[arg(long)]
    pub shell: bool,
    /// Where lb, shm-tool and mconnect are [default: beside ovl]
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
}

#[derive(clap::Args)]
pub struct HoldArgs {
    /// The folder with the state of all clusters
    pub dir: PathBuf,
    pub name: ClusterName,
    /// Progress and outcome are told on standard output in a fixed form
    #[arg(long)]
    pub reports: bool,
    /// What it does: a command line
    #[arg(last = true)]
    pub args: Vec<OsString>,
}

#[derive(clap::Args)]
pub struct InitArgs {
    pub host: String,
    /// The folder with what the cluster is made of
    pub work: PathBuf,
    pub bin_dir: PathBuf,
}

#[derive(clap::Args)]
pub struct EnterArgs {
    pub init: u32,
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

#[derive(clap::Args)]
pub struct EnterMachineArgs {
    /// The folder with what the cluster is made of
    pub work: PathBuf,
    pub host: String,
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

#[derive(clap::Args)]
pub struct KeeperArgs {
    pub host: String,
    /// The folder with what the cluster is made of
    pub work: PathBuf,
}

#[derive(clap::Args)]
pub struct GuestArgs {
    pub host: String,
    /// The root is there already
    #[arg(long)]
    pub in_root: bool,
}

#[derive(Subcommand)]
pub enum TopologyVerb {
    /// List all topologies
    List,
    /// Draw a topology, with the devices and routes of its nodes
    Show(TopologyShowArgs),
}

#[derive(Subcommand)]
pub enum OverlayVerb {
    /// List all overlays
    List,
}

/// How large a cluster is to be.
#[derive(clap::Args)]
pub struct SizeArgs {
    /// How many cluster nodes [default: as the topology says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=200))]
    nodes: Option<u8>,
    /// How many routers [default: as the topology says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..=20))]
    routers: Option<u8>,
    /// How many testers [default: as the topology says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..=20))]
    testers: Option<u8>,
}

impl From<&SizeArgs> for topology::plan::Size {
    fn from(args: &SizeArgs) -> Self {
        let SizeArgs { nodes, routers, testers } = *args;
        topology::plan::Size { nodes, routers, testers }
    }
}

#[derive(clap::Args)]
pub struct TopologyShowArgs {
    /// The topology's name, or the path of its file
    pub name: String,
    #[command(flatten)]
    pub size: SizeArgs,
    /// Numbers of further nodes
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    pub extra: Vec<u8>,
    /// Set a variable
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub variables: Vec<String>,
    /// Print all that the nodes of a cluster get, their files too
    #[arg(long, conflicts_with = "node")]
    pub json: bool,
    /// Print the files that a node gets
    #[arg(long, value_name = "NODE")]
    pub node: Option<u8>,
}

pub fn write_completions(shell: Shell) {
    clap_complete::generate(shell, &mut Args::command(), "ovl", &mut io::stdout());
}

pub fn write_manual() -> anyhow::Result<ExitCode> {
    clap_mangen::Man::new(Args::command()).render(&mut io::stdout()).context("write manual")?;
    Ok(ExitCode::SUCCESS)
}

/// A node by its number or its name.
fn parse_node(text: &str) -> Result<NodeId, String> {
    let number = text.strip_prefix("vm-").unwrap_or(text);
    let id = number.parse().ok().and_then(NodeId::new);
    id.ok_or_else(|| "a node is a number from 1 to 240, or vm- and the number".to_owned())
}

fn parse_variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a variable is NAME=VALUE")?;
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !starts_well || !name.chars().all(plain) {
        return Err("a variable's name has letters, digits and underscores".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

impl std::str::FromStr for Place {
    type Err = std::convert::Infallible;

    /// What is no node before the first colon is part of a path of the machine.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let node =
            text.split_once(':').and_then(|(node, path)| Some((parse_node(node).ok()?, path)));
        Ok(match node {
            Some((node, path)) => Self { node: Some(node), path: path.into() },
            None => Self { node: None, path: text.into() },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_command_keeps_its_options() {
        for line in ["ovl run 201 -- ls -l --cluster x", "ovl run vm-201 ls -l --cluster x"] {
            let Verb::Run(args) = Args::try_parse_from(line.split(' ')).unwrap().verb else {
                panic!("another verb");
            };
            assert_eq!(args.node, NodeId::ROUTER);
            assert_eq!(args.command, ["ls", "-l", "--cluster", "x"]);
            assert_eq!(args.cluster.name.as_str(), "default");
        }
    }

    #[test]
    fn a_place_is_on_a_node_or_on_the_machine() {
        let place = |text: &str| text.parse::<Place>().unwrap();
        assert_eq!(place("3:/a"), Place { node: Some(NodeId::VM_003), path: "/a".into() });
        assert_eq!(place("vm-003:/a:b"), Place { node: Some(NodeId::VM_003), path: "/a:b".into() });
        assert_eq!(place("/a"), Place { node: None, path: "/a".into() });
        assert_eq!(place("a:b"), Place { node: None, path: "a:b".into() });
    }

    #[test]
    fn variables_and_nodes_are_checked() {
        assert_eq!(parse_variable("A_1=b=c"), Ok(("A_1".to_owned(), "b=c".to_owned())));
        assert!(["A", "1=b", "=b", "a-b=c", "a;b=c"].iter().all(|it| parse_variable(it).is_err()));
        assert!(["0", "241", "vm-", "x", "-1", ""].iter().all(|it| parse_node(it).is_err()));
    }
}
