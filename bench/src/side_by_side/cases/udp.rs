//! UDP packets: what one costs, how many get through.

use std::time::Duration;

use super::{Case, Effort, Entrant, SMALL, Saturation, figures, in_turns, pinning};
use crate::side_by_side::load::{Load, Pace};
use crate::side_by_side::output::name;
use crate::side_by_side::results::{CaseResults, Column, Comparison, Figures};
use crate::side_by_side::rig::{Alternative, Flow, Rig, SLOTS};

const RATE: f64 = 80_000.0;
const BIG: usize = 1400;

/// Small packets at a pace that everybody stands.
pub fn paced(rig: &Rig, effort: Effort) -> anyhow::Result<CaseResults> {
    let what = format!("64-byte UDP packets, 80,000/s; {}.", pinning(rig));
    run(rig, Case::Cpu80k, effort, what, &[("", SMALL, Pace::PerSecond(RATE))])
}

/// Small packets, as many as there can be.
pub fn flood(
    rig: &Rig,
    effort: Effort,
    saturation: &mut Saturation,
) -> anyhow::Result<CaseResults> {
    let what = format!("64-byte UDP packets as fast as one core can send; {}.", pinning(rig));
    let results = run(rig, Case::Flood, effort, what, &[("", SMALL, Pace::Flood)])?;
    for alternative in rig.alternatives() {
        let row = results.rows.iter().find(|row| row.name == alternative.to_string());
        if let Some(spread) = row.and_then(|row| row.spread("delivered")) {
            saturation.learn(alternative, spread.median);
        }
    }
    Ok(results)
}

/// Packets per second that an alternative delivers when flooded for a moment.
pub fn saturation(rig: &Rig, effort: Effort, alternative: Alternative) -> anyhow::Result<f64> {
    const MOMENT: Duration = Duration::from_secs(1);
    let moment = Effort { duration: MOMENT, ..effort };
    let flow = flow(rig, alternative, moment.load(rig, SMALL, Pace::Flood))?;
    Ok(flow.delivered as f64 / flow.sent.took.as_secs_f64())
}

/// Packets as large as links take, both ways.
pub fn big(rig: &Rig, effort: Effort) -> anyhow::Result<CaseResults> {
    let what = format!(
        "1,400-byte UDP packets, 80,000/s (paced) and as fast as one core can send \
         (flood); {}.",
        pinning(rig)
    );
    let variants = [("paced", BIG, Pace::PerSecond(RATE)), ("flood", BIG, Pace::Flood)];
    run(rig, Case::Big, effort, what, &variants)
}

fn run(
    rig: &Rig,
    case: Case,
    effort: Effort,
    what: String,
    variants: &[(&str, usize, Pace)],
) -> anyhow::Result<CaseResults> {
    let mut entrants = Vec::new();
    for (variant, packet_len, pace) in variants {
        let load = effort.load(rig, *packet_len, *pace);
        let of = |alternative| Entrant::new(alternative, *variant, load);
        let alternatives = match case {
            Case::Cpu80k => rig.alternatives_at_once(),
            _ => rig.alternatives(),
        };
        entrants.extend(alternatives.into_iter().map(of));
    }
    let measured = in_turns(rig, &name(case), effort.rounds, &entrants, |entrant| {
        flow(rig, entrant.alternative, entrant.setting).map(|flow| figures_of(&flow))
    })?;
    let paced = variants.iter().any(|(_, _, pace)| *pace != Pace::Flood);
    let flooded = variants.iter().any(|(_, _, pace)| *pace == Pace::Flood);
    let mut comparisons = vec![
        Comparison::ratio("consumer", "consumer", "nfq"),
        Comparison::ratio("consumer", "consumer", "peer"),
    ];
    if paced {
        comparisons.push(Comparison::ratio("all", "all", "forward"));
    }
    if flooded {
        comparisons.push(Comparison::ratio("delivered", "delivered", "forward"));
        comparisons.push(Comparison::ratio("delivered", "delivered", "peer"));
    }
    Ok(CaseResults {
        name: name(case),
        what,
        columns: columns(flooded),
        comparisons,
        rows: measured.rows,
        notes: measured.notes,
    })
}

/// The figures of UDP packets; the plot shows how many get through only if they were not paced.
pub fn columns(flooded: bool) -> Vec<Column> {
    let delivered = Column::new("delivered", "delivered/s", 0);
    vec![
        Column::plotted("consumer", "consumer, µs/packet", 2),
        Column::new("all", "all, µs/packet", 2),
        Column { plotted: flooded, ..delivered },
        Column::new("loss", "lost, %", 2),
    ]
}

/// What the columns are called in a flow.
pub fn figures_of(flow: &Flow) -> Figures {
    let delivered = flow.delivered as f64;
    let per_packet = |time: Duration| time.as_secs_f64() * 1e6 / delivered.max(1.0);
    let consumer = flow.consumer_cpu.unwrap_or_default();
    let mut figures = figures([
        ("all", per_packet(flow.sent.cpu + consumer)),
        ("delivered", delivered / flow.sent.took.as_secs_f64()),
        ("loss", 100.0 * flow.lost() as f64 / flow.sent.packets as f64),
    ]);
    if flow.consumer_cpu.is_some() {
        figures.insert("consumer".into(), per_packet(consumer));
    }
    figures
}

/// What comes of a load with the defaults of an alternative.
pub fn flow(rig: &Rig, alternative: Alternative, load: Load) -> anyhow::Result<Flow> {
    let mut consumer = rig.start(alternative, SLOTS)?;
    let (flow, ()) = rig.measure(rig.lab(alternative), consumer.as_mut(), load, || Ok(()))?;
    Ok(flow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::side_by_side::load::Sent;

    #[test]
    fn costs_are_of_packets_that_arrived() {
        let seconds = Duration::from_secs;
        let sent = Sent { packets: 4_000_000, cpu: seconds(2), took: seconds(2) };
        let consumer_cpu = Some(seconds(1));
        let flow = Flow { sent, delivered: 1_000_000, consumer_cpu, not_queued: 0 };
        let expected =
            figures([("consumer", 1.0), ("all", 3.0), ("delivered", 500_000.0), ("loss", 75.0)]);
        assert_eq!(figures_of(&flow), expected);
        let plain = figures_of(&Flow { consumer_cpu: None, ..flow });
        assert_eq!(plain.get("consumer"), None);
        assert_eq!(plain["all"], 2.0);
    }
}
