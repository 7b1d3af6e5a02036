//! The traffic generator: who answers how many connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::address::Family;
use crate::flow::Transport;

pub const PORT: u16 = 5001;

/// Connections to the virtual address, from many sources.
#[derive(Clone, Copy)]
pub struct Connections {
    pub family: Family,
    pub transport: Transport,
    pub count: u32,
    /// All must be done by then, in seconds.
    pub seconds: u32,
}

/// What `mconnect` reports.
#[derive(Debug, PartialEq, Eq)]
pub struct Answers {
    /// Answers by host name.
    pub hosts: BTreeMap<String, u64>,
    pub failed: u64,
}

impl Connections {
    pub fn words(&self) -> Vec<String> {
        let address = SocketAddr::new(self.family.vip(), PORT);
        let mut words: Vec<String> =
            ["mconnect", "-output", "json", "-seed", "1"].map(str::to_owned).into();
        words.extend(["-address".to_owned(), address.to_string()]);
        words.extend(["-nconn".to_owned(), self.count.to_string()]);
        words.extend(["-srccidr".to_owned(), self.family.source_prefix()]);
        words.extend(["-timeout".to_owned(), format!("{}s", self.seconds)]);
        if self.transport == Transport::Udp {
            words.push("-udp".to_owned());
        }
        words
    }
}

impl Answers {
    pub fn parse(report: &str) -> Result<Self> {
        let odd = || format!("read report of mconnect: {}", report.trim());
        let report: Value = serde_json::from_str(report).with_context(odd)?;
        let number = |key: &str| report[key].as_u64().with_context(odd);
        let hosts = match &report["hosts"] {
            Value::Object(hosts) => hosts
                .iter()
                .map(|(name, count)| Ok((name.clone(), count.as_u64().with_context(odd)?)))
                .collect::<Result<_>>()?,
            // Nobody answered.
            Value::Null => BTreeMap::new(),
            _ => anyhow::bail!(odd()),
        };
        Ok(Self { hosts, failed: number("failed_connects")? + number("failed_reads")? })
    }

    pub fn total(&self) -> u64 {
        self.hosts.values().sum()
    }

    /// Why these are not answers of `hosts` servers, each within `margin` percent of the mean.
    pub fn unevenness(&self, hosts: usize, margin: u64) -> Option<String> {
        if self.hosts.len() != hosts {
            return Some(format!("{} hosts answered", self.hosts.len()));
        }
        let (total, parts) = (self.total(), u64::try_from(hosts).ok()?);
        // count / mean, in percent, without a division that rounds.
        let outside = |count: u64| {
            let scaled = count * parts * 100;
            scaled < total * (100 - margin) || scaled > total * (100 + margin)
        };
        let (name, count) = self.hosts.iter().find(|(_, count)| outside(**count))?;
        Some(format!("{name} answered {count} of {total}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(counts: &[u64]) -> Answers {
        let hosts = counts.iter().zip(1..).map(|(count, n)| (format!("vm-{n:03}"), *count));
        Answers { hosts: hosts.collect(), failed: 0 }
    }

    #[test]
    fn reads_a_report() {
        let report = r#"{"hosts":{"vm-001":3,"vm-002":4},"connects":10,"failed_connects":2,
            "failed_reads":1,"duration":5}"#;
        let read = Answers::parse(report).unwrap();
        assert_eq!(read.hosts, answers(&[3, 4]).hosts);
        assert_eq!((read.total(), read.failed), (7, 3));
        assert!(Answers::parse("").is_err());
        assert!(Answers::parse(r#"{"hosts":{}}"#).is_err());
    }

    #[test]
    fn the_margin_is_around_the_mean() {
        assert_eq!(answers(&[50, 150, 100, 100]).unevenness(4, 50), None);
        assert_eq!(
            answers(&[49, 151, 100, 100]).unevenness(4, 50).unwrap(),
            "vm-001 answered 49 of 400"
        );
        assert_eq!(answers(&[100, 100]).unevenness(4, 50).unwrap(), "2 hosts answered");
    }

    #[test]
    fn udp_is_asked_for() {
        let tcp =
            Connections { family: Family::V6, transport: Transport::Tcp, count: 7, seconds: 2 };
        let words = tcp.words().join(" ");
        assert_eq!(
            words,
            "mconnect -output json -seed 1 -address [1000::]:5001 -nconn 7 \
             -srccidr 1000::1:1400:0/112 -timeout 2s"
        );
        let udp = Connections { transport: Transport::Udp, ..tcp };
        assert_eq!(udp.words().join(" "), words + " -udp");
    }
}
