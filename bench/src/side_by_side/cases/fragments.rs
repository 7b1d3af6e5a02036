//! Datagrams of two fragments: what a fragment costs, how many get through, and what others lose where the peer
//! begins to.

use super::{Case, Effort, Entrant, figures, in_turns, pinning};
use crate::side_by_side::consumer::Consumer;
use crate::side_by_side::datagrams::{FRAGMENTS, Made, Order};
use crate::side_by_side::load::{Load, Pace};
use crate::side_by_side::output::name;
use crate::side_by_side::results::{CaseResults, Column, Comparison, Figures};
use crate::side_by_side::rig::{Alternative, Flow, Rig};
use crate::side_by_side::session::Session;

/// Datagrams a second that everybody stands.
const RATE: f64 = 10_000.0;
/// From here on the peer's limit is looked for, in steps of a tenth.
const FIRST_RATE: f64 = 10_000.0;
const STEP: f64 = 1.1;
const STEPS: usize = 40;
/// The share of fragments beyond which the peer loses.
const LOSS: f64 = 0.001;

const ORDERS: [(&str, Order); 2] = [("in order", Order::Forward), ("reversed", Order::Reversed)];

/// What is sent.
#[derive(Clone, Copy, Debug)]
struct Setting {
    order: Order,
    pace: Pace,
}

/// At a pace, and as fast as can be.
pub fn run(rig: &Rig, effort: Effort) -> anyhow::Result<CaseResults> {
    let paces = [("paced", Pace::PerSecond(FRAGMENTS as f64 * RATE)), ("flood", Pace::Flood)];
    let mut entrants = Vec::new();
    for (order_name, order) in ORDERS {
        for (pace_name, pace) in paces {
            let variant = format!("{order_name}, {pace_name}");
            let of =
                |alternative| Entrant::new(alternative, variant.as_str(), Setting { order, pace });
            entrants.extend(alternatives(rig).into_iter().map(of));
        }
    }
    let what = format!(
        "UDP datagrams of 2,048 bytes in two fragments, {RATE} a second (paced) and as fast as one core can send \
         (flood); lb --tun; {}.",
        pinning(rig)
    );
    measured(rig, effort, Case::Fragments, what, &entrants, Vec::new())
}

/// At the rate at which the peer begins to lose, which is looked for first.
pub fn limit(rig: &Rig, effort: Effort) -> anyhow::Result<CaseResults> {
    let (mut entrants, mut notes) = (Vec::new(), Vec::new());
    for (order_name, order) in ORDERS {
        if rig.peer.is_none() {
            notes.push("there is no --peer whose limit could be looked for".into());
            break;
        }
        match peers_limit(rig, effort, order)? {
            Some(rate) => {
                let variant = format!("{order_name}, {rate:.0} datagrams/s");
                let pace = Pace::PerSecond(FRAGMENTS as f64 * rate);
                let of = |alternative| {
                    Entrant::new(alternative, variant.as_str(), Setting { order, pace })
                };
                entrants.extend(alternatives(rig).into_iter().map(of));
            }
            None => notes.push(format!("{order_name}: the peer stands all that one core can send")),
        }
    }
    let what = format!(
        "UDP datagrams of 2,048 bytes in two fragments, at the lowest rate (in steps of a tenth) at which the peer loses \
         more than {} %; {}.",
        100.0 * LOSS,
        pinning(rig)
    );
    measured(rig, effort, Case::FragmentsLimit, what, &entrants, notes)
}

/// Datagrams a second; none if the generator is the limit.
fn peers_limit(rig: &Rig, effort: Effort, order: Order) -> anyhow::Result<Option<f64>> {
    let mut rate = FIRST_RATE;
    for _ in 0..STEPS {
        rig.progress(&format!("fragments-limit: peer at {rate:.0} datagrams/s, {order:?}"));
        let pace = Pace::PerSecond(FRAGMENTS as f64 * rate);
        let measure = || flow(rig, effort, Alternative::Peer, Setting { order, pace });
        let loses = |flow: &Flow| flow.lost() as f64 > LOSS * flow.sent.packets as f64;
        let first = measure()?;
        // Once may have been a disturbance.
        if loses(&first) && loses(&measure()?) {
            return Ok(Some(rate));
        }
        // It was asked for more than it could send.
        let sent = first.sent.packets as f64 / first.sent.took.as_secs_f64();
        if sent < 0.95 * FRAGMENTS as f64 * rate {
            return Ok(None);
        }
        rate *= STEP;
    }
    Ok(None)
}

/// Those that know what to do about fragments.
fn alternatives(rig: &Rig) -> Vec<Alternative> {
    let knows = |alternative: &Alternative| {
        matches!(alternative, Alternative::Forward | Alternative::Lb | Alternative::Peer)
    };
    rig.alternatives().into_iter().filter(knows).collect()
}

fn measured(
    rig: &Rig,
    effort: Effort,
    case: Case,
    what: String,
    entrants: &[Entrant<Setting>],
    mut notes: Vec<String>,
) -> anyhow::Result<CaseResults> {
    let measured = in_turns(rig, &name(case), effort.rounds, entrants, |entrant| {
        flow(rig, effort, entrant.alternative, entrant.setting).map(|flow| figures_of(&flow))
    })?;
    notes.extend(measured.notes);
    Ok(CaseResults {
        name: name(case),
        what,
        columns: vec![
            Column::plotted("consumer", "consumer, µs/fragment", 2),
            Column::new("all", "all, µs/fragment", 2),
            Column::plotted("datagrams", "datagrams/s", 0),
            Column::new("loss", "fragments lost, %", 2),
        ],
        comparisons: vec![
            Comparison::ratio("consumer", "consumer", "peer"),
            Comparison::ratio("all", "all", "forward"),
            Comparison::ratio("datagrams", "datagrams", "forward"),
            Comparison::ratio("datagrams", "datagrams", "peer"),
        ],
        rows: measured.rows,
        notes,
    })
}

fn figures_of(flow: &Flow) -> Figures {
    let mut of_packets = super::udp::figures_of(flow);
    let datagrams = of_packets.remove("delivered").unwrap_or_default() / FRAGMENTS as f64;
    of_packets.extend(figures([("datagrams", datagrams)]));
    of_packets
}

fn flow(
    rig: &Rig,
    effort: Effort,
    alternative: Alternative,
    setting: Setting,
) -> anyhow::Result<Flow> {
    let load =
        Load { made: Some(Made::Fragments(setting.order)), ..effort.load(rig, 0, setting.pace) };
    let mut consumer: Option<Consumer> = rig.start_with_fragments(alternative)?;
    let (flow, ()) = rig.measure(rig.lab(alternative), consumer.as_mut(), load, || Ok(()))?;
    Ok(flow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::side_by_side::load::Sent;
    use std::time::Duration;

    #[test]
    fn a_datagram_is_two_fragments() {
        let seconds = Duration::from_secs;
        let sent = Sent { packets: 40_000, cpu: seconds(1), took: seconds(1) };
        let consumer_cpu = Some(seconds(1));
        let flow = Flow { sent, delivered: 20_000, consumer_cpu, not_queued: 0 };
        let expected =
            figures([("consumer", 50.0), ("all", 100.0), ("datagrams", 10_000.0), ("loss", 50.0)]);
        assert_eq!(figures_of(&flow), expected);
    }
}
