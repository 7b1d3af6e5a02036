//! hello-client: sends one message and prints the answer.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use sctp_stack::{ConnectFailure, Event, MAX_MESSAGE, Sent, Stack};
use traffic::flags::{CommandLine, Flag, FlagValue, Operands};
use traffic::sctp::{self, StackFlags};
use traffic::{address, process};

const COMMAND_LINE: CommandLine<Args> = CommandLine {
    program: "hello-client",
    summary: "\
Sends a message to a hello-server and prints its answer, which begins with the
name of the server's host: hello-client IP PORT. Exits with 1 if none comes in
time.",
    flags: &[
        Flag {
            name: "address",
            value: "HOST:PORT",
            help: "Address of the server, instead of IP and PORT",
            slot: |args| &mut args.address,
        },
        Flag {
            name: "protocol",
            value: "tcp|udp|sctp",
            help: "How to get there",
            slot: |args| &mut args.protocol,
        },
        Flag {
            name: "message",
            value: "TEXT",
            help: "What to say",
            slot: |args| &mut args.message,
        },
        Flag {
            name: "count",
            value: "N",
            help: "How often, each time on a new connection",
            slot: |args| &mut args.count,
        },
        Flag {
            name: "timeout",
            value: "DURATION",
            help: "Limit of each connection",
            slot: |args| &mut args.timeout,
        },
        sctp::stack_flag(|args| &mut args.stack.stack),
        sctp::encap_local_flag(|args| &mut args.stack.encap_local),
        sctp::encap_remote_flag(|args| &mut args.stack.encap_remote),
    ],
    operands: Some(Operands { form: "[IP PORT]", slot: |args| &mut args.operands }),
};

struct Args {
    address: String,
    protocol: Protocol,
    message: String,
    count: u32,
    timeout: Duration,
    stack: StackFlags,
    operands: Vec<String>,
}

#[derive(Clone, Copy)]
enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            address: "[::1]:9090".to_owned(),
            protocol: Protocol::Tcp,
            message: "HELLO, I AM ALIVE!!!".to_owned(),
            count: 1,
            timeout: Duration::from_secs(5),
            stack: StackFlags::default(),
            operands: Vec::new(),
        }
    }
}

fn main() -> ExitCode {
    let args = match COMMAND_LINE.parse_or_exit_code() {
        Ok(args) => args,
        Err(code) => return code,
    };
    match say(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            process::log(format_args!("{}: {error:#}", COMMAND_LINE.program));
            ExitCode::FAILURE
        }
    }
}

fn say(args: &Args) -> anyhow::Result<()> {
    ensure!(!args.timeout.is_zero(), "timeout 0: needs some time");
    let target = target(args)?;
    let stack = match args.protocol {
        Protocol::Sctp => Some(args.stack.open()?.0),
        Protocol::Tcp | Protocol::Udp => None,
    };
    for _ in 0..args.count {
        print("Sending Message")?;
        let answer = match (args.protocol, &stack) {
            (_, Some(stack)) => over_sctp(&**stack, target, args),
            (Protocol::Udp, None) => over_udp(target, args),
            (_, None) => over_tcp(target, args),
        }
        .with_context(|| format!("ask {target}"))?;
        print(&String::from_utf8_lossy(&answer))?;
    }
    Ok(())
}

fn target(args: &Args) -> anyhow::Result<SocketAddr> {
    match args.operands.as_slice() {
        [] => Ok(address::to_connect_to(&args.address, None)?),
        [ip, port] => {
            let Ok(ip) = ip.parse::<IpAddr>() else {
                bail!("{ip:?} is not an IP address");
            };
            let Ok(port) = port.parse::<u16>() else {
                bail!("{port:?} is not a port");
            };
            Ok(SocketAddr::new(ip, port))
        }
        others => bail!("{} operands: needs IP and PORT", others.len()),
    }
}

fn over_tcp(target: SocketAddr, args: &Args) -> anyhow::Result<Vec<u8>> {
    let deadline = Instant::now() + args.timeout;
    let mut stream = TcpStream::connect_timeout(&target, args.timeout)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4_096];
    // A short message goes at once, or not at all.
    stream.set_write_timeout(Some(args.timeout))?;
    stream.write_all(args.message.as_bytes())?;
    // An answer ends with the message, and may come in pieces.
    while answer.len() < args.message.len() || !answer.ends_with(args.message.as_bytes()) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!(no_answer(args));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => bail!("closed by the server"),
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            Err(error) if is_late(&error) => bail!(no_answer(args)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(answer)
}

fn over_udp(target: SocketAddr, args: &Args) -> anyhow::Result<Vec<u8>> {
    let any = match target {
        SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0; 16], 0)),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(args.timeout))?;
    socket.send(args.message.as_bytes())?;
    let mut buffer = vec![0; 1 << 16];
    match socket.recv(&mut buffer) {
        Ok(length) => {
            buffer.truncate(length);
            Ok(buffer)
        }
        Err(error) if is_late(&error) => bail!(no_answer(args)),
        Err(error) => Err(error.into()),
    }
}

fn over_sctp(stack: &dyn Stack, target: SocketAddr, args: &Args) -> anyhow::Result<Vec<u8>> {
    let deadline = Instant::now() + args.timeout;
    let settings = sctp_stack::Settings {
        encapsulation: args.stack.encapsulation(),
        ..sctp_stack::Settings::default()
    };
    let association = match sctp::connect(stack, target, &settings, deadline) {
        // The target is told already.
        Err(sctp_stack::Error::Connect { cause: ConnectFailure::Timeout(_), .. })
            if Instant::now() >= deadline =>
        {
            bail!(no_answer(args))
        }
        Err(sctp_stack::Error::Connect { cause, .. }) => return Err(cause.into()),
        other => other?,
    };
    ensure!(association.send(args.message.as_bytes(), 0)? == Sent::Taken, "no room to send");
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        match association.receive(&mut buffer, Some(deadline))? {
            Some(Event::Message { length, .. }) => {
                buffer.truncate(length);
                break;
            }
            Some(Event::Path { .. }) => {}
            Some(Event::Closed) => bail!("closed by the server"),
            Some(Event::Lost(by)) => bail!("{by}"),
            None => {
                association.abort();
                bail!(no_answer(args));
            }
        }
    }
    // The answer is there, whatever becomes of the end.
    let _ = association.close(deadline);
    Ok(buffer)
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn no_answer(args: &Args) -> String {
    format!("no answer within {:?}", args.timeout)
}

fn print(line: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{line}").context("write to stdout")
}

impl FlagValue for Protocol {
    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = match text {
            "tcp" => Self::Tcp,
            "udp" => Self::Udp,
            "sctp" => Self::Sctp,
            _ => return Err("neither tcp, udp nor sctp".to_owned()),
        };
        Ok(())
    }

    fn shown(&self) -> String {
        match self {
            Self::Tcp => "tcp".to_owned(),
            Self::Udp => "udp".to_owned(),
            Self::Sctp => "sctp".to_owned(),
        }
    }
}
