//! hello-server: answers each message with its host name and the message.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use traffic::flags::{CommandLine, Flag};
use traffic::server::{self, Service};
use traffic::{address, process};

const COMMAND_LINE: CommandLine<Args> = CommandLine {
    program: "hello-server",
    summary: "\
Answers each message with the name of its host and the message itself, over TCP
and UDP. Several of them behind a load balancer show who answers.",
    flags: &[
        Flag {
            name: "address",
            value: "HOST:PORT",
            help: "Address to listen on",
            slot: |args| &mut args.address,
        },
        Flag {
            name: "timeout",
            value: "DURATION",
            help: "Close a TCP connection that said nothing for so long; 0 = never",
            slot: |args| &mut args.timeout,
        },
    ],
    operands: None,
};

struct Args {
    address: String,
    timeout: Duration,
}

impl Default for Args {
    fn default() -> Self {
        Self { address: ":9090".to_owned(), timeout: Duration::from_secs(60) }
    }
}

/// The prefix of all answers.
struct Hello(String);

impl Service for Hello {
    type Stream = ();

    fn greet(&self, _: &mut Vec<u8>) {}

    /// TCP knows no messages: what is read at once is one.
    fn hear(&self, (): &mut (), bytes: &[u8], answer: &mut Vec<u8>) {
        self.answer_datagram(bytes, answer);
    }

    fn answer_datagram(&self, datagram: &[u8], answer: &mut Vec<u8>) {
        answer.extend_from_slice(self.0.as_bytes());
        answer.extend_from_slice(datagram);
    }
}

fn main() -> ExitCode {
    // A server needs no arguments, so their absence is no question.
    let args = match std::env::args_os().len() {
        1 => Args::default(),
        _ => match COMMAND_LINE.parse_or_exit_code() {
            Ok(args) => args,
            Err(code) => return code,
        },
    };
    match serve(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            process::log(format_args!("{}: {error:#}", COMMAND_LINE.program));
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &Args) -> anyhow::Result<()> {
    let host_name = process::host_name().context("get the host name")?;
    let settings = server::Settings {
        program: COMMAND_LINE.program,
        address: address::to_listen_on(&args.address)?,
        udp: true,
        idle_limit: (!args.timeout.is_zero()).then_some(args.timeout),
    };
    server::run(&settings, Hello(format!("{host_name}: ")))
}
