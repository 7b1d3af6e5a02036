//! What a run found: a table of path and probe, or JSON.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};
use traffic::flags::FlagValue;
use traffic::stats::Nanos;

use crate::args::{Path, Settings};
use crate::disturbance::Disturbance;
use crate::stream::causes_as_text;
use crate::trials::{Break, Outcome};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    Icmp,
    Connect,
    Tcp,
    Udp,
    Sctp,
}

pub struct Report {
    pub time: Duration,
    connect_port: u16,
    pub rows: Vec<Row>,
    pub disturbance: Option<Disturbance>,
}

/// What one probe found on one path.
pub struct Row {
    pub path: String,
    address: IpAddr,
    pub probe: Probe,
    pub outcome: Outcome,
}

impl Probe {
    pub fn name(self) -> &'static str {
        match self {
            Probe::Icmp => "icmp",
            Probe::Connect => "connect",
            Probe::Tcp => "tcp",
            Probe::Udp => "udp",
            Probe::Sctp => "sctp",
        }
    }
}

impl Report {
    pub fn new(settings: &Settings, time: Duration) -> Self {
        Self { time, connect_port: settings.connect_port, rows: Vec::new(), disturbance: None }
    }

    pub fn add(&mut self, path: &Path, probe: Probe, outcome: Outcome) {
        self.rows.push(Row { path: path.name.clone(), address: path.address, probe, outcome });
    }

    pub fn longest_break(&self) -> Duration {
        let breaks = self.rows.iter().filter_map(|row| row.outcome.longest());
        breaks.map(|longest| longest.length()).max().unwrap_or_default()
    }

    pub fn shown_as(&self, format: Format) -> String {
        match format {
            Format::Text => self.text(),
            Format::Json => format!("{}\n", self.json()),
        }
    }

    fn text(&self) -> String {
        let names = self.rows.iter().map(|row| row.path.chars().count());
        let width = names.max().unwrap_or(0).max(4);
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<width$} probe      sent   lost  break ms    at s  retransmits  note",
            "path"
        );
        for row in &self.rows {
            let outcome = &row.outcome;
            let (length, at) = match outcome.longest() {
                Some(longest) => (
                    format!("{:.0}", milliseconds(longest.length())),
                    format!("{:.2}", longest.from.as_secs_f64()),
                ),
                None => ("0".to_owned(), String::new()),
            };
            let retransmits = outcome.retransmits.map_or_else(String::new, |n| n.to_string());
            let line = format!(
                "{:<width$} {:<7} {:>7} {:>6} {length:>9} {at:>7} {retransmits:>12}  {}",
                row.path,
                row.probe.name(),
                outcome.sent,
                outcome.lost,
                row.note()
            );
            let _ = writeln!(text, "{}", line.trim_end());
        }
        if let Some(Disturbance { command, from, to, exit_code }) = &self.disturbance {
            let ended = match exit_code {
                Some(code) => format!("exit code {code}"),
                None => "ended by a signal".to_owned(),
            };
            let (from, to) = (from.as_secs_f64(), to.as_secs_f64());
            let _ = writeln!(text, "during: {command}: {from:.2} s to {to:.2} s, {ended}");
        }
        text
    }

    fn json(&self) -> Value {
        // What scripts know is about the first path.
        let first = |probe| self.rows.iter().find(|row| row.probe == probe);
        let sent = |probe| first(probe).map_or(0, |row| row.outcome.sent);
        let lost = |probe| first(probe).map_or(0, |row| row.outcome.lost);
        let retransmits = first(Probe::Tcp).and_then(|row| row.outcome.retransmits);
        json!({
            "DurationSeconds": self.time.as_secs(),
            "RemoteAddress": self.rows.first().map(|row| row.address.to_string()),
            "RemotePort": self.connect_port,
            "TotalIcmpEcho": sent(Probe::Icmp),
            "IcmpLost": lost(Probe::Icmp),
            "TotalTCPOutSegments": sent(Probe::Tcp),
            "TCPRetransSegment": retransmits.unwrap_or(0),
            "TotalTCPConnection": sent(Probe::Connect),
            "FailedTCPConnection": lost(Probe::Connect),
            "LongestBreak": Nanos::from(self.longest_break()),
            "Probes": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
            "During": self.disturbance.as_ref().map(|disturbance| json!({
                "Command": disturbance.command,
                "From": Nanos::from(disturbance.from),
                "To": Nanos::from(disturbance.to),
                "ExitCode": disturbance.exit_code,
            })),
        })
    }
}

