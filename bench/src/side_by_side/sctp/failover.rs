//! Failover: the path in use is cut and comes back, then the idle one is cut.

use std::time::Duration;

use anyhow::ensure;
use clap::ValueEnum;

use super::bed::{Bed, Way};
use super::{Case, Extent};
use crate::side_by_side::cases::{Entrant, figures, in_turns};
use crate::side_by_side::output::name;
use crate::side_by_side::results::{CaseResults, Column, Figures};

const ASSOCIATIONS: u64 = 16;
const RATE: u64 = 320;
/// Traffic before and between cuts.
const MOMENT: u64 = 2 * RATE;
const START: Duration = Duration::from_secs(10);
/// Time-outs double up to a minute by the stack's own settings.
const LONGEST: Duration = Duration::from_secs(300);

/// Retransmission time-outs: the first one, the least and the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rto {
    /// 200, 100 and 500 ms
    Fast,
    /// 1, 1 and 3 s
    Slow,
    /// What the stack has
    Own,
}

impl Rto {
    fn text(self) -> &'static str {
        match self {
            Rto::Fast => "RTO 100–500 ms",
            Rto::Slow => "RTO 1–3 s",
            Rto::Own => "stack's own RTO",
        }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Rto::Fast => &["--rto", "200ms,100ms,500ms"],
            Rto::Slow => &["--rto", "1s,1s,3s"],
            Rto::Own => &[],
        }
    }
}

/// Time between heartbeats, and losses in a row for which a path is given up.
const PROBES: [(&str, u32); 4] = [("500ms", 2), ("2s", 2), ("10s", 2), ("2s", 5)];

#[derive(Clone, Copy, Debug)]
struct Setting {
    rto: Rto,
    heartbeat: &'static str,
    retrans: u32,
}

impl Setting {
    fn options(self) -> Vec<String> {
        let retrans = self.retrans.to_string();
        let words = ["--heartbeat", self.heartbeat, "--path-max-retrans", &retrans];
        self.rto.options().iter().copied().chain(words).map(Into::into).collect()
    }

    fn title(self) -> String {
        let Setting { rto, heartbeat, retrans } = self;
        format!("{}, heartbeat {heartbeat}, {retrans} losses", rto.text())
    }
}

pub fn run(bed: &Bed, extent: Extent) -> anyhow::Result<CaseResults> {
    let entrants: Vec<_> = settings(extent.rto)
        .map(|setting| Entrant::new(bed.stack, setting.title(), setting))
        .collect();
    let case = name(Case::Failover);
    let measured =
        in_turns(bed, &case, extent.rounds, &entrants, |entrant| measure(bed, entrant.setting))?;
    Ok(CaseResults {
        name: case,
        what: format!(
            "{ASSOCIATIONS} associations with two paths, {RATE} messages/s in all. The path in use is cut until every \
             association has noticed (its packets vanish; nobody is told), comes back until every one has found that it \
             is active, then the same with the idle path. \"losses\" is --path-max-retrans. Times of the last association, \
             to about 70 ms."
        ),
        columns: vec![
            Column::plotted("noticed", "cut noticed, s", 2),
            Column::plotted("rtt", "longest RTT, s", 2),
            Column::plotted("back", "in use again, s", 2),
            Column::plotted("idle", "idle path: noticed, s", 2),
            Column::new("idle_back", "active again, s", 2),
            Column::new("lost", "messages lost", 0),
        ],
        comparisons: Vec::new(),
        rows: measured.rows,
        notes: measured.notes,
    })
}

fn settings(only: Option<Rto>) -> impl Iterator<Item = Setting> {
    let rtos = Rto::value_variants().iter().copied();
    rtos.filter(move |rto| only.is_none_or(|only| only == *rto))
        .flat_map(|rto| PROBES.map(|(heartbeat, retrans)| Setting { rto, heartbeat, retrans }))
}

fn measure(bed: &Bed, setting: Setting) -> anyhow::Result<Figures> {
    let network = bed.network(&setting.options())?;
    let (number, rate) = (ASSOCIATIONS.to_string(), RATE.to_string());
    let words = ["--clients", &number, "--rate", &rate, "--size", "128", "--duration", "1h"];
    let mut clients = network.start(&words)?;
    clients.reach("active", ASSOCIATIONS, START)?;
    clients.answer(MOMENT)?;

    network.cut(Way::First, true)?;
    let noticed = clients.reach("pathsDown", ASSOCIATIONS, LONGEST)?;
    network.cut(Way::First, false)?;
    let back = clients.reach("pathsUp", ASSOCIATIONS, LONGEST)?;
    clients.answer(MOMENT)?;
    let (failovers, rtt) = (clients.number("failovers")?, clients.number("maxRttMicros")?);
    ensure!(
        failovers == ASSOCIATIONS,
        "only {failovers} of {ASSOCIATIONS} used the first path: is the machine busy?"
    );

    network.cut(Way::Second, true)?;
    let idle = clients.reach("pathsDown", 2 * ASSOCIATIONS, LONGEST)?;
    network.cut(Way::Second, false)?;
    let idle_back = clients.reach("pathsUp", 2 * ASSOCIATIONS, LONGEST)?;
    let failovers = clients.number("failovers")?;
    ensure!(failovers == ASSOCIATIONS, "{failovers} failovers: the second path was no idle one");
    let lost = clients.number("lost")? + clients.number("lostAssociations")?;
    Ok(figures([
        ("noticed", noticed.as_secs_f64()),
        ("rtt", rtt as f64 / 1e6),
        ("back", back.as_secs_f64()),
        ("idle", idle.as_secs_f64()),
        ("idle_back", idle_back.as_secs_f64()),
        ("lost", lost as f64),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_says_what_it_sets() {
        let all: Vec<Setting> = settings(None).collect();
        assert_eq!(all.len(), 12);
        let fast = settings(Some(Rto::Fast)).next().unwrap();
        assert_eq!(fast.title(), "RTO 100–500 ms, heartbeat 500ms, 2 losses");
        let words = "--rto 200ms,100ms,500ms --heartbeat 500ms --path-max-retrans 2";
        assert_eq!(fast.options().join(" "), words);
        let own = settings(Some(Rto::Own)).last().unwrap();
        assert_eq!(own.options().join(" "), "--heartbeat 2s --path-max-retrans 5");
    }
}
