//! What a run of the client found out, as it is printed.

use std::collections::BTreeMap;

use serde::Serialize;
use traffic::stats::{Nanos, Percentiles, Totals, without_needless_fraction};

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Report {
    /// RFC 3339.
    pub started: String,
    pub duration: Nanos,
    /// Requests a second of all clients together.
    #[serde(serialize_with = "without_needless_fraction")]
    pub rate: f64,
    pub clients: u32,
    /// TCP connections that were made.
    pub dials: u64,
    pub failed_connections: u64,
    pub sent: u64,
    pub received: u64,
    /// Requests not made because the answer to another one was late.
    pub dropped: u64,
    pub failed_connects: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<BTreeMap<String, u64>>,
    /// Answers with another status than 200.
    #[serde(rename = "NotOK")]
    pub not_ok: u64,
    /// Requests without an answer.
    pub lost: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_time: Option<Percentiles>,
}

impl Report {
    /// As a line of JSON.
    pub fn line(&self) -> String {
        // Maps with text as keys and finite numbers can always be written.
        format!("{}\n", serde_json::to_string(self).expect("a report is JSON"))
    }

    /// The counters that all tools share.
    pub fn totals(&self) -> Totals {
        Totals {
            failed_connections: self.failed_connections,
            sent: self.sent,
            received: self.received,
            dropped: self.dropped,
            failed_connects: self.failed_connects,
            lost: self.lost,
            ..Totals::default()
        }
    }

    /// A line about the progress.
    pub fn progress(&self, active: u64) -> String {
        format!(
            "Clients act/fail/Dials: {active}/{}/{}, Packets send/rec/dropped: {}/{}/{}",
            self.failed_connections, self.dials, self.sent, self.received, self.dropped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_as_scripts_know_them() {
        let mut report = Report { rate: 10.0, ..Report::default() };
        assert_eq!(
            report.line(),
            concat!(
                r#"{"Started":"","Duration":0,"Rate":10,"Clients":0,"Dials":0,"#,
                r#""FailedConnections":0,"Sent":0,"Received":0,"Dropped":0,"#,
                r#""FailedConnects":0,"NotOK":0,"Lost":0}"#,
                "\n"
            )
        );
        report.hosts = Some([("vm-001".to_owned(), 3)].into());
        assert!(report.line().contains(r#""FailedConnects":0,"Hosts":{"vm-001":3},"NotOK":0"#));
    }

    #[test]
    fn progress_is_as_scripts_know_it() {
        let report = Report { dials: 2, sent: 5, received: 4, ..Report::default() };
        assert_eq!(
            report.progress(1),
            "Clients act/fail/Dials: 1/0/2, Packets send/rec/dropped: 5/4/0"
        );
    }
}
