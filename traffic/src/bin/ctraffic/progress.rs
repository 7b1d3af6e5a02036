//! The progress of a run on stderr: a line each second, or a table that is
//! drawn again and again where a terminal shows it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use traffic::stats::{Nanos, Times, Totals};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Monitor {
    Off,
    Lines,
    Table,
}

/// The state of a run at a time.
pub struct Counts<'a> {
    pub time: Duration,
    pub active: u64,
    pub connecting: u64,
    pub totals: &'a Totals,
    pub packet_size: usize,
}

pub struct Progress {
    monitor: Monitor,
    /// Times of the answers since the last show.
    reply_times: Times,
    /// What was shown last.
    before: Totals,
    before_time: Duration,
    /// Lines of the table on the terminal.
    drawn: usize,
}

/// Hosts that the table has room for.
const HOSTS: usize = 12;

impl Progress {
    pub fn new(monitor: Monitor) -> Self {
        Self {
            monitor,
            reply_times: Times::default(),
            before: Totals::default(),
            before_time: Duration::ZERO,
            drawn: 0,
        }
    }

    pub fn record(&mut self, reply_time: Duration) {
        if self.monitor == Monitor::Table {
            self.reply_times.record(reply_time);
        }
    }

    /// Shows the state; `hosts` are the answering hosts of the connections.
    pub fn show<'a>(&mut self, counts: &Counts<'_>, hosts: impl Iterator<Item = &'a str>) {
        let text = match self.monitor {
            Monitor::Off => return,
            Monitor::Lines => line(counts),
            Monitor::Table => {
                let table = self.table(counts, hosts);
                // Back to the first line of the former table, and away with it.
                let back = match self.drawn {
                    0 => String::new(),
                    lines => format!("\x1b[{lines}F\x1b[J"),
                };
                self.drawn = table.lines().count();
                back + &table
            }
        };
        // Nobody may be looking any more, which is no reason to end.
        let _ = io::stderr().write_all(text.as_bytes());
    }

    fn table<'a>(&mut self, counts: &Counts<'_>, hosts: impl Iterator<Item = &'a str>) -> String {
        let Counts { time, active, connecting, totals, .. } = counts;
        let seconds = time.saturating_sub(self.before_time).as_secs_f64();
        let open = totals.sent - totals.received;
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:>7.1} s  connections: {active} active, {connecting} connecting, {} failed",
            time.as_secs_f64(),
            totals.failed_connections
        );
        let _ = writeln!(
            text,
            "            {:>12} {:>12} {:>12} {:>12}",
            "sent", "received", "unanswered", "dropped"
        );
        let _ = writeln!(
            text,
            "  packets   {:>12} {:>12} {open:>12} {:>12}",
            totals.sent, totals.received, totals.dropped
        );
        let rate = |now: u64, before: u64| f64::from(u32_of(now - before)) / seconds.max(1e-3);
        let received = rate(totals.received, self.before.received);
        let _ = writeln!(
            text,
            "  each s    {:>12.0} {received:>12.0} {:>12} {:>12.0}",
            rate(totals.sent, self.before.sent),
            "",
            rate(totals.dropped, self.before.dropped)
        );
        let size = f64::from(u32::try_from(counts.packet_size).unwrap_or(u32::MAX));
        let _ = write!(text, "  received  {:>12.0} KB/s", received * size / 1_024.0);
        if let Some(times) = self.reply_times.percentiles() {
            let millis = |time: Nanos| time.seconds() * 1e3;
            let _ = write!(
                text,
                "    reply time {:.2} ms, 99 % below {:.2} ms, longest {:.2} ms",
                millis(times.p50),
                millis(times.p99),
                millis(times.max)
            );
        }
        text.push('\n');
        host_lines(&mut text, hosts);
        self.reply_times.clear();
        self.before = (*totals).clone();
        self.before_time = *time;
        text
    }

    /// What follows stands below the table.
    pub fn finish(&mut self) {
        self.drawn = 0;
    }
}

/// The hosts with the most connections, by name, with a bar each.
fn host_lines<'a>(text: &mut String, hosts: impl Iterator<Item = &'a str>) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for host in hosts {
        *counts.entry(host).or_default() += 1;
    }
    let most = counts.values().copied().max().unwrap_or(0).max(1);
    let mut shown: Vec<_> = counts.iter().collect();
    shown.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    shown.truncate(HOSTS);
    shown.sort();
    for &(host, count) in &shown {
        let host = if host.is_empty() { "(no answer)" } else { host };
        let host: String =
            host.chars().map(|c| if c.is_control() { '?' } else { c }).take(24).collect();
        let _ = writeln!(text, "  {host:<24} {count:>7} {}", "#".repeat(count * 30 / most));
    }
    if counts.len() > shown.len() {
        let _ = writeln!(text, "  and {} other hosts", counts.len() - shown.len());
    }
}

fn line(counts: &Counts<'_>) -> String {
    let Counts { active, connecting, totals, .. } = counts;
    format!(
        "Conn act/fail/connecting: {active}/{}/{connecting}, Packets send/rec/dropped: {}/{}/{}\n",
        totals.failed_connections, totals.sent, totals.received, totals.dropped
    )
}

fn u32_of(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals() -> Totals {
        Totals { sent: 100, received: 90, dropped: 3, failed_connections: 2, ..Totals::default() }
    }

    fn counts(totals: &Totals) -> Counts<'_> {
        Counts {
            time: Duration::from_secs(2),
            active: 4,
            connecting: 1,
            totals,
            packet_size: 1_024,
        }
    }

    #[test]
    fn a_line_is_as_scripts_know_it() {
        assert_eq!(
            line(&counts(&totals())),
            "Conn act/fail/connecting: 4/2/1, Packets send/rec/dropped: 100/90/3\n"
        );
    }

    #[test]
    fn a_table_shows_rates_and_hosts() {
        let mut progress = Progress::new(Monitor::Table);
        progress.record(Duration::from_millis(2));
        let hosts = ["vm-002", "vm-001", "vm-002", ""];
        let table = progress.table(&counts(&totals()), hosts.into_iter());
        for part in [
            "    2.0 s  connections: 4 active, 1 connecting, 2 failed\n",
            "  packets            100           90           10            3\n",
            "  each s              50           45                         2\n",
            "45 KB/s    reply time 2.00 ms, 99 % below 2.00 ms, longest 2.00 ms\n",
            "  (no answer)                    1 ###############\n",
            "  vm-002                         2 ##############################\n",
        ] {
            assert!(table.contains(part), "{part:?} in\n{table}");
        }
    }

    #[test]
    fn a_host_cannot_move_the_cursor_and_many_are_cut() {
        let mut text = String::new();
        let names: Vec<_> = (0..20).map(|n| format!("\x1b[2J{n}")).collect();
        host_lines(&mut text, names.iter().map(String::as_str));
        assert!(!text.contains('\x1b'));
        assert!(text.ends_with("  and 8 other hosts\n"), "{text}");
        assert_eq!(text.lines().count(), HOSTS + 1);
    }
}
