//! What a run of the client found out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};
use traffic::flags::FlagValue;
use traffic::stats::{Nanos, Percentiles};

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
    /// How long it took until connections stood (TCP), and until they were
    /// answered. `None` if none was.
    pub connect_time: Option<Percentiles>,
    pub answer_time: Option<Percentiles>,
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
        let mut report = json!({
            "hosts": hosts,
            "connects": self.connects,
            "failed_connects": self.failed_connects,
            "failed_reads": self.failed_reads,
            "start_time": humantime::format_rfc3339_nanos(self.start_time).to_string(),
            "timeout": Nanos::from(self.timeout),
            "duration": Nanos::from(self.duration),
        });
        for (key, times) in
            [("connect_time", &self.connect_time), ("answer_time", &self.answer_time)]
        {
            if let Some(times) = times {
                report[key] = json!({
                    "min": times.min,
                    "p50": times.p50,
                    "p90": times.p90,
                    "p99": times.p99,
                    "p999": times.p999,
                    "max": times.max,
                });
            }
        }
        report
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
            connect_time: Some(Percentiles {
                min: Nanos(7),
                max: Nanos(9),
                ..Percentiles::default()
            }),
            answer_time: None,
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
                r#""timeout":2010000000,"duration":1500000,"connect_time":{"min":7,"p50":0,"p90":0,"p99":0,"p999":0,"max":9}}"#,
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
