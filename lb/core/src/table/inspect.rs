//! Everything that is wrong with the file of a table, where a reader is content with the first fault.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use thiserror::Error;

use super::layout::{self, BodyWords, HEADER_LEN, HEADER_WORDS, LAYOUT_VERSION};
use super::{Config, ConfigError, Fingerprint, Generation, NO_TARGET, file_len};
use crate::hash::HASH_VERSION;
use crate::maglev;
use crate::target::{Mark, Target, Weight};

/// What the file of a table says, as far as it can be read, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// The configuration, unless it is impossible.
    pub config: Option<Config>,
    /// The publication in force.
    pub generation: Option<Generation>,
    /// The fingerprint of the slots as they are, whatever the file gives as one.
    pub fingerprint: Option<Fingerprint>,
    /// All that is wrong, in the order of the file. A sound table has none.
    pub problems: Vec<Problem>,
}

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

/// Looks at all of a file. Whoever reads it while others write takes care that it is of one generation.
pub fn inspect(file: &[u8]) -> Inspection {
    let mut inspection = Inspection::default();
    let Some(header) = file.first_chunk::<HEADER_LEN>() else {
        inspection.problems.push(Problem::NoHeader { found: file.len() });
        return inspection;
    };
    let (chunks, _) = header.as_chunks::<8>();
    let words: [u64; HEADER_WORDS] = core::array::from_fn(|i| u64::from_ne_bytes(chunks[i]));
    inspection.header(&words, file.len());
    if let (Some(config), Some(generation)) = (inspection.config, inspection.generation) {
        let (body, _) = file[HEADER_LEN..].as_chunks();
        let body: Vec<u32> = body.iter().map(|&word| u32::from_ne_bytes(word)).collect();
        inspection.body(&body, &config, generation);
    }
    inspection
}

impl Inspection {
    fn header(&mut self, words: &[u64; HEADER_WORDS], file_bytes: usize) {
        let problems = &mut self.problems;
        if words[layout::MAGIC] != layout::MAGIC_WORD {
            problems.push(Problem::Magic);
        }
        if words[layout::VERSION] != LAYOUT_VERSION {
            problems.push(Problem::LayoutVersion { found: words[layout::VERSION] });
            return;
        }
        let (found, expected) = (words[layout::CHECK], layout::check_word(words));
        if found != expected {
            problems.push(Problem::CheckWord { found, expected });
        }
        if words[layout::HASH] != HASH_VERSION {
            problems.push(Problem::HashVersion { found: words[layout::HASH] });
        }
        let meaningless = (layout::CHECK + 1..HEADER_WORDS).filter(|&at| at != layout::GENERATION);
        match meaningless.filter(|&at| words[at] != 0).count() {
            0 => {}
            words => problems.push(Problem::HeaderPadding { words }),
        }
        match words[layout::GENERATION] {
            0 => problems.push(Problem::NeverPublished),
            generation => self.generation = Some(Generation(generation)),
        }
        self.config = config(words, problems);
        let Some(config) = &self.config else {
            return;
        };
        let expected = file_len(config);
        if words[layout::FILE_LEN] != expected as u64 {
            problems.push(Problem::GivenLength { found: words[layout::FILE_LEN], expected });
        }
        if file_bytes != expected {
            problems.push(Problem::FileLength { found: file_bytes, expected });
        }
    }

    fn body(&mut self, body: &[u32], config: &Config, generation: Generation) {
        let number = generation.buffer();
        let Some(buffer) = BufferWords::within(body, config, number) else {
            self.problems.push(Problem::BufferMissing { number, generation });
            return;
        };
        let mut words = buffer.targets.iter().chain(buffer.slots);
        if buffer.fingerprint == Fingerprint(0) && words.all(|&word| word == 0) {
            self.problems.push(Problem::BufferEmpty { number, generation });
            return;
        }
        let sound_before = self.problems.len();
        let targets = self.targets(buffer.targets);
        let all_targets = self.problems.len() == sound_before;

        let expected = Fingerprint::of(config, buffer.slots);
        self.fingerprint = Some(expected);
        if buffer.fingerprint != expected {
            self.problems.push(Problem::Fingerprint { found: buffer.fingerprint, expected });
        }
        self.slots(buffer.slots, &targets, all_targets);
        match buffer.padding.iter().filter(|&&word| word != 0).count() {
            0 => {}
            words => self.problems.push(Problem::BufferPadding { words }),
        }
    }

