//! Damaged files, and what is told about them.

use super::*;
use crate::table::{Snapshot, TableError};
use crate::target::Targets;
use alloc::string::{String, ToString};
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
