//! What is told of a test that has ended: one block, whatever else runs.

use std::path::PathBuf;
use std::time::Duration;

use super::verdict::Verdict;
use crate::state::ClusterName;
use crate::style::{Colour, Style};

/// A test that has ended.
pub struct Finished {
    pub name: String,
    pub verdict: Verdict,
    pub duration: Duration,
    /// With its log and, when it failed, the state of every node.
    pub folder: PathBuf,
    /// The end of its log.
    pub log_tail: String,
    /// The name of its cluster, if that is still there.
    pub kept: Option<ClusterName>,
}

impl Finished {
    pub fn block(&self, style: Style) -> String {
        let (colour, word) = match &self.verdict {
            Verdict::Passed => (Colour::Green, "passed"),
            Verdict::Failed(_) => (Colour::Red, "FAILED"),
            Verdict::Skipped(_) => (Colour::Yellow, "SKIPPED"),
        };
        let word = style.paint(colour, &format!("{word:7}"));
        let head = format!("{word} {:24} {:5.1} s\n", self.name, self.duration.as_secs_f64());
        match &self.verdict {
            Verdict::Passed => head,
            Verdict::Skipped(text) => head + &indented(4, &format!("this kernel cannot: {text}")),
            Verdict::Failed(_) => head + &indented(4, &self.details()),
        }
    }

    /// All that is known of a failure.
    pub fn details(&self) -> String {
        let Verdict::Failed(text) = &self.verdict else { return String::new() };
        let mut details = format!("{}\n", text.trim_end());
        if !self.log_tail.is_empty() {
            details += "the end of its log:\n";
            details += &indented(2, &self.log_tail);
        }
        details += &format!("more in {}\n", self.folder.display());
        if let Some(cluster) = &self.kept {
            details += &format!(
                "its cluster is kept: ovl status --cluster {cluster}, ovl shell --cluster {cluster} NODE; \
                 to end it: ovl stop --cluster {cluster}\n"
            );
        }
        details
    }
}

fn indented(width: usize, text: &str) -> String {
    text.lines().map(|line| format!("{:width$}{line}", "").trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_with_all_that_helps() {
        let finished = Finished {
            name: "udp".to_owned(),
            verdict: Verdict::Failed("expected: 1\nseen:     2".to_owned()),
            duration: Duration::from_millis(1250),
            folder: PathBuf::from("out/udp"),
            log_tail: "a\nb".to_owned(),
            kept: Some("test-udp".parse().unwrap()),
        };
        assert_eq!(
            finished.block(Style::plain()),
            "\
FAILED  udp                        1.2 s
    expected: 1
    seen:     2
    the end of its log:
      a
      b
    more in out/udp
    its cluster is kept: ovl status --cluster test-udp, ovl shell --cluster test-udp NODE; to end it: ovl stop --cluster test-udp
"
        );
        let passed = Finished { verdict: Verdict::Passed, ..finished };
        assert_eq!(passed.block(Style::plain()), "passed  udp                        1.2 s\n");
    }
}
