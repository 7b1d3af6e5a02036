//! `ovl` runs test clusters of servers, routers and testers in namespaces and drives the project's
//! built binaries in them.
#![forbid(unsafe_code)]

mod activity;
mod address;
mod backend;
mod bins;
mod case;
mod cli;
mod cluster;
mod demo;
mod enter;
mod flood;
mod flow;
mod harness;
mod holder;
mod impair;
mod init;
mod lab;
mod mconnect;
mod namespace;
mod net;
mod node;
mod order;
mod overlay;
mod packet;
mod process;
mod progress;
mod random;
mod rootfs;
mod scenario;
mod sender;
mod shell;
mod starting;
mod state;
mod stats;
mod style;
mod topology;
mod trace;
mod verb;
mod vm;
mod wait;

use std::env;
use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;

use crate::cli::{Args, OverlayVerb, TopologyVerb, Verb};
use crate::holder::Holder;
use crate::state::ClusterName;

/// Where a command line is carried out.
#[derive(Clone, Copy)]
enum Place<'a> {
    Machine,
    /// In the process that holds a cluster.
    Holder(&'a Holder),
    /// In a process below the holder of a running cluster.
    Below,
}

fn main() -> ExitCode {
    match run(&Args::parse(), Place::Machine) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ovl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args, place: Place) -> Result<ExitCode> {
    match (&args.verb, place) {
        (Verb::Start(args), Place::Holder(holder)) => verb::start::hold(holder, args),
        (Verb::Start(args), _) => verb::start::run(args),
        (Verb::Stop(args), _) => verb::stop::run(args),
        (Verb::Status(args), _) => verb::status::run(args),
        (Verb::Run(args), _) => verb::run::run(args),
        (Verb::Shell(args), _) => verb::run::shell(args),
        (Verb::Tcpdump(args), _) => verb::run::tcpdump(args),
        (Verb::Cp(args), _) => verb::cp::run(args),
        (Verb::Scale(args), Place::Below) => verb::scale::scale_below(args),
        (Verb::Scale(args), _) => verb::scale::scale(args),
        (Verb::Impair(args), Place::Below) => verb::impair::below(args),
        (Verb::Impair(args), _) => verb::impair::run(args),
        (Verb::Power(args), Place::Below) => verb::scale::power_below(args),
        (Verb::Power(args), _) => verb::scale::power(args),
        (Verb::Console(args), _) => verb::run::console(args),
        (Verb::Demo(args), Place::Holder(holder)) => demo::run(holder, args),
        (Verb::Test(args), _) => harness::run(args),
        (Verb::RunCase(args), Place::Holder(holder)) => harness::hold_case(holder, args),
        (Verb::RunCase(args), _) => harness::run_case(args, &own_words()),
        (Verb::Demo(_), _) => holder::run_on_terminal(&ClusterName::unique("demo"), &own_words()),
        (Verb::Topology(TopologyVerb::List), _) => {
            topology::verb::list();
            Ok(ExitCode::SUCCESS)
        }
        (Verb::Topology(TopologyVerb::Show(args)), _) => {
            topology::verb::show(args)?;
            Ok(ExitCode::SUCCESS)
        }
        (Verb::Overlay(OverlayVerb::List), _) => {
            overlay::write_list(&mut io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
        (Verb::SendPackets, _) => sender::run(),
        (Verb::OpenSctp, _) => sender::open_sctp(),
        (Verb::Flood(args), _) => flood::run(args),
        (Verb::Completions { shell }, _) => {
            cli::write_completions(*shell);
            Ok(ExitCode::SUCCESS)
        }
        (Verb::Man, _) => cli::write_manual(),
        (Verb::Hold(args), Place::Machine) => holder::launch(args),
        (Verb::Held(args), Place::Machine) => {
            holder::hold(args, |holder, words| run(&parse(words)?, Place::Holder(holder)))
        }
        (Verb::EndHeld(args), Place::Machine) => holder::end(args),
        (Verb::Below { args }, Place::Machine) => run(&parse(args)?, Place::Below),
        (Verb::Init(args), Place::Machine) => init::run(args),
        (Verb::Enter(args), Place::Machine) => enter::run(args),
        (Verb::Exec { command }, Place::Machine) => enter::become_command(command),
        (Verb::EnterMachine(args), Place::Machine) => {
            vm::client::Line::new(&args.work, &args.host).run(&args.command)
        }
        (Verb::Keeper(args), Place::Machine) => vm::keeper::run(args),
        (Verb::Guest(args), Place::Machine) => vm::guest::run(args),
        (Verb::Agent, Place::Machine) => vm::agent::run(),
        (Verb::StartUp, Place::Machine) => init::start_up(),
        (
            Verb::Hold(_)
            | Verb::Held(_)
            | Verb::EndHeld(_)
            | Verb::Below { .. }
            | Verb::Init(_)
            | Verb::Enter(_)
            | Verb::EnterMachine(_)
            | Verb::Keeper(_)
            | Verb::Guest(_)
            | Verb::Agent
            | Verb::StartUp
            | Verb::Exec { .. },
            _,
        ) => {
            bail!("run ovl: this verb is for ovl itself")
        }
    }
}

/// The command line of this process.
fn own_words() -> Vec<OsString> {
    env::args_os().skip(1).collect()
}

fn parse(words: &[OsString]) -> Result<Args> {
    Ok(Args::try_parse_from([&["ovl".into()], words].concat())?)
}
