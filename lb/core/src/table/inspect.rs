//! Everything that is wrong with the file of a table, where a reader is content with the first fault.

mod problem;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use super::layout::{self, BodyWords, HEADER_LEN, HEADER_WORDS, LAYOUT_VERSION};
use super::{Config, Fingerprint, Generation, NO_TARGET, file_len};
use crate::hash::HASH_VERSION;
use crate::maglev;
use crate::target::{Mark, Target, Weight};
pub use problem::Problem;

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
