//! The command line, and the settings that it stands for.

use std::io::{self, IsTerminal as _};
use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::{bail, ensure};
use traffic::flags::{CommandLine, Flag, FlagValue};
use traffic::picture::PictureFile;
use traffic::sources::SourceFlags;
use traffic::stats::analysis::Kind;
use traffic::{address, server, source_flags};

use crate::client;
use crate::progress::Monitor;
use traffic::fail_on::FailOn;
use traffic::packet::{HEADER, SHORTEST_DATAGRAM};

pub const COMMAND_LINE: CommandLine<Args> = CommandLine {
    program: "ctraffic",
    summary: "\
Sends steady traffic on many connections through a load balancer and shows what
disturbs it. It is the client, with -server the server, and with -stat_file the
analysis of statistics that a client printed.

The client prints one line of JSON when it ends, also when SIGTERM or SIGINT end
it. Its exit code is 0 even if all connections failed; -fail-on changes that to 3.",
    flags: source_flags![
        sources:
        Flag {
            name: "address",
            value: "HOST:PORT",
            help: "Address to connect to or to listen on",
            slot: |args| &mut args.address,
        },
        Flag {
            name: "server",
            value: "",
            help: "Be the server: an echo that tells its host name",
            slot: |args| &mut args.server,
        },
        Flag {
            name: "udp",
            value: "",
            help: "Client: use UDP. Server: serve UDP beside TCP",
            slot: |args| &mut args.udp,
        },
        Flag {
            name: "nconn",
            value: "N",
            help: "Connections",
            slot: |args| &mut args.nconn,
        },
        Flag {
            name: "rate",
            value: "KB/S",
            help: "Data sent by all connections together, in units of 1024 bytes a second",
            slot: |args| &mut args.rate,
        },
        Flag {
            name: "psize",
            value: "BYTES",
            help: "Packet size, at least 64, with UDP at least 80",
            slot: |args| &mut args.psize,
        },
        Flag {
            name: "window",
            value: "N",
            help: "Packets of a connection that may wait for their answers",
            slot: |args| &mut args.window,
        },
        Flag {
            name: "timeout",
            value: "DURATION",
            help: "Time to run",
            slot: |args| &mut args.timeout,
        },
        Flag {
            name: "reconnect",
            value: "",
            help: "Replace failed connections",
            slot: |args| &mut args.reconnect,
        },
        Flag {
            name: "retries",
            value: "N",
            help: "Connections that are made at most, as a multiple of -nconn",
            slot: |args| &mut args.retries,
        },
        Flag {
            name: "monitor",
            value: "",
            help: "Show the progress on stderr: a table on a terminal, else a line each second",
            slot: |args| &mut args.monitor,
        },
        Flag {
            name: "stats",
            value: "none|summary|all",
            help: "Statistics to print",
            slot: |args| &mut args.stats,
        },
        Flag {
            name: "fail-on",
            value: "lost,failed,dropped",
            help: "Exit with 3 if any of these happened",
            slot: |args| &mut args.fail_on,
        },
        Flag {
            name: "stat_file",
            value: "FILE",
            help: "Analyse these statistics; - is stdin",
            slot: |args| &mut args.stat_file,
        },
        Flag {
            name: "analyze",
            value: "throughput|connections|hosts",
            help: "What to show of the statistics",
            slot: |args| &mut args.analyze,
        },
        Flag {
            name: "plot",
            value: "FILE",
            help: "Draw the analysis into this .svg or .png file instead of printing it",
            slot: |args| &mut args.plot,
        },
        Flag {
            name: "client",
            value: "echo",
            help: "Kind of client; there is only one",
            slot: |args| &mut args.client,
        },
    ],
    operands: None,
};

/// The flags as given.
pub struct Args {
    address: String,
    server: bool,
    udp: bool,
    nconn: NonZeroU32,
    rate: f64,
    psize: u32,
    window: NonZeroU32,
    timeout: Duration,
    reconnect: bool,
    retries: NonZeroU32,
    monitor: bool,
    stats: Detail,
    fail_on: FailOn,
    stat_file: String,
    analyze: String,
    plot: String,
    client: String,
    sources: SourceFlags,
}

/// What there is to do.
pub enum Task {
    Analyze(Analysis),
    Serve(server::Settings),
    Generate(client::Settings, Detail, FailOn),
}

pub struct Analysis {
    pub file: String,
    pub kind: Kind,
    pub plot: Option<PictureFile>,
}

/// How much of the statistics is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    None,
    Summary,
    All,
}

/// The longest packet: what a datagram can hold.
const LONGEST: u32 = 65_507;

impl Default for Args {
    fn default() -> Self {
        Self {
            address: "[::1]:5003".to_owned(),
            server: false,
            udp: false,
            nconn: NonZeroU32::MIN,
            rate: 10.0,
            psize: 1_024,
            window: NonZeroU32::MIN,
            timeout: Duration::from_secs(10),
            reconnect: true,
            retries: NonZeroU32::new(10).expect("10 is not zero"),
            monitor: false,
            stats: Detail::Summary,
            fail_on: FailOn::default(),
            stat_file: String::new(),
            analyze: Kind::Throughput.name().to_owned(),
            plot: String::new(),
            client: "echo".to_owned(),
            sources: SourceFlags::default(),
        }
    }
}

