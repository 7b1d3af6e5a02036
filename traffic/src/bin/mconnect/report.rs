//! What a run of the client found out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};
use traffic::flags::FlagValue;

/// The outcome of a run.
#[derive(Debug)]
pub struct Report {
    /// How often each host answered, by its name.
    pub hosts: BTreeMap<String, u64>,
    /// Connections asked for.
    pub connects: u32,
    pub failed_connects: u64,
    pub failed_reads: u64,
    /// Why connections failed, and how many for that reason.
    pub causes: BTreeMap<String, u64>,
    pub start_time: SystemTime,
    /// The limit of the run, and how long it took.
    pub timeout: Duration,
    pub duration: Duration,
}

/// How the report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

impl Report {
    pub fn has_failures(&self) -> bool {
        self.failed_connects > 0 || self.failed_reads > 0
    }

    /// The report as printed, its last newline included.
    pub fn shown_as(&self, format: Format) -> String {
        match format {
            Format::Text => self.text(),
            Format::Json => format!("{}\n", self.json()),
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "Failed connects; {}\nFailed reads; {}\n",
            self.failed_connects, self.failed_reads
        );
        for (host, count) in &self.hosts {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{host} {count}");
        }
        text
    }

    fn json(&self) -> Value {
        let hosts: Map<String, Value> =
            self.hosts.iter().map(|(host, count)| (host.clone(), json!(count))).collect();
        json!({
            "hosts": hosts,
            "connects": self.connects,
            "failed_connects": self.failed_connects,
            "failed_reads": self.failed_reads,
            "start_time": humantime::format_rfc3339_nanos(self.start_time).to_string(),
            "timeout": nanoseconds(self.timeout),
            "duration": nanoseconds(self.duration),
        })
    }
}

impl FlagValue for Format {
    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = match text {
            "txt" => Self::Text,
            "json" => Self::Json,
            _ => return Err("neither txt nor json".to_owned()),
        };
        Ok(())
    }

    fn shown(&self) -> String {
        match self {
            Self::Text => "txt".to_owned(),
            Self::Json => "json".to_owned(),
        }
    }
}

/// Nanoseconds, held at the largest number after some 580 years.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            hosts: [("vm-002".to_owned(), 3), ("vm-001".to_owned(), 4)].into(),
            connects: 10,
            failed_connects: 1,
            failed_reads: 2,
            causes: BTreeMap::new(),
            start_time: SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5),
            timeout: Duration::from_millis(2_010),
            duration: Duration::from_micros(1_500),
        }
    }

    #[test]
    fn text() {
        assert_eq!(
            report().shown_as(Format::Text),
            "Failed connects; 1\nFailed reads; 2\nvm-001 4\nvm-002 3\n"
        );
    }

    #[test]
    fn json_is_one_line() {
        assert_eq!(
            report().shown_as(Format::Json),
            concat!(
                r#"{"hosts":{"vm-001":4,"vm-002":3},"connects":10,"#,
                r#""failed_connects":1,"failed_reads":2,"#,
                r#""start_time":"2023-11-14T22:13:20.000000005Z","#,
                r#""timeout":2010000000,"duration":1500000}"#,
                "\n"
            )
        );
    }

    #[test]
    fn any_failure_counts() {
        let clean = Report { failed_connects: 0, failed_reads: 0, ..report() };
        assert!(!clean.has_failures());
        for (failed_connects, failed_reads) in [(1, 0), (0, 1)] {
            let report = Report { failed_connects, failed_reads, ..report() };
            assert!(report.has_failures());
        }
    }
}
