//! The counters of `lb`, as `shm-tool stats --json` prints them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

/// The counters of one queue, or of all together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub received: u64,
    pub marked: u64,
    pub held: u64,
    pub dropped: BTreeMap<String, u64>,
    pub classes: BTreeMap<String, u64>,
    pub losses: Losses,
}

/// What the kernel lost before `lb` saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// The queue was full.
    pub queue: u64,
    /// The socket's buffer was full.
    pub socket: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Stats {
    /// Whether the `lb` that wrote them is there still.
    pub running: bool,
    pub queues: Vec<Counters>,
    pub sum: Counters,
}

impl Stats {
    pub fn parse(report: &str) -> Result<Self> {
        let report: Value = serde_json::from_str(report).context("read stats")?;
        let queues = report["queues"].as_array().context("read stats: no queues")?;
        Ok(Self {
            running: report["running"].as_bool().context("read stats: no running")?,
            queues: queues.iter().map(Counters::parse).collect::<Result<_>>()?,
            sum: Counters::parse(&report["sum"])?,
        })
    }

    /// Why the counters do not add up.
    pub fn imbalance(&self) -> Option<String> {
        let each = self.queues.iter().chain([&self.sum]);
        each.filter(|counters| counters.accounted() != counters.received)
            .map(|counters| format!("{} accounted for in {counters:?}", counters.accounted()))
            .next()
            .or_else(|| {
                let received: u64 = self.queues.iter().map(|queue| queue.received).sum();
                (received != self.sum.received)
                    .then(|| format!("sum of {} for queues of {received}", self.sum.received))
            })
    }
}

impl Counters {
    fn parse(report: &Value) -> Result<Self> {
        let number = |key: &str| {
            report[key].as_u64().with_context(|| format!("read stats: no number {key}"))
        };
        let numbers = |key: &str| {
            let object =
                report[key].as_object().with_context(|| format!("read stats: no {key}"))?;
            let pairs = object.iter().map(|(name, value)| {
                let value = value.as_u64().with_context(|| format!("read stats: odd {name}"))?;
                Ok((name.clone(), value))
            });
            pairs.collect::<Result<_>>()
        };
        Ok(Self {
            received: number("received")?,
            marked: number("marked")?,
            held: number("held")?,
            dropped: numbers("dropped")?,
            classes: numbers("classes")?,
            losses: Losses {
                queue: number("kernel_queue_drops")?,
                socket: number("socket_drops")?,
            },
        })
    }

    pub fn class(&self, class: &str) -> u64 {
        self.classes.get(class).copied().unwrap_or(0)
    }

    pub fn dropped_for(&self, reason: &str) -> u64 {
        self.dropped.get(reason).copied().unwrap_or(0)
    }

    fn accounted(&self) -> u64 {
        self.marked + self.held + self.dropped.values().sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(received: u64, sum: u64) -> String {
        format!(
            r#"{{"running":true,"queues":[{{"queue":2,"received":{received},"marked":4,"held":1,
            "dropped":{{"fragment":3,"no_target":2}},"classes":{{"tcp":10}},"kernel_queue_drops":5,"socket_drops":6}}],
            "sum":{{"received":{sum},"marked":4,"held":1,"dropped":{{"fragment":3,"no_target":2}},
            "classes":{{"tcp":10}},"kernel_queue_drops":5,"socket_drops":6}}}}"#
        )
    }

    #[test]
    fn reads_a_report_that_adds_up() {
        let stats = Stats::parse(&report(10, 10)).unwrap();
        assert_eq!(stats.imbalance(), None);
        assert_eq!(stats.sum.dropped_for("fragment"), 3);
        assert_eq!(stats.sum.dropped_for("truncated"), 0);
        assert_eq!((stats.sum.class("tcp"), stats.sum.class("udp")), (10, 0));
        assert_eq!(stats.sum.losses, Losses { queue: 5, socket: 6 });
    }

    #[test]
    fn tells_what_does_not_add_up() {
        let imbalance = |text: &str| Stats::parse(text).unwrap().imbalance().unwrap();
        assert!(imbalance(&report(11, 11)).starts_with("10 accounted for"));
        assert!(imbalance(&report(10, 11)).starts_with("10 accounted for"));
    }

    #[test]
    fn a_missing_counter_is_named() {
        let error =
            Stats::parse(r#"{"running":false,"queues":[],"sum":{"received":1}}"#).unwrap_err();
        assert_eq!(error.to_string(), "read stats: no number marked");
    }
}