    /// The targets that can be.
    fn targets(&mut self, words: &[u32]) -> Vec<Target> {
        let mut placed: Vec<(Mark, usize, Weight)> = Vec::new();
        let (pairs, _) = words.as_chunks();
        for (index, &[mark, weight]) in pairs.iter().enumerate() {
            match (Mark::new(mark), u16::try_from(weight)) {
                (None, _) if weight == NO_TARGET => {}
                (Some(_), _) if weight == NO_TARGET => {
                    self.problems.push(Problem::MarkWithoutTarget { index, mark });
                }
                (Some(mark), Ok(weight)) => placed.push((mark, index, Weight(weight))),
                _ => self.problems.push(Problem::Target { index, mark, weight }),
            }
        }
        placed.sort_unstable();
        for same in placed.chunk_by(|one, next| one.0 == next.0) {
            if let [(mark, first, _), more @ ..] = same {
                let again = |&(_, index, _): &(Mark, usize, Weight)| Problem::DuplicateMark {
                    index,
                    first: *first,
                    mark: mark.get(),
                };
                self.problems.extend(more.iter().map(again));
            }
        }
        placed.into_iter().map(|(mark, _, weight)| Target { mark, weight }).collect()
    }

    fn slots(&mut self, slots: &[u32], targets: &[Target], all_targets: bool) {
        let mut active: Vec<u32> = targets
            .iter()
            .filter(|target| target.weight.0 > 0)
            .map(|target| target.mark.get())
            .collect();
        active.sort_unstable();
        let mut foreign = 0;
        let mut marks = Vec::new();
        let mut empty = 0;
        for &slot in slots {
            if slot == Mark::EMPTY {
                empty += 1;
            } else if active.binary_search(&slot).is_err() {
                foreign += 1;
                if marks.len() < SHOWN_MARKS && !marks.contains(&slot) {
                    marks.push(slot);
                }
            }
        }
        if foreign > 0 {
            self.problems.push(Problem::ForeignSlots { slots: foreign, marks });
        }
        if empty > 0 && !active.is_empty() {
            self.problems.push(Problem::EmptySlots { slots: empty });
        }
        // What a set that is not known would be given is not known either.
        if all_targets && let Ok(count) = u32::try_from(slots.len()) {
            let given = maglev::build(targets.iter().copied(), count);
            let differ = given.iter().zip(slots).filter(|(given, slot)| given != slot).count();
            if differ > 0 {
                self.problems.push(Problem::OtherSlots { differ, slots: slots.len() });
            }
        }
    }
}

const SHOWN_MARKS: usize = 5;

fn first(marks: &[u32]) -> String {
    let mut text = String::new();
    for mark in marks {
        let gap = if text.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{gap}{mark}");
    }
    text
}

fn config(words: &[u64; HEADER_WORDS], problems: &mut Vec<Problem>) -> Option<Config> {
    let mut number = |at: usize, field| {
        let number = u32::try_from(words[at]);
        number.map_err(|_| problems.push(Problem::Number { field, found: words[at] })).ok()
    };
    let slots = number(layout::SLOTS, "M");
    let targets = number(layout::TARGETS, "N");
    let own_mark = number(layout::OWN_MARK, "own mark");
    let seed = number(layout::SEED, "seed").map(crate::hash::Seed);
    let found = [words[layout::SCTP_HASH], words[layout::AFFINITY], words[layout::SCTP_ENCAP]];
    let modes = layout::modes_of(found);
    if modes.is_none() {
        problems.push(Problem::KeyModes { found });
    }
    let config = Config {
        slots: slots?,
        targets: targets?,
        own_mark: own_mark?,
        seed: seed?,
        modes: modes?,
    };
    config.check().map_err(|error| problems.push(Problem::Dimensions(error))).ok()?;
    Some(config)
}

/// The parts of a buffer.
struct BufferWords<'a> {
    fingerprint: Fingerprint,
    targets: &'a [u32],
    slots: &'a [u32],
    padding: &'a [u32],
}

impl<'a> BufferWords<'a> {
    fn within(body: &'a [u32], config: &Config, number: u8) -> Option<Self> {
        let words = BodyWords::of(config);
        let buffer = body.get(usize::from(number) * words.buffer..)?.get(..words.buffer)?;
        let ([low, high], rest) = buffer.split_first_chunk()?;
        let (targets, rest) = rest.split_at_checked(words.targets)?;
        let (slots, padding) = rest.split_at_checked(words.slots)?;
        let fingerprint = Fingerprint(u64::from(*high) << 32 | u64::from(*low));
        Some(BufferWords { fingerprint, targets, slots, padding })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Snapshot, TableError};
    use crate::target::Targets;
    use alloc::string::ToString;
    use alloc::vec;
    use proptest::prelude::*;

