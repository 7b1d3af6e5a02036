//! What came of a test, as the process that ran it tells the runner.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// The file of a test's folder that says what came of it.
const FILE: &str = "result.json";

#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Passed,
    /// What failed, what was expected and what was seen.
    Failed(String),
    /// What the kernel lacks.
    Skipped(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
}

impl Verdict {
    pub fn write(&self, folder: &Path) -> Result<()> {
        let (word, text) = match self {
            Self::Passed => ("passed", ""),
            Self::Failed(text) => ("failed", text.as_str()),
            Self::Skipped(text) => ("skipped", text.as_str()),
        };
        let path = folder.join(FILE);
        let report = json!({"verdict": word, "text": text}).to_string();
        fs::write(&path, report).with_context(|| format!("write {}", path.display()))
    }

    /// None when the test ended without saying.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        let report = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            report => report.with_context(|| format!("read {}", path.display()))?,
        };
        // A test that is killed while it writes has not said anything.
        Ok(serde_json::from_str(&report).ok().and_then(|report| Self::parse(&report)))
    }

    fn parse(report: &Value) -> Option<Self> {
        let text = report["text"].as_str()?.to_owned();
        match report["verdict"].as_str()? {
            "passed" => Some(Self::Passed),
            "failed" => Some(Self::Failed(text)),
            "skipped" => Some(Self::Skipped(text)),
            _ => None,
        }
    }
}

impl Tally {
    pub fn add(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed(_) => self.failed += 1,
            Verdict::Skipped(_) => self.skipped += 1,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Verdict::read(folder.path()).unwrap(), None);
        for verdict in [
            Verdict::Passed,
            Verdict::Failed("expected: \"a\"\nseen:     b".to_owned()),
            Verdict::Skipped("x".to_owned()),
        ] {
            verdict.write(folder.path()).unwrap();
            assert_eq!(Verdict::read(folder.path()).unwrap(), Some(verdict));
        }
        fs::write(folder.path().join(FILE), "{\"verdict\":\"pas").unwrap();
        assert_eq!(Verdict::read(folder.path()).unwrap(), None);
    }

    #[test]
    fn the_last_line_counts_every_verdict() {
        let mut tally = Tally::default();
        let failed = Verdict::Failed(String::new());
        for verdict in [Verdict::Passed, Verdict::Passed, failed, Verdict::Skipped(String::new())] {
            tally.add(&verdict);
        }
        assert_eq!(tally.to_string(), "2 passed, 1 failed, 1 skipped");
    }
}
