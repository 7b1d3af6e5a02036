//! What break-test found, and the tables that are made of it.

use std::fmt::{self, Write as _};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Plane, SLACK, check};
use crate::progress;

pub struct Report {
    rows: Vec<Row>,
    time: Duration,
    /// From when to when something was done.
    during: [Duration; 2],
}

/// What one probe found on one path.
pub struct Row {
    pub path: String,
    pub probe: String,
    pub sent: u64,
    pub lost: u64,
    /// The longest break, and when it began.
    pub longest: Duration,
    at: Option<Duration>,
    /// Only of TCP.
    pub retransmits: Option<u64>,
    causes: String,
}

const PROBES: [&str; 4] = ["icmp", "udp", "connect", "tcp"];

impl Report {
    pub fn parse(json: &str) -> Result<Self> {
        let report: Value = serde_json::from_str(json).context("read report of break-test")?;
        let odd = || format!("read report of break-test: {json}");
        let during = ["From", "To"].map(|key| nanos(&report["During"][key]));
        let [Some(from), Some(to)] = during else { bail!(odd()) };
        let seconds = report["DurationSeconds"].as_u64().with_context(odd)?;
        let rows = report["Probes"].as_array().with_context(odd)?;
        let rows = rows.iter().map(|row| Row::parse(row).with_context(odd));
        let rows = rows.collect::<Result<Vec<_>>>()?;
        Ok(Self { rows, time: Duration::from_secs(seconds), during: [from, to] })
    }

    /// What went past `lb`.
    pub fn direct(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.path.starts_with("direct"))
    }

    pub fn by_vip(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.path.starts_with("vip"))
    }

    /// What this machine may have added to any time: as long as streams past `lb` paused, those by it may, and
    /// both may happen in turn.
    pub fn slack(&self) -> Duration {
        let streams = self.direct().filter(|row| row.interval().is_none());
        SLACK + 2 * streams.map(|row| row.longest).max().unwrap_or_default()
    }

    /// Keeps the tables beside the log of the case. All that was done must have been measured.
    pub fn keep(&self, title: &str, plane: Plane) -> Result<()> {
        let table = self.table();
        progress::tell("break-test", &table);
        progress::keep("breaks.md", &table)?;
        progress::keep("row.md", &self.summary(title, plane))?;
        let [from, to] = self.during;
        check(
            to + SLACK < self.time,
            format!("an end before that of the run, {:?}", self.time),
            format!("from {from:?} to {to:?}"),
        )
    }

    /// A line for each path and probe.
    fn table(&self) -> String {
        let mut table = "| path | probe | sent | lost | break ms | at s | retransmits | note |\n\
                         |---|---|---|---|---|---|---|---|\n"
            .to_owned();
        for row in &self.rows {
            let at = row.at.map_or_else(String::new, |at| format!("{:.2}", at.as_secs_f64()));
            let retransmits = row.retransmits.map_or_else(String::new, |count| count.to_string());
            // Writing to a String cannot fail.
            let _ = writeln!(
                table,
                "| {} | {} | {} | {} | {} | {at} | {retransmits} | {} |",
                row.path,
                row.probe,
                row.sent,
                row.lost,
                row.longest.as_millis(),
                row.causes
            );
        }
        let [from, to] = self.during.map(|time| time.as_secs_f64());
        let _ = writeln!(table, "\nDone from {from:.2} s to {to:.2} s.");
        table
    }

    /// One line of a table of all cases: what was lost beside `lb`, then by virtual address, probe by probe.
    fn summary(&self, title: &str, plane: Plane) -> String {
        let plane = match plane {
            Plane::Slow => "slow",
            Plane::Fast => "fast",
        };
        let [from, to] = self.during;
        let direct = Sum::of(self.direct());
        let mut line =
            format!("| {title} | {plane} | {:.2} s | {direct} |", (to - from).as_secs_f64());
        for probe in PROBES {
            let sum = Sum::of(self.by_vip().filter(|row| row.probe == probe));
            let _ = write!(line, " {sum} |");
        }
        line + "\n"
    }
}

/// What several rows found together.
#[derive(Default)]
struct Sum {
    sent: u64,
    lost: u64,
    retransmits: u64,
    longest: Duration,
}

