//! Which target the fragments of a datagram belong to.
//!
//! The first fragment has the ports; it is decided like a whole packet, and what was decided is
//! remembered here for those that follow. Those that come before it are held as copies and polled out
//! once it has come. A datagram is in one of these states:
//!
//! | state | its later fragments |
//! |---|---|
//! | unknown | are held, and it is waiting |
//! | waiting for its first fragment | are held |
//! | known | get the mark of the first |
//! | complete: every byte has passed | the same; its place is the first to be used anew |
//! | refused: the first had no target | are dropped |
//!
//! All memory is allocated at start. When it is full the oldest goes: a flood of spoofed fragments
//! pushes out what has been there longest, and an honest datagram is through in a moment. Nothing
//! lives longer than a time that counts from the first sight of the datagram.

mod config;
mod copies;
mod key;
mod list;
mod seen;
mod sources;
mod witness;

use alloc::boxed::Box;
use alloc::vec;

pub use self::config::{FragConfig, FragCounts, Time};
pub use self::key::{DatagramKey, Secret};
pub use self::seen::Part;
pub use self::witness::Witness;

use self::copies::Copies;
use self::list::{Index, Links, List};
use self::seen::Seen;
use self::sources::{Source, Sources};
use crate::target::Mark;
use crate::walk::{Decision, Reason};
use crate::wire::Packet;

impl FragConfig {
    /// Bytes that are allocated, to within a few.
    pub const fn memory(&self) -> usize {
        let (entries, held) = (self.entries as usize, self.held as usize);
        entries * (size_of::<Entry>() + 2 * Links::BYTES)
            + Index::memory(entries)
            + Copies::memory(held, self.held_bytes)
            + Sources::memory(held, entries)
    }
}

/// Where datagrams are remembered: in one table, or in that of several which a datagram belongs to.
pub trait Datagrams {
    /// Lets `act` have the table that a datagram is in.
    fn with<R>(&mut self, key: DatagramKey, act: impl FnOnce(&mut Fragments) -> R) -> R;
}

impl Datagrams for Fragments {
    fn with<R>(&mut self, _: DatagramKey, act: impl FnOnce(&mut Fragments) -> R) -> R {
        act(self)
    }
}

/// The datagrams of one queue.
#[derive(Debug)]
pub struct Fragments {
    config: FragConfig,
    ttl: u64,
    secret: Secret,
    entries: Box<[Entry]>,
    index: Index,
    ages: Links,
    /// All that is remembered, the oldest first.
    by_age: List,
    turns: Links,
    free: List,
    /// What waits, the oldest first.
    waiting: List,
    /// What is complete, the longest complete first.
    complete: List,
    copies: Copies,
    sources: Sources,
    counts: FragCounts,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: DatagramKey,
    hash: u32,
    born: Time,
    state: State,
    seen: Seen,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Waiting(Waiting),
    Known(Mark),
    Complete(Mark),
    Refused,
}

/// A datagram whose first fragment has not come. At least one copy is held.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    source: Source,
    copies: List,
    count: u32,
}

/// Most datagrams that one call of [`Fragments::expire`] forgets.
const EXPIRED_AT_ONCE: u32 = 512;
/// Most that are forgotten when a fragment comes: more than can have come with one fragment.
const EXPIRED_BESIDE: u32 = 2;

impl Fragments {
    /// Allocates all memory that will ever be used.
    pub fn new(config: FragConfig, secret: Secret) -> Self {
        let config = FragConfig {
            entries: config.entries.max(1),
            held_per_source: config.held_per_source.max(1),
            ..config
        };
        let FragConfig { entries, held, held_bytes, .. } = config;
        let nothing = Entry {
            key: DatagramKey::NONE,
            hash: 0,
            born: Time(0),
            state: State::Refused,
            seen: Seen::NOTHING,
        };
        let (turns, free) = Links::all(entries);
        Fragments {
            config,
            ttl: u64::try_from(config.ttl.as_nanos()).unwrap_or(u64::MAX),
            secret,
            entries: vec![nothing; entries as usize].into(),
            index: Index::new(entries),
            ages: Links::new(entries),
            by_age: List::EMPTY,
            turns,
            free,
            waiting: List::EMPTY,
            complete: List::EMPTY,
            copies: Copies::new(held, held_bytes),
            sources: Sources::new(secret, held, entries),
            counts: FragCounts::default(),
        }
    }

    /// Whether early fragments can be held at all.
    pub fn can_hold(&self) -> bool {
        self.config.held > 0
    }

    /// What was counted.
    pub fn counts(&self) -> &FragCounts {
        &self.counts
    }