impl Args {
    pub fn into_task(self) -> anyhow::Result<Task> {
        if !self.stat_file.is_empty() {
            let Some(kind) = Kind::named(&self.analyze) else {
                bail!("analyze {:?}: neither throughput, connections nor hosts", self.analyze);
            };
            let plot = match self.plot.is_empty() {
                true => None,
                false => Some(PictureFile::named(&self.plot)?),
            };
            return Ok(Task::Analyze(Analysis { file: self.stat_file, kind, plot }));
        }
        ensure!(self.plot.is_empty(), "plot {}: needs statistics (-stat_file)", self.plot);
        if self.server {
            return Ok(Task::Serve(server::Settings {
                program: COMMAND_LINE.program,
                address: address::to_listen_on(&self.address)?,
                udp: self.udp,
                idle_limit: None,
            }));
        }
        ensure!(self.client == "echo", "client {:?}: there is only echo", self.client);
        ensure!(self.rate > 0.0 && self.rate.is_finite(), "rate {}: no rate above 0", self.rate);
        let shortest = match self.udp {
            true => SHORTEST_DATAGRAM,
            false => HEADER,
        };
        ensure!(self.psize <= LONGEST, "psize {}: more than {LONGEST} bytes", self.psize);
        let settings = client::Settings {
            target: address::to_connect_to(&self.address, self.sources.srccidr)?,
            udp: self.udp,
            connections: self.nconn,
            rate: self.rate,
            packet_size: usize::try_from(self.psize)?.max(shortest),
            window: usize::try_from(self.window.get())?,
            time: self.timeout,
            reconnect: self.reconnect,
            slots: u64::from(self.nconn.get()) * u64::from(self.retries.get()),
            monitor: match self.monitor {
                false => Monitor::Off,
                true if io::stderr().is_terminal() => Monitor::Table,
                true => Monitor::Lines,
            },
            sources: self.sources.open()?,
            seed: self.sources.seed(),
        };
        Ok(Task::Generate(settings, self.stats, self.fail_on))
    }
}

impl FlagValue for Detail {
    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = match text {
            "none" => Self::None,
            "summary" => Self::Summary,
            "all" => Self::All,
            _ => return Err("neither none, summary nor all".to_owned()),
        };
        Ok(())
    }

    fn shown(&self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::Summary => "summary".to_owned(),
            Self::All => "all".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use traffic::flags::Request;

    use super::*;

    fn task(arguments: &[&str]) -> Result<Task, String> {
        let Ok(Request::Run(args)) = COMMAND_LINE.parse(arguments) else {
            panic!("{arguments:?}");
        };
        args.into_task().map_err(|error| error.to_string())
    }

    fn settings(arguments: &[&str]) -> client::Settings {
        match task(arguments) {
            Ok(Task::Generate(settings, ..)) => settings,
            _ => panic!("{arguments:?} is no client"),
        }
    }

    #[test]
    fn short_packets_are_made_longer() {
        assert_eq!(settings(&["-psize", "1"]).packet_size, 64);
        assert_eq!(settings(&["-psize", "1", "-udp"]).packet_size, 80);
        assert_eq!(settings(&["-psize", "100", "-udp"]).packet_size, 100);
    }

    #[test]
    fn slots_are_a_multiple_of_the_connections() {
        assert_eq!(settings(&["-nconn", "100"]).slots, 1_000);
        assert_eq!(settings(&["-nconn", "100", "-retries", "1"]).slots, 100);
    }

    #[test]
    fn a_statistics_file_goes_before_all_else() {
        let Ok(Task::Analyze(analysis)) =
            task(&["-server", "-stat_file", "-", "-analyze=hosts", "-plot=x.svg"])
        else {
            panic!("no analysis");
        };
        assert_eq!(analysis.kind, Kind::Hosts);
        assert_eq!(analysis.plot, Some(PictureFile::named("x.svg").unwrap()));
    }

    #[test]
    fn bad_values_are_named() {
        for (arguments, message) in [
            (&["-rate=0"][..], "rate 0: no rate above 0"),
            (&["-rate=NaN"], "rate NaN: no rate above 0"),
            (&["-psize=65508"], "psize 65508: more than 65507 bytes"),
            (&["-client=http"], "client \"http\": there is only echo"),
            (&["-plot=x.svg"], "plot x.svg: needs statistics (-stat_file)"),
            (
                &["-stat_file=x", "-analyze=all"],
                "analyze \"all\": neither throughput, connections nor hosts",
            ),
        ] {
            assert_eq!(task(arguments).err().as_deref(), Some(message), "{arguments:?}");
        }
    }
}
