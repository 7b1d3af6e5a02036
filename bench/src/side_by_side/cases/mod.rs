//! What is compared, a file for each kind of load.

mod bulk;
mod fragments;
mod latency;
mod memory;
mod queues;
mod reconfigure;
mod sctp;
pub mod udp;

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;

use super::interrupt::Interrupted;
use super::load::{Load, Pace};
use super::results::{CaseResults, Figures, Row};
use super::rig::{Alternative, Rig};
use super::session::Session;

/// A case, by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// 64-byte UDP at 80,000 packets/s
    #[value(name = "cpu-80k")]
    Cpu80k,
    /// 64-byte UDP as fast as it can be sent
    Flood,
    /// 1,400-byte UDP, paced and as fast as it can be sent
    Big,
    /// TCP streams with offloads
    TcpBulk,
    /// Round trips at 10 % and 50 % of saturation
    Latency,
    /// `lb` with one queue and with two
    Queues,
    /// Packets lost while targets come and go
    Reconfigure,
    /// Memory of `lb`
    Memory,
    /// Datagrams in two fragments, in order and reversed
    Fragments,
    /// The same where the peer begins to lose
    FragmentsLimit,
    /// 64-byte SCTP beside UDP, 80,000 packets/s
    Sctp,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds through all alternatives.
    pub rounds: u32,
    /// Length of a measurement.
    pub duration: Duration,
    /// Packets sent at once.
    pub burst: usize,
}

impl fmt::Display for Effort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Effort { rounds, duration, burst } = self;
        let seconds = duration.as_secs_f64();
        write!(
            f,
            "median (smallest–largest) of {rounds} rounds of {seconds} s, UDP in bursts of {burst}"
        )
    }
}

impl Effort {
    /// Packets of so many bytes, on the generator's CPU.
    pub fn load(self, rig: &Rig, packet_len: usize, pace: Pace) -> Load {
        let Effort { duration, burst, .. } = self;
        Load { packet_len, pace, burst, duration, cpu: rig.generator_cpu(), made: None }
    }
}

/// Packets per second that alternatives have delivered when flooded.
#[derive(Debug, Default)]
pub struct Saturation(Vec<(Alternative, f64)>);

impl Saturation {
    fn of(&self, alternative: Alternative) -> Option<f64> {
        self.0.iter().find(|(whose, _)| *whose == alternative).map(|(_, rate)| *rate)
    }

    fn learn(&mut self, alternative: Alternative, rate: f64) {
        self.0.retain(|(whose, _)| *whose != alternative);
        self.0.push((alternative, rate));
    }
}

impl Case {
    /// Measures it.
    pub fn run(
        self,
        rig: &Rig,
        effort: Effort,
        saturation: &mut Saturation,
    ) -> anyhow::Result<CaseResults> {
        match self {
            Case::Cpu80k => udp::paced(rig, effort),
            Case::Flood => udp::flood(rig, effort, saturation),
            Case::Big => udp::big(rig, effort),
            Case::TcpBulk => bulk::run(rig, effort),
            Case::Latency => latency::run(rig, effort, saturation),
            Case::Queues => queues::run(rig, effort),
            Case::Reconfigure => reconfigure::run(rig, effort),
            Case::Memory => memory::run(rig, effort),
            Case::Fragments => fragments::run(rig, effort),
            Case::FragmentsLimit => fragments::limit(rig, effort),
            Case::Sctp => sctp::run(rig, effort),
        }
    }
}

/// Who is measured, in what variant of the case.
#[derive(Clone, Debug)]
pub struct Entrant<V, A = Alternative> {
    /// What is measured, where alternatives are compared.
    pub alternative: A,
    /// What rows are called.
    pub name: String,
    /// What tells variants apart.
    pub variant: String,
    /// What the variant is.
    pub setting: V,
}

impl<V, A: fmt::Display> Entrant<V, A> {
    /// Of this alternative, in a variant of the case.
    pub fn new(alternative: A, variant: impl Into<String>, setting: V) -> Self {
        let (name, variant) = (alternative.to_string(), variant.into());
        Entrant { alternative, name, variant, setting }
    }
}

