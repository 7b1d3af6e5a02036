//! What a queue counts, and the rows of shared memory in which others read it.
//!
//! Every packet is counted once as received, once by class and once by what became of it, so that
//! `received = marked + held + every drop reason` always holds.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU64, fence};

use crate::frag::FragCounts;
use crate::walk::{Class, Decision, Reason, Walked};
use crate::wire::sctp::{CHUNKS, Chunk};

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Packets decided about.
    Received,
    /// Packets that went on with a mark.
    Marked,
    /// Packets of which a copy was held.
    Held,
    /// Packets dropped, by reason.
    Dropped(Reason),
    /// Packets received, by class.
    Class(Class),
    /// SCTP packets received, plain and in UDP, by their first chunk.
    Chunk(Chunk),
    /// Batches of packets.
    Batches,
    /// Packets sent round once more because they came without their bytes while the queue was set up.
    Repeated,
    /// Receive calls that failed and were survived.
    ReceiveErrors,
    /// Verdict datagrams that could not be sent.
    SendErrors,
    /// Verdicts that the kernel refused, mostly for packets it had given up.
    VerdictsRefused,
    /// Packets that the kernel dropped because its queue was full.
    KernelQueueDrops,
    /// Packets that the kernel could not hand over because the socket's buffer was full.
    SocketDrops,
    /// Packets that the kernel marked by itself since the rules were made.
    FastPackets,
    /// Bytes of them.
    FastBytes,
    /// Packets that the kernel sent to their next hop at once, since the rules were made.
    ExpressPackets,
    /// Bytes of them.
    ExpressBytes,
    /// Packets that the rules sent to the queue since they were made.
    QueuedPackets,
    /// Bytes of them.
    QueuedBytes,
    /// Transactions that brought changes of the table into the kernel's map.
    MapChanges,
    /// Slots changed by them.
    MapSlots,
    /// Slots of the map that were not as they should have been, and were mended.
    MapRepairs,
    /// Times that rules were mended which somebody else had changed.
    RulesMended,
    /// Datagrams of which fragments are remembered now.
    Datagrams,
    /// The most there were at a time.
    DatagramsPeak,
    /// Datagrams of which every byte passed.
    DatagramsCompleted,
    /// Datagrams forgotten because their time was over.
    DatagramsExpired,
    /// Datagrams forgotten for others.
    DatagramsEvicted,
    /// Copies of fragments held now.
    HeldNow,
    /// The most there were at a time.
    HeldPeak,
    /// Copies sent round once more.
    HeldInjected,
    /// Copies that could not be sent round.
    HeldUnsent,
    /// Copies dropped because the first fragment was.
    HeldRefused,
    /// Copies dropped because the time of their datagram was over.
    HeldExpired,
    /// Copies dropped to make room.
    HeldEvicted,
    /// Fragments, among the marked, that went to another router of the tier.
    TierRelayed,
    /// Fragments handled here because the table of the tier was missing.
    TierMissing,
    /// Fragments that came to another queue than the one before of their datagram.
    FragmentsSplit,
    /// Times that a port pair had far more than its share of new SCTP associations.
    SkewWarnings,
    /// That of the last period, if there was one: where its packets come from.
    SkewSourcePort,
    /// Where they go.
    SkewDestinationPort,
    /// Its INITs.
    SkewInits,
    /// INITs of all ports.
    SkewAllInits,
    /// The seconds in which they came.
    SkewSeconds,
    /// The mark of the target that they meet.
    SkewMark,
}

