//! TCP streams with offloads: segments of up to 64 KiB pass the queue whole.

use std::time::{Duration, Instant};

use super::{Case, Effort, Entrant, figures, in_turns};
use crate::side_by_side::bulk::Streams;
use crate::side_by_side::output::name;
use crate::side_by_side::results::{CaseResults, Column, Comparison};
use crate::side_by_side::rig::{Rig, SLOTS};

/// One stream is bound by one core; with four there is always one that can go on.
const VARIANTS: [(&str, u8); 2] = [("1 stream", 1), ("4 streams", 4)];

pub fn run(rig: &Rig, effort: Effort) -> anyhow::Result<CaseResults> {
    let mut entrants = Vec::new();
    for (variant, streams) in VARIANTS {
        let of = |alternative| Entrant::new(alternative, variant, streams);
        entrants.extend(rig.alternatives().into_iter().map(of));
    }
    let measured = in_turns(rig, &name(Case::TcpBulk), effort.rounds, &entrants, |entrant| {
        let mut consumer = rig.start(entrant.alternative, SLOTS)?;
        let streams = Streams::connect(rig.lab(entrant.alternative), entrant.setting)?;
        let (bytes_per_second, cpu) = streams.run(&rig.signals, || {
            let start = Instant::now();
            let mut cpu = || consumer.as_mut().map(|consumer| consumer.cpu()).transpose();
            let before = cpu()?;
            rig.signals.pause(effort.duration)?;
            let share = |(after, before): (Duration, Duration)| {
                (after - before).as_secs_f64() / start.elapsed().as_secs_f64()
            };
            Ok(cpu()?.zip(before).map(share))
        })?;
        let mut figures = figures([("gbit", bytes_per_second * 8.0 / 1e9)]);
        figures.extend(cpu.map(|cpu| ("consumer".to_string(), 100.0 * cpu)));
        Ok(figures)
    })?;
    Ok(CaseResults {
        name: name(Case::TcpBulk),
        what:
            "TCP with segmentation offload, as fast as it goes; answers take a plain route back; \
               nothing is pinned to a CPU."
                .into(),
        columns: vec![
            Column::plotted("gbit", "Gbit/s", 2),
            Column::new("consumer", "consumer, % of a core", 1),
        ],
        comparisons: ["forward", "nfq", "peer"]
            .map(|to| Comparison::ratio("gbit", "Gbit/s", to))
            .into(),
        rows: measured.rows,
        notes: measured.notes,
    })
}
