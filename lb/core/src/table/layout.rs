//! Where things stand in the file of a table.
//!
//! ```text
//! header   512 words of 64 bits: magic, layout version, file length, configuration, check word,
//!          and on a cache line of its own the generation
//! buffer 0 words of 32 bits: fingerprint (2), targets (N × mark, weight), slots (M), padding
//! buffer 1 the same
//! ```
//!
//! Words are in the byte order of the machine, as the hash is.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use super::{Config, Generation, TableError};
use crate::hash::{HASH_VERSION, Seed};
use crate::key::{Affinity, EncapPorts, KeyModes, SctpHash};

/// The version of this layout. It moves with every change of a word's place or meaning.
pub const LAYOUT_VERSION: u64 = 1;
/// Length of the header in bytes.
pub const HEADER_LEN: usize = HEADER_WORDS * 8;
/// Length of the header in 64-bit words.
pub const HEADER_WORDS: usize = 512;

/// "MARKWAY" and a zero, as the bytes stand in the file.
pub(super) const MAGIC_WORD: u64 = u64::from_ne_bytes(*b"MARKWAY\0");
pub(super) const MAGIC: usize = 0;
pub(super) const VERSION: usize = 1;
pub(super) const FILE_LEN: usize = 2;
pub(super) const SLOTS: usize = 3;
pub(super) const TARGETS: usize = 4;
pub(super) const OWN_MARK: usize = 5;
pub(super) const SEED: usize = 6;
pub(super) const HASH: usize = 7;
pub(super) const SCTP_HASH: usize = 8;
pub(super) const AFFINITY: usize = 9;
pub(super) const SCTP_ENCAP: usize = 10;
pub(super) const CHECK: usize = 11;
/// The one word that changes.
pub(super) const GENERATION: usize = 16;

/// How many 32-bit words the parts of a buffer take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyWords {
    /// The fingerprint.
    pub fingerprint: usize,
    /// The targets.
    pub targets: usize,
    /// The slots.
    pub slots: usize,
    /// The whole buffer with its padding.
    pub buffer: usize,
}

impl BodyWords {
    /// The sizes in a table of this configuration.
    pub fn of(config: &Config) -> Self {
        /// Buffers begin on pages of their own.
        const PAGE_WORDS: usize = 1024;
        let (fingerprint, targets, slots) = (2, config.targets as usize * 2, config.slots as usize);
        let buffer = (fingerprint + targets + slots).next_multiple_of(PAGE_WORDS);
        BodyWords { fingerprint, targets, slots, buffer }
    }
}

/// Length in bytes of the file of a table.
pub fn file_len(config: &Config) -> usize {
    HEADER_LEN + 2 * BodyWords::of(config).buffer * 4
}

/// The header of a new table that has published nothing since `generation`.
pub fn header_of(config: &Config, generation: Generation) -> [u64; HEADER_WORDS] {
    let mut header = [0; HEADER_WORDS];
    header[MAGIC] = MAGIC_WORD;
    header[VERSION] = LAYOUT_VERSION;
    header[FILE_LEN] = file_len(config) as u64;
    header[SLOTS] = u64::from(config.slots);
    header[TARGETS] = u64::from(config.targets);
    header[OWN_MARK] = u64::from(config.own_mark);
    header[SEED] = u64::from(config.seed.0);
    header[HASH] = HASH_VERSION;
    [header[SCTP_HASH], header[AFFINITY], header[SCTP_ENCAP]] = mode_words(&config.modes);
    header[CHECK] = check_word(&header);
    header[GENERATION] = generation.0;
    header
}

/// Reads the configuration from a header that may hold anything.
pub(super) fn checked_config(
    header: &[AtomicU64],
    mapped_len: usize,
) -> Result<Config, TableError> {
    let mut words = [0; HEADER_WORDS];
    if header.len() != HEADER_WORDS {
        return Err(TableError::NotATable);
    }
    for (word, shared) in words.iter_mut().zip(header) {
        *word = shared.load(Relaxed);
    }
    if words[MAGIC] != MAGIC_WORD {
        return Err(TableError::NotATable);
    }
    if words[VERSION] != LAYOUT_VERSION {
        return Err(TableError::OtherLayout { found: words[VERSION] });
    }
    if words[CHECK] != check_word(&words) {
        return Err(TableError::Damaged("the header does not match its check word"));
    }
    if words[HASH] != HASH_VERSION {
        return Err(TableError::Damaged("unknown hash version"));
    }
    let number = |at: usize| {
        u32::try_from(words[at]).map_err(|_| TableError::Damaged("a number exceeds 32 bits"))
    };
    let config = Config {
        slots: number(SLOTS)?,
        targets: number(TARGETS)?,
        own_mark: number(OWN_MARK)?,
        seed: Seed(number(SEED)?),
        modes: modes_of([words[SCTP_HASH], words[AFFINITY], words[SCTP_ENCAP]])
            .ok_or(TableError::Damaged("unknown key modes"))?,
    };
    if config.check().is_err() {
        return Err(TableError::Damaged("impossible dimensions"));
    }
    if words[FILE_LEN] != mapped_len as u64 || mapped_len != file_len(&config) {
        return Err(TableError::Damaged("the length of the file does not match its dimensions"));
    }
    Ok(config)
}

/// The modes as words, for the header and for the fingerprint.
pub(super) fn mode_words(modes: &KeyModes) -> [u64; 3] {
    let sctp_hash = match modes.sctp_hash {
        SctpHash::Ports => 0,
        SctpHash::Tuple => 1,
    };
    let affinity = match modes.affinity {
        Affinity::Flow => 0,
        Affinity::Client => 1,
    };
    let EncapPorts([first, second]) = modes.sctp_encap;
    [sctp_hash, affinity, (u64::from(second) << 16) | u64::from(first)]
}

pub(super) fn modes_of([sctp_hash, affinity, sctp_encap]: [u64; 3]) -> Option<KeyModes> {
    let ports = u32::try_from(sctp_encap).ok()?;
    let modes = KeyModes {
        sctp_hash: if sctp_hash == 0 { SctpHash::Ports } else { SctpHash::Tuple },
        affinity: if affinity == 0 { Affinity::Flow } else { Affinity::Client },
        sctp_encap: EncapPorts([(ports & 0xffff) as u16, (ports >> 16) as u16]),
    };
    (mode_words(&modes) == [sctp_hash, affinity, sctp_encap]).then_some(modes)
}

/// Length in bytes of what is mapped.
pub(super) fn mapped_len(header: &[AtomicU64], body: &[AtomicU32]) -> usize {
    size_of_val(header) + size_of_val(body)
}

/// A hash of the words before the check word.
pub(super) fn check_word(header: &[u64; HEADER_WORDS]) -> u64 {
    super::snapshot::digest(header[..CHECK].iter().copied())
}
