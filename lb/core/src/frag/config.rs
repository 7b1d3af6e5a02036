//! What the table of fragments is told, and what it tells.

use core::time::Duration;

/// How much may be remembered, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragConfig {
    /// Datagrams; at least one.
    pub entries: u32,
    /// Copies of fragments; 0 where they cannot be sent once more.
    pub held: u32,
    /// Copies for one source.
    pub held_per_source: u32,
    /// Bytes of the longest copy.
    pub held_bytes: usize,
    /// How long a datagram is remembered, from its first sight.
    pub ttl: Duration,
}

impl Default for FragConfig {
    /// What 50,000 spoofed first fragments and as many later ones a second do not
    /// fill before an honest datagram is through.
    fn default() -> Self {
        FragConfig {
            entries: 16_384,
            held: 1024,
            held_per_source: 256,
            held_bytes: 1500,
            ttl: Duration::from_secs(1),
        }
    }
}

/// Nanoseconds since whatever moment the caller chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub u64);

/// What is counted beside the decisions. Of the copies that were held,
/// `injected + held_refused + held_expired + held_evicted` have gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragCounts {
    /// Datagrams that are remembered now.
    pub entries: u64,
    /// The most there were at a time.
    pub entries_peak: u64,
    /// Datagrams of which every byte passed.
    pub completed: u64,
    /// Datagrams forgotten because their time was over before they were complete.
    pub expired: u64,
    /// Datagrams forgotten for another one before they were complete.
    pub evicted: u64,
    /// Copies that wait for their first fragment or to be polled.
    pub held_now: u64,
    /// The most there were at a time.
    pub held_peak: u64,
    /// Copies polled out.
    pub injected: u64,
    /// Copies dropped because the first fragment was.
    pub held_refused: u64,
    /// Copies dropped because the time of their datagram was over.
    pub held_expired: u64,
    /// Copies dropped to make room.
    pub held_evicted: u64,
}

impl FragCounts {
    /// Those of two tables together. Peaks need not have been at one time.
    pub fn and(self, other: &FragCounts) -> FragCounts {
        FragCounts {
            entries: self.entries + other.entries,
            entries_peak: self.entries_peak + other.entries_peak,
            completed: self.completed + other.completed,
            expired: self.expired + other.expired,
            evicted: self.evicted + other.evicted,
            held_now: self.held_now + other.held_now,
            held_peak: self.held_peak + other.held_peak,
            injected: self.injected + other.injected,
            held_refused: self.held_refused + other.held_refused,
            held_expired: self.held_expired + other.held_expired,
            held_evicted: self.held_evicted + other.held_evicted,
        }
    }
}
