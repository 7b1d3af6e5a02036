//! evil: stands in the way of packets and does to them what networks do at their worst.

#![forbid(unsafe_code)]

mod args;
mod chance;
mod corrupt;
mod counters;
mod datagrams;
mod frame;
mod instructions;
mod lane;
mod line;
mod road;
mod room;

use std::process::ExitCode;

use traffic::process;

use crate::args::{COMMAND_LINE, Task};

fn main() -> ExitCode {
    let args = match COMMAND_LINE.parse_or_exit_code() {
        Ok(args) => args,
        Err(code) => return code,
    };
    let task = match args.into_task() {
        Ok(task) => task,
        Err(error) => {
            process::log(format_args!("{}: {error:#}", COMMAND_LINE.program));
            return ExitCode::from(2);
        }
    };
    let done = match task {
        Task::Explain => {
            println!("{}", instructions::WORDS);
            Ok(())
        }
        Task::Nothing => Ok(()),
        Task::Run(settings) => road::run(&settings),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            process::log(format_args!("{}: {error:#}", COMMAND_LINE.program));
            ExitCode::FAILURE
        }
    }
}
