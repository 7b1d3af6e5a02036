//! The counters of an instance at a moment, as text and as JSON.

use std::fmt;
use std::time::{Duration, SystemTime};

use humantime::format_rfc3339_seconds;
use lb_core::counters::{Counter, Counts};
use lb_sys::shm::{Name, StatsFile};
use serde_json::{Map, Value, json};

use crate::columns::{Align, aligned};

/// More queues than this go below each other, so that lines do not get too long.
const QUEUES_ABREAST: usize = 6;

pub struct Report {
    instance: String,
    table: String,
    running: bool,
    pid: u64,
    started: SystemTime,
    queues: Vec<(u16, Counts)>,
    /// Queues of which the counters were left half written by a process that was killed.
    unreadable: usize,
    sum: Counts,
}

/// An earlier report, to tell rates.
pub struct Before<'a> {
    pub report: &'a Report,
    pub elapsed: Duration,
}

impl Report {
    pub fn of(instance: &Name, file: &StatsFile) -> Self {
        let rows: Vec<_> = file.queues().collect();
        let queues: Vec<(u16, Counts)> = rows.iter().flatten().copied().collect();
        let started = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(file.started()));
        Report {
            instance: instance.to_string(),
            table: file.table(),
            running: file.is_running(),
            pid: file.pid(),
            started: started.unwrap_or(SystemTime::UNIX_EPOCH),
            unreadable: rows.len() - queues.len(),
            sum: Counts::sum(queues.iter().map(|(_, counts)| counts)),
            queues,
        }
    }

    pub fn json(&self) -> Value {
        let queue = |(queue, counts): &(u16, Counts)| {
            let mut object = Map::new();
            object.insert("queue".into(), json!(queue));
            object.extend(json_of(counts));
            Value::Object(object)
        };
        json!({
            "instance": self.instance,
            "table": self.table,
            "running": self.running,
            "pid": self.pid,
            "started": format_rfc3339_seconds(self.started).to_string(),
            "unreadable_queues": self.unreadable,
            "queues": self.queues.iter().map(queue).collect::<Vec<_>>(),
            "sum": json_of(&self.sum),
        })
    }

    /// The text. While one watches there are rates, too: numbers per second since `before`.
    pub fn text(&self, before: Option<&Before<'_>>, watched: bool) -> String {
        let mut columns = vec![Column {
            title: "sum".into(),
            lines: lines(&self.sum),
            before: before.map(|before| (lines(&before.report.sum), before.elapsed)),
        }];
        columns.extend(self.queues.iter().map(|(queue, counts)| Column {
            title: format!("queue {queue}"),
            lines: lines(counts),
            before: before.and_then(|before| {
                let mut queues = before.report.queues.iter();
                let (_, counts) = queues.find(|(number, _)| number == queue)?;
                Some((lines(counts), before.elapsed))
            }),
        }));

        let shown = lines(&self.sum);
        let mut text = self.head();
        for abreast in columns.chunks(1 + QUEUES_ABREAST) {
            text.push('\n');
            text.push_str(&block(&shown, abreast, watched));
        }
        text
    }

    fn head(&self) -> String {
        let Report { instance, table, pid, unreadable, .. } = self;
        let started = format_rfc3339_seconds(self.started);
        let state = match self.running {
            true => format!("lb is running: process {pid}, started {started}"),
            false => format!(
                "lb is not running; process {pid}, started {started}, wrote these last values"
            ),
        };
        let killed = match unreadable {
            0 => String::new(),
            n => {
                let all = n + self.queues.len();
                format!(
                    "not counted here: {n} of {all} queues, left half written when lb was killed\n"
                )
            }
        };
        format!("instance {instance}, table {table}\n{state}\n{killed}")
    }
}

