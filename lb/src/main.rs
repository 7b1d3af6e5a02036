//! `lb`: takes packets from netfilter queues and sends them on with the fwmark of their target.

mod args;
mod check;
mod cidr;
mod current;
mod daemon;
mod express;
mod fragments;
mod gathering;
mod installed;
mod means;
mod mirror;
mod overload;
mod rules;
mod skew;
mod status;
mod summary;
mod tier;
mod watching;
mod worker;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Action, Args, Print, Settings};

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(print) = args.print {
        return exit_code(write_out(print).map_err(Into::into));
    }
    let settings = match Settings::try_from(args) {
        Ok(settings) => settings,
        Err(error) => {
            let kind = clap::error::ErrorKind::ValueValidation;
            Args::command().error(kind, error).exit()
        }
    };
    tracing_subscriber::fmt()
        .with_max_level(settings.log)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
    exit_code(match settings.action {
        Action::Run => daemon::run(&settings),
        Action::Down => status::down(&settings),
        Action::Status { json } => status::print(&settings, json),
        Action::Check { json } => match check::run(&settings, json) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
    })
}

fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn write_out(print: Print) -> io::Result<()> {
    let mut command = Args::command();
    let mut out = io::stdout();
    match print {
        Print::Man => clap_mangen::Man::new(command).render(&mut out),
        Print::Completions(shell) => {
            clap_complete::generate(shell, &mut command, "lb", &mut out);
            Ok(())
        }
    }
}
