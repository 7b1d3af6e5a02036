//! The statistics as counters that many threads and processes add to, and their layout in shared memory.
//!
//! First stand the 32-bit words that readers of the older program know: sent, received, longest round-trip time (ms),
//! number of buckets, interval (µs), the buckets. They are filled up to a multiple of eight bytes. 64-bit words
//! follow: magic with version, number of these words, the [`Counter`]s, the counts of [`spread`].

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use sctpt_sys::Counters;
use thiserror::Error;

use super::snapshot::Snapshot;
use super::spread;

/// What is counted, in the order of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    Sent,
    Received,
    /// Messages without an answer whose association has ended, or that were waited for long enough.
    Lost,
    Duplicates,
    Reordered,
    Corrupted,
    /// Messages that were due and not sent.
    Dropped,
    /// Associations that came up.
    Connects,
    FailedConnects,
    /// Among the connects: those of a client that had an association before.
    Reconnects,
    /// Associations that ended before they were to end.
    LostAssociations,
    /// Associations that are up now.
    Active,
    /// Paths that became inactive.
    PathsDown,
    /// Paths that became active again.
    PathsUp,
    /// Inactive paths that were the primary one.
    Failovers,
    /// The longest round-trip time in microseconds.
    MaxRttMicros,
}

/// Every counter with its name in JSON.
pub const COUNTERS: [(Counter, &str); 16] = [
    (Counter::Sent, "sent"),
    (Counter::Received, "received"),
    (Counter::Lost, "lost"),
    (Counter::Duplicates, "duplicates"),
    (Counter::Reordered, "reordered"),
    (Counter::Corrupted, "corrupted"),
    (Counter::Dropped, "dropped"),
    (Counter::Connects, "connects"),
    (Counter::FailedConnects, "failedConnects"),
    (Counter::Reconnects, "reconnects"),
    (Counter::LostAssociations, "lostAssociations"),
    (Counter::Active, "active"),
    (Counter::PathsDown, "pathsDown"),
    (Counter::PathsUp, "pathsUp"),
    (Counter::Failovers, "failovers"),
    (Counter::MaxRttMicros, "maxRttMicros"),
];

/// `MkSctpt` and the version.
pub const MAGIC: u64 = u64::from_le_bytes(*b"MkSctpt\x01");

/// Buckets of the histogram, which say how large shared memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub buckets: u32,
    /// Microseconds that a bucket stands for.
    pub interval: u32,
}

/// Why there can be no such histogram.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ShapeError {
    #[error("Too few buckets")]
    TooFew,
    #[error("Too many buckets (at most {MOST_BUCKETS})")]
    TooMany,
    #[error("Too small interval")]
    Interval,
}

pub const MOST_BUCKETS: u32 = 65_536;

// The words of 32 bits.
pub const SENT: usize = 0;
pub const RECEIVED: usize = 1;
pub const MAX_RTT: usize = 2;
pub const BUCKETS: usize = 3;
pub const INTERVAL: usize = 4;
pub const FIRST_BUCKET: usize = 5;

// The words of 64 bits.
pub const WIDE_MAGIC: usize = 0;
pub const WIDE_LENGTH: usize = 1;
pub const FIRST_COUNTER: usize = 2;
pub const FIRST_COUNT: usize = FIRST_COUNTER + COUNTERS.len();
pub const WIDE_WORDS: usize = FIRST_COUNT + spread::COUNTS;

impl Shape {
    pub const DEFAULT: Shape = Shape { buckets: 16, interval: 1_000 };

    pub fn new(buckets: u32, interval: u32) -> Result<Self, ShapeError> {
        match (buckets, interval) {
            (0, _) => Err(ShapeError::TooFew),
            (MOST_BUCKETS.., _) if buckets > MOST_BUCKETS => Err(ShapeError::TooMany),
            (_, 0) => Err(ShapeError::Interval),
            _ => Ok(Shape { buckets, interval }),
        }
    }

    /// Bytes of the 32-bit words.
    pub fn narrow_bytes(self) -> usize {
        let words = FIRST_BUCKET + usize::try_from(self.buckets).unwrap_or(usize::MAX / 8);
        words.next_multiple_of(2) * size_of::<u32>()
    }

    pub fn bytes(self) -> usize {
        self.narrow_bytes() + WIDE_WORDS * size_of::<u64>()
    }
}

#[derive(Debug)]
pub struct Figures {
    memory: Memory,
    /// As it was at first: the interval in memory may change.
    made: Shape,
}

#[derive(Debug)]
enum Memory {
    Own(Vec<AtomicU32>, Vec<AtomicU64>),
    Shared(Counters),
}

impl Figures {
    /// Zeros in memory of this process.
    pub fn own(shape: Shape) -> Self {
        let narrow = (0..shape.narrow_bytes() / size_of::<u32>()).map(|_| AtomicU32::new(0));
        let wide = (0..WIDE_WORDS).map(|_| AtomicU64::new(0));
        let figures =
            Figures { memory: Memory::Own(narrow.collect(), wide.collect()), made: shape };
        figures.write_form();
        figures
    }

    /// Counters in shared memory that holds as many bytes as the shape needs.
    pub fn shared(counters: Counters, shape: Shape) -> Self {
        Figures { memory: Memory::Shared(counters), made: shape }
    }

    /// Writes all that is no counter.
    pub fn write_form(&self) {
        self.narrow()[BUCKETS].store(self.made.buckets, Relaxed);
        self.set_interval(self.made.interval);
        self.wide()[WIDE_MAGIC].store(MAGIC, Relaxed);
        self.wide()[WIDE_LENGTH].store(WIDE_WORDS as u64, Relaxed);
    }

