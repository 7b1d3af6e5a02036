//! Fragments: what the command line says about them, and what a worker does beside its packets.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use lb_core::counters::{Counter, Counts};
use lb_core::frag::{DatagramKey, Datagrams, FragConfig, Fragments, Secret, Time, Witness};
use lb_sys::shm::Name;
use lb_sys::tun::{DeviceName, Tun};

/// The options.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Fragments")]
pub struct FragArgs {
    /// Device that lb makes, to send fragments round once more that came before the first of their
    /// datagram; the rules must send its packets to the queues, too. Without it they are dropped
    #[arg(long, value_name = "NAME")]
    tun: Option<DeviceName>,

    /// Datagrams of which fragments are remembered, in each queue
    #[arg(long, value_name = "N", default_value_t = FragConfig::default().entries, value_parser = clap::value_parser!(u32).range(1..=MOST_ENTRIES))]
    frag_entries: u32,

    /// Fragments that are held until the first of their datagram comes, in each queue
    #[arg(long, value_name = "N", requires = "tun", default_value_t = FragConfig::default().held, value_parser = clap::value_parser!(u32).range(1..=MOST_HELD))]
    frag_held: u32,

    /// Milliseconds for which a datagram is remembered from its first sight
    #[arg(long, value_name = "MILLIS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=600_000))]
    frag_ttl: u32,

    /// The table of a tier of routers: fragments go to the router that it says, by their addresses, and
    /// those for its own mark are handled here
    #[arg(long, value_name = "NAME", alias = "lbshm")]
    tier_shm: Option<Name>,
}

const MOST_ENTRIES: i64 = 1 << 24;
const MOST_HELD: i64 = 1 << 20;
/// Bytes copied of a packet: fragments that are held must be whole, and headers are enough else.
const HEADERS: u32 = 512;
const WHOLE: u32 = 1500;
/// The least that every link of IPv6 lets pass.
const LEAST_WHOLE: u32 = 1280;

/// What the options mean.
#[derive(Clone, Debug)]
pub struct FragSettings {
    /// The device.
    pub tun: Option<DeviceName>,
    /// The table of a queue.
    pub table: FragConfig,
    /// Bytes copied of each packet.
    pub copy_range: u32,
    /// The table of the tier.
    pub tier: Option<Name>,
}

impl FragArgs {
    /// What they mean together with the copy range, if one is given.
    pub fn settings(self, copy_range: Option<u32>) -> Result<FragSettings, &'static str> {
        let copy_range = match (copy_range, &self.tun) {
            (Some(given), Some(_)) if given < LEAST_WHOLE => {
                return Err("--copy-range is below 1280: with --tun whole packets are needed");
            }
            (Some(given), _) => given,
            (None, Some(_)) => WHOLE,
            (None, None) => HEADERS,
        };
        let held = if self.tun.is_some() { self.frag_held } else { 0 };
        let table = FragConfig {
            entries: self.frag_entries,
            held,
            held_per_source: per_source(held),
            held_bytes: copy_range as usize,
            ttl: Duration::from_millis(self.frag_ttl.into()),
        };
        Ok(FragSettings { tun: self.tun, table, copy_range, tier: self.tier_shm })
    }
}

/// A quarter for one source, but the longest datagram in pieces of 1,280 bytes if it fits at all.
fn per_source(held: u32) -> u32 {
    const LONGEST: u32 = 52;
    (held / 4).max(held.min(LONGEST))
}

impl FragSettings {
    /// Bytes allocated for so many queues.
    pub fn memory(&self, queues: usize) -> usize {
        match queues {
            0 | 1 => self.table.memory(),
            _ => (queues + 1) * self.table.memory() + Witness::MEMORY,
        }
    }

    /// Why they cannot be had, if so.
    pub fn lacks_memory(&self, queues: usize) -> Option<String> {
        lacks(self.memory(queues))
    }
}

