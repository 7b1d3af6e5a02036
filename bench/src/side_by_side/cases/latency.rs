//! What a packet waits, with other packets about.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use anyhow::{Context, anyhow};

use super::{Case, Effort, Entrant, SMALL, Saturation, figures, in_turns, pinning, udp};
use crate::side_by_side::interrupt::Interrupted;
use crate::side_by_side::load::Pace;
use crate::side_by_side::output::name;
use crate::side_by_side::results::{CaseResults, Column, Comparison, Figures};
use crate::side_by_side::rig::{Alternative, Rig, SLOTS};
use crate::side_by_side::round_trip::{Ends, RoundTrips};
use crate::side_by_side::session::Session;

/// Percent of saturation.
const LOADS: [u32; 2] = [10, 50];

pub fn run(rig: &Rig, effort: Effort, saturation: &mut Saturation) -> anyhow::Result<CaseResults> {
    let mut entrants = Vec::new();
    let mut notes = Vec::new();
    for percent in LOADS {
        for alternative in rig.alternatives_at_once() {
            // What `lb` is compared with first carries the same load.
            let whose = match alternative {
                Alternative::Forward
                | Alternative::Fast
                | Alternative::Express
                | Alternative::LbAtOnce => Alternative::Lb,
                other => other,
            };
            match saturation_of(rig, effort, whose, saturation) {
                Ok(packets) => {
                    let rate = packets * f64::from(percent) / 100.0;
                    entrants.push(Entrant::new(alternative, format!("{percent} %"), rate));
                }
                Err(error) if error.is::<Interrupted>() => {
                    return Err(error);
                }
                Err(error) => notes.push(format!("{alternative}, {percent} %: {error:#}")),
            }
        }
    }
    let measured = in_turns(rig, &name(Case::Latency), effort.rounds, &entrants, |entrant| {
        measure(rig, effort, entrant.alternative, entrant.setting)
    })?;
    notes.extend(measured.notes);
    Ok(CaseResults {
        name: name(Case::Latency),
        what: format!(
            "Round trip of single 36-byte UDP packets to an echo on the sink, about 3,000 a second, \
             the way back unqueued, while 64-byte packets are sent at 10 % and at 50 % of what the \
             alternative delivers when flooded (plain forwarding and the fast plane: of what lb delivers); {}, probe \
             and echo on any.",
            pinning(rig)
        ),
        columns: vec![
            Column::new("load", "load/s", 0),
            Column::plotted("p50", "p50, µs", 1),
            Column::plotted("p99", "p99, µs", 1),
            Column::plotted("p99.9", "p99.9, µs", 1),
            Column::new("lost", "probes lost", 0),
        ],
        comparisons: vec![
            Comparison::difference("p50", "p50", "forward"),
            Comparison::difference("p99", "p99", "forward"),
            Comparison::ratio("p99", "p99", "peer"),
        ],
        rows: measured.rows,
        notes,
    })
}

fn saturation_of(
    rig: &Rig,
    effort: Effort,
    alternative: Alternative,
    saturation: &mut Saturation,
) -> anyhow::Result<f64> {
    if let Some(rate) = saturation.of(alternative) {
        return Ok(rate);
    }
    rig.progress(&format!("latency: what {alternative} delivers when flooded"));
    let rate = udp::saturation(rig, effort, alternative).context("find the saturation")?;
    saturation.learn(alternative, rate);
    Ok(rate)
}

fn measure(
    rig: &Rig,
    effort: Effort,
    alternative: Alternative,
    rate: f64,
) -> anyhow::Result<Figures> {
    let lab = rig.lab(alternative);
    let mut consumer = rig.start(alternative, SLOTS)?;
    let ends = Ends::open(lab)?;
    let load = effort.load(rig, SMALL, Pace::PerSecond(rate));
    let (_, trips) = rig.measure(lab, consumer.as_mut(), load, || probe(rig, effort, &ends))?;
    let micros = |quantile| trips.times.value_at_quantile(quantile) as f64 / 1000.0;
    let mut figures = figures([("load", rate), ("lost", trips.lost as f64)]);
    if !trips.times.is_empty() {
        for (key, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            figures.insert(key.into(), micros(quantile));
        }
    }
    Ok(figures)
}

fn probe(rig: &Rig, effort: Effort, ends: &Ends) -> anyhow::Result<RoundTrips> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let echo = scope.spawn(|| ends.echo(&stop));
        let probe = scope.spawn(|| ends.probe(effort.duration, &stop));
        let paused = rig.signals.pause(effort.duration);
        stop.store(true, Relaxed);
        let trips = probe.join().map_err(|_| anyhow!("the probe panicked"))?;
        echo.join().map_err(|_| anyhow!("the echo panicked"))??;
        paused.and(trips)
    })
}
