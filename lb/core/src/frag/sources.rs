//! How much is held for each source, so that one sender cannot take all buffers.

use alloc::boxed::Box;
use alloc::vec;

use super::key::{Secret, SourceKey};
use super::list::{Index, Links, List};

/// Number of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source(u32);

/// The sources for which anything is held. A record lives as long as one of its datagrams waits, and
/// each of those holds a copy, so as many records as there are buffers are enough.
#[derive(Debug)]
pub(super) struct Sources {
    secret: Secret,
    records: Box<[Record]>,
    index: Index,
    links: Links,
    free: List,
    /// Connects the datagrams of a source that wait.
    waiting: Links,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    key: SourceKey,
    hash: u32,
    copies: u32,
    /// The datagrams that wait, the oldest first.
    waiting: List,
}

impl Sources {
    pub fn new(secret: Secret, buffers: u32, entries: u32) -> Self {
        let (links, free) = Links::all(buffers);
        let record = Record { key: SourceKey::NONE, hash: 0, copies: 0, waiting: List::EMPTY };
        Sources {
            secret,
            records: vec![record; buffers as usize].into(),
            index: Index::new(buffers),
            links,
            free,
            waiting: Links::new(entries),
        }
    }

    pub const fn memory(buffers: usize, entries: usize) -> usize {
        buffers * (size_of::<Record>() + Links::BYTES)
            + Index::memory(buffers)
            + entries * Links::BYTES
    }

    /// How many copies are held for a source, and its oldest datagram that waits.
    pub fn held(&self, key: SourceKey) -> (u32, Option<u32>) {
        match self.find(key, key.hash(self.secret)) {
            Some(at) => {
                let record = &self.records[at as usize];
                (record.copies, record.waiting.first())
            }
            None => (0, None),
        }
    }

    /// A datagram of the source waits from now on. `None` if there is no record left.
    pub fn enter(&mut self, key: SourceKey, entry: u32) -> Option<Source> {
        let hash = key.hash(self.secret);
        let at = match self.find(key, hash) {
            Some(at) => at,
            None => {
                let at = self.links.pop(&mut self.free)?;
                self.index.insert(hash, at);
                self.records[at as usize] = Record { key, hash, copies: 0, waiting: List::EMPTY };
                at
            }
        };
        self.waiting.push(&mut self.records[at as usize].waiting, entry);
        Some(Source(at))
    }

    /// One more copy is held.
    pub fn add_copy(&mut self, Source(at): Source) {
        self.records[at as usize].copies += 1;
    }

    /// A datagram waits no longer; so many copies were held for it.
    pub fn leave(&mut self, Source(at): Source, entry: u32, copies: u32) {
        let record = &mut self.records[at as usize];
        self.waiting.remove(&mut record.waiting, entry);
        record.copies -= copies;
        if record.waiting.first().is_none() {
            self.index.remove(record.hash, at);
            self.links.push(&mut self.free, at);
        }
    }

    fn find(&self, key: SourceKey, hash: u32) -> Option<u32> {
        self.index.find(hash, |at| self.records[at as usize].key == key)
    }
}
