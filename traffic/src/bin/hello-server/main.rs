//! hello-server: answers each message with its host name and the message.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use sctp_stack::{Listener, Rto, Stack};
use traffic::flags::{CommandLine, Flag};
use traffic::sctp::{self, StackFlags};
use traffic::server::{self, Service};
use traffic::{address, process};

const COMMAND_LINE: CommandLine<Args> = CommandLine {
    program: "hello-server",
    summary: "\
Answers each message with the name of its host and the message itself, over TCP,
UDP and, if asked, SCTP. Several of them behind a load balancer show who answers.",
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
            help: "Close a connection that said nothing for so long; 0 = never",
            slot: |args| &mut args.timeout,
        },
        Flag {
            name: "sctp",
            value: "HOST:PORT,...",
            help: "Answer over SCTP, too, at these addresses, each for itself",
            slot: |args| &mut args.sctp,
        },
        sctp::stack_flag(|args| &mut args.stack.stack),
        sctp::encap_local_flag(|args| &mut args.stack.encap_local),
        sctp::encap_remote_flag(|args| &mut args.stack.encap_remote),
    ],
    operands: None,
};

struct Args {
    address: String,
    timeout: Duration,
    sctp: String,
    stack: StackFlags,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            address: ":9090".to_owned(),
            timeout: Duration::from_secs(60),
            sctp: String::new(),
            stack: StackFlags::default(),
        }
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

/// Answers that are lost are soon sent again, so that a break is not longer than what made it.
const RTO: Rto = Rto {
    initial: Duration::from_millis(20),
    min: Duration::from_millis(20),
    max: Duration::from_millis(20),
};

/// After 10 s of that the client is given up.
const MAX_RETRANSMITS: u16 = 500;

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
    let hello = Hello(format!("{host_name}: "));
    let settings = server::Settings {
        program: COMMAND_LINE.program,
        address: address::to_listen_on(&args.address)?,
        udp: true,
        idle_limit: (!args.timeout.is_zero()).then_some(args.timeout),
    };
    // Before a stack starts threads, which must not take the signals for themselves.
    let _signals = process::termination_signals().context("watch for signals")?;
    let listeners = SctpListeners::open(args)?;
    let ended = AtomicBool::new(false);
    let prefix = hello.0.clone();
    let greet = |message: &[u8]| [prefix.as_bytes(), message].concat();
    thread::scope(|scope| {
        for listener in &listeners.all {
            let (limit, ended, greet) = (settings.idle_limit, &ended, &greet);
            scope.spawn(move || sctp::serve(&**listener, limit, ended, greet));
        }
        let done = server::run(&settings, hello);
        ended.store(true, Ordering::Relaxed);
        done
    })
}

/// Where SCTP is heard; the stack of it must stay.
#[derive(Default)]
struct SctpListeners {
    all: Vec<Box<dyn Listener>>,
    _stack: Option<Box<dyn Stack>>,
}

impl SctpListeners {
    fn open(args: &Args) -> anyhow::Result<Self> {
        if args.sctp.is_empty() {
            return Ok(Self::default());
        }
        let addresses: Vec<SocketAddr> =
            args.sctp.split(',').map(address::to_listen_on).collect::<Result<_, _>>()?;
        let (stack, why) = args.stack.open()?;
        process::log(format_args!("SCTP by {why}"));
        let settings = sctp_stack::Settings {
            rto: Some(RTO),
            path_max_retransmits: Some(MAX_RETRANSMITS),
            association_max_retransmits: Some(MAX_RETRANSMITS),
            encapsulation: args.stack.encapsulation(),
            ..sctp_stack::Settings::default()
        };
        let mut all = Vec::new();
        for address in addresses {
            let listener = sctp::listen(&*stack, address, &settings)?;
            let address = SocketAddr::new(address.ip(), listener.port());
            process::log(format_args!("Listen on SCTP address; {address}"));
            all.push(listener);
        }
        Ok(Self { all, _stack: Some(stack) })
    }
}