    /// Remembers what was decided about a first fragment: a first fragment begins a datagram, whatever
    /// was known under this key before.
    pub fn first(&mut self, key: DatagramKey, part: Part, decision: Decision, now: Time) {
        self.expire_some(EXPIRED_BESIDE, now);
        let hash = key.hash(self.secret);
        let found = self.find(key, hash, now);
        let state = match decision {
            Decision::Mark(mark) => State::Known(mark),
            // One that cannot be read takes nothing back.
            Decision::Drop(reason) if reason != Reason::NoTarget && self.is_known(found) => return,
            Decision::Drop(_) | Decision::Hold | Decision::Relay(_) => State::Refused,
        };
        let at = match found {
            Some(at) if self.stop_waiting(at, matches!(state, State::Known(_))) => at,
            Some(at) => {
                self.forget(at);
                self.insert(key, hash, now)
            }
            None => self.insert(key, hash, now),
        };
        self.entries[at as usize].state = state;
        if let State::Known(mark) = state {
            self.pass(at, mark, part);
        }
    }

    /// Decides about a fragment that is not the first.
    pub fn later(
        &mut self,
        key: DatagramKey,
        part: Part,
        packet: Packet<'_>,
        now: Time,
    ) -> Decision {
        self.expire_some(EXPIRED_BESIDE, now);
        let hash = key.hash(self.secret);
        let found = self.find(key, hash, now);
        match found.map(|at| (at, self.entries[at as usize].state)) {
            Some((at, State::Known(mark))) => {
                self.pass(at, mark, part);
                Decision::Mark(mark)
            }
            Some((_, State::Complete(mark))) => Decision::Mark(mark),
            Some((_, State::Refused)) => Decision::Drop(Reason::FirstDropped),
            Some((at, State::Waiting(_))) => self.hold(key, hash, Some(at), packet, now),
            None => self.hold(key, hash, None, packet, now),
        }
    }

    /// A copy whose first fragment has been decided, to be sent round once more: in the order in which
    /// the copies of a datagram came.
    pub fn poll_ready(&mut self) -> Option<&[u8]> {
        let ready = self.copies.poll_ready()?;
        self.counts.held_now -= 1;
        self.counts.injected += 1;
        Some(ready)
    }

    /// Forgets datagrams whose time is over: so many that a call takes well below a millisecond.
    pub fn expire(&mut self, now: Time) {
        self.expire_some(EXPIRED_AT_ONCE, now);
    }

    fn expire_some(&mut self, most: u32, now: Time) {
        for _ in 0..most {
            match self.by_age.first() {
                Some(oldest) if self.is_over(oldest, now) => self.expire_one(oldest),
                _ => return,
            }
        }
    }

    fn is_over(&self, at: u32, Time(now): Time) -> bool {
        let Time(born) = self.entries[at as usize].born;
        now.saturating_sub(born) >= self.ttl
    }

    fn expire_one(&mut self, at: u32) {
        self.counts.expired += u64::from(self.is_open(at));
        self.counts.held_expired += self.forget(at);
    }

    fn evict(&mut self, at: u32) {
        self.counts.evicted += u64::from(self.is_open(at));
        self.counts.held_evicted += self.forget(at);
    }

    /// Whether fragments of it are still expected.
    fn is_open(&self, at: u32) -> bool {
        matches!(self.entries[at as usize].state, State::Waiting(_) | State::Known(_))
    }

    fn is_known(&self, found: Option<u32>) -> bool {
        found.is_some_and(|at| {
            matches!(self.entries[at as usize].state, State::Known(_) | State::Complete(_))
        })
    }

    /// The entry of a datagram, unless its time is over.
    fn find(&mut self, key: DatagramKey, hash: u32, now: Time) -> Option<u32> {
        let at = self.index.find(hash, |at| self.entries[at as usize].key == key)?;
        if self.is_over(at, now) {
            self.expire_one(at);
            return None;
        }
        Some(at)
    }

    /// Notes that a part has passed with this mark.
    fn pass(&mut self, at: u32, mark: Mark, part: Part) {
        let entry = &mut self.entries[at as usize];
        entry.seen.add(part);
        if entry.seen.is_complete() {
            entry.state = State::Complete(mark);
            self.turns.push(&mut self.complete, at);
            self.counts.completed += 1;
        }
    }

