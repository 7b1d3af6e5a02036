use clap::Args;
use lb_core::key::{Affinity, EncapPorts, SctpHash};
use lb_core::table::{Share, Snapshot};
use lb_sys::shm::{Folder, Name};
use serde_json::{Value, json};

use crate::args::{JsonArg, TableArg, exit_codes};
use crate::columns::{Align, aligned};
use crate::error::Error;
use crate::output::{print, print_json};
use crate::verb::read;

/// Show a table: its targets with their shares, and what identifies it
///
/// Evenness is how close the targets come to their ideal shares: 100 % less the largest deviation.
/// Two tables with equal fingerprints decide about every packet alike.
#[derive(Debug, Args)]
#[command(after_help = concat!(
    "Examples:
  shm-tool show
  shm-tool show --shm tier2 --json | jq -r .fingerprint

",
    exit_codes!(reading)
))]
pub struct Show {
    #[command(flatten)]
    table: TableArg,
    #[command(flatten)]
    format: JsonArg,
}

impl Show {
    pub fn run(&self, folder: &Folder) -> Result<(), Error> {
        let name = &self.table.name;
        let snapshot = read(folder, name)?;
        if self.format.json {
            print_json(&json_of(name, &snapshot))
        } else {
            print(text_of(name, &snapshot))
        }
    }
}

fn json_of(name: &Name, snapshot: &Snapshot) -> Value {
    let config = &snapshot.config;
    let target = |share: &Share| {
        json!({
            "mark": share.target.mark.get(),
            "weight": share.target.weight.0,
            "index": share.index,
            "slots": share.slots,
            "share": f64::from(share.slots) / f64::from(config.slots),
        })
    };
    let targets: Vec<Value> = snapshot.shares().iter().map(target).collect();
    json!({
        "name": name.to_string(),
        "m": config.slots,
        "n": config.targets,
        "own_mark": config.own_mark,
        "seed": config.seed.0,
        "sctp_hash": sctp_hash(config.modes.sctp_hash),
        "affinity": affinity(config.modes.affinity),
        "sctp_encap": ports(config.modes.sctp_encap),
        "generation": snapshot.generation.0,
        "fingerprint": snapshot.fingerprint.to_string(),
        "evenness": snapshot.evenness(),
        "targets": targets,
    })
}

fn text_of(name: &Name, snapshot: &Snapshot) -> String {
    let config = &snapshot.config;
    let evenness = snapshot.evenness().map(|evenness| percent(evenness, 1.0));
    let encap = ports(config.modes.sctp_encap);
    let sctp_encap = match encap[..] {
        [] => "none".into(),
        _ => format!("to port {}", encap.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")),
    };
    let head = [
        ("table", name.to_string()),
        ("slots (M)", config.slots.to_string()),
        ("room (N)", format!("{} targets", config.targets)),
        (
            "own mark",
            match config.own_mark {
                0 => "none".into(),
                mark => mark.to_string(),
            },
        ),
        ("seed", format!("{:#010x}", config.seed.0)),
        ("SCTP hash", sctp_hash(config.modes.sctp_hash).into()),
        ("SCTP in UDP", sctp_encap),
        ("affinity", affinity(config.modes.affinity).into()),
        ("generation", snapshot.generation.0.to_string()),
        ("fingerprint", snapshot.fingerprint.to_string()),
        ("evenness", evenness.unwrap_or("no active target".into())),
    ];
    let head = head.map(|(label, value)| vec![label.to_string(), value]);

    let shares = snapshot.shares();
    let targets = match shares.len() {
        0 => "no targets\n".into(),
        _ => targets_text(&shares, f64::from(config.slots)),
    };
    format!("{}\n{targets}", aligned(&head, &[Align::Left, Align::Left]))
}

fn targets_text(shares: &[Share], slots: f64) -> String {
    let mut rows =
        vec![["index", "mark", "weight", "slots", "share", "ideal"].map(String::from).into()];
    rows.extend(shares.iter().map(|share| {
        vec![
            share.index.to_string(),
            share.target.mark.to_string(),
            share.target.weight.0.to_string(),
            share.slots.to_string(),
            percent(f64::from(share.slots), slots),
            percent(share.ideal, slots),
        ]
    }));
    aligned(&rows, &[])
}

fn percent(part: f64, whole: f64) -> String {
    format!("{:.2} %", 100.0 * part / whole)
}

fn sctp_hash(mode: SctpHash) -> &'static str {
    match mode {
        SctpHash::Ports => "ports",
        SctpHash::Tuple => "tuple",
    }
}

fn affinity(mode: Affinity) -> &'static str {
    match mode {
        Affinity::Flow => "flow",
        Affinity::Client => "client",
    }
}

fn ports(EncapPorts(ports): EncapPorts) -> Vec<u16> {
    ports.into_iter().filter(|port| *port != 0).collect()
}