/// Why so many bytes cannot be had, if so. A start that finds out later has nobody to tell.
fn lacks(bytes: usize) -> Option<String> {
    let refused = Vec::<u8>::new().try_reserve_exact(bytes).is_err();
    let megabytes = bytes.div_ceil(1_000_000);
    refused.then(|| format!("the memory for fragments, {megabytes} MB, cannot be had; lower --frag-entries, --frag-held or --copy-range"))
}

/// What several queues have in common: a table of their own is right for each as long as the fragments of a
/// datagram come to one queue. Once they were seen to come to several, all use this one.
#[derive(Debug)]
pub struct Shared {
    witness: Witness,
    table: Mutex<Fragments>,
    in_use: AtomicBool,
}

impl Shared {
    /// For several queues; one has nobody to share with.
    pub fn new(config: FragConfig, secret: Secret, queues: usize) -> Option<Self> {
        (queues > 1).then(|| Shared {
            witness: Witness::new(secret),
            table: Mutex::new(Fragments::new(config, secret)),
            in_use: AtomicBool::new(false),
        })
    }

    /// Whether the fragments of a datagram have come to several queues.
    pub fn is_in_use(&self) -> bool {
        self.in_use.load(Relaxed)
    }

    fn table(&self) -> MutexGuard<'_, Fragments> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all queues were given at start.
#[derive(Clone, Copy, Debug)]
pub struct Common<'a> {
    /// How much may be remembered.
    pub config: FragConfig,
    /// What nobody outside knows.
    pub secret: Secret,
    /// When their time begins.
    pub start: Instant,
    /// How copies are sent round.
    pub tun: Option<&'a Tun>,
    /// Among several queues.
    pub shared: Option<&'a Shared>,
}

/// The fragments of one queue.
#[derive(Debug)]
pub struct Worker<'a> {
    /// When it is, as far as the tables are concerned: read once for a batch.
    pub now: Time,
    queue: u16,
    own: Fragments,
    common: Common<'a>,
    /// Whether this queue tells what was counted for all.
    tells_shared: bool,
    split: u64,
}

impl<'a> Worker<'a> {
    /// Remembers nothing yet.
    pub fn new(common: Common<'a>, queue: u16, tells_shared: bool) -> Self {
        let own = Fragments::new(common.config, common.secret);
        Worker { now: Time(0), queue, own, common, tells_shared, split: 0 }
    }

    /// To be called before a batch.
    pub fn before_batch(&mut self) {
        let elapsed = self.common.start.elapsed().as_nanos();
        self.now = Time(u64::try_from(elapsed).unwrap_or(u64::MAX));
        self.own.expire(self.now);
        if let Some(mut shared) = self.shared_table() {
            shared.expire(self.now);
        }
    }

    /// To be called when the verdicts of a batch have gone: sends round what need no longer be held.
    pub fn after_batch(&mut self, counts: &mut Counts) {
        if let Some(tun) = self.common.tun {
            let mut unsent = send_round(&mut self.own, tun);
            if let Some(mut shared) = self.shared_table() {
                unsent += send_round(&mut shared, tun);
            }
            counts.add(Counter::HeldUnsent, unsent);
        }
        let own = *self.own.counts();
        match self.shared_table() {
            Some(shared) if self.tells_shared => counts.set_fragments(&own.and(shared.counts())),
            _ => counts.set_fragments(&own),
        }
        counts.set(Counter::FragmentsSplit, self.split);
    }

    /// The table of all queues, once it is in use.
    fn shared_table(&self) -> Option<MutexGuard<'a, Fragments>> {
        self.common.shared.filter(|shared| shared.is_in_use()).map(Shared::table)
    }
}

impl Datagrams for Worker<'_> {
    fn with<R>(&mut self, key: DatagramKey, act: impl FnOnce(&mut Fragments) -> R) -> R {
        if let Some(shared) = self.common.shared
            && shared.witness.saw(key, self.queue)
        {
            self.split += 1;
            shared.in_use.store(true, Relaxed);
        }
        match self.shared_table() {
            Some(mut shared) => act(&mut shared),
            None => act(&mut self.own),
        }
    }
}

