//! What the command line means.

use std::ops::RangeInclusive;
use std::time::Duration;

use lb_core::target::Mark;
use lb_sys::privilege::User;
use lb_sys::shm::{Folder, Name};
use lb_sys::tun::DeviceName;
use tracing::level_filters::LevelFilter;

use super::Args;
use super::value::{NoConsumer, Number, OnOff};
use crate::cidr::distinct;
use crate::express::are_few;
use crate::fragments::FragSettings;
use crate::rules::Wanted;

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
            args.device.iter().filter(|_| args.express).map(ToString::to_string).collect();
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

/// Each once, and the tun device: what comes in by that came in by one of the others before.
fn with_tun(devices: &[DeviceName], fragments: &FragSettings) -> Vec<String> {
    let tun = fragments.tun.iter().filter(|_| !devices.is_empty());
    let mut names: Vec<String> = Vec::new();
    for name in devices.iter().chain(tun).map(ToString::to_string) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