    /// N = 4, M = 101: targets 1, 2 (weight 3) and 3 (weight 0), at this generation.
    fn file(generation: u64) -> Vec<u8> {
        let config = Config { slots: 101, targets: 4, ..Config::default() };
        let slots = vec![Mark::EMPTY; 101];
        let fingerprint = Fingerprint::of(&config, &slots);
        let mut targets = Targets::new(4);
        let generation = Generation(generation - 1);
        let empty = Snapshot { config, generation, fingerprint, targets: targets.clone(), slots };
        // The mark of the last stands in bytes 24 to 27 of the buffer.
        for (number, weight) in [(1, 1), (2, 3), (3, 0)] {
            targets.activate(Mark::new(number).unwrap(), Some(Weight(weight)), None).unwrap();
        }
        empty.changed(targets).to_bytes()
    }

    fn put64(file: &mut [u8], word: usize, value: u64) {
        file[word * 8..][..8].copy_from_slice(&value.to_ne_bytes());
    }

    /// Sets a word of the first buffer.
    fn put32(file: &mut [u8], word: usize, value: u32) {
        file[HEADER_LEN + word * 4..][..4].copy_from_slice(&value.to_ne_bytes());
    }

    /// Makes the check word fit.
    fn checked(file: &mut [u8]) {
        let (chunks, _) = file[..HEADER_LEN].as_chunks::<8>();
        let words: [u64; HEADER_WORDS] = core::array::from_fn(|i| u64::from_ne_bytes(chunks[i]));
        put64(file, layout::CHECK, layout::check_word(&words));
    }

