//! What a run came to, and what it shows on the way.

use std::collections::BTreeMap;
use std::time::Instant;

use traffic::stats::{Nanos, Sample, Statistics};

use super::{Client, SAMPLE_INTERVAL};
use crate::progress::Counts;

pub struct Outcome {
    pub statistics: Statistics,
    /// What went wrong, and how often.
    pub causes: BTreeMap<String, u64>,
    /// Why the run could not go on to its end.
    pub stopped_by: Option<anyhow::Error>,
}

impl Client<'_> {
    pub fn into_outcome(mut self) -> Outcome {
        let now = Instant::now();
        let duration = now.saturating_duration_since(self.begin);
        for slot in &mut self.slots {
            if slot.record.is_over() {
                continue;
            }
            let is_open = slot.record.is_connected();
            let retransmits = match slot.connection.take() {
                Some(connection) if is_open && !self.settings.udp => connection.retransmits(),
                _ => 0,
            };
            self.totals.retransmits += retransmits;
            self.totals.failed_connections += u64::from(!is_open);
            let error = if is_open { "" } else { "not connected before the end of the run" };
            slot.record.ended(duration, error, retransmits);
        }
        self.totals.lost = self.totals.sent - self.totals.received;
        self.last_sample(now);
        self.progress.finish();
        let settings = self.settings;
        let target = settings.target;
        Outcome {
            statistics: Statistics {
                started: humantime::format_rfc3339_nanos(self.started).to_string(),
                duration: duration.into(),
                rate: settings.rate,
                connections: settings.connections.get(),
                packet_size: u32::try_from(settings.packet_size).expect("at most a datagram"),
                totals: self.totals,
                reply_time: self.reply_times.percentiles(),
                conn_stats: self
                    .slots
                    .into_iter()
                    .map(|slot| slot.record.into_stats(target))
                    .collect(),
                samples: self.samples,
            },
            causes: self.causes,
            stopped_by: self.stopped_by,
        }
    }

    pub fn sample(&mut self, now: Instant) {
        self.samples.push(self.sample_at(now));
        while self.next_sample <= now {
            self.next_sample += SAMPLE_INTERVAL;
        }
        let counts = Counts {
            time: now.saturating_duration_since(self.begin),
            active: self.active,
            connecting: self.connecting,
            totals: &self.totals,
            packet_size: self.settings.packet_size,
        };
        let hosts = self
            .slots
            .iter()
            .filter(|slot| slot.record.is_connected() && !slot.record.is_over())
            .map(|slot| slot.record.host());
        self.progress.show(&counts, hosts);
    }

    /// The end is a sample, too. It replaces one just before it: a rate over
    /// next to no time would mean nothing.
    fn last_sample(&mut self, now: Instant) {
        let end = self.sample_at(now);
        let is_close = |before: &mut Sample| {
            2 * (end.time.0 - before.time.0) < Nanos::from(SAMPLE_INTERVAL).0 && before.time.0 > 0
        };
        self.samples.pop_if(is_close);
        self.samples.push(end);
    }

    pub fn sample_at(&self, now: Instant) -> Sample {
        Sample {
            time: now.saturating_duration_since(self.begin).into(),
            sent: self.totals.sent,
            received: self.totals.received,
            dropped: self.totals.dropped,
        }
    }
}
