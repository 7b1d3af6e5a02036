//! The command line as a whole, and the arguments that several verbs share.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Parser};
use sctp_stack::{Addresses, Choice, Encapsulation, Rto, Settings};
use traffic::duration;

use crate::verb::Verb;

/// The end of every help text.
macro_rules! exit_codes {
    ($zero:literal) => {
        concat!("Exit codes: 0 ", $zero, "; 1 failed or wrong usage (stderr says why).")
    };
}
pub(crate) use exit_codes;

/// SCTP test traffic: an echo server, a probe, and steady traffic with statistics.
///
/// It speaks SCTP through the kernel or, where the kernel has none, in user space.
#[derive(Debug, Parser)]
#[command(
    name = "sctpt",
    version,
    infer_long_args = true,
    after_help = concat!(
        "Examples:
  sctpt server --addr 10.0.0.1,1000::81 --log 6
  echo Hi | sctpt client --addr 10.0.0.1,1000::81 --laddr 192.168.2.221,1000::1
  sctpt stats init
  sctpt ctraffic --addr 10.0.0.1 --laddr 192.168.2.221 --clients 64 --rate 1000
  sctpt stats watch

Environment:
  MARKWAY_SHM_DIR  the folder of the statistics, /dev/shm if not set

",
        exit_codes!("done")
    )
)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

/// The port that SCTP in UDP has by convention.
const ENCAPSULATION_PORT: u16 = 9899;

// No documentation comments on these structures: clap would show them as those of the verbs.
#[derive(Debug, Args)]
pub struct LogArg {
    /// What to tell on stderr: 4 warnings, 5 notices, 6 what happens, 7 everything
    #[arg(long, value_name = "0-7", default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=7))]
    pub log: u8,
}

#[derive(Debug, Args)]
pub struct PortArg {
    /// The SCTP port of the server
    #[arg(long, value_name = "PORT", default_value = "6000")]
    port: String,
}

#[derive(Debug, Args)]
pub struct RemoteArgs {
    /// Addresses of the server, IPv4 and IPv6, with commas between them
    #[arg(long, value_name = "ADDR,...", default_value = "::1")]
    addr: String,
    /// Addresses of this end
    #[arg(long, value_name = "ADDR,...", default_value = "::1")]
    laddr: String,
    /// The port of this end; 0: any. Further clients take the ports behind it
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub lport: u16,
    #[command(flatten)]
    port: PortArg,
}

#[derive(Debug, Args)]
pub struct StackArgs {
    /// Who speaks SCTP: the kernel, this program, or the kernel if it can
    #[arg(long, default_value = "auto", value_parser = PossibleValuesParser::new(["auto", "kernel", "user"]).try_map(|word| word.parse::<Choice>()))]
    pub stack: Choice,
    /// SCTP in UDP from this port [default: 9899 if --encap-remote is given]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    encap_local: Option<u16>,
    /// SCTP in UDP to this port [default: 9899 if --encap-local is given]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    encap_remote: Option<u16>,
    /// Time between heartbeats on an idle path, as 500ms [default: the stack's]
    #[arg(long, value_name = "TIME", value_parser = positive_time)]
    heartbeat: Option<Duration>,
    /// Retransmission time-out, as 200ms,100ms,500ms [default: the stack's]
    #[arg(long, value_name = "INITIAL,MIN,MAX", value_parser = rto)]
    rto: Option<Rto>,
    /// Losses in a row after which a path is inactive [default: the stack's]
    #[arg(long, value_name = "N")]
    path_max_retrans: Option<u16>,
    /// Losses in a row after which an association ends [default: the stack's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    assoc_max_retrans: Option<u16>,
    /// Send small messages at once
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    nodelay: bool,
}

impl PortArg {
    pub fn get(&self) -> anyhow::Result<u16> {
        match self.port.parse() {
            Ok(0) | Err(_) => bail!("Invalid port [{}]", self.port),
            Ok(port) => Ok(port),
        }
    }
}

