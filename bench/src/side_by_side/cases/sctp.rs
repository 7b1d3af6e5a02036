//! What an SCTP packet costs, beside a UDP packet that is made in the same way.

use super::{Case, Effort, Entrant, SMALL, in_turns, pinning, udp};
use crate::side_by_side::datagrams::{Made, Protocol};
use crate::side_by_side::load::{Load, Pace};
use crate::side_by_side::output::name;
use crate::side_by_side::results::{CaseResults, Comparison};
use crate::side_by_side::rig::{Alternative, Rig};

const RATE: f64 = 80_000.0;
const UDP: &str = "UDP";
const PROTOCOLS: [(&str, Protocol); 2] = [(UDP, Protocol::Udp), ("SCTP", Protocol::Sctp)];
const ALTERNATIVES: [Alternative; 3] = [Alternative::Forward, Alternative::Fast, Alternative::Lb];

pub fn run(rig: &Rig, effort: Effort) -> anyhow::Result<CaseResults> {
    let mut entrants = Vec::new();
    for alternative in ALTERNATIVES {
        for (name, protocol) in PROTOCOLS {
            let entrant = Entrant::new(alternative, alternative.to_string(), protocol);
            entrants.push(Entrant { name: name.into(), ..entrant });
        }
    }
    let measured = in_turns(rig, &name(Case::Sctp), effort.rounds, &entrants, |entrant| {
        let pace = Pace::PerSecond(RATE);
        let made = Some(Made::Whole(entrant.setting));
        let load = Load { made, ..effort.load(rig, SMALL, pace) };
        udp::flow(rig, entrant.alternative, load).map(|flow| udp::figures_of(&flow))
    })?;
    Ok(CaseResults {
        name: name(Case::Sctp),
        what: format!(
            "64-byte packets of a raw socket, 80,000/s: SCTP with a DATA chunk, keyed by its ports, and UDP, keyed by \
             addresses and ports; {}.",
            pinning(rig)
        ),
        columns: udp::columns(false),
        comparisons: vec![
            Comparison::ratio("consumer", "consumer", UDP),
            Comparison::ratio("all", "all", UDP),
        ],
        rows: measured.rows,
        notes: measured.notes,
    })
}