    /// If the datagram waited: its copies may go, or are dropped.
    fn stop_waiting(&mut self, at: u32, may_go: bool) -> bool {
        let State::Waiting(Waiting { source, copies, count }) = self.entries[at as usize].state
        else {
            return false;
        };
        self.turns.remove(&mut self.waiting, at);
        self.sources.leave(source, at, count);
        if may_go {
            self.copies.make_ready(copies);
        } else {
            self.drop_copies(copies, count);
            self.counts.held_refused += u64::from(count);
        }
        true
    }

    fn drop_copies(&mut self, copies: List, count: u32) {
        self.copies.release(copies);
        self.counts.held_now -= u64::from(count);
    }

    /// Holds a copy of an early fragment.
    fn hold(
        &mut self,
        key: DatagramKey,
        hash: u32,
        found: Option<u32>,
        packet: Packet<'_>,
        now: Time,
    ) -> Decision {
        if !self.can_hold() {
            return Decision::Drop(Reason::EarlyFragment);
        }
        let bytes = packet.bytes();
        if bytes.len() < packet.full_len() || bytes.len() > self.config.held_bytes {
            return Decision::Drop(Reason::TooLongToHold);
        }
        if let Err(reason) = self.make_room(key, found) {
            return Decision::Drop(reason);
        }
        let at = match found {
            Some(at) => at,
            None => self.insert(key, hash, now),
        };
        match self.store(at, bytes) {
            true => Decision::Hold,
            false => Decision::Drop(Reason::HeldFull),
        }
    }

    /// Sees to it that there is a free buffer, at the cost of the source's oldest datagram if it has
    /// its share, else at that of the oldest of all; but not at the cost of the datagram itself.
    fn make_room(&mut self, key: DatagramKey, own: Option<u32>) -> Result<(), Reason> {
        let (held, oldest) = self.sources.held(key.source());
        if held >= self.config.held_per_source {
            match oldest {
                Some(oldest) if own != Some(oldest) => self.evict(oldest),
                _ => return Err(Reason::SourceFull),
            }
        }
        if self.copies.is_full() {
            match self.waiting.first() {
                Some(oldest) if own != Some(oldest) => self.evict(oldest),
                _ => return Err(Reason::HeldFull),
            }
        }
        Ok(())
    }

    /// Puts a copy to a datagram that waits, or that is new and will.
    fn store(&mut self, at: u32, bytes: &[u8]) -> bool {
        let Entry { key, state, .. } = self.entries[at as usize];
        let mut waiting = match state {
            State::Waiting(waiting) => waiting,
            _ => match self.sources.enter(key.source(), at) {
                Some(source) => {
                    self.turns.push(&mut self.waiting, at);
                    Waiting { source, copies: List::EMPTY, count: 0 }
                }
                None => return false,
            },
        };
        let stored = self.copies.store(&mut waiting.copies, bytes);
        if stored {
            waiting.count += 1;
            self.sources.add_copy(waiting.source);
            self.counts.held_now += 1;
            self.counts.held_peak = self.counts.held_peak.max(self.counts.held_now);
        }
        self.entries[at as usize].state = State::Waiting(waiting);
        stored
    }

    /// Adds a datagram of which nothing is known, which is as good as refused. A complete one makes
    /// room for it, else the oldest.
    fn insert(&mut self, key: DatagramKey, hash: u32, now: Time) -> u32 {
        if self.free.first().is_none()
            && let Some(victim) = self.complete.first().or(self.by_age.first())
        {
            self.evict(victim);
        }
        // There is one: either it was free, or all are in use and one was evicted.
        let at = self.turns.pop(&mut self.free).unwrap_or_default();
        self.entries[at as usize] =
            Entry { key, hash, born: now, state: State::Refused, seen: Seen::NOTHING };
        self.index.insert(hash, at);
        self.ages.push(&mut self.by_age, at);
        self.counts.entries += 1;
        self.counts.entries_peak = self.counts.entries_peak.max(self.counts.entries);
        at
    }

    /// Frees an entry with all that is held for it; says how many copies that were.
    fn forget(&mut self, at: u32) -> u64 {
        let Entry { hash, state, .. } = self.entries[at as usize];
        self.index.remove(hash, at);
        self.ages.remove(&mut self.by_age, at);
        let mut lost = 0;
        match state {
            State::Waiting(Waiting { source, copies, count }) => {
                self.turns.remove(&mut self.waiting, at);
                self.sources.leave(source, at, count);
                self.drop_copies(copies, count);
                lost = count.into();
            }
            State::Complete(_) => self.turns.remove(&mut self.complete, at),
            State::Known(_) | State::Refused => {}
        }
        self.turns.push(&mut self.free, at);
        self.counts.entries -= 1;
        lost
    }
}

#[cfg(test)]
mod tests;
