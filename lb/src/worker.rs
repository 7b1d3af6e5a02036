//! One thread, one queue: packets in, verdicts out.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use lb_core::counters::{Counter, Counts, Row};
use lb_core::openings;
use lb_core::table::Table;
use lb_core::tier::Tier;
use lb_core::walk::{Class, Decision, Policy, walk_with};
use lb_core::wire;
use lb_sys::nfqueue::{Packet, Queue, Served, Verdict};
use lb_sys::shm::MappedTable;

use crate::current::{Current, CurrentTier};
use crate::fragments;
use crate::gathering::Gathering;
use crate::mirror::Mirrored;
use crate::skew::{Handed, Seen, Told};

/// What a worker shares with the rest of the daemon.
#[derive(Debug)]
pub struct Worker<'a> {
    /// The queue's number.
    pub number: u16,
    /// The table in force.
    pub current: &'a Current,
    /// The table of the tier, if there is to be one.
    pub tier: Option<&'a CurrentTier>,
    /// What the table does not say.
    pub policy: Policy,
    /// The bits of the fwmark that are ours.
    pub mark_mask: u32,
    /// Where the counters are published.
    pub row: Row<'a>,
    /// What the kernel lost.
    pub losses: &'a Losses,
    /// What the mirror of the rules did, for one of the workers to publish.
    pub mirrored: Option<&'a Mirrored>,
    /// Where new SCTP associations are told.
    pub handed: &'a Handed,
    /// What was warned of about them, for one of the workers to publish.
    pub told: Option<&'a Told>,
    /// Longest time that packets may gather.
    pub gather: Duration,
    /// Whether to end.
    pub stop: &'a AtomicBool,
}

/// What the kernel counts about a queue, kept by whoever reads it there.
#[derive(Debug, Default)]
pub struct Losses {
    /// Packets that found the queue full.
    pub queue: AtomicU64,
    /// Packets that found the socket's buffer full.
    pub socket: AtomicU64,
}

impl Losses {
    /// Puts the numbers among the counters.
    pub fn add_to(&self, counts: &mut Counts) {
        counts.set(Counter::KernelQueueDrops, self.queue.load(Relaxed));
        counts.set(Counter::SocketDrops, self.socket.load(Relaxed));
    }
}

/// What decides about packets for the time being.
struct Tables<'a> {
    table: &'a Table<'a>,
    tier: Option<&'a Tier<'a>>,
}

/// The tier of a table that was checked when it was opened.
fn tier_of(mapped: &MappedTable) -> anyhow::Result<Tier<'_>> {
    Ok(Tier::new(mapped.table().context("read the table of the tier")?)?)
}

/// How long a worker that is asked to end goes on answering what is already there.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How long a worker waits after an error, which may last.
const AFTER_ERROR: Duration = Duration::from_millis(10);

impl Worker<'_> {
    /// Serves the queue until it is asked to stop.
    pub fn run(
        &self,
        queue: &mut Queue,
        mut fragments: fragments::Worker<'_>,
    ) -> anyhow::Result<()> {
        let mut counts = Counts::default();
        let mut seen = Seen::new(self.handed);
        let mut gathering = Gathering::new(self.gather, Instant::now());
        let mut last_words = None;
        loop {
            let (mapped, epoch) = self.current.get();
            let table = mapped.table().context("read the table")?;
            let (of_tier, tier_epoch) = self.tier.map(CurrentTier::get).unwrap_or_default();
            let tier = of_tier.as_deref().map(tier_of).transpose()?;
            let tables = Tables { table: &table, tier: tier.as_ref() };
            let is_current = || {
                self.current.epoch() == epoch
                    && self.tier.is_none_or(|tier| tier.epoch() == tier_epoch)
            };
            while is_current() {
                let received = queue.receive();
                if !is_current() {
                    break; // It waited meanwhile: what it took is for the new table to decide.
                }
                fragments.before_batch();
                let served = queue.answer(|packet| {
                    self.verdict(packet, &tables, &mut fragments, &mut seen, &mut counts)
                });
                fragments.after_batch(&mut counts);
                seen.after_batch();
                self.account(&received, &served, &mut counts);
                if received.is_err() {
                    thread::sleep(AFTER_ERROR);
                }
                let wait = gathering.after(served.packets, Instant::now());
                if !wait.is_zero() {
                    thread::sleep(wait);
                }
                if self.stop.load(Relaxed) {
                    let deadline = *last_words.get_or_insert_with(|| Instant::now() + LAST_WORDS);
                    if served.packets == 0 || Instant::now() >= deadline {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn verdict(
        &self,
        packet: &Packet<'_>,
        tables: &Tables<'_>,
        fragments: &mut fragments::Worker<'_>,
        seen: &mut Seen<'_>,
        counts: &mut Counts,
    ) -> Verdict {
        let (bytes, len) = (packet.payload.unwrap_or_default(), packet.full_len);
        let Tables { table, tier } = tables;
        let view = wire::Packet::copied(bytes, len);
        let now = fragments.now;
        let walked = walk_with(view, table, &self.policy, *tier, fragments, now);
        counts.record(walked);
        let (class, modes) = (walked.class, &table.config().modes);
        openings::record(bytes, len, class, modes, counts, &mut seen.openings);
        if class == Class::Fragment && tier.is_none() && self.tier.is_some() {
            counts.add(Counter::TierMissing, 1);
        }
        match walked.decision {
            Decision::Mark(mark) | Decision::Relay(mark) => {
                let theirs = packet.mark & !self.mark_mask;
                Verdict::Accept { mark: theirs | (mark.get() & self.mark_mask) }
            }
            Decision::Drop(_) | Decision::Hold => Verdict::Drop,
        }
    }

    /// Puts what others counted among the counters.
    pub fn add_counted_elsewhere(&self, counts: &mut Counts) {
        self.losses.add_to(counts);
        if let Some(mirrored) = self.mirrored {
            mirrored.add_to(counts);
        }
        if let Some(told) = self.told {
            told.add_to(counts);
        }
    }

    fn account(&self, received: &io::Result<()>, served: &Served, counts: &mut Counts) {
        counts.add(Counter::Batches, u64::from(served.packets > 0));
        counts.add(Counter::Repeated, served.repeated);
        counts.add(Counter::VerdictsRefused, served.refused);
        counts.add(Counter::ReceiveErrors, u64::from(received.is_err()));
        counts.add(Counter::SendErrors, u64::from(served.send_error.is_some()));
        self.add_counted_elsewhere(counts);
        self.row.store(self.number, counts);
    }
}
