//! The command line as it is written ([`Args`]) and what it means ([`Settings`]).

mod settings;
#[cfg(test)]
mod tests;
mod value;

use std::str::FromStr;

use clap::Parser;
use clap_complete::Shell;
use lb_sys::privilege::User;
use lb_sys::shm::Name;
use lb_sys::tun::DeviceName;
use tracing::level_filters::LevelFilter;

use crate::cidr::Cidr;
use crate::fragments::FragArgs;
pub use settings::{Action, RuleSettings, Settings};
use value::{Bytes, NoConsumer, Number, OnOff, Queues};

/// Takes packets from netfilter queues and sends them on with the fwmark of their target.
///
/// Which target a packet meets is decided by the table that `shm-tool` keeps. The rules that send
/// packets to the queue, and the routes that lead a mark to its target, are yours to make; see the
/// examples.
#[derive(Debug, Parser)]
#[command(version, after_long_help = EXAMPLES, max_term_width = 100)]
pub struct Args {
    /// The table to serve
    #[arg(long, value_name = "NAME", default_value = "markway")]
    shm: Name,

    /// Name of this process for the counters; one `lb` each [default: the table's name]
    #[arg(long, value_name = "NAME")]
    instance: Option<Name>,

    /// Queue, or first and last of several, each with a thread and a socket of its own
    #[arg(long, value_name = "N|A:B", default_value = "2")]
    queue: Queues,

    /// Packets that the kernel keeps waiting in each queue
    #[arg(long, value_name = "PACKETS", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    queue_length: u32,

    /// Receive buffer of each socket; a suffix k or M multiplies by 1024 or 1048576
    #[arg(long, value_name = "BYTES", default_value = "8M")]
    receive_buffer: Bytes,

    /// Bytes of each packet that are looked at; 512 hold all headers that make sense, and fragments are held
    /// whole [default: 512, with --tun 1500]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(64..=65535))]
    copy_range: Option<u32>,

    /// Longest time in microseconds that packets gather before they are taken, from 65,000 packets/s in
    /// a queue on: it saves processor time and adds to the latency. 0 is never
    #[arg(long, value_name = "MICROS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(..=10_000))]
    gather: u32,

    /// Seconds after which it is looked whether one pair of SCTP ports has far more than its share of new
    /// associations, and warned if so. 0 is never
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(..=86_400))]
    skew_period: u32,

    /// Bits of the fwmark that belong to Markway; the others of a packet stay as they are
    #[arg(long, value_name = "MASK", default_value = "0xffffffff")]
    mark_mask: Number,

    /// Mark of packets while no target is active [default: such packets are dropped]
    #[arg(long, value_name = "MARK")]
    no_targets_mark: Option<Number>,

    /// Let packets pass unmarked, instead of dropping them, when a queue is full
    #[arg(long)]
    fail_open: bool,

    /// Virtual addresses: installs rules of nftables that send their packets to the queues. They stay
    /// when lb ends, see --down
    #[arg(long, value_name = "CIDR", num_args = 1.., help_heading = RULES)]
    vip: Vec<Cidr>,

    /// Devices by which packets for the virtual addresses come in [default: all]
    #[arg(long, value_name = "DEV", num_args = 1.., requires = "vip", help_heading = RULES)]
    device: Vec<DeviceName>,

    /// Mirror the table into the kernel, which then marks TCP, UDP and SCTP packets by itself; the queues get
    /// the others
    #[arg(long, requires = "vip", help_heading = RULES)]
    fast: bool,

    /// Also send what --fast would mark to its next hop as soon as it comes in by one of the devices, before
    /// the IP stack sees it: rules of iptables and counters of the stack do not see such packets
    #[arg(long, requires = "fast", requires = "device", help_heading = RULES)]
    express: bool,

    /// What happens to packets that the rules send to a queue while no lb serves it
    #[arg(long, value_name = "accept|drop", default_value = "drop", requires = "vip", help_heading = RULES)]
    no_consumer: NoConsumer,

    /// Keep packets for the virtual addresses from connection tracking and NAT
    #[arg(long, requires = "vip", help_heading = RULES)]
    notrack: bool,

    /// Count packets and bytes of each target in the kernel, too, with --fast: lb --status shows them
    #[arg(long, value_name = "on|off", default_value = "on", requires = "vip", help_heading = RULES)]
    count_targets: OnOff,

    /// Also take packets to the virtual addresses that this machine sends itself, its ICMP errors included;
    /// they need a route to those addresses
    #[arg(long, requires = "vip", help_heading = RULES)]
    local: bool,

    /// Remove the rules of the instance and end
    #[arg(long, help_heading = RULES, conflicts_with_all = ["vip", "status", "user"])]
    down: bool,

    /// Show the rules of the instance and end
    #[arg(long, help_heading = RULES, conflicts_with_all = ["vip", "user"])]
    status: bool,

    /// Tell whether lb can work with the options given, and whether anything on this machine would
    /// spoil fragments or errors; and end. Exit code 1 if something is not as it should be
    #[arg(long, conflicts_with_all = ["down", "status"])]
    check: bool,

    /// With --status or --check: print one line of JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    fragments: FragArgs,

    /// Once all is set up become this user (name, UID or UID:GID), keep CAP_NET_ADMIN alone, and
    /// refuse system calls that a running lb does not need
    #[arg(long, value_name = "USER")]
    user: Option<User>,

    /// What to log on stderr: off, error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: LevelFilter,

    /// Write a man page or the completions of a shell to stdout
    #[arg(long, value_name = "man|SHELL", hide = true)]
    pub print: Option<Print>,
}

const RULES: &str = "Rules";

const EXAMPLES: &str = "\
Examples:
  shm-tool init && shm-tool activate 101 102
  ip rule add fwmark 101 lookup 101; ip route add default via 192.168.1.1 table 101
  ip rule add fwmark 102 lookup 102; ip route add default via 192.168.1.2 table 102
  iptables -t mangle -A PREROUTING -d 10.0.0.0/24 -j NFQUEUE --queue-num 2
  lb

  Two queues, and the kernel spreads the flows over them:
  iptables -t mangle -A PREROUTING -d 10.0.0.0/24 -j NFQUEUE --queue-balance 0:1
  lb --queue 0:1

  Rules by lb itself, and ordinary packets stay in the kernel:
  lb --vip 10.0.0.0/24 1000::/120 --fast
  lb --status; lb --down

  Will it work here, and will fragments?
  lb --check --vip 10.0.0.0/24 1000::/120 --fast --tun frag0

While no `lb` serves the queue the kernel drops what is sent there, unless the rule says
--queue-bypass: then such packets go on unmarked.

Environment:
  MARKWAY_SHM_DIR  folder of tables and counters [default: /dev/shm]

Exit codes: 0 ended by SIGTERM or SIGINT, 1 could not start, failed, or --check found something,
2 wrong usage.
Needs the capability CAP_NET_ADMIN, a readable /proc and a writable folder of tables and counters; the
root file system may be read-only. With --user it also needs CAP_SETUID and CAP_SETGID to start.";

/// What can be written instead of running.
#[derive(Clone, Copy, Debug)]
pub enum Print {
    /// The man page.
    Man,
    /// The completions of a shell.
    Completions(Shell),
}

impl FromStr for Print {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "man" => Ok(Print::Man),
            shell => Shell::from_str(shell).map(Print::Completions),
        }
    }
}