const OTHERS: [(Counter, &str); 42] = [
    (Counter::Received, "received"),
    (Counter::Marked, "marked"),
    (Counter::Held, "held"),
    (Counter::Batches, "batches"),
    (Counter::Repeated, "repeated"),
    (Counter::ReceiveErrors, "receive_errors"),
    (Counter::SendErrors, "send_errors"),
    (Counter::VerdictsRefused, "verdicts_refused"),
    (Counter::KernelQueueDrops, "kernel_queue_drops"),
    (Counter::SocketDrops, "socket_drops"),
    (Counter::FastPackets, "fast_packets"),
    (Counter::FastBytes, "fast_bytes"),
    (Counter::ExpressPackets, "express_packets"),
    (Counter::ExpressBytes, "express_bytes"),
    (Counter::QueuedPackets, "queued_packets"),
    (Counter::QueuedBytes, "queued_bytes"),
    (Counter::MapChanges, "map_changes"),
    (Counter::MapSlots, "map_slots"),
    (Counter::MapRepairs, "map_repairs"),
    (Counter::RulesMended, "rules_mended"),
    (Counter::Datagrams, "datagrams"),
    (Counter::DatagramsPeak, "datagrams_peak"),
    (Counter::DatagramsCompleted, "datagrams_completed"),
    (Counter::DatagramsExpired, "datagrams_expired"),
    (Counter::DatagramsEvicted, "datagrams_evicted"),
    (Counter::HeldNow, "held_now"),
    (Counter::HeldPeak, "held_peak"),
    (Counter::HeldInjected, "held_injected"),
    (Counter::HeldUnsent, "held_unsent"),
    (Counter::HeldRefused, "held_refused"),
    (Counter::HeldExpired, "held_expired"),
    (Counter::HeldEvicted, "held_evicted"),
    (Counter::TierRelayed, "tier_relayed"),
    (Counter::TierMissing, "tier_missing"),
    (Counter::FragmentsSplit, "fragments_split"),
    (Counter::SkewWarnings, "skew_warnings"),
    (Counter::SkewSourcePort, "skew_source_port"),
    (Counter::SkewDestinationPort, "skew_destination_port"),
    (Counter::SkewInits, "skew_inits"),
    (Counter::SkewAllInits, "skew_all_inits"),
    (Counter::SkewSeconds, "skew_seconds"),
    (Counter::SkewMark, "skew_mark"),
];
const CLASSES: [(Class, &str); 10] = [
    (Class::Tcp, "tcp"),
    (Class::Udp, "udp"),
    (Class::Sctp, "sctp"),
    (Class::SctpInUdp, "sctp_in_udp"),
    (Class::Echo, "echo"),
    (Class::IcmpError, "icmp_error"),
    (Class::Icmp, "icmp"),
    (Class::Other, "other"),
    (Class::Fragment, "fragment"),
    (Class::Unreadable, "unreadable"),
];
const REASONS: [(Reason, &str); 12] = [
    (Reason::NoTarget, "no_target"),
    (Reason::EarlyFragment, "early_fragment"),
    (Reason::HeldFull, "held_full"),
    (Reason::SourceFull, "source_full"),
    (Reason::TooLongToHold, "too_long_to_hold"),
    (Reason::FirstDropped, "first_dropped"),
    (Reason::FirstTooShort, "first_too_short"),
    (Reason::QuotedFragment, "quoted_fragment"),
    (Reason::Truncated, "truncated"),
    (Reason::NotCopied, "not_copied"),
    (Reason::Malformed, "malformed"),
    (Reason::ChainTooLong, "chain_too_long"),
];
/// Chunks stand last: where there is no SCTP they are never written.
const BEFORE_CHUNKS: usize = OTHERS.len() + CLASSES.len() + REASONS.len();
const COUNTERS: usize = BEFORE_CHUNKS + CHUNKS.len();

impl Class {
    /// Its name among the counters.
    pub fn name(self) -> &'static str {
        CLASSES[self as usize].1
    }
}

impl Reason {
    /// Its name among the counters.
    pub fn name(self) -> &'static str {
        REASONS[self as usize].1
    }
}

/// Numbers of everything that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts([u64; COUNTERS]);

impl Default for Counts {
    fn default() -> Self {
        Counts([0; COUNTERS])
    }
}

impl Counts {
    /// Counts a packet that was decided about.
    #[inline]
    pub fn record(&mut self, walked: Walked) {
        self.add(Counter::Received, 1);
        self.add(Counter::Class(walked.class), 1);
        let became = match walked.decision {
            Decision::Mark(_) => Counter::Marked,
            Decision::Relay(_) => {
                self.add(Counter::TierRelayed, 1);
                Counter::Marked
            }
            Decision::Hold => Counter::Held,
            Decision::Drop(reason) => Counter::Dropped(reason),
        };
        self.add(became, 1);
    }

