//! The command line, and the settings that it stands for.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::ensure;
use traffic::address;
use traffic::flags::{CommandLine, Flag, FlagValue, Operands};
use traffic::picture::PictureFile;

use crate::report::Format;

pub const COMMAND_LINE: CommandLine<Args> = CommandLine {
    program: "break-test",
    summary: "\
Measures how long traffic breaks, on one or more paths at once, while something is
done to the network. Each path is an address, which may have a name:
break-test direct=192.168.2.1 vip=10.0.0.0 vip6=1000::

On each it sends an ICMP echo and a UDP datagram every 10 ms, connects by TCP ten
times a second, and keeps a TCP stream of 10 Mbit/s. UDP and the stream need
'ctraffic -server -udp' at the other end; ICMP needs root or ping_group_range.",
    flags: &[
        Flag {
            name: "remote-address",
            value: "ADDRESS",
            help: "The path if none is named",
            slot: |args| &mut args.remote_address,
        },
        Flag {
            name: "remote-port",
            value: "PORT",
            help: "Port of the TCP connects",
            slot: |args| &mut args.remote_port,
        },
        Flag {
            name: "echo-port",
            value: "PORT",
            help: "Port of the ctraffic server, for UDP and the TCP stream",
            slot: |args| &mut args.echo_port,
        },
        Flag {
            name: "duration-seconds",
            value: "N",
            help: "Time to run",
            slot: |args| &mut args.duration_seconds,
        },
        Flag {
            name: "during",
            value: "COMMAND",
            help: "Run this in a shell in the middle of the time",
            slot: |args| &mut args.during,
        },
        Flag {
            name: "output",
            value: "text|json",
            help: "Format of the report",
            slot: |args| &mut args.output,
        },
        Flag {
            name: "plot",
            value: "FILE",
            help: "Draw the breaks over time into this .svg or .png file",
            slot: |args| &mut args.plot,
        },
        Flag {
            name: "max-break",
            value: "DURATION",
            help: "Exit with 3 if anything broke for longer",
            slot: |args| &mut args.max_break,
        },
    ],
    operands: Some(Operands { form: "[[NAME=]ADDRESS]...", slot: |args| &mut args.paths }),
};

/// The flags as given.
pub struct Args {
    remote_address: String,
    remote_port: u16,
    echo_port: u16,
    duration_seconds: u32,
    during: String,
    output: Format,
    plot: String,
    max_break: Limit,
    paths: Vec<String>,
}

/// A limit that may be zero, and that may be absent.
#[derive(Clone, Copy, Default)]
struct Limit(Option<Duration>);

pub struct Settings {
    pub paths: Vec<Path>,
    pub connect_port: u16,
    pub echo_port: u16,
    pub time: Duration,
    pub during: Option<String>,
    pub format: Format,
    pub plot: Option<PictureFile>,
    pub longest_break: Option<Duration>,
}

#[derive(Clone, Debug)]
pub struct Path {
    pub name: String,
    pub address: IpAddr,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            remote_address: "100.64.0.1".to_owned(),
            remote_port: 80,
            echo_port: 5003,
            duration_seconds: 60,
            during: String::new(),
            output: Format::Text,
            plot: String::new(),
            max_break: Limit(None),
            paths: Vec::new(),
        }
    }
}

impl Args {
    pub fn into_settings(self) -> anyhow::Result<Settings> {
        let paths = match self.paths.is_empty() {
            true => vec![Path::parse(&self.remote_address)?],
            false => self.paths.iter().map(|text| Path::parse(text)).collect::<Result<_, _>>()?,
        };
        ensure!(self.duration_seconds > 0, "duration-seconds 0: needs some time");
        let plot = match self.plot.is_empty() {
            true => None,
            false => Some(PictureFile::named(&self.plot)?),
        };
        Ok(Settings {
            paths,
            connect_port: self.remote_port,
            echo_port: self.echo_port,
            time: Duration::from_secs(self.duration_seconds.into()),
            during: (!self.during.is_empty()).then_some(self.during),
            format: self.output,
            plot,
            longest_break: self.max_break.0,
        })
    }
}

impl Path {
    /// `NAME=ADDRESS`, or an address that is its own name.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let (name, address) = text.split_once('=').unwrap_or((text, text));
        let address = match address.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(ip) => ip,
            Err(_) => SocketAddr::ip(&address::to_connect_to(&format!("{address}:0"), None)?),
        };
        Ok(Self { name: name.to_owned(), address })
    }
}

impl FlagValue for Limit {
    fn set(&mut self, text: &str) -> Result<(), String> {
        let mut limit = Duration::ZERO;
        limit.set(text)?;
        self.0 = Some(limit);
        Ok(())
    }

    fn shown(&self) -> String {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use traffic::flags::Request;

    use super::*;

    fn settings(arguments: &[&str]) -> Result<Settings, String> {
        let Ok(Request::Run(args)) = COMMAND_LINE.parse(arguments) else {
            panic!("{arguments:?}");
        };
        args.into_settings().map_err(|error| error.to_string())
    }

    #[test]
    fn paths_have_names_or_are_their_own() {
        let settings = settings(&["10.0.0.1", "vip=[1000::]", "-max-break=0"]).unwrap();
        let shown: Vec<_> =
            settings.paths.iter().map(|path| format!("{} {}", path.name, path.address)).collect();
        assert_eq!(shown, ["10.0.0.1 10.0.0.1", "vip 1000::"]);
        assert_eq!(settings.longest_break, Some(Duration::ZERO));
    }

    #[test]
    fn the_flags_of_the_original_are_taken() {
        let settings = settings(&[
            "--remote-address=10.0.0.1",
            "--remote-port=8080",
            "--duration-seconds=5",
            "--output=json",
        ])
        .unwrap();
        assert_eq!(settings.paths[0].address, IpAddr::from([10, 0, 0, 1]));
        assert_eq!((settings.connect_port, settings.time), (8080, Duration::from_secs(5)));
        assert_eq!(settings.longest_break, None);
    }

    #[test]
    fn bad_values_are_named() {
        for (arguments, part) in [
            (&["10.0.0.300"][..], "resolve \"10.0.0.300\""),
            (&["-duration-seconds=0"], "duration-seconds 0: needs some time"),
            (&["-plot=x.gif"], "plot x.gif: the ending is neither .svg nor .png"),
        ] {
            let error = settings(arguments).err().unwrap();
            assert!(error.contains(part), "{error}");
        }
    }
}
