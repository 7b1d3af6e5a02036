use std::collections::BTreeSet;

use clap::{Args, ValueEnum};
use lb_core::hash::Seed;
use lb_core::key::{Affinity, EncapPorts, KeyModes, SctpHash};
use lb_core::table::{Config, MAX_SLOTS, MIN_SLOTS, prime_at_most};
use lb_sys::shm::{self, Existing, Folder};

use crate::args::{TableArg, exit_codes, mark, number};
use crate::error::Error;
use crate::output::print;

/// Make a table, or make it anew
///
/// A table that is there is replaced whole, and a running lb moves over to the new one. If it has
/// targets, --keep or --force must say what becomes of them.
#[derive(Debug, Args)]
#[command(after_help = concat!(
    "Examples:
  shm-tool init
  shm-tool init --shm tier2 --m 65537 --n 200 --seed 0x1234
  shm-tool init --keep --n 64            room for more targets, all else as it was

",
    exit_codes!(changing)
))]
pub struct Init {
    #[command(flatten)]
    table: TableArg,
    /// Slots; if not prime, the prime below is taken [default: 997]
    #[arg(long = "m", value_name = "M")]
    slots: Option<u32>,
    /// Room for targets [default: 32]
    #[arg(long = "n", value_name = "N")]
    targets: Option<u32>,
    /// The mark by which other routers of a tier reach this one; 0 is none [default: 0]
    #[arg(long, value_name = "MARK", value_parser = own_mark)]
    own_mark: Option<u32>,
    /// Initial value of the hash, the same on all routers of a tier [default: 0x4d574159]
    #[arg(long, value_parser = number)]
    seed: Option<u32>,
    /// What is hashed of an SCTP packet [default: ports]
    #[arg(long)]
    sctp_hash: Option<SctpHashArg>,
    /// What of a TCP or UDP client meets the same target [default: flow]
    #[arg(long)]
    affinity: Option<AffinityArg>,
    /// UDP ports behind which SCTP is found, one or two; 0 is none [default: 0]
    #[arg(long, value_name = "PORT[,PORT]", value_parser = encap_ports)]
    sctp_encap: Option<EncapPorts>,
    /// Keep the targets of a table that is there, and whatever of it no option changes
    #[arg(long, conflicts_with = "force")]
    keep: bool,
    /// Drop the targets of a table that is there, also if it is damaged or of another version
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SctpHashArg {
    /// The ports alone, so that every path of an association meets the same target
    Ports,
    /// Addresses and ports, as for TCP
    Tuple,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AffinityArg {
    /// A flow: addresses, protocol and ports
    Flow,
    /// All that comes from a source address
    Client,
}

impl Init {
    pub fn run(&self, folder: &Folder) -> Result<(), Error> {
        let slots = self.slots.map(adjusted);
        let existing = match (self.keep, self.force) {
            (true, _) => Existing::Keep,
            (_, true) => Existing::Drop,
            _ => Existing::Refuse,
        };
        let made = shm::init_from(folder, &self.table.name, existing, |kept| {
            let base = kept.copied().unwrap_or_default();
            Config {
                slots: slots.unwrap_or(base.slots),
                targets: self.targets.unwrap_or(base.targets),
                own_mark: self.own_mark.unwrap_or(base.own_mark),
                seed: self.seed.map_or(base.seed, Seed),
                modes: KeyModes {
                    sctp_hash: self.sctp_hash.map_or(base.modes.sctp_hash, SctpHash::from),
                    affinity: self.affinity.map_or(base.modes.affinity, Affinity::from),
                    sctp_encap: self.sctp_encap.unwrap_or(base.modes.sctp_encap),
                },
            }
        });
        // Also when it failed: the error speaks of the adjusted M.
        let told = match (self.slots, slots) {
            (Some(asked), Some(slots)) if asked != slots => {
                print(format!("M adjusted: {asked} -> {slots}\n"))
            }
            _ => Ok(()),
        };
        made?;
        told
    }
}

/// The prime below. What is out of range stays as it is, so that the error names it.
fn adjusted(slots: u32) -> u32 {
    let in_range = (MIN_SLOTS..=MAX_SLOTS).contains(&slots);
    let prime = in_range.then(|| prime_at_most(slots));
    prime.flatten().unwrap_or(slots)
}

fn own_mark(text: &str) -> Result<u32, String> {
    mark(text).map(|mark| mark.get())
}

/// The order of the ports means nothing, so it must not make fingerprints differ.
fn encap_ports(text: &str) -> Result<EncapPorts, &'static str> {
    const FORM: &str = "not one or two ports";
    let ports: Result<BTreeSet<u16>, _> = text.split(',').map(str::parse).collect();
    let mut ports = ports.map_err(|_| FORM)?;
    ports.remove(&0);
    let mut ports = ports.into_iter();
    let encap = EncapPorts([(); 2].map(|()| ports.next().unwrap_or(0)));
    ports.next().map_or(Ok(encap), |_| Err(FORM))
}

impl From<SctpHashArg> for SctpHash {
    fn from(arg: SctpHashArg) -> Self {
        match arg {
            SctpHashArg::Ports => SctpHash::Ports,
            SctpHashArg::Tuple => SctpHash::Tuple,
        }
    }
}

impl From<AffinityArg> for Affinity {
    fn from(arg: AffinityArg) -> Self {
        match arg {
            AffinityArg::Flow => Affinity::Flow,
            AffinityArg::Client => Affinity::Client,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::CommandFactory as _;

    #[test]
    fn help_names_the_true_defaults() {
        let Config { slots, targets, own_mark, seed, modes } = Config::default();
        let KeyModes {
            sctp_hash: SctpHash::Ports,
            affinity: Affinity::Flow,
            sctp_encap: EncapPorts([0, 0]),
        } = modes
        else {
            panic!("other modes by default");
        };
        let mut command = Cli::command();
        let help = command.find_subcommand_mut("init").unwrap().render_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for (option, default) in [
            ("--m ", slots.to_string()),
            ("--n ", targets.to_string()),
            ("--own-mark ", own_mark.to_string()),
            ("--seed ", format!("{:#x}", seed.0)),
            ("--sctp-hash ", "ports".into()),
            ("--affinity ", "flow".into()),
            ("--sctp-encap ", "0".into()),
        ] {
            let (_, rest) = help.split_once(option).unwrap();
            let (_, rest) = rest.split_once("[default: ").unwrap();
            assert!(rest.starts_with(&format!("{default}]")), "{option}: {rest}");
        }
    }

    #[test]
    fn the_order_of_ports_means_nothing() {
        for (text, ports) in [
            ("0", [0, 0]),
            ("9899", [9899, 0]),
            ("9899,4500", [4500, 9899]),
            ("4500,9899", [4500, 9899]),
            ("9899,9899,0", [9899, 0]),
        ] {
            assert_eq!(encap_ports(text), Ok(EncapPorts(ports)), "{text}");
        }
        for text in ["", ",", "1,2,3", "65536", "x", "1,", "-1"] {
            assert!(encap_ports(text).is_err(), "{text:?}");
        }
    }
}