    /// Adds to a counter.
    #[inline]
    pub fn add(&mut self, counter: Counter, number: u64) {
        self.0[counter.place()] += number;
    }

    /// Sets a counter that somebody else keeps.
    pub fn set(&mut self, counter: Counter, number: u64) {
        self.0[counter.place()] = number;
    }

    /// Sets what the table of fragments counts.
    pub fn set_fragments(&mut self, counts: &FragCounts) {
        for (counter, number) in [
            (Counter::Datagrams, counts.entries),
            (Counter::DatagramsPeak, counts.entries_peak),
            (Counter::DatagramsCompleted, counts.completed),
            (Counter::DatagramsExpired, counts.expired),
            (Counter::DatagramsEvicted, counts.evicted),
            (Counter::HeldNow, counts.held_now),
            (Counter::HeldPeak, counts.held_peak),
            (Counter::HeldInjected, counts.injected),
            (Counter::HeldRefused, counts.held_refused),
            (Counter::HeldExpired, counts.held_expired),
            (Counter::HeldEvicted, counts.held_evicted),
        ] {
            self.set(counter, number);
        }
    }

    /// Those that may be other than zero, or were.
    fn in_use(&self) -> &[u64] {
        let sctp = [Class::Sctp, Class::SctpInUdp].map(|class| self.get(Counter::Class(class)));
        if sctp == [0; 2] { &self.0[..BEFORE_CHUNKS] } else { &self.0 }
    }

    /// The number of a counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter.place()]
    }

    /// The drop reasons by name.
    pub fn dropped(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS.iter().map(|&(reason, name)| (name, self.get(Counter::Dropped(reason))))
    }

    /// The classes by name.
    pub fn classes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CLASSES.iter().map(|&(class, name)| (name, self.get(Counter::Class(class))))
    }

    /// The first chunks of SCTP packets by name.
    pub fn chunks(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CHUNKS.iter().map(|&(chunk, name)| (name, self.get(Counter::Chunk(chunk))))
    }

    /// All counters but reasons, classes and chunks by name.
    pub fn others(&self) -> impl Iterator<Item = (Counter, &'static str, u64)> {
        OTHERS.iter().map(|&(counter, name)| (counter, name, self.get(counter)))
    }

    /// Sum over all drop reasons. It ends at the largest number, as a damaged file may hold anything.
    pub fn dropped_sum(&self) -> u64 {
        self.dropped().fold(0, |sum, (_, number)| sum.saturating_add(number))
    }

    /// The sums over several queues, which end at the largest number too.
    pub fn sum<'a>(all: impl IntoIterator<Item = &'a Counts>) -> Counts {
        all.into_iter().fold(Counts::default(), |sum, counts| {
            Counts(core::array::from_fn(|i| sum.0[i].saturating_add(counts.0[i])))
        })
    }
}