/// Rows with notes on what failed.
pub struct Measured {
    /// The figures of those that could be measured.
    pub rows: Vec<Row>,
    /// What failed.
    pub notes: Vec<String>,
}

/// Measures everybody in every round, each round beginning with another one. Who fails is noted and
/// not tried again.
pub fn in_turns<V, A>(
    session: &impl Session,
    case: &str,
    rounds: u32,
    entrants: &[Entrant<V, A>],
    mut measure: impl FnMut(&Entrant<V, A>) -> anyhow::Result<Figures>,
) -> anyhow::Result<Measured> {
    let row = |entrant: &Entrant<V, A>| Row {
        name: entrant.name.clone(),
        variant: entrant.variant.clone(),
        rounds: Vec::new(),
    };
    let mut rows: Vec<Row> = entrants.iter().map(row).collect();
    let mut notes = Vec::new();
    for round in 0..rounds as usize {
        for turn in order(entrants.len(), round) {
            let (entrant, row) = (&entrants[turn], &mut rows[turn]);
            if row.rounds.last() == Some(&None) {
                row.rounds.push(None);
                continue;
            }
            let title = row.title();
            session.progress(&format!("{case}, round {} of {rounds}: {title}", round + 1));
            row.rounds.push(match measure(entrant) {
                Ok(figures) => Some(figures),
                Err(error) if error.is::<Interrupted>() => return Err(error),
                Err(error) => {
                    let note = format!("{title}: failed in round {}: {error:#}", round + 1);
                    session.progress(&note);
                    notes.push(note);
                    None
                }
            });
        }
    }
    rows.retain(|row| row.rounds.iter().any(Option::is_some));
    Ok(Measured { rows, notes })
}

/// Whose turn it is, one after the other.
fn order(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |turn| (turn + round) % count)
}

/// Bytes of a small IP packet.
pub const SMALL: usize = 64;

/// Figures by the keys of their columns.
/// What is divided by nothing that arrived is no figure; a file could not hold it, either.
pub fn figures<const N: usize>(figures: [(&str, f64); N]) -> Figures {
    let figures = figures.into_iter().filter(|(_, figure)| figure.is_finite());
    figures.map(|(key, figure)| (key.to_string(), figure)).collect()
}

/// Who runs where.
pub fn pinning(rig: &Rig) -> &'static str {
    if rig.is_pinned() {
        "generator on CPU 0, consumer on CPU 1"
    } else {
        "generator and consumer share the only CPU"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::side_by_side::output::name;

    #[test]
    fn every_round_begins_with_another_one() {
        let orders: Vec<Vec<usize>> = (0..4).map(|round| order(3, round).collect()).collect();
        assert_eq!(orders, [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
    }

    #[test]
    fn the_last_saturation_counts() {
        let mut saturation = Saturation::default();
        assert_eq!(saturation.of(Alternative::Lb), None);
        saturation.learn(Alternative::Lb, 1.0);
        saturation.learn(Alternative::Nfq, 2.0);
        saturation.learn(Alternative::Lb, 3.0);
        assert_eq!(saturation.of(Alternative::Lb), Some(3.0));
        assert_eq!(saturation.of(Alternative::Nfq), Some(2.0));
    }

    #[test]
    fn what_cannot_be_told_is_no_figure() {
        let found = figures([("sent", 1.0), ("each", f64::NAN), ("cpu", f64::INFINITY)]);
        assert_eq!(found.into_keys().collect::<Vec<_>>(), ["sent"]);
    }

    #[test]
    fn cases_have_names() {
        let names: Vec<String> = Case::value_variants().iter().copied().map(name).collect();
        let expected = "cpu-80k,flood,big,tcp-bulk,latency,queues,reconfigure,memory,fragments,fragments-limit,sctp";
        assert_eq!(names.join(","), expected);
    }
}
