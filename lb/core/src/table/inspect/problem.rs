//! What can be wrong with the file of a table.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use thiserror::Error;

use crate::hash::HASH_VERSION;
use crate::table::layout::{HEADER_LEN, LAYOUT_VERSION};
use crate::table::{ConfigError, Fingerprint, Generation};

/// Something that is wrong with the file of a table.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// Too short for anything.
    #[error("the file has {found} bytes, fewer than the header's {HEADER_LEN}")]
    NoHeader {
        /// Bytes of the file.
        found: usize,
    },
    /// Other magic bytes.
    #[error("the file does not begin with the magic bytes of a table")]
    Magic,
    /// Made by another version of Markway, or damaged. The rest cannot be read.
    #[error("layout version {found}, this program reads version {LAYOUT_VERSION}")]
    LayoutVersion {
        /// The version found.
        found: u64,
    },
    /// The header does not match its check word.
    #[error("the check word is {found:#018x}, that of this header is {expected:#018x}")]
    CheckWord {
        /// The word found.
        found: u64,
        /// The word that belongs there.
        expected: u64,
    },
    /// Slots are found by another hash.
    #[error("hash version {found}, this program computes version {HASH_VERSION}")]
    HashVersion {
        /// The version found.
        found: u64,
    },
    /// A number of the configuration is too large.
    #[error("{field} = {found} exceeds 32 bits")]
    Number {
        /// What it is the number of.
        field: &'static str,
        /// The number found.
        found: u64,
    },
    /// Unknown key modes.
    #[error("unknown key modes {found:?} (SCTP hash, affinity, SCTP in UDP)")]
    KeyModes {
        /// The words found.
        found: [u64; 3],
    },
    /// There can be no such table.
    #[error("{0}")]
    Dimensions(ConfigError),
    /// The file is shorter or longer than a table of its dimensions.
    #[error("the file has {found} bytes, a table of these dimensions has {expected}")]
    FileLength {
        /// Bytes of the file.
        found: usize,
        /// Bytes that a table of its dimensions has.
        expected: usize,
    },
    /// The header names another length.
    #[error("the header gives the file {found} bytes, a table of these dimensions has {expected}")]
    GivenLength {
        /// The length that the header gives.
        found: u64,
        /// Bytes that a table of its dimensions has.
        expected: usize,
    },
    /// No generation was ever published.
    #[error("generation 0: nothing was ever published")]
    NeverPublished,
    /// Words of the header without a meaning are not zero.
    #[error("words of the header that have no meaning and are not zero: {words}")]
    HeaderPadding {
        /// How many.
        words: usize,
    },
    /// The buffer in force does not lie inside the file.
    #[error("buffer {number}, which generation {generation} puts in force, is not whole", generation = .generation.0)]
    BufferMissing {
        /// Which of the two.
        number: u8,
        /// The generation.
        generation: Generation,
    },
    /// The buffer in force is as it was when the file was made: the generation is wrong.
    #[error("buffer {number}, which generation {generation} puts in force, was never filled", generation = .generation.0)]
    BufferEmpty {
        /// Which of the two.
        number: u8,
        /// The generation.
        generation: Generation,
    },
    /// A target that cannot be.
    #[error("index {index} holds an impossible target: mark {mark}, weight {weight}")]
    Target {
        /// Where it stands.
        index: usize,
        /// Its mark.
        mark: u32,
        /// Its weight.
        weight: u32,
    },
    /// Two targets of the same mark.
    #[error("index {index} holds mark {mark}, which index {first} holds already")]
    DuplicateMark {
        /// Where it stands again.
        index: usize,
        /// Where it stands first.
        first: usize,
        /// The mark.
        mark: u32,
    },
    /// A place without target has a mark all the same.
    #[error("index {index} holds no target, but mark {mark}")]
    MarkWithoutTarget {
        /// The place.
        index: usize,
        /// The mark.
        mark: u32,
    },
    /// The slots do not match the fingerprint.
    #[error("the fingerprint is {found}, that of the slots is {expected}")]
    Fingerprint {
        /// The fingerprint found.
        found: Fingerprint,
        /// The fingerprint that belongs there.
        expected: Fingerprint,
    },
    /// Slots with the mark of nobody who is active.
    #[error("slots with a mark that no active target has: {slots}, such as {}", first(.marks))]
    ForeignSlots {
        /// How many.
        slots: usize,
        /// The first few of the marks.
        marks: Vec<u32>,
    },
    /// Slots without a mark although there are active targets.
    #[error("slots that are empty although targets are active: {slots}")]
    EmptySlots {
        /// How many.
        slots: usize,
    },
    /// The slots are not those that the targets would be given.
    #[error("{differ} of {slots} slots differ from those that these targets are given")]
    OtherSlots {
        /// How many differ.
        differ: usize,
        /// How many there are.
        slots: usize,
    },
    /// Words of the buffer without a meaning are not zero.
    #[error("words behind the slots that are not zero: {words}")]
    BufferPadding {
        /// How many.
        words: usize,
    },
}

impl Problem {
    /// A short name that does not change.
    pub fn name(&self) -> &'static str {
        match self {
            Problem::NoHeader { .. } => "no_header",
            Problem::Magic => "magic",
            Problem::LayoutVersion { .. } => "layout_version",
            Problem::CheckWord { .. } => "check_word",
            Problem::HashVersion { .. } => "hash_version",
            Problem::Number { .. } => "number",
            Problem::KeyModes { .. } => "key_modes",
            Problem::Dimensions(_) => "dimensions",
            Problem::FileLength { .. } => "file_length",
            Problem::GivenLength { .. } => "given_length",
            Problem::NeverPublished => "never_published",
            Problem::HeaderPadding { .. } => "header_padding",
            Problem::BufferMissing { .. } => "buffer_missing",
            Problem::BufferEmpty { .. } => "buffer_empty",
            Problem::Target { .. } => "target",
            Problem::DuplicateMark { .. } => "duplicate_mark",
            Problem::MarkWithoutTarget { .. } => "mark_without_target",
            Problem::Fingerprint { .. } => "fingerprint",
            Problem::ForeignSlots { .. } => "foreign_slots",
            Problem::EmptySlots { .. } => "empty_slots",
            Problem::OtherSlots { .. } => "other_slots",
            Problem::BufferPadding { .. } => "buffer_padding",
        }
    }
}

fn first(marks: &[u32]) -> String {
    let mut text = String::new();
    for mark in marks {
        let gap = if text.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{gap}{mark}");
    }
    text
}