impl Counter {
    #[inline]
    fn place(self) -> usize {
        match self {
            Counter::Received => 0,
            Counter::Marked => 1,
            Counter::Held => 2,
            Counter::Batches => 3,
            Counter::Repeated => 4,
            Counter::ReceiveErrors => 5,
            Counter::SendErrors => 6,
            Counter::VerdictsRefused => 7,
            Counter::KernelQueueDrops => 8,
            Counter::SocketDrops => 9,
            Counter::FastPackets => 10,
            Counter::FastBytes => 11,
            Counter::ExpressPackets => 12,
            Counter::ExpressBytes => 13,
            Counter::QueuedPackets => 14,
            Counter::QueuedBytes => 15,
            Counter::MapChanges => 16,
            Counter::MapSlots => 17,
            Counter::MapRepairs => 18,
            Counter::RulesMended => 19,
            Counter::Datagrams => 20,
            Counter::DatagramsPeak => 21,
            Counter::DatagramsCompleted => 22,
            Counter::DatagramsExpired => 23,
            Counter::DatagramsEvicted => 24,
            Counter::HeldNow => 25,
            Counter::HeldPeak => 26,
            Counter::HeldInjected => 27,
            Counter::HeldUnsent => 28,
            Counter::HeldRefused => 29,
            Counter::HeldExpired => 30,
            Counter::HeldEvicted => 31,
            Counter::TierRelayed => 32,
            Counter::TierMissing => 33,
            Counter::FragmentsSplit => 34,
            Counter::SkewWarnings => 35,
            Counter::SkewSourcePort => 36,
            Counter::SkewDestinationPort => 37,
            Counter::SkewInits => 38,
            Counter::SkewAllInits => 39,
            Counter::SkewSeconds => 40,
            Counter::SkewMark => 41,
            Counter::Class(class) => OTHERS.len() + class as usize,
            Counter::Dropped(reason) => OTHERS.len() + CLASSES.len() + reason as usize,
            Counter::Chunk(chunk) => BEFORE_CHUNKS + chunk as usize,
        }
    }
}

/// Tells apart programs that count different things: a hash over the names, so that nobody has to
/// remember to change it.
pub const LAYOUT: u64 = {
    let mut hash = fnv(0xcbf2_9ce4_8422_2325, "markway counters");
    let mut i = 0;
    while i < OTHERS.len() {
        hash = fnv(hash, OTHERS[i].1);
        i += 1;
    }
    i = 0;
    while i < CLASSES.len() {
        hash = fnv(hash, CLASSES[i].1);
        i += 1;
    }
    i = 0;
    while i < REASONS.len() {
        hash = fnv(hash, REASONS[i].1);
        i += 1;
    }
    i = 0;
    while i < CHUNKS.len() {
        hash = fnv(hash, CHUNKS[i].1);
        i += 1;
    }
    hash
};

const fn fnv(mut hash: u64, text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0100_0000_01b3);
        i += 1;
    }
    hash.wrapping_mul(0x0100_0000_01b3)
}

/// Words of a row, a multiple of two cache lines.
pub const ROW_WORDS: usize = 128;
const SEQUENCE: usize = 0;
const QUEUE: usize = 1;
const FIRST: usize = 2;
const _: () = assert!(FIRST + COUNTERS <= ROW_WORDS);

/// The counters of one queue in shared memory: one writer, any number of readers. The sequence is odd
/// while the writer writes.
#[derive(Clone, Copy, Debug)]
pub struct Row<'m>(&'m [AtomicU64; ROW_WORDS]);

impl<'m> Row<'m> {
    /// The row in these words.
    pub fn new(words: &'m [AtomicU64; ROW_WORDS]) -> Self {
        Row(words)
    }

    /// Publishes the counters. Only one thread may call this for a row.
    pub fn store(&self, queue: u16, counts: &Counts) {
        let sequence = self.0[SEQUENCE].load(Relaxed);
        self.0[SEQUENCE].store(sequence.wrapping_add(1), Relaxed);
        fence(Release);
        self.0[QUEUE].store(u64::from(queue), Relaxed);
        for (word, number) in self.0[FIRST..].iter().zip(counts.in_use()) {
            word.store(*number, Relaxed);
        }
        self.0[SEQUENCE].store(sequence.wrapping_add(2), Release);
    }