    fn names(file: &[u8]) -> Vec<&'static str> {
        inspect(file).problems.iter().map(Problem::name).collect()
    }

    const FIRST_TARGET: usize = 2;
    const FIRST_SLOT: usize = FIRST_TARGET + 4 * 2;

    #[test]
    fn a_sound_table_has_no_problem() {
        for generation in [1, 2, u64::MAX] {
            let file = file(generation);
            let inspection = inspect(&file);
            let snapshot = Snapshot::from_bytes(&file).unwrap();
            assert_eq!(inspection.problems, []);
            assert_eq!(inspection.config, Some(snapshot.config));
            assert_eq!(inspection.generation, Some(Generation(generation)));
            assert_eq!(inspection.fingerprint, Some(snapshot.fingerprint));
        }
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let mut damaged = file(2);
        put64(&mut damaged, layout::MAGIC, 1);
        put64(&mut damaged, layout::HASH, 9);
        put64(&mut damaged, layout::FILE_LEN, 5);
        put64(&mut damaged, 300, 1);
        put32(&mut damaged, FIRST_TARGET + 1, 70_000); // the weight of mark 1
        put32(&mut damaged, FIRST_TARGET + 4, 2); // mark 3 becomes 2 once more
        put32(&mut damaged, FIRST_TARGET + 6, 77); // a mark where there is no target
        put32(&mut damaged, FIRST_SLOT, Mark::EMPTY);
        put32(&mut damaged, FIRST_SLOT + 1, 55);
        put32(&mut damaged, FIRST_SLOT + 101, 1);
        damaged.push(0);
        let inspection = inspect(&damaged);
        let names: Vec<&str> = inspection.problems.iter().map(Problem::name).collect();
        assert_eq!(
            names,
            [
                "magic",
                "check_word",
                "hash_version",
                "header_padding",
                "given_length",
                "file_length",
                "target",
                "mark_without_target",
                "duplicate_mark",
                "fingerprint",
                "foreign_slots",
                "empty_slots",
                "buffer_padding",
            ]
        );
        let texts: Vec<String> = inspection.problems.iter().map(ToString::to_string).collect();
        assert_eq!(texts[5], "the file has 12289 bytes, a table of these dimensions has 12288");
        assert_eq!(texts[6], "index 0 holds an impossible target: mark 1, weight 70000");
        assert_eq!(texts[8], "index 2 holds mark 2, which index 1 holds already");
        // A target that cannot be is not active: its slots are foreign.
        assert!(texts[10].ends_with(", such as 55, 1"), "{}", texts[10]);
    }

    #[test]
    fn impossible_configurations_are_told_apart() {
        for (word, value, expected) in [
            (layout::SLOTS, 1 << 40, "number"),
            (layout::OWN_MARK, 1 << 40, "number"),
            (layout::SLOTS, 100, "dimensions"),
            (layout::TARGETS, 0, "dimensions"),
            (layout::AFFINITY, 2, "key_modes"),
            (layout::SCTP_ENCAP, 1 << 32, "key_modes"),
        ] {
            let mut file = file(2);
            put64(&mut file, word, value);
            assert_eq!(names(&file), ["check_word", expected]);
            checked(&mut file);
            assert_eq!(names(&file), [expected]);
        }
    }

    #[test]
    fn what_is_behind_an_unknown_header_is_not_read() {
        assert_eq!(names(&[]), ["no_header"]);
        assert_eq!(names(&[0; HEADER_LEN - 1]), ["no_header"]);
        assert_eq!(names(&[0; HEADER_LEN]), ["magic", "layout_version"]);
        let mut other = file(2);
        put64(&mut other, layout::VERSION, 7);
        assert_eq!(names(&other), ["layout_version"]);
        let mut never = file(2);
        put64(&mut never, layout::GENERATION, 0);
        assert_eq!(names(&never), ["never_published"]);
    }

    #[test]
    fn other_lengths() {
        let whole = file(2);
        for len in [HEADER_LEN, HEADER_LEN + 9, 8191] {
            assert_eq!(names(&whole[..len]), ["file_length", "buffer_missing"]);
        }
        // The buffer in force is whole.
        assert_eq!(names(&whole[..8192]), ["file_length"]);
        for more in 1..10 {
            assert_eq!(names(&[whole.as_slice(), &[0; 9][..more]].concat()), ["file_length"]);
        }
    }

    #[test]
    fn a_generation_of_the_buffer_that_was_never_filled() {
        let mut file = file(2);
        put64(&mut file, layout::GENERATION, 3);
        assert_eq!(names(&file), ["buffer_empty"]);
    }

    /// Slots of another builder, with a fingerprint that fits.
    #[test]
    fn sound_slots_that_other_targets_would_be_given() {
        let mut snapshot = Snapshot::from_bytes(&file(2)).unwrap();
        let one = snapshot.slots.iter().position(|&slot| slot == 1).unwrap();
        let two = snapshot.slots.iter().position(|&slot| slot == 2).unwrap();
        snapshot.slots.swap(one, two);
        snapshot.fingerprint = Fingerprint::of(&snapshot.config, &snapshot.slots);
        let inspection = inspect(&snapshot.to_bytes());
        assert_eq!(inspection.problems, [Problem::OtherSlots { differ: 2, slots: 101 }]);
    }

    proptest! {
        /// Whatever a reader refuses has a problem, and every change has one.
        #[test]
        fn every_changed_bit_is_a_problem(at in 0usize..8192, bit in 0u8..8, odd: bool) {
            // One generation puts the first buffer in force, the other one the second.
            let (whole, at) = if odd && at >= HEADER_LEN {
                (file(3), at + 4096)
            } else {
                (file(2), at)
            };
            let mut changed = whole;
            changed[at] ^= 1 << bit;
            let problems = inspect(&changed).problems;
            // A greater generation may be a true one, and so may another mark without weight.
            let generation = (layout::GENERATION * 8..layout::GENERATION * 8 + 8).contains(&at);
            let unweighted = at >= HEADER_LEN && (24..28).contains(&((at - HEADER_LEN) % 4096));
            let open = generation || unweighted;
            prop_assert!(!problems.is_empty() || open, "byte {at} bit {bit}");
            prop_assert!(Snapshot::from_bytes(&changed).is_ok() || !problems.is_empty());
        }

        #[test]
        fn no_bytes_make_an_inspection_panic(
            changes in prop::collection::vec((0usize..12_288, any::<u8>()), 0..20),
            len in 0usize..12_400, fitting: bool,
        ) {
            let mut bytes = file(2);
            for (at, value) in changes {
                bytes[at] = value;
            }
            if fitting {
                checked(&mut bytes);
            }
            bytes.resize(len, 0);
            let refused = Snapshot::from_bytes(&bytes);
            let inspection = inspect(&bytes);
            prop_assert!(refused.is_ok() || !inspection.problems.is_empty());
            let is_no_table = refused == Err(TableError::NotATable);
            prop_assert_eq!(is_no_table, inspection.problems.iter().any(|problem| {
                matches!(problem, Problem::NoHeader { .. } | Problem::Magic)
            }));
        }
    }
}