impl Row {
    fn note(&self) -> String {
        match &self.outcome.unavailable {
            Some(why) => format!("not measured: {why}"),
            None => {
                let again = match self.outcome.reconnects {
                    None | Some(0) => None,
                    Some(1) => Some("1 reconnect".to_owned()),
                    Some(count) => Some(format!("{count} reconnects")),
                };
                let causes = Some(causes_as_text(&self.outcome.causes)).filter(|t| !t.is_empty());
                again.into_iter().chain(causes).collect::<Vec<_>>().join(", ")
            }
        }
    }

    fn json(&self) -> Value {
        let span = |one: &Break| json!({"From": Nanos::from(one.from), "To": Nanos::from(one.to)});
        let longest = self.outcome.longest().map(|longest| longest.length()).unwrap_or_default();
        json!({
            "Path": self.path,
            "Address": self.address.to_string(),
            "Probe": self.probe.name(),
            "Sent": self.outcome.sent,
            "Lost": self.outcome.lost,
            "LongestBreak": Nanos::from(longest),
            "Breaks": self.outcome.breaks.iter().map(span).collect::<Vec<_>>(),
            "Retransmits": self.outcome.retransmits,
            "Reconnects": self.outcome.reconnects,
            "Unavailable": self.outcome.unavailable,
            "Causes": self.outcome.causes,
        })
    }
}

impl FlagValue for Format {
    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = match text {
            "text" => Self::Text,
            "json" => Self::Json,
            _ => return Err("neither text nor json".to_owned()),
        };
        Ok(())
    }

    fn shown(&self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Json => "json".to_owned(),
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn report() -> Report {
        let row = |probe, outcome| Row {
            path: "vip".to_owned(),
            address: IpAddr::from([10, 0, 0, 0]),
            probe,
            outcome,
        };
        let hole = Break { from: Duration::from_millis(5_010), to: Duration::from_millis(5_330) };
        let lost = Outcome { sent: 1_000, lost: 32, breaks: vec![hole], ..Outcome::default() };
        let stream = Outcome { sent: 9, retransmits: Some(3), ..Outcome::default() };
        let again = Outcome {
            sent: 990,
            lost: 2,
            reconnects: Some(1),
            causes: [("aborted by the peer".to_owned(), 1)].into(),
            ..Outcome::default()
        };
        Report {
            time: Duration::from_secs(10),
            connect_port: 80,
            rows: vec![
                row(Probe::Icmp, lost),
                row(Probe::Tcp, stream),
                row(Probe::Udp, Outcome::unavailable("no")),
                row(Probe::Sctp, again),
            ],
            disturbance: Some(Disturbance {
                command: "true".to_owned(),
                from: Duration::from_secs(5),
                to: Duration::from_millis(5_250),
                exit_code: Some(0),
            }),
        }
    }

    #[test]
    fn a_table_has_a_line_for_each_probe() {
        assert_eq!(
            report().text(),
            "path probe      sent   lost  break ms    at s  retransmits  note\n\
             vip  icmp       1000     32       320    5.01\n\
             vip  tcp           9      0         0                    3\n\
             vip  udp           0      0         0                       not measured: no\n\
             vip  sctp        990      2         0                       1 reconnect, aborted by the peer (1 times)\n\
             during: true: 5.00 s to 5.25 s, exit code 0\n"
        );
    }

    #[test]
    fn json_has_the_keys_that_scripts_know() {
        let found = report().json();
        assert_eq!(found["DurationSeconds"], 10);
        assert_eq!(found["RemoteAddress"], "10.0.0.0");
        assert_eq!((&found["TotalIcmpEcho"], &found["IcmpLost"]), (&json!(1_000), &json!(32)));
        assert_eq!(found["TCPRetransSegment"], 3);
        assert_eq!(found["TotalTCPConnection"], 0);
        assert_eq!(found["LongestBreak"], 320_000_000);
        assert_eq!(found["Probes"][0]["Breaks"][0]["From"], 5_010_000_000_u64);
        assert_eq!(found["During"]["ExitCode"], 0);
    }
}
