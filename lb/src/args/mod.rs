//! The command line as it is written ([`Args`]) and what it means ([`Settings`]).

mod value;

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use clap::Parser;
use clap_complete::Shell;
use lb_core::target::Mark;
use lb_sys::privilege::User;
use lb_sys::shm::{Folder, Name};
use tracing::level_filters::LevelFilter;

use crate::cidr::{Cidr, distinct};
use crate::express::are_few;
use crate::fragments::{FragArgs, FragSettings};
use crate::rules::Wanted;
use value::{Bytes, Device, NoConsumer, Number, OnOff, Queues};

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
    device: Vec<Device>,

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

    /// Also take packets to the virtual addresses that this machine sends itself
    #[arg(long, requires = "vip", help_heading = RULES)]
    local: bool,

    /// Remove the rules of the instance and end
    #[arg(long, help_heading = RULES, conflicts_with_all = ["vip", "status", "user"])]
    down: bool,

    /// Show the rules of the instance and end
    #[arg(long, help_heading = RULES, conflicts_with_all = ["vip", "user"])]
    status: bool,

    /// Tell whether lb can work with the options given, and whether anything on this machine would
    /// spoil fragments; and end. Exit code 1 if something is not as it should be
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

/// What the command line means.
#[derive(Debug)]
pub struct Settings {
    /// Where tables and counters are.
    pub folder: Folder,
    /// The table.
    pub table: Name,
    /// The name of the counters.
    pub instance: Name,
    /// The queues' numbers, at least one.
    pub queues: RangeInclusive<u16>,
    /// Packets that the kernel keeps waiting.
    pub queue_length: u32,
    /// Size of a socket's buffer.
    pub receive_buffer: usize,
    /// What is remembered of fragments.
    pub fragments: FragSettings,
    /// Longest time that packets gather.
    pub gather: Duration,
    /// How often it is looked whether new SCTP associations spread.
    pub skew_period: Option<Duration>,
    /// Our bits of the fwmark.
    pub mark_mask: u32,
    /// The mark while no target is active.
    pub no_targets_mark: Option<Mark>,
    /// Whether packets pass a full queue.
    pub fail_open: bool,
    /// Whom to become.
    pub user: Option<User>,
    /// What to log.
    pub log: LevelFilter,
    /// The rules to install.
    pub rules: Option<RuleSettings>,
    /// What to do.
    pub action: Action,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Balance loads.
    Run,
    /// Remove the rules.
    Down,
    /// Show them.
    Status {
        /// As JSON.
        json: bool,
    },
    /// See whether all is well.
    Check {
        /// As JSON.
        json: bool,
    },
}

/// The rules to install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSettings {
    /// What they are to do.
    pub wanted: Wanted,
    /// Whether the kernel is to mark packets by itself.
    pub fast: bool,
    /// The devices where it is to send them to their next hop at once; none if it is not.
    pub express: Vec<String>,
}

impl TryFrom<Args> for Settings {
    type Error = &'static str;

    fn try_from(args: Args) -> Result<Self, &'static str> {
        let mask = args.mark_mask.0;
        if mask == 0 {
            return Err("--mark-mask 0 leaves no bit for a mark");
        }
        let no_targets_mark = match args.no_targets_mark {
            None => None,
            Some(Number(mark)) if mark & !mask != 0 => {
                return Err("--no-targets-mark has bits outside --mark-mask");
            }
            Some(Number(mark)) => Some(Mark::new(mark).ok_or("0xffffffff is not a mark")?),
        };
        let action = match args {
            Args { down: true, .. } => Action::Down,
            Args { status: true, json, .. } => Action::Status { json },
            Args { check: true, json, .. } => Action::Check { json },
            Args { json: true, .. } => return Err("--json goes with --status or --check"),
            _ => Action::Run,
        };
        let fragments = args.fragments.settings(args.copy_range)?;
        let queues = &args.queue.0;
        let wanted = || Wanted {
            vips: distinct(args.vip.clone()),
            devices: with_tun(&args.device, &fragments),
            local: args.local,
            notrack: args.notrack,
            queues: lb_sys::nft::Queues {
                first: *queues.start(),
                count: queues.end() - queues.start() + 1,
                bypass: args.no_consumer == NoConsumer::Accept,
            },
            mark_mask: mask,
            count_targets: args.count_targets == OnOff::On,
            show_inits: true,
        };
        let mut express: Vec<String> =
            args.device.iter().filter(|_| args.express).map(|device| device.0.clone()).collect();
        express.sort();
        express.dedup();
        if !are_few(express.len(), &distinct(args.vip.clone())) {
            return Err(
                "--express: more than 16 pairs of a device and a prefix of one version of IP",
            );
        }
        let rules = (!args.vip.is_empty()).then(|| RuleSettings {
            wanted: wanted(),
            fast: args.fast,
            express,
        });
        Ok(Settings {
            rules,
            action,
            folder: Folder::from_env(),
            instance: args.instance.unwrap_or_else(|| args.shm.clone()),
            table: args.shm,
            queues: args.queue.0,
            queue_length: args.queue_length,
            receive_buffer: args.receive_buffer.0,
            fragments,
            gather: Duration::from_micros(args.gather.into()),
            skew_period: (args.skew_period > 0)
                .then(|| Duration::from_secs(args.skew_period.into())),
            mark_mask: mask,
            no_targets_mark,
            fail_open: args.fail_open,
            user: args.user,
            log: args.log,
        })
    }
}

