//! What was measured, and what follows from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::report::Spread;

/// Figures of one round, by the key of their column.
pub type Figures = BTreeMap<String, f64>;

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Where and how it was run.
    pub conditions: String,
    /// One table each.
    pub cases: Vec<CaseResults>,
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseResults {
    /// Its name on the command line.
    pub name: String,
    /// What was measured and how.
    pub what: String,
    /// The figures.
    pub columns: Vec<Column>,
    /// What is set in relation to what.
    pub comparisons: Vec<Comparison>,
    /// Who was measured.
    pub rows: Vec<Row>,
    /// What could not be measured, and why.
    pub notes: Vec<String>,
}

/// A figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// By which rounds hold it.
    pub key: String,
    /// By which people know it, with its unit.
    pub heading: String,
    /// Digits behind the point.
    pub decimals: usize,
    /// Whether the plot shows it.
    pub plotted: bool,
}

/// A figure in relation to that of another row of the same variant, round by round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The column.
    pub key: String,
    /// The other row.
    pub to: String,
    /// How.
    pub relation: Relation,
    /// What to call it.
    pub heading: String,
}

/// How two figures are set in relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    /// One divided by the other.
    Ratio,
    /// One less the other.
    Difference,
}

/// Who was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The alternative.
    pub name: String,
    /// In which variant of the case; may be empty.
    pub variant: String,
    /// By round; none where it failed.
    pub rounds: Vec<Option<Figures>>,
}

impl Column {
    /// A figure that the plot shows.
    pub fn plotted(key: &str, heading: &str, decimals: usize) -> Self {
        Column { key: key.into(), heading: heading.into(), decimals, plotted: true }
    }

    /// A figure that only the table shows.
    pub fn new(key: &str, heading: &str, decimals: usize) -> Self {
        Column { plotted: false, ..Column::plotted(key, heading, decimals) }
    }
}

impl Comparison {
    /// One divided by the other.
    pub fn ratio(key: &str, short: &str, to: &str) -> Self {
        let heading = format!("{short} / {to}");
        Comparison { key: key.into(), to: to.into(), relation: Relation::Ratio, heading }
    }

    /// One less the other.
    pub fn difference(key: &str, short: &str, to: &str) -> Self {
        let heading = format!("{short} − {to}");
        Comparison { key: key.into(), to: to.into(), relation: Relation::Difference, heading }
    }
}

impl Row {
    /// The name with the variant.
    pub fn title(&self) -> String {
        match (self.name.as_str(), self.variant.as_str()) {
            (name, "") => name.into(),
            ("", variant) => variant.into(),
            (name, variant) => format!("{name}, {variant}"),
        }
    }

    /// A figure over all rounds that have it.
    pub fn spread(&self, key: &str) -> Option<Spread> {
        let figures = self.rounds.iter().flatten().filter_map(|round| round.get(key).copied());
        spread(figures.collect())
    }
}

impl CaseResults {
    /// A row's figures in relation to another's: computed in each round, since what disturbs a round
    /// disturbs both.
    pub fn compared(&self, row: &Row, comparison: &Comparison) -> Option<Spread> {
        let other = self.rows.iter().find(|other| {
            other.name == comparison.to && other.variant == row.variant && other.name != row.name
        })?;
        let of_round = |(mine, theirs): (&Option<Figures>, &Option<Figures>)| {
            let mine = mine.as_ref()?.get(&comparison.key)?;
            let theirs = theirs.as_ref()?.get(&comparison.key)?;
            match comparison.relation {
                Relation::Ratio => (*theirs != 0.0).then(|| mine / theirs),
                Relation::Difference => Some(mine - theirs),
            }
        };
        spread(row.rounds.iter().zip(&other.rounds).filter_map(of_round).collect())
    }

    /// The comparisons that some row has.
    pub fn made_comparisons(&self) -> Vec<&Comparison> {
        let is_made = |comparison: &&Comparison| {
            self.rows.iter().any(|row| self.compared(row, comparison).is_some())
        };
        self.comparisons.iter().filter(is_made).collect()
    }
}

fn spread(figures: Vec<f64>) -> Option<Spread> {
    (!figures.is_empty()).then(|| Spread::of(figures))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn row(name: &str, variant: &str, figures: &[Option<f64>]) -> Row {
        let rounds = figures
            .iter()
            .map(|figure| figure.map(|figure| Figures::from([("cpu".to_string(), figure)])));
        Row { name: name.into(), variant: variant.into(), rounds: rounds.collect() }
    }

    /// Two alternatives in two variants; one round of the second failed.
    pub fn case() -> CaseResults {
        CaseResults {
            name: "flood".into(),
            what: "CPU per packet".into(),
            columns: vec![Column::plotted("cpu", "µs/packet", 2)],
            comparisons: vec![
                Comparison::ratio("cpu", "CPU", "peer"),
                Comparison::difference("cpu", "CPU", "peer"),
                Comparison::ratio("cpu", "CPU", "nfq"),
            ],
            rows: vec![
                row("lb", "a", &[Some(1.0), Some(2.0), Some(3.0)]),
                row("lb", "b", &[Some(1.0), Some(1.0), Some(1.0)]),
                row("peer", "a", &[Some(2.0), Some(5.0), None]),
                row("peer", "b", &[Some(0.0), Some(0.0), Some(0.0)]),
            ],
            notes: vec!["peer, a: round 3: it ended".into()],
        }
    }

    #[test]
    fn relations_are_those_of_each_round() {
        let case = case();
        let [ratio, difference, absent] = &case.comparisons[..] else { panic!() };
        let compared = |row: usize, how| case.compared(&case.rows[row], how);
        // 1/2 and 2/5: not the ratio of the medians, and nothing where a round failed.
        assert_eq!(compared(0, ratio), Some(Spread { median: 0.45, min: 0.4, max: 0.5 }));
        assert_eq!(compared(0, difference), Some(Spread { median: -2.0, min: -3.0, max: -1.0 }));
        assert_eq!(compared(1, ratio), None, "nothing is divided by zero");
        assert_eq!(compared(2, ratio), None, "nobody is compared with itself");
        assert_eq!(compared(0, absent), None);
        assert_eq!(case.made_comparisons(), [ratio, difference]);
    }

    #[test]
    fn results_survive_their_file() {
        let results = Results { conditions: "2 CPUs".into(), cases: vec![case()] };
        let text = serde_json::to_string(&results).unwrap();
        assert_eq!(serde_json::from_str::<Results>(&text).unwrap(), results);
    }
}
