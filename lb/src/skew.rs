//! Whether new SCTP associations spread over the targets, or one pair of ports has far too many.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lb_core::counters::{Counter, Counts};
use lb_core::key::Key;
use lb_core::openings::{Heaviest, Openings, Sum};
use lb_core::table::Snapshot;
use lb_core::target::Mark;
use lb_core::wire::l4::Ports;
use tracing::{debug, warn};

use crate::current::Current;

/// Where a worker leaves what it saw in a period, when it is asked to.
#[derive(Debug, Default)]
pub struct Handed {
    asked: AtomicU64,
    openings: Mutex<Openings>,
}

/// What a worker sees in the period.
#[derive(Debug)]
pub struct Seen<'a> {
    pub openings: Openings,
    asked: u64,
    handed: &'a Handed,
}

impl<'a> Seen<'a> {
    /// Nothing yet.
    pub fn new(handed: &'a Handed) -> Self {
        Seen { openings: Openings::default(), asked: handed.asked.load(Relaxed), handed }
    }

    /// To be called after every batch: hands over at the end of a period.
    pub fn after_batch(&mut self) {
        let asked = self.handed.asked.load(Relaxed);
        if asked != self.asked {
            self.asked = asked;
            self.handed.lock().clone_from(&self.openings);
            self.openings.clear();
        }
    }
}

impl Handed {
    fn ask(&self) {
        self.asked.fetch_add(1, Relaxed);
    }

    fn take_into(&self, sum: &mut Sum) {
        let mut openings = self.lock();
        sum.add(&openings);
        openings.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Openings> {
        self.openings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was warned of, for one of the workers to publish.
#[derive(Debug, Default)]
pub struct Told {
    warnings: AtomicU64,
    last: [AtomicU64; LAST.len()],
}

/// What is known of the last period, in the order of [`Finding::numbers`].
const LAST: [Counter; 6] = [
    Counter::SkewSourcePort,
    Counter::SkewDestinationPort,
    Counter::SkewInits,
    Counter::SkewAllInits,
    Counter::SkewSeconds,
    Counter::SkewMark,
];

impl Told {
    /// Puts the numbers among the counters.
    pub fn add_to(&self, counts: &mut Counts) {
        counts.set(Counter::SkewWarnings, self.warnings.load(Relaxed));
        for (counter, number) in LAST.into_iter().zip(&self.last) {
            counts.set(counter, number.load(Relaxed));
        }
    }

    fn store(&self, finding: Option<&Finding>) {
        self.warnings.fetch_add(u64::from(finding.is_some()), Relaxed);
        let numbers = finding.map(Finding::numbers).unwrap_or_default();
        for (place, number) in self.last.iter().zip(numbers) {
            place.store(number, Relaxed);
        }
    }
}

/// Asks the workers at the end of each period, and judges.
#[derive(Debug)]
pub struct Skew<'a> {
    period: Option<Duration>,
    began: Instant,
    /// How long the period was about which the workers have been asked.
    asked: Option<Duration>,
    workers: &'a [Handed],
    told: &'a Told,
}

impl<'a> Skew<'a> {
    /// Begins the first period.
    pub fn new(
        period: Option<Duration>,
        workers: &'a [Handed],
        told: &'a Told,
        now: Instant,
    ) -> Self {
        Skew { period, began: now, asked: None, workers, told }
    }

    /// To be called every second or so: in between the workers answer.
    pub fn look(&mut self, current: &Current, now: Instant) {
        if let Some(lasted) = self.asked.take() {
            let mut sum = Sum::default();
            self.workers.iter().for_each(|handed| handed.take_into(&mut sum));
            let heaviest = sum.heaviest();
            if let Some(pair) = &heaviest {
                let Heaviest { inits, of, .. } = pair;
                let [from, to] = numbers_of(pair.ports);
                let seconds = lasted.as_secs();
                debug!(
                    "new SCTP associations: {of} in {seconds} s, {inits} from port {from} to port {to}"
                );
            }
            let finding = heaviest.and_then(|heaviest| found(heaviest, lasted, current));
            if let Some(finding) = &finding {
                warn!("{}", finding.text());
            }
            self.told.store(finding.as_ref());
        }
        let lasts = now.saturating_duration_since(self.began);
        if self.period.is_some_and(|period| lasts >= period) {
            self.workers.iter().for_each(Handed::ask);
            (self.asked, self.began) = (Some(lasts), now);
        }
    }
}

/// A pair that has too much.
#[derive(Debug)]
struct Finding {
    pair: Heaviest,
    lasted: Duration,
    mark: Mark,
    /// The target's part of the slots.
    share: f64,
}

fn found(pair: Heaviest, lasted: Duration, current: &Current) -> Option<Finding> {
    // Most never come as far as to a copy of the whole table.
    if !pair.is_too_much(0.0) {
        return None;
    }
    let (mapped, _) = current.get();
    judged(pair, lasted, &mapped.snapshot().ok()?)
}

fn judged(pair: Heaviest, lasted: Duration, table: &Snapshot) -> Option<Finding> {
    let slot = Key::ports(pair.ports).hash(table.config.seed).slot(table.config.slots);
    let mark = Mark::new(*table.slots.get(slot.0 as usize)?)?;
    let held = table.slots.iter().filter(|word| **word == mark.get()).count();
    let share = held as f64 / table.slots.len() as f64;
    pair.is_too_much(share).then_some(Finding { pair, lasted, mark, share })
}

fn numbers_of([s0, s1, d0, d1]: Ports) -> [u16; 2] {
    [u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])]
}

