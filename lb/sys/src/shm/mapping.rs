//! A file mapped into memory as atomic words.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64};

use memmap2::{MmapOptions, MmapRaw};

/// A shared mapping. Other processes may change it at any time, so it is only ever seen as atomics.
#[derive(Debug)]
pub(super) struct Mapping(MmapRaw);

impl Mapping {
    /// Maps a whole file for reading.
    pub fn read_only(file: &File) -> io::Result<Self> {
        MmapOptions::new().map_raw_read_only(file).map(Mapping)
    }

    /// Maps a whole file for reading and writing.
    pub fn writable(file: &File) -> io::Result<Self> {
        MmapOptions::new().map_raw(file).map(Mapping)
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The first `bytes` bytes as 64-bit words, or as many as there are.
    pub fn words64(&self, bytes: usize) -> &[AtomicU64] {
        let words = bytes.min(self.0.len()) / size_of::<AtomicU64>();
        // SAFETY: the pointer is page-aligned and valid for `words` words as long as `self` lives.
        // Every bit pattern is an AtomicU64, and nobody in this process makes plain references to
        // the memory. A read-only mapping is only loaded from, see `table` and `stats`.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), words) }
    }

    /// What follows the first `skipped` bytes, a multiple of eight, as 32-bit words.
    pub fn words32_after(&self, skipped: usize) -> &[AtomicU32] {
        let skipped = skipped.min(self.0.len()).next_multiple_of(8);
        let words = self.0.len().saturating_sub(skipped) / size_of::<AtomicU32>();
        if words == 0 {
            return &[];
        }
        // SAFETY: `skipped` is inside the mapping, because words remain behind it.
        let start = unsafe { self.0.as_ptr().add(skipped) };
        // SAFETY: as in `words64`; `skipped` keeps the alignment.
        unsafe { std::slice::from_raw_parts(start.cast(), words) }
    }
}