    pub fn shape(&self) -> Shape {
        // What other processes write is not to be divided by unseen.
        Shape { interval: self.narrow()[INTERVAL].load(Relaxed).max(1), ..self.made }
    }

    /// From now on buckets stand for so many microseconds.
    pub fn set_interval(&self, interval: u32) {
        self.narrow()[INTERVAL].store(interval, Relaxed);
    }

    /// Sets all counters to zero.
    pub fn clear(&self) {
        let (head, buckets) = self.narrow().split_at(FIRST_BUCKET);
        head[..=MAX_RTT].iter().chain(buckets).for_each(|word| word.store(0, Relaxed));
        self.wide()[FIRST_COUNTER..].iter().for_each(|word| word.store(0, Relaxed));
    }

    pub fn add(&self, counter: Counter, number: u64) {
        self.counter(counter).fetch_add(number, Relaxed);
        let known = match counter {
            Counter::Sent => SENT,
            Counter::Received => RECEIVED,
            _ => return,
        };
        // 32 bits have room for the rest alone, as in the older program.
        let number = u32::try_from(number & u64::from(u32::MAX)).unwrap_or(0);
        self.narrow()[known].fetch_add(number, Relaxed);
    }

    pub fn subtract(&self, counter: Counter, number: u64) {
        // Somebody may have cleared it meanwhile.
        let less = |value: u64| Some(value.saturating_sub(number));
        let _ = self.counter(counter).fetch_update(Relaxed, Relaxed, less);
    }

    pub fn get(&self, counter: Counter) -> u64 {
        self.counter(counter).load(Relaxed)
    }

    /// Counts a round trip.
    pub fn record(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let Shape { buckets, interval } = self.shape();
        let bucket = (micros / u64::from(interval)).min(u64::from(buckets) - 1);
        let bucket = usize::try_from(bucket).unwrap_or(0);
        self.narrow()[FIRST_BUCKET + bucket].fetch_add(1, Relaxed);
        let millis = u32::try_from(micros / 1_000).unwrap_or(u32::MAX);
        self.narrow()[MAX_RTT].fetch_max(millis, Relaxed);
        self.wide()[FIRST_COUNT + spread::index(time)].fetch_add(1, Relaxed);
        self.counter(Counter::MaxRttMicros).fetch_max(micros, Relaxed);
    }

    /// The values now.
    pub fn snapshot(&self) -> Snapshot {
        let narrow: Vec<u32> = self.narrow().iter().map(|word| word.load(Relaxed)).collect();
        let wide: Vec<u64> = self.wide().iter().map(|word| word.load(Relaxed)).collect();
        Snapshot::from_words(self.shape(), &narrow, &wide)
    }

    fn counter(&self, counter: Counter) -> &AtomicU64 {
        &self.wide()[FIRST_COUNTER + counter as usize]
    }

    fn narrow(&self) -> &[AtomicU32] {
        match &self.memory {
            Memory::Own(narrow, _) => narrow,
            Memory::Shared(counters) => counters.narrow(),
        }
    }

    fn wide(&self) -> &[AtomicU64] {
        match &self.memory {
            Memory::Own(_, wide) => wide,
            Memory::Shared(counters) => counters.wide(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_stand_in_the_order_of_their_names() {
        for (index, (counter, _)) in COUNTERS.iter().enumerate() {
            assert_eq!(*counter as usize, index);
        }
    }

    #[test]
    fn a_shape_has_limits() {
        assert_eq!(Shape::new(0, 1000), Err(ShapeError::TooFew));
        assert_eq!(Shape::new(16, 0), Err(ShapeError::Interval));
        assert_eq!(Shape::new(65_537, 1), Err(ShapeError::TooMany));
        let shape = Shape::new(65_536, u32::MAX).unwrap();
        assert_eq!(shape.narrow_bytes(), (5 + 65_536 + 1) * 4);
    }

    #[test]
    fn a_round_trip_belongs_to_one_bucket_and_the_last_takes_the_rest() {
        let figures = Figures::own(Shape::new(3, 1000).unwrap());
        for micros in [0, 999, 1_000, 1_999, 2_000, 5_000_000] {
            figures.record(Duration::from_micros(micros));
        }
        let snapshot = figures.snapshot();
        assert_eq!(snapshot.buckets, [2, 2, 2]);
        assert_eq!(snapshot.max_rtt, 5_000);
        assert_eq!(snapshot.counter(Counter::MaxRttMicros), 5_000_000);
        assert_eq!(snapshot.rtt.unwrap().max, 5_000_000);
    }

    #[test]
    fn clear_keeps_the_shape() {
        let shape = Shape::new(4, 77).unwrap();
        let figures = Figures::own(shape);
        figures.add(Counter::Sent, 3);
        figures.add(Counter::Lost, 1);
        figures.record(Duration::from_secs(1));
        figures.clear();
        assert_eq!(figures.snapshot(), Figures::own(shape).snapshot());
    }

    #[test]
    fn the_words_of_32_bits_begin_anew_behind_their_end() {
        let figures = Figures::own(Shape::new(1, 1).unwrap());
        figures.add(Counter::Sent, u64::from(u32::MAX));
        figures.add(Counter::Sent, 3);
        assert_eq!(figures.narrow()[SENT].load(Relaxed), 2);
        assert_eq!(figures.get(Counter::Sent), (1 << 32) + 2);
    }
}