/// What comes in by the tun device came in by one of the others before.
fn with_tun(devices: &[Device], fragments: &FragSettings) -> Vec<String> {
    let tun = fragments.tun.iter().filter(|_| !devices.is_empty()).map(ToString::to_string);
    devices.iter().map(|device| device.0.clone()).chain(tun).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use lb_core::frag::FragConfig;

    fn settings(line: &str) -> Result<Settings, String> {
        let args = Args::try_parse_from(std::iter::once("lb").chain(line.split_whitespace()))
            .map_err(|error| error.to_string())?;
        Settings::try_from(args).map_err(String::from)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn defaults() {
        let settings = settings("").unwrap();
        assert_eq!(settings.table.to_string(), "markway");
        assert_eq!(settings.instance, settings.table);
        assert_eq!(settings.queues, 2..=2);
        assert_eq!((settings.queue_length, settings.receive_buffer), (1024, 8 << 20));
        assert_eq!(settings.mark_mask, u32::MAX);
        let FragSettings { tun, table, copy_range, tier } = settings.fragments;
        assert_eq!((tun, copy_range, tier), (None, 512, None));
        let expected = FragConfig { held: 0, held_per_source: 0, ..FragConfig::default() };
        assert_eq!(FragConfig { held_bytes: 1500, ..table }, expected);
        assert_eq!(settings.gather, Duration::from_micros(100));
        assert_eq!(settings.skew_period, Some(Duration::from_secs(60)));
        assert_eq!((settings.no_targets_mark, settings.fail_open), (None, false));
    }

    #[test]
    fn what_is_given_is_meant() {
        let settings = settings(
            "--shm t --instance i --queue 4:7 --receive-buffer 512k --mark-mask 0xff \
             --no-targets-mark 0x7f --fail-open --gather 0 --skew-period 0",
        )
        .unwrap();
        assert_eq!(
            (settings.table.to_string(), settings.instance.to_string()),
            ("t".into(), "i".into())
        );
        assert_eq!(settings.queues, 4..=7);
        assert_eq!((settings.receive_buffer, settings.mark_mask), (512 << 10, 0xff));
        assert_eq!(settings.no_targets_mark.map(Mark::get), Some(0x7f));
        assert!(settings.fail_open && settings.gather.is_zero());
        assert_eq!(settings.skew_period, None);
    }

    #[test]
    fn rules_are_as_wanted() {
        assert_eq!(settings("").unwrap().rules, None);
        let line = "--vip 10.0.0.0/24 1000:: 10.0.0.7 --device eth1 eth2 --fast --queue 0:3 \
                    --no-consumer accept --notrack --local --mark-mask 0xff \
                    --count-targets off";
        let rules = settings(line).unwrap().rules.unwrap();
        let Wanted { vips, devices, local, notrack, queues, mark_mask, count_targets, show_inits } =
            rules.wanted;
        let vips: Vec<String> = vips.iter().map(Cidr::to_string).collect();
        assert_eq!(vips, ["10.0.0.0/24", "1000::/128"]);
        assert_eq!(devices, ["eth1", "eth2"]);
        assert!(rules.fast && local && notrack && !count_targets && show_inits);
        assert_eq!((queues.first, queues.count, queues.bypass), (0, 4, true));
        assert_eq!(mark_mask, 0xff);
        let devices = |line| settings(line).unwrap().rules.unwrap().wanted.devices;
        assert_eq!(devices("--vip 1000:: --device eth1 --tun frag0"), ["eth1", "frag0"]);
        assert!(devices("--vip 1000:: --tun frag0").is_empty(), "all devices");
        let rules = settings("--vip 1000::").unwrap().rules.unwrap();
        assert!(!rules.fast && !rules.wanted.queues.bypass && !rules.wanted.notrack);
        assert!(rules.wanted.count_targets);
        assert_eq!(settings("--status --json").unwrap().action, Action::Status { json: true });
        assert_eq!(settings("--check --vip 1000::").unwrap().action, Action::Check { json: false });
        assert_eq!(settings("--down --instance a").unwrap().action, Action::Down);
    }

    #[test]
    fn fragments_are_held_whole() {
        let fragments = settings("--tun frag0").unwrap().fragments;
        assert_eq!((fragments.table, fragments.copy_range), (FragConfig::default(), 1500));
        let line = "--tun frag0 --copy-range 9000 --frag-entries 7 --frag-held 100 --frag-ttl 50";
        let FragSettings { tun, table, copy_range, tier: _ } = settings(line).unwrap().fragments;
        assert_eq!((tun.unwrap().to_string(), copy_range), ("frag0".into(), 9000));
        assert_eq!((table.entries, table.held, table.held_bytes), (7, 100, 9000));
        assert_eq!(table.ttl, Duration::from_millis(50));
        for line in ["--tier-shm routers", "--lbshm routers"] {
            let tier = settings(line).unwrap().fragments.tier;
            assert_eq!(tier.map(|name| name.to_string()), Some("routers".into()));
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (line, complaint) in [
            ("--queue 3:2", "the first queue is above the last"),
            ("--queue 0:64", "more than 64 queues"),
            ("--queue 65536", "0 to 65535"),
            ("--queue x", "0 to 65535"),
            ("--mark-mask 0", "no bit"),
            ("--mark-mask 0xff --no-targets-mark 0x100", "outside --mark-mask"),
            ("--no-targets-mark 0xffffffff", "not a mark"),
            ("--no-targets-mark -1", "unexpected argument"),
            ("--receive-buffer 3G", "not a size"),
            ("--receive-buffer 4096M", "beyond 2 GiB"),
            ("--copy-range 63", "63 is not in 64..=65535"),
            ("--queue-length 0", "0 is not in 1.."),
            ("--gather 10001", "10001 is not in"),
            ("--skew-period 86401", "86401 is not in"),
            ("--tun a/b", "not the name of a device"),
            ("--tun a --copy-range 1279", "with --tun whole packets are needed"),
            ("--frag-held 5", "--tun"),
            ("--tun a --frag-held 0", "0 is not in 1.."),
            ("--frag-entries 0", "0 is not in 1.."),
            ("--frag-ttl 0", "0 is not in 1.."),
            ("--shm a/b", "is not a name"),
            ("--log loud", "invalid value"),
            ("--user 0", "root"),
            ("--user no-such-user", "there is no user"),
            ("extra", "unexpected argument"),
            ("--fast", "--vip"),
            ("--vip 10.0.0.1 --device a --express", "--fast"),
            ("--vip 10.0.0.1 --fast --express", "--device"),
            (
                "--vip 10.0.0.1 10.0.0.3 10.0.0.5 10.0.0.7 --device a b c d e --fast --express",
                "16 pairs",
            ),
            ("--local", "--vip"),
            ("--vip", "a value is required"),
            ("--vip 10.0.0.1/24", "did you mean 10.0.0.0/24?"),
            ("--vip 10.0.0.1 --device a/b", "not the name of a device"),
            ("--vip 10.0.0.1 --no-consumer pass", "invalid value"),
            ("--vip 10.0.0.1 --down", "cannot be used with"),
            ("--down --status", "cannot be used with"),
            ("--json", "--status"),
            ("--check --status", "cannot be used with"),
        ] {
            let error = settings(line).unwrap_err();
            assert!(error.contains(complaint), "{line}: {error}");
        }
    }
}