impl Finding {
    fn numbers(&self) -> [u64; LAST.len()] {
        let [source, destination] = numbers_of(self.pair.ports).map(u64::from);
        let Heaviest { inits, of, .. } = self.pair;
        [source, destination, inits, of, self.lasted.as_secs(), u64::from(self.mark.get())]
    }

    fn text(&self) -> String {
        let [source, destination] = numbers_of(self.pair.ports);
        let Heaviest { inits, of, sources, .. } = self.pair;
        let (seconds, mark) = (self.lasted.as_secs(), self.mark);
        let percent = |part: f64| (part * 100.0).round();
        let part = percent(self.pair.part());
        let (share, gets) = (percent(self.share), percent(self.pair.part_of_target(self.share)));
        format!(
            "SCTP: {inits} of {of} new associations ({part} %) in {seconds} s go from port {source} to port \
             {destination}, from at least {sources} addresses, so all of them to the target with mark {mark}: \
             it has {share} % of the slots and gets {gets} % of the associations. Let clients use different \
             source ports; if none is multihomed, make the table with --sctp-hash tuple"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_core::table::{Config, Generation};
    use lb_core::target::{Targets, Weight};
    use lb_core::wire::ip::Addresses;

    const PORTS: [u8; 4] = [0x13, 0xc4, 0x17, 0x70];
    const MINUTE: Duration = Duration::from_secs(60);

    fn table(marks: u32) -> Snapshot {
        let mut targets = Targets::new(marks.max(1));
        for mark in 1..=marks {
            targets.activate(Mark::new(mark).unwrap(), Some(Weight(1)), None).unwrap();
        }
        let empty = Snapshot {
            config: Config::default(),
            generation: Generation(0),
            fingerprint: lb_core::table::Fingerprint(0),
            targets: Targets::new(1),
            slots: Vec::new(),
        };
        empty.changed(targets)
    }

    fn add(openings: &mut Openings, ports: [u8; 4], client: u8) {
        openings.add(ports, Addresses::V4(&[10, 0, 0, client, 20, 0, 0, 1]));
    }

    #[test]
    fn a_finding_tells_what_is_wrong_and_what_to_do() {
        let pair = Heaviest { ports: PORTS, inits: 930, of: 1000, sources: 40 };
        let finding = judged(pair, MINUTE, &table(4)).unwrap();
        let mark = finding.mark;
        assert_eq!(
            finding.text(),
            format!(
                "SCTP: 930 of 1000 new associations (93 %) in 60 s go from port 5060 to port 6000, from at least \
                 40 addresses, so all of them to the target with mark {mark}: it has 25 % of the slots and gets \
                 95 % of the associations. Let clients use different source ports; if none is multihomed, make \
                 the table with --sctp-hash tuple"
            )
        );
        let told = Told::default();
        let numbers = || {
            let mut counts = Counts::default();
            told.add_to(&mut counts);
            LAST.map(|counter| counts.get(counter)).into_iter().collect::<Vec<_>>()
        };
        told.store(Some(&finding));
        assert_eq!(numbers(), [5060, 6000, 930, 1000, 60, u64::from(mark.get())]);
        told.store(None);
        assert_eq!(numbers(), [0; 6]);
        assert_eq!(told.warnings.load(Relaxed), 1);

        assert!(judged(pair, MINUTE, &table(0)).is_none(), "no target");
        assert!(judged(pair, MINUTE, &table(1)).is_none(), "one target");
    }

    #[test]
    fn workers_hand_over_once_in_a_period() {
        let handed = [Handed::default(), Handed::default()];
        let mut seen = handed.each_ref().map(Seen::new);
        for client in 0..10 {
            add(&mut seen[0].openings, PORTS, client);
            add(&mut seen[1].openings, PORTS, client);
        }
        let taken = || {
            let mut sum = Sum::default();
            handed.iter().for_each(|handed| handed.take_into(&mut sum));
            sum.heaviest().map(|pair| pair.inits)
        };
        seen.iter_mut().for_each(Seen::after_batch);
        assert_eq!(taken(), None, "nobody asked");
        handed.iter().for_each(Handed::ask);
        seen.iter_mut().for_each(Seen::after_batch);
        add(&mut seen[0].openings, PORTS, 1);
        seen.iter_mut().for_each(Seen::after_batch);
        assert_eq!(taken(), Some(20));
        assert_eq!(taken(), None, "only once");
        handed.iter().for_each(Handed::ask);
        seen.iter_mut().for_each(Seen::after_batch);
        assert_eq!(taken(), Some(1), "what came later is of the next period");
    }
}
