//! The command line, and the settings that it stands for.

use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::bail;
use traffic::flags::{CommandLine, Flag};
use traffic::sources::SourceFlags;
use traffic::{address, server, source_flags};

use crate::client;
use crate::report::Format;

pub const COMMAND_LINE: CommandLine<Args> = CommandLine {
    program: "mconnect",
    summary: "\
Makes many connections to an address, which is meant to be a virtual one that a
load balancer spreads over many servers, and counts which host answered how
often. Exits with 1 if any connect or read failed.

-maxconcurrent should stay below the listen backlog of the server, which is
net.core.somaxconn there.",
    flags: source_flags![
        sources:
        Flag {
            name: "server",
            value: "",
            help: "Be the server: TCP, with -udp also UDP",
            slot: |args| &mut args.server,
        },
        Flag {
            name: "address",
            value: "HOST:PORT",
            help: "Address to connect to or to listen on",
            slot: |args| &mut args.address,
        },
        Flag { name: "udp", value: "", help: "Use UDP", slot: |args| &mut args.udp },
        Flag {
            name: "nconn",
            value: "N",
            help: "Connections to make",
            slot: |args| &mut args.nconn,
        },
        Flag {
            name: "maxconcurrent",
            value: "N",
            help: "Connections under way at a time",
            slot: |args| &mut args.maxconcurrent,
        },
        Flag {
            name: "rate",
            value: "N",
            help: "Connections to begin in a second; 0 = as fast as can be",
            slot: |args| &mut args.rate,
        },
        Flag {
            name: "output",
            value: "txt|json",
            help: "Format of the report",
            slot: |args| &mut args.output,
        },
        Flag {
            name: "timeout",
            value: "DURATION",
            help: "Limit of the whole run; without it 2 s + 1 ms per connection, with -keep 1 h",
            slot: |args| &mut args.timeout,
        },
        Flag {
            name: "keep",
            value: "",
            help: "Keep the connections open until the limit",
            slot: |args| &mut args.keep,
        },
        Flag {
            name: "k8sprobe",
            value: "ANY",
            help: "Ignored; old scripts may give it",
            slot: |args| &mut args.k8sprobe,
        },
    ],
    operands: None,
};

/// The flags as given.
pub struct Args {
    server: bool,
    address: String,
    udp: bool,
    nconn: u32,
    maxconcurrent: NonZeroU32,
    rate: f64,
    sources: SourceFlags,
    output: Format,
    timeout: Duration,
    keep: bool,
    k8sprobe: String,
}

/// What there is to do.
pub enum Task {
    Serve(server::Settings),
    Connect(client::Settings, Format),
}

impl Default for Args {
    fn default() -> Self {
        Self {
            server: false,
            address: "[::1]:5001".to_owned(),
            udp: false,
            nconn: 1,
            maxconcurrent: NonZeroU32::new(64).expect("64 is not zero"),
            rate: 0.0,
            sources: SourceFlags::default(),
            output: Format::Text,
            timeout: Duration::ZERO,
            keep: false,
            k8sprobe: String::new(),
        }
    }
}

impl Args {
    pub fn into_task(self) -> anyhow::Result<Task> {
        if self.server {
            return Ok(Task::Serve(server::Settings {
                program: COMMAND_LINE.program,
                address: address::to_listen_on(&self.address)?,
                udp: self.udp,
                idle_limit: None,
            }));
        }
        let settings = client::Settings {
            target: address::to_connect_to(&self.address, self.sources.srccidr)?,
            udp: self.udp,
            connections: self.nconn,
            concurrent: self.maxconcurrent,
            rate: self.rate()?,
            sources: self.sources.open()?,
            keep: self.keep,
            timeout: self.timeout(),
        };
        Ok(Task::Connect(settings, self.output))
    }

    fn rate(&self) -> anyhow::Result<Option<f64>> {
        match self.rate {
            0.0 => Ok(None),
            rate if rate > 0.0 && rate.is_finite() => Ok(Some(rate)),
            rate => bail!("rate {rate}: neither 0 nor a number of connections"),
        }
    }

    fn timeout(&self) -> Duration {
        match (self.timeout, self.keep) {
            (Duration::ZERO, true) => Duration::from_secs(3_600),
            (Duration::ZERO, false) => {
                Duration::from_secs(2) + Duration::from_millis(self.nconn.into())
            }
            (given, _) => given,
        }
    }
}

#[cfg(test)]
mod tests {
    use traffic::flags::Request;

    use super::*;

    fn settings(arguments: &[&str]) -> client::Settings {
        let Ok(Request::Run(args)) = COMMAND_LINE.parse(arguments) else {
            panic!("{arguments:?}");
        };
        match args.into_task().unwrap() {
            Task::Connect(settings, _) => settings,
            Task::Serve(_) => panic!("{arguments:?} is a server"),
        }
    }

    #[test]
    fn the_time_limit_grows_with_the_connections() {
        for (arguments, seconds) in [
            (&["-nconn", "1000"][..], 3),
            (&["-nconn", "100000"], 102),
            (&["-nconn", "1000", "-timeout", "0"], 3),
            (&["-nconn", "1000", "-timeout", "1m"], 60),
            (&["-nconn", "1000", "-keep"], 3_600),
            (&["-nconn", "1000", "-keep", "-timeout", "10s"], 10),
        ] {
            let timeout = settings(arguments).timeout;
            assert_eq!(timeout, Duration::from_secs(seconds), "{arguments:?}");
        }
    }

    #[test]
    fn a_rate_is_a_number_of_connections() {
        for (rate, expected) in [("0", None), ("0.5", Some(0.5)), ("1e3", Some(1_000.0))] {
            assert_eq!(settings(&["-rate", rate]).rate, expected);
        }
        for rate in ["-1", "inf", "NaN"] {
            let Ok(Request::Run(args)) = COMMAND_LINE.parse(["-rate", rate]) else {
                panic!("{rate}");
            };
            assert!(args.into_task().is_err(), "{rate}");
        }
    }
}