fn json_of(counts: &Counts) -> Map<String, Value> {
    let mut object = Map::new();
    for (counter, name, number) in counts.others() {
        object.insert(name.into(), json!(number));
        if counter == Counter::Held {
            object.insert("dropped".into(), by_name(counts.dropped()));
            object.insert("classes".into(), by_name(counts.classes()));
            object.insert("sctp_chunks".into(), by_name(counts.chunks()));
        }
    }
    object
}

fn by_name(numbers: impl Iterator<Item = (&'static str, u64)>) -> Value {
    let numbers = numbers.map(|(name, number)| (name.to_string(), json!(number)));
    Value::Object(numbers.collect())
}

/// The numbers of all queues or of one.
struct Column {
    title: String,
    lines: Vec<Line>,
    /// What they were how long ago.
    before: Option<(Vec<Line>, Duration)>,
}

/// A line of the text. Those of different counts stand at the same places.
struct Line {
    label: String,
    figure: Figure,
    is_worth_showing: bool,
}

enum Figure {
    /// The line is a title, or empty.
    None,
    Count(u64),
    Ratio(Option<f64>),
}

impl Line {
    fn count(label: &str, number: u64) -> Self {
        Line {
            label: label.replace('_', " "),
            figure: Figure::Count(number),
            is_worth_showing: true,
        }
    }

    fn count_if_any(label: &str, number: u64) -> Self {
        Line { is_worth_showing: number > 0, ..Line::count(label, number) }
    }

    /// A title, or an empty line.
    fn title(label: &str) -> Self {
        Line { figure: Figure::None, ..Line::count(label, 0) }
    }

    /// A title over details that are shown only if their sum is not zero.
    fn title_if_any(label: &str, sum: u64) -> Self {
        Line { is_worth_showing: sum > 0, ..Line::title(label) }
    }
}

fn lines(counts: &Counts) -> Vec<Line> {
    let count = |label, counter| Line::count(label, counts.get(counter));
    let if_any = |label, counter| Line::count_if_any(label, counts.get(counter));
    let detail = |(name, number): (&str, u64)| Line::count_if_any(&format!("  {name}"), number);
    let (received, batches) = (counts.get(Counter::Received), counts.get(Counter::Batches));

    let mut lines = vec![
        count("received", Counter::Received),
        count("marked", Counter::Marked),
        count("held", Counter::Held),
        Line::count("dropped", counts.dropped_sum()),
        Line::title_if_any("", received),
        Line::title_if_any("received by class", received),
    ];
    lines.extend(counts.classes().map(detail));
    let sctp = counts.chunks().fold(0u64, |sum, (_, number)| sum.saturating_add(number));
    lines.push(Line::title_if_any("SCTP by first chunk", sctp));
    lines.extend(counts.chunks().map(detail));
    lines.push(Line::title_if_any("dropped by reason", counts.dropped_sum()));
    lines.extend(counts.dropped().map(detail));
    lines.extend([
        Line::title(""),
        count("batches", Counter::Batches),
        Line {
            label: "packets per batch".into(),
            figure: Figure::Ratio((batches > 0).then(|| received as f64 / batches as f64)),
            is_worth_showing: true,
        },
        count("kernel queue drops", Counter::KernelQueueDrops),
        count("socket drops", Counter::SocketDrops),
        if_any("repeated", Counter::Repeated),
        if_any("receive errors", Counter::ReceiveErrors),
        if_any("send errors", Counter::SendErrors),
        if_any("verdicts refused", Counter::VerdictsRefused),
        Line::title_if_any(
            "",
            FRAGMENTS.iter().map(|(_, counter)| counts.get(*counter)).max().unwrap_or(0),
        ),
    ]);
    lines.extend(FRAGMENTS.map(|(label, counter)| if_any(label, counter)));
    let by_rules = [Counter::FastPackets, Counter::ExpressPackets, Counter::QueuedPackets];
    let ruled =
        by_rules.into_iter().fold(0u64, |sum, counter| sum.saturating_add(counts.get(counter)));
    lines.extend([
        Line::title_if_any("", ruled),
        Line::title_if_any("by the rules of lb, since they were made", ruled),
        if_any("fast packets", Counter::FastPackets),
        if_any("fast bytes", Counter::FastBytes),
        if_any("express packets", Counter::ExpressPackets),
        if_any("express bytes", Counter::ExpressBytes),
        if_any("queued packets", Counter::QueuedPackets),
        if_any("queued bytes", Counter::QueuedBytes),
        if_any("map changes", Counter::MapChanges),
        if_any("map slots", Counter::MapSlots),
        if_any("map repairs", Counter::MapRepairs),
        if_any("rules mended", Counter::RulesMended),
    ]);
    let skews = SKEW.map(|(label, counter)| if_any(label, counter));
    let any = skews.iter().any(|line| line.is_worth_showing);
    lines.push(Line::title_if_any("", any.into()));
    lines.push(Line::title_if_any("skew of new SCTP associations", any.into()));
    lines.extend(skews);
    lines
}

/// What is counted about fragments.
const FRAGMENTS: [(&str, Counter); 15] = [
    ("datagrams", Counter::Datagrams),
    ("datagrams peak", Counter::DatagramsPeak),
    ("datagrams completed", Counter::DatagramsCompleted),
    ("datagrams expired", Counter::DatagramsExpired),
    ("datagrams evicted", Counter::DatagramsEvicted),
    ("held now", Counter::HeldNow),
    ("held peak", Counter::HeldPeak),
    ("held injected", Counter::HeldInjected),
    ("held unsent", Counter::HeldUnsent),
    ("held refused", Counter::HeldRefused),
    ("held expired", Counter::HeldExpired),
    ("held evicted", Counter::HeldEvicted),
    ("fragments split", Counter::FragmentsSplit),
    ("tier relayed", Counter::TierRelayed),
    ("tier missing", Counter::TierMissing),
];

/// What is known of ports that have far more than their share of new associations.
const SKEW: [(&str, Counter); 7] = [
    ("skew source port", Counter::SkewSourcePort),
    ("skew destination port", Counter::SkewDestinationPort),
    ("skew inits", Counter::SkewInits),
    ("skew all inits", Counter::SkewAllInits),
    ("skew seconds", Counter::SkewSeconds),
    ("skew mark", Counter::SkewMark),
    ("skew warnings", Counter::SkewWarnings),
];

/// Columns side by side. Which lines are worth showing depends on `shown`, the same for all columns.
fn block(shown: &[Line], columns: &[Column], watched: bool) -> String {
    let mut head = vec![String::new()];
    for column in columns {
        head.push(column.title.clone());
        head.extend(watched.then(|| "/s".to_string()));
    }
    let mut rows = vec![head];
    for (at, line) in shown.iter().enumerate() {
        if !line.is_worth_showing {
            continue;
        }
        let mut row = vec![line.label.clone()];
        if !matches!(line.figure, Figure::None) {
            for column in columns {
                row.push(column.lines[at].figure.to_string());
                row.extend(watched.then(|| column.rate(at)));
            }
        }
        rows.push(row);
    }
    aligned(&rows, &[Align::Left])
}

impl Column {
    /// The growth per second of the number on a line.
    fn rate(&self, at: usize) -> String {
        match (&self.lines[at].figure, &self.before) {
            (Figure::Count(now), Some((before, elapsed))) => match before[at].figure {
                Figure::Count(then) => {
                    let grown = now.saturating_sub(then) as f64;
                    format!("{:.0}", grown / elapsed.as_secs_f64())
                }
                _ => String::new(),
            },
            (Figure::Count(_), None) => "-".into(),
            _ => String::new(),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Figure::None => Ok(()),
            Figure::Count(number) => write!(f, "{number}"),
            Figure::Ratio(Some(ratio)) => write!(f, "{ratio:.1}"),
            Figure::Ratio(None) => write!(f, "-"),
        }
    }
}
