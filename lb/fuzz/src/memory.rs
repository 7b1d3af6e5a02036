//! A table in ordinary memory, sound or not.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

use lb_core::table::{
    BodyWords, Config, Fingerprint, Generation, HEADER_LEN, Table, TableError, WritableTable,
    file_len, header_of,
};

use crate::choices::Choices;

/// Longer tables would take the time that many inputs take.
const MAX_LEN: usize = 64 * 1024;
/// Word of the header that holds the length of the file.
const FILE_LEN: usize = 2;
/// Word of the header that is a hash of those before it.
const CHECK: usize = 11;

/// The words of a table, as a mapping would show them.
pub struct Memory {
    header: Vec<AtomicU64>,
    body: Vec<AtomicU32>,
}

impl Memory {
    /// A table that has published nothing, perhaps an impossible one. It has no buffers if it is too
    /// long.
    pub fn new(config: &Config) -> Self {
        let len = match file_len(config) {
            len if len <= MAX_LEN => len - HEADER_LEN,
            _ => 0,
        };
        let header = header_of(config, Generation(0)).map(AtomicU64::new).into();
        let mut memory = Memory { header, body: Vec::new() };
        memory.resize_body(len / size_of::<u32>());
        memory
    }

    /// A table that was in use and then came to harm, or not.
    pub fn harmed(choices: &mut Choices<'_>) -> Self {
        let mut memory = Memory::new(&choices.config());
        if let Ok(table) = memory.view() {
            for _ in 0..choices.below(3) {
                table.publish(&choices.targets(table.config().targets));
            }
        }
        if choices.bool() {
            let by = usize::from(choices.u8());
            let len = memory.body.len();
            memory.resize_body(if choices.bool() { len + by } else { len.saturating_sub(by) });
            if choices.bool() {
                memory.header[FILE_LEN] = AtomicU64::new(memory.len() as u64);
            }
        }
        for _ in 0..choices.below(8) {
            memory.harm(choices);
        }
        if choices.bool() {
            memory.header[CHECK] = AtomicU64::new(check_word(&memory.header));
        }
        memory
    }

    /// Changes one word.
    fn harm(&mut self, choices: &mut Choices<'_>) {
        match choices.below(3) {
            0 => {
                let place = usize::from(choices.u16()) % self.header.len();
                self.header[place].store(choices.u64(), Relaxed);
            }
            kind if self.body.len() > 1 => {
                let buffer = &self.body[choices.one_of([0, self.body.len() / 2])..];
                let mut word = || &buffer[usize::from(choices.u16()) % buffer.len()];
                let changed = word();
                let value = if kind == 1 { word().load(Relaxed) } else { choices.u32() };
                changed.store(value, Relaxed);
            }
            _ => {}
        }
    }

    /// Length of the file that would hold the table.
    pub fn len(&self) -> usize {
        size_of_val(&self.header[..]) + size_of_val(&self.body[..])
    }

    /// What stands in the place of the fingerprint of a table that was accepted.
    pub fn stored_fingerprint(&self, table: &Table<'_>) -> Fingerprint {
        let buffer = usize::from(table.generation().0 & 1 != 0);
        let words = &self.body[buffer * BodyWords::of(table.config()).buffer..];
        let [low, high] = [0, 1].map(|at| u64::from(words[at].load(Relaxed)));
        Fingerprint(high << 32 | low)
    }

    pub fn view(&self) -> Result<WritableTable<'_>, TableError> {
        WritableTable::view(&self.header, &self.body)
    }

    /// The content of a file that holds the table.
    pub fn bytes(&self) -> Vec<u8> {
        let header = self.header.iter().flat_map(|word| word.load(Relaxed).to_ne_bytes());
        let body = self.body.iter().flat_map(|word| word.load(Relaxed).to_ne_bytes());
        header.chain(body).collect()
    }

    fn resize_body(&mut self, words: usize) {
        self.body.resize_with(words, || AtomicU32::new(0));
    }
}

/// The check word as `lb_core::table` computes it, for any header: whoever means harm can do so too.
fn check_word(header: &[AtomicU64]) -> u64 {
    const MULTIPLIER: u64 = 0x9fb2_1c65_1e98_df25;
    let mut state: u64 = 0x6d61_726b_7761_7900;
    for word in &header[..CHECK] {
        let mixed = (state ^ word.load(Relaxed)).wrapping_mul(MULTIPLIER);
        state = mixed ^ (mixed >> 29);
    }
    state ^= state >> 32;
    state = state.wrapping_mul(MULTIPLIER);
    state ^ (state >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise the header's fields would never be reached.
    #[test]
    fn the_words_are_those_of_a_table() {
        for own_mark in 0..9 {
            let memory = Memory::new(&Config { own_mark, ..Config::default() });
            assert_eq!(memory.header[CHECK].load(Relaxed), check_word(&memory.header));
            assert_eq!(memory.header[FILE_LEN].load(Relaxed), memory.len() as u64);
        }
    }
}
