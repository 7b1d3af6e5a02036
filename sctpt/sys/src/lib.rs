//! Where sctpt needs unsafe code: counters in memory that it shares with other processes.
#![warn(missing_docs)]

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64};

use memmap2::{MmapOptions, MmapRaw};

/// A file mapped for reading and writing. Other processes may change it at any time, so it is only ever seen as
/// atomics. Nobody may make the file shorter: who wants another one puts it in its place.
#[derive(Debug)]
pub struct Counters {
    mapping: MmapRaw,
    /// Bytes of the 32-bit words, a multiple of eight.
    narrow: usize,
}

impl Counters {
    /// Maps a whole file. Its first `narrow` bytes, a multiple of eight, are 32-bit words; 64-bit words follow.
    pub fn map(file: &File, narrow: usize) -> io::Result<Self> {
        let mapping = MmapOptions::new().map_raw(file)?;
        if !narrow.is_multiple_of(size_of::<u64>()) || narrow > mapping.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Counters { mapping, narrow })
    }

    /// The 32-bit words.
    pub fn narrow(&self) -> &[AtomicU32] {
        let words = self.narrow / size_of::<AtomicU32>();
        // SAFETY: the pointer is page-aligned and valid for `words` words as long as `self` lives: `map` has compared
        // with the length. Every bit pattern is an AtomicU32, and nobody makes plain references to the memory.
        unsafe { std::slice::from_raw_parts(self.mapping.as_ptr().cast(), words) }
    }

    /// The 64-bit words behind them.
    pub fn wide(&self) -> &[AtomicU64] {
        let words = (self.mapping.len() - self.narrow) / size_of::<AtomicU64>();
        // SAFETY: `narrow` bytes are inside the mapping or all of it, as `map` has seen.
        let start = unsafe { self.mapping.as_ptr().add(self.narrow) };
        // SAFETY: as in `narrow`; the skipped bytes keep the alignment.
        unsafe { std::slice::from_raw_parts(start.cast(), words) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn what_one_mapping_counts_another_one_sees() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 + 24).unwrap();
        let (here, there) = (Counters::map(&file, 8).unwrap(), Counters::map(&file, 8).unwrap());
        assert_eq!((here.narrow().len(), here.wide().len()), (2, 3));
        here.narrow()[1].fetch_add(7, Relaxed);
        here.wide()[2].fetch_add(u64::MAX, Relaxed);
        assert_eq!(there.narrow()[1].load(Relaxed), 7);
        assert_eq!(there.wide()[2].load(Relaxed), u64::MAX);
        assert_eq!(there.wide()[0].load(Relaxed), 0);
    }

    #[test]
    fn words_outside_the_file_or_across_are_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(16).unwrap();
        assert!(Counters::map(&file, 24).is_err());
        assert!(Counters::map(&file, 4).is_err());
        assert_eq!(Counters::map(&file, 16).unwrap().wide().len(), 0);
    }
}