impl Sum {
    fn of<'a>(rows: impl Iterator<Item = &'a Row>) -> Self {
        rows.fold(Self::default(), |sum, row| Self {
            sent: sum.sent + row.sent,
            lost: sum.lost + row.lost,
            retransmits: sum.retransmits + row.retransmits.unwrap_or(0),
            longest: sum.longest.max(row.longest),
        })
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, lost, retransmits, longest } = self;
        write!(f, "{lost} of {sent}")?;
        if *longest > Duration::ZERO {
            write!(f, ", {} ms", longest.as_millis())?;
        }
        if *retransmits > 0 {
            write!(f, ", {retransmits} sent again")?;
        }
        Ok(())
    }
}

impl Row {
    fn parse(row: &Value) -> Option<Self> {
        let breaks = row["Breaks"].as_array()?.iter();
        let longest = breaks
            .map(|one| Some((nanos(&one["To"])?.checked_sub(nanos(&one["From"])?)?, one)))
            .collect::<Option<Vec<_>>>()?
            .into_iter()
            .max_by_key(|(length, _)| *length);
        let causes = row["Causes"].as_object()?.iter();
        let mut causes: Vec<String> =
            causes.map(|(cause, count)| format!("{cause} ({count} times)")).collect();
        causes.extend(row["Unavailable"].as_str().map(|why| format!("not measured: {why}")));
        Some(Self {
            path: row["Path"].as_str()?.to_owned(),
            probe: row["Probe"].as_str()?.to_owned(),
            sent: row["Sent"].as_u64()?,
            lost: row["Lost"].as_u64()?,
            longest: longest.map_or(Duration::ZERO, |(length, _)| length),
            at: longest.and_then(|(_, one)| nanos(&one["From"])),
            retransmits: row["Retransmits"].as_u64(),
            causes: causes.join(", "),
        })
    }

    /// The time between two trials; a stream has none.
    pub fn interval(&self) -> Option<Duration> {
        match self.probe.as_str() {
            "connect" => Some(Duration::from_millis(100)),
            "tcp" => None,
            _ => Some(Duration::from_millis(10)),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, probe, sent, lost, longest, retransmits, causes, at: _ } = self;
        write!(f, "{path} {probe}: {lost} of {sent} lost, longest break {longest:?}")?;
        write!(f, ", {} sent again. {causes}", retransmits.unwrap_or(0))
    }
}

fn nanos(value: &Value) -> Option<Duration> {
    value.as_u64().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{"DurationSeconds":4,"During":{"From":2000000000,"To":2340000000},"Probes":[
        {"Path":"direct","Probe":"udp","Sent":400,"Lost":0,"Breaks":[],"Retransmits":null,
            "Unavailable":null,"Causes":{}},
        {"Path":"vip","Probe":"icmp","Sent":400,"Lost":33,"Breaks":[
            {"From":10,"To":20},{"From":2010000000,"To":2340000000}],"Retransmits":null,
            "Unavailable":null,"Causes":{"no":2}},
        {"Path":"vip6","Probe":"tcp","Sent":9,"Lost":0,"Breaks":[],"Retransmits":0,
            "Unavailable":null,"Causes":{}}]}"#;

    #[test]
    fn a_report_becomes_a_table_and_a_line() {
        let report = Report::parse(REPORT).unwrap();
        assert_eq!(
            report.table(),
            "| path | probe | sent | lost | break ms | at s | retransmits | note |\n\
             |---|---|---|---|---|---|---|---|\n\
             | direct | udp | 400 | 0 | 0 |  |  |  |\n\
             | vip | icmp | 400 | 33 | 330 | 2.01 |  | no (2 times) |\n\
             | vip6 | tcp | 9 | 0 | 0 |  | 0 |  |\n\
             \nDone from 2.00 s to 2.34 s.\n"
        );
        assert_eq!(
            report.summary("killed", Plane::Slow),
            "| killed | slow | 0.34 s | 0 of 400 | 33 of 400, 330 ms | 0 of 0 | 0 of 0 | 0 of 9 |\n"
        );
        assert_eq!(report.direct().count() + report.by_vip().count(), 3);
    }

    #[test]
    fn rubbish_is_an_error() {
        for rubbish in ["", "{}", r#"{"DurationSeconds":4,"During":null,"Probes":[]}"#] {
            assert!(Report::parse(rubbish).is_err());
        }
        assert!(Report::parse(&REPORT.replace("\"Sent\":9,", "")).is_err());
    }
}
