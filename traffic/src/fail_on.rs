//! Which outcomes of a run a script does not accept.

use crate::flags::FlagValue;
use crate::stats::Totals;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailOn {
    lost: bool,
    failed: bool,
    dropped: bool,
}

/// Exit code of a run that had something in it that is not accepted.
pub const NOT_ACCEPTED: u8 = 3;

impl FailOn {
    /// A line for each thing that happened and should not have.
    pub fn complaints(self, totals: &Totals) -> Vec<String> {
        [
            (self.lost, totals.lost, "packets lost"),
            (self.failed, totals.failed_connections, "connections failed"),
            (self.failed, totals.failed_connects, "connects failed"),
            (self.dropped, totals.dropped, "packets dropped"),
        ]
        .into_iter()
        .filter(|(asked, count, _)| *asked && *count > 0)
        .map(|(_, count, what)| format!("{count} {what}"))
        .collect()
    }
}

impl FlagValue for FailOn {
    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = Self::default();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            *match word {
                "lost" => &mut self.lost,
                "failed" => &mut self.failed,
                "dropped" => &mut self.dropped,
                _ => return Err(format!("{word:?} is neither lost, failed nor dropped")),
            } = true;
        }
        Ok(())
    }

    fn shown(&self) -> String {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(words: &str) -> Vec<String> {
        let mut fail_on = FailOn::default();
        fail_on.set(words).unwrap();
        let totals =
            Totals { lost: 1, failed_connections: 2, failed_connects: 3, ..Totals::default() };
        fail_on.complaints(&totals)
    }

    #[test]
    fn only_what_is_asked_for_and_happened_is_complained_about() {
        assert_eq!(complaints(""), Vec::<String>::new());
        assert_eq!(complaints("dropped"), Vec::<String>::new());
        assert_eq!(complaints("lost"), ["1 packets lost"]);
        assert_eq!(
            complaints("lost,failed,dropped"),
            ["1 packets lost", "2 connections failed", "3 connects failed"]
        );
    }

    #[test]
    fn other_words_are_named() {
        let error = FailOn::default().set("lost,late").unwrap_err();
        assert_eq!(error, "\"late\" is neither lost, failed nor dropped");
    }
}
