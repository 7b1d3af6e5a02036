//! The command line, and the settings that it stands for.

use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroU32;
use std::time::Duration;

use traffic::address;
use traffic::flags::{CommandLine, Flag};
use traffic::source::{Cidr, SourceAddresses};

use crate::report::Format;
use crate::{client, server};

pub const COMMAND_LINE: CommandLine<Args> = CommandLine {
    program: "mconnect",
    summary: "\
Makes many connections to an address, which is meant to be a virtual one that a
load balancer spreads over many servers, and counts which host answered how
often. Exits with 1 if any connect or read failed.

-maxconcurrent should stay below the listen backlog of the server, which is
net.core.somaxconn there.",
    flags: &[
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
            name: "srccidr",
            value: "CIDR",
            help: "Connect from random addresses of this subnet",
            slot: |args| &mut args.srccidr,
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
            name: "seed",
            value: "N",
            help: "Makes the source addresses repeatable; 0 = new ones each time",
            slot: |args| &mut args.seed,
        },
        Flag {
            name: "k8sprobe",
            value: "ANY",
            help: "Ignored; old scripts may give it",
            slot: |args| &mut args.k8sprobe,
        },
    ],
};

/// The flags as given.
pub struct Args {
    server: bool,
    address: String,
    udp: bool,
    nconn: u32,
    maxconcurrent: NonZeroU32,
    srccidr: Option<Cidr>,
    output: Format,
    timeout: Duration,
    keep: bool,
    seed: i64,
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
            srccidr: None,
            output: Format::Text,
            timeout: Duration::ZERO,
            keep: false,
            seed: 0,
            k8sprobe: String::new(),
        }
    }
}

impl Args {
    pub fn into_task(self) -> anyhow::Result<Task> {
        if self.server {
            return Ok(Task::Serve(server::Settings {
                address: address::to_listen_on(&self.address)?,
                udp: self.udp,
            }));
        }
        let settings = client::Settings {
            target: address::to_connect_to(&self.address, self.srccidr)?,
            udp: self.udp,
            connections: self.nconn,
            concurrent: self.maxconcurrent,
            sources: self.srccidr.map(|subnet| SourceAddresses::new(subnet, self.seed())),
            keep: self.keep,
            timeout: self.timeout(),
        };
        Ok(Task::Connect(settings, self.output))
    }

    fn seed(&self) -> u64 {
        match self.seed {
            // Keyed by the operating system's randomness: runs that start at
            // the same moment on many hosts still differ.
            0 => RandomState::new().hash_one(()),
            seed => seed.cast_unsigned(),
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
    fn a_seed_repeats_the_sources_and_its_absence_does_not() {
        let sources = |seed| {
            let sources = settings(&["-srccidr", "::/0", "-seed", seed]).sources.unwrap();
            (0..4).map(|i| sources.address(i)).collect::<Vec<_>>()
        };
        assert_eq!(sources("7"), sources("7"));
        assert_ne!(sources("7"), sources("8"));
        assert_ne!(sources("7"), sources("-7"));
        assert_ne!(sources("0"), sources("0"));
    }
}
