//! A table as the bytes of a file that nobody else writes.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64};

use super::layout::{BodyWords, HEADER_LEN, header_of};
use super::{Buffer, Snapshot, Table, TableError};

impl Snapshot {
    /// The file of a table that is at this generation. The buffer that is not in force is empty.
    pub fn to_bytes(&self) -> Vec<u8> {
        let words = BodyWords::of(&self.config);
        let body: Vec<AtomicU32> = (0..2 * words.buffer).map(|_| AtomicU32::new(0)).collect();
        let in_force = usize::from(self.generation.buffer());
        if let Some(buffer) = Buffer::within(&body, words, in_force) {
            buffer.fill(&self.targets, &self.slots, self.fingerprint);
        }
        let header = header_of(&self.config, self.generation);
        let header = header.iter().flat_map(|word| word.to_ne_bytes());
        header.chain(body.into_iter().flat_map(|word| word.into_inner().to_ne_bytes())).collect()
    }

    /// What the file of a table holds.
    pub fn from_bytes(file: &[u8]) -> Result<Self, TableError> {
        let (header, body) = file.split_at_checked(HEADER_LEN).ok_or(TableError::NotATable)?;
        let (header, _) = header.as_chunks();
        let (body, rest) = body.as_chunks();
        let header: Vec<AtomicU64> =
            header.iter().map(|&word| AtomicU64::new(u64::from_ne_bytes(word))).collect();
        let body: Vec<AtomicU32> =
            body.iter().map(|&word| AtomicU32::new(u32::from_ne_bytes(word))).collect();
        let table = Table::view(&header, &body)?;
        if !rest.is_empty() {
            return Err(TableError::Damaged("the file ends inside a word"));
        }
        table.snapshot()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Config, Generation};
    use crate::target::{Mark, Targets, Weight};

    fn empty(generation: u64) -> Snapshot {
        let config = Config { slots: 101, targets: 4, own_mark: 9, ..Config::default() };
        let targets = Targets::new(4);
        let slots = alloc::vec![Mark::EMPTY; 101];
        let fingerprint = crate::table::Fingerprint::of(&config, &slots);
        Snapshot { config, generation: Generation(generation), fingerprint, targets, slots }
    }

    #[test]
    fn what_is_saved_is_read_and_changed_as_if_published() {
        for generation in [1, 2, 77, u64::MAX] {
            let mut saved = empty(generation);
            assert_eq!(Snapshot::from_bytes(&saved.to_bytes()), Ok(saved.clone()));
            let mut targets = saved.targets.clone();
            for (number, weight) in [(5, 1), (0, 3), (7, 0)] {
                targets.activate(Mark::new(number).unwrap(), Some(Weight(weight)), None).unwrap();
            }
            saved = saved.changed(targets.clone());
            assert_eq!(saved.generation, Generation(generation).next());
            assert_eq!(Snapshot::from_bytes(&saved.to_bytes()), Ok(saved.clone()));

            let memory = crate::table::tests::Memory::new(&saved.config);
            memory.table().publish(&targets);
            let published = memory.table().snapshot().unwrap();
            assert_eq!(
                (&saved.slots, saved.fingerprint),
                (&published.slots, published.fingerprint)
            );
        }
    }

    #[test]
    fn every_other_length_is_refused() {
        let bytes = empty(1).to_bytes();
        for len in (0..bytes.len()).filter(|len| len % 61 == 0 || len % 4096 < 9) {
            let expected = match len {
                ..HEADER_LEN => TableError::NotATable,
                _ => TableError::Damaged("the length of the file does not match its dimensions"),
            };
            assert_eq!(Snapshot::from_bytes(&bytes[..len]), Err(expected), "{len}");
        }
        for more in 1..4 {
            let longer = [bytes.as_slice(), &[0; 4][..more]].concat();
            let inside = TableError::Damaged("the file ends inside a word");
            assert_eq!(Snapshot::from_bytes(&longer), Err(inside));
        }
    }
}
