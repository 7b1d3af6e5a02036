//! Which outcomes of a run a script does not accept.

use std::str::FromStr;

use super::Outcome;
use crate::stats::figures::Counter;

/// Words out of [`WORDS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailOn(Vec<&'static str>);

/// What each word looks at.
const WORDS: [(&str, &[What]); 8] = [
    ("lost", &[What::Counted(Counter::Lost, "messages lost")]),
    (
        "failed",
        &[
            What::Counted(Counter::FailedConnects, "connects failed"),
            What::Counted(Counter::LostAssociations, "associations lost"),
            What::Unconnected,
        ],
    ),
    ("dropped", &[What::Counted(Counter::Dropped, "messages dropped")]),
    ("duplicates", &[What::Counted(Counter::Duplicates, "duplicates")]),
    ("reordered", &[What::Counted(Counter::Reordered, "messages reordered")]),
    ("corrupted", &[What::Counted(Counter::Corrupted, "messages corrupted")]),
    ("paths", &[What::Counted(Counter::PathsDown, "paths went down")]),
    ("moves", &[What::Moves]),
];

#[derive(Clone, Copy)]
enum What {
    Counted(Counter, &'static str),
    Unconnected,
    Moves,
}

impl FailOn {
    /// A line for each thing that happened and should not have.
    pub fn complaints(&self, outcome: &Outcome) -> Vec<String> {
        let asked = WORDS.iter().filter(|(word, _)| self.0.contains(word));
        let counts = asked.flat_map(|(_, whats)| *whats).map(|what| match what {
            What::Counted(counter, text) => (outcome.figures.get(*counter), *text),
            What::Unconnected => (outcome.unconnected.into(), "clients never connected"),
            What::Moves => (outcome.moves(), "answers of another server than before"),
        });
        let counts = counts.filter(|(count, _)| *count > 0);
        counts.map(|(count, text)| format!("{count} {text}")).collect()
    }
}

impl FromStr for FailOn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = |asked: &str| {
            let found = WORDS.iter().find(|(word, _)| *word == asked);
            found.map(|(word, _)| *word).ok_or_else(|| {
                let words = WORDS.map(|(word, _)| word).join(", ");
                format!("{asked:?} is none of {words}")
            })
        };
        text.split(',').map(known).collect::<Result<_, _>>().map(FailOn)
    }
}