impl RemoteArgs {
    /// Addresses of this end and of the server.
    pub fn ends(&self) -> anyhow::Result<(Addresses, Addresses)> {
        let port = self.port.get()?;
        let remote = addresses("Invalid addresses", &self.addr, port)?;
        let local = addresses("Invalid local addresses", &self.laddr, self.lport)?;
        let reaches = |from: &IpAddr, to: &IpAddr| {
            from.is_ipv4() == to.is_ipv4() || *from == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        };
        let mut froms = local.addresses.iter();
        if !froms.any(|from| remote.addresses.iter().any(|to| reaches(from, to))) {
            bail!("connect {remote}: {} is not of its family", self.laddr);
        }
        Ok((local, remote))
    }
}

impl StackArgs {
    pub fn settings(&self) -> Settings {
        let encapsulation = match (self.encap_local, self.encap_remote) {
            (None, None) => None,
            (local, remote) => Some(Encapsulation {
                local: local.unwrap_or(ENCAPSULATION_PORT),
                remote: remote.unwrap_or(ENCAPSULATION_PORT),
            }),
        };
        Settings {
            heartbeat: self.heartbeat,
            rto: self.rto,
            path_max_retransmits: self.path_max_retrans,
            association_max_retransmits: self.assoc_max_retrans,
            nodelay: self.nodelay,
            encapsulation,
            ..Settings::default()
        }
    }
}

/// The addresses of one end; `what` they are stands in the error.
pub fn addresses(what: &str, list: &str, port: u16) -> anyhow::Result<Addresses> {
    Addresses::parse(list, port).with_context(|| format!("{what} [{list}]"))
}

/// A number of seconds, or one with a unit.
pub fn time(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string()),
        Err(_) => duration::parse(text).map_err(|error| error.to_string()),
    }
}

pub fn positive_time(text: &str) -> Result<Duration, String> {
    time(text).and_then(|time| match time.is_zero() {
        true => Err("more than nothing is needed".to_owned()),
        false => Ok(time),
    })
}

fn rto(text: &str) -> Result<Rto, String> {
    let times = text.split(',').map(positive_time).collect::<Result<Vec<_>, _>>()?;
    match times[..] {
        [initial, min, max] if min <= initial && initial <= max => Ok(Rto { initial, min, max }),
        [_, _, _] => Err("initial is not between min and max".to_owned()),
        _ => Err("needs initial, min and max, as 200ms,100ms,500ms".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_may_be_cut_and_stand_anywhere() {
        let cli = Cli::try_parse_from(["sctpt", "stats", "--buck=4", "init", "--interv", "7"]);
        let Verb::Stats(stats) = cli.unwrap().verb else { panic!() };
        assert_eq!(stats.shape().unwrap(), (Some(4), Some(7)));
        assert!(Cli::try_parse_from(["sctpt", "ctraffic", "--d", "5"]).is_err(), "ambiguous");
    }

    #[test]
    fn times_are_seconds_or_have_a_unit() {
        for (text, millis) in [("10", 10_000), ("0.5", 500), ("1m30s", 90_000), ("200ms", 200)] {
            assert_eq!(time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "-1", "x", "1d", "inf", "NaN", "1e300"] {
            assert!(time(bad).is_err(), "{bad}");
        }
        assert!(positive_time("0").is_err());
    }

    #[test]
    fn a_retransmission_timeout_is_in_order() {
        let millis = Duration::from_millis;
        let expected = Rto { initial: millis(200), min: millis(100), max: millis(500) };
        assert_eq!(rto("200ms,100ms,500ms"), Ok(expected));
        for bad in ["", "1", "1,2", "1,2,3", "1,1,0.5", "1,0,2", "1,1,1,1"] {
            assert!(rto(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_port_of_udp_is_enough() {
        let settings = |options: &[&str]| {
            let line = ["sctpt", "server"].iter().chain(options);
            let Verb::Server(server) = Cli::try_parse_from(line).unwrap().verb else { panic!() };
            server.stack.settings().encapsulation
        };
        assert_eq!(settings(&[]), None);
        let ports = |local, remote| Some(Encapsulation { local, remote });
        assert_eq!(settings(&["--encap-local", "1"]), ports(1, 9899));
        assert_eq!(settings(&["--encap-remote", "2"]), ports(9899, 2));
        assert_eq!(settings(&["--encap-local=1", "--encap-remote=2"]), ports(1, 2));
    }
}