/// How many could not be sent.
fn send_round(table: &mut Fragments, tun: &Tun) -> u64 {
    let mut unsent = 0;
    while let Some(packet) = table.poll_ready() {
        unsent += u64::from(tun.write(packet).is_err());
    }
    unsent
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_core::frag::Part;
    use lb_core::target::Mark;
    use lb_core::walk::{Decision, Reason};
    use lb_core::wire::{Packet, ip};

    #[test]
    fn a_source_may_hold_a_quarter_but_one_long_datagram_always() {
        for (held, expected) in [(0, 0), (1, 1), (52, 52), (100, 52), (1024, 256)] {
            assert_eq!(per_source(held), expected);
        }
    }

    #[test]
    fn memory_that_cannot_be_had_is_told() {
        assert_eq!(lacks(1000), None);
        let told = lacks(usize::MAX / 2).unwrap();
        assert!(
            told.ends_with(" MB, cannot be had; lower --frag-entries, --frag-held or --copy-range")
        );
    }

    const SECRET: Secret = Secret([1, 2]);

    /// A fragment of a datagram from 10.0.0.1 to 10.0.0.2.
    fn fragment(id: u16, offset: u32) -> (DatagramKey, Part) {
        let fragment = ip::Fragment { id: id.into(), offset, more: offset == 0 };
        let addresses = ip::Addresses::V4(&[10, 0, 0, 1, 10, 0, 0, 2]);
        let part = Part { start: offset, len: 8, more: offset == 0 };
        (DatagramKey::new(addresses, 17, fragment), part)
    }

    /// What becomes of a fragment at a queue; first ones meet target 7.
    fn take(worker: &mut Worker<'_>, id: u16, offset: u32) -> Decision {
        let (key, part) = fragment(id, offset);
        let mark = Decision::Mark(Mark::new(7).unwrap());
        let now = worker.now;
        worker.with(key, |table| match offset {
            0 => {
                table.first(key, part, mark, now);
                mark
            }
            _ => table.later(key, part, Packet::whole(&[0; 28]), now),
        })
    }

    #[test]
    fn queues_share_a_table_once_a_datagram_came_to_two() {
        let config = FragConfig { entries: 64, held: 0, ..FragConfig::default() };
        let shared = Shared::new(config, SECRET, 2).unwrap();
        let common = Common {
            config,
            secret: SECRET,
            start: Instant::now(),
            tun: None,
            shared: Some(&shared),
        };
        let mut zero = Worker::new(common, 0, true);
        let mut one = Worker::new(common, 1, false);
        let marked = Decision::Mark(Mark::new(7).unwrap());
        for id in 0..10 {
            let worker = if id % 2 == 0 { &mut zero } else { &mut one };
            assert_eq!((take(worker, id, 0), take(worker, id, 8)), (marked, marked));
        }
        assert!(!shared.is_in_use());

        assert_eq!(take(&mut zero, 10, 0), marked);
        assert_eq!(take(&mut one, 10, 8), Decision::Drop(Reason::EarlyFragment));
        assert!(shared.is_in_use());
        for id in 11..20 {
            assert_eq!((take(&mut zero, id, 0), take(&mut one, id, 8)), (marked, marked));
        }

        let [mut of_zero, mut of_one] = [Counts::default(); 2];
        zero.after_batch(&mut of_zero);
        one.after_batch(&mut of_one);
        let sum = Counts::sum([&of_zero, &of_one]);
        assert_eq!(sum.get(Counter::DatagramsCompleted), 10 + 9);
        assert_eq!(sum.get(Counter::FragmentsSplit), 10);
    }

    #[test]
    fn one_queue_has_nobody_to_share_with() {
        let config = FragConfig::default();
        assert!(Shared::new(config, SECRET, 1).is_none());
        let settings = FragSettings { tun: None, table: config, copy_range: 512, tier: None };
        assert_eq!(settings.memory(1), config.memory());
        assert_eq!(settings.memory(4), 5 * config.memory() + Witness::MEMORY);
    }
}