    /// A consistent copy, or `None` if the writer died while it wrote (or never pauses).
    pub fn load(&self) -> Option<(u16, Counts)> {
        const ATTEMPTS: u32 = 10_000;
        for _ in 0..ATTEMPTS {
            let before = self.0[SEQUENCE].load(Acquire);
            let queue = self.0[QUEUE].load(Relaxed);
            let counts = Counts(core::array::from_fn(|i| self.0[FIRST + i].load(Relaxed)));
            fence(Acquire);
            if before.is_multiple_of(2) && self.0[SEQUENCE].load(Relaxed) == before {
                return Some((u16::try_from(queue).ok()?, counts));
            }
            core::hint::spin_loop();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Mark;
    use std::collections::HashSet;

    #[test]
    fn every_counter_has_a_place_of_its_own_under_its_own_name() {
        let all: std::vec::Vec<Counter> = OTHERS
            .iter()
            .map(|&(counter, _)| counter)
            .chain(CLASSES.iter().map(|&(class, _)| Counter::Class(class)))
            .chain(REASONS.iter().map(|&(reason, _)| Counter::Dropped(reason)))
            .chain(CHUNKS.iter().map(|&(chunk, _)| Counter::Chunk(chunk)))
            .collect();
        let places: HashSet<usize> = all.iter().map(|counter| counter.place()).collect();
        assert_eq!(places, (0..COUNTERS).collect());
        assert!(CLASSES.iter().all(|&(class, name)| class.name() == name));
        assert!(REASONS.iter().all(|&(reason, name)| reason.name() == name));

        let mut counts = Counts::default();
        for (number, counter) in (1..).zip(&all) {
            counts.set(*counter, number);
        }
        for (number, counter) in (1..).zip(&all) {
            assert_eq!(counts.get(*counter), number);
        }
    }

    #[test]
    fn packets_balance() {
        let mut counts = Counts::default();
        let mark = Mark::new(7).unwrap();
        for (class, decision) in [
            (Class::Tcp, Decision::Mark(mark)),
            (Class::Udp, Decision::Drop(Reason::NoTarget)),
            (Class::Fragment, Decision::Hold),
            (Class::Fragment, Decision::Relay(mark)),
            (Class::Unreadable, Decision::Drop(Reason::Truncated)),
        ] {
            counts.record(Walked { class, decision });
        }
        assert_eq!(counts.get(Counter::Received), 5);
        assert_eq!((counts.get(Counter::Marked), counts.get(Counter::TierRelayed)), (2, 1));
        let ended = counts.get(Counter::Marked) + counts.get(Counter::Held) + counts.dropped_sum();
        assert_eq!(ended, 5);
        assert_eq!(counts.classes().map(|(_, number)| number).sum::<u64>(), 5);
        assert_eq!(Counts::sum([&counts, &counts]).get(Counter::Received), 10);
    }

    /// `shm-tool stats` panicked over such a file when it was built with overflow checks.
    #[test]
    fn sums_of_nonsense_end_at_the_largest_number() {
        let nonsense = Counts([u64::MAX; COUNTERS]);
        assert_eq!(nonsense.dropped_sum(), u64::MAX);
        assert_eq!(Counts::sum([&nonsense, &nonsense]), nonsense);
    }

    #[test]
    fn a_reader_sees_whole_rows_only() {
        let words: [AtomicU64; ROW_WORDS] = core::array::from_fn(|_| AtomicU64::new(0));
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut counts = Counts::default();
                for _ in 0..200_000 {
                    counts.0.iter_mut().for_each(|number| *number += 1);
                    Row::new(&words).store(3, &counts);
                }
            });
            while !writer.is_finished() {
                if let Some((_, counts)) = Row::new(&words).load() {
                    assert!(counts.0.iter().all(|number| *number == counts.0[0]), "{counts:?}");
                }
            }
        });
        let (queue, counts) = Row::new(&words).load().unwrap();
        assert_eq!((queue, counts.0), (3, [200_000; COUNTERS]));
    }

    #[test]
    fn chunks_are_published_as_soon_as_there_is_sctp() {
        let words: [AtomicU64; ROW_WORDS] = core::array::from_fn(|_| AtomicU64::new(0));
        for class in [Class::Sctp, Class::SctpInUdp] {
            let mut counts = Counts::default();
            counts.add(Counter::Class(class), 1);
            counts.add(Counter::Chunk(Chunk::None), 1);
            Row::new(&words).store(3, &counts);
            assert_eq!(Row::new(&words).load(), Some((3, counts)));
        }
    }

    #[test]
    fn a_row_left_half_written_is_told() {
        let words: [AtomicU64; ROW_WORDS] = core::array::from_fn(|_| AtomicU64::new(0));
        words[SEQUENCE].store(1, Relaxed);
        assert_eq!(Row::new(&words).load(), None);
    }
}
