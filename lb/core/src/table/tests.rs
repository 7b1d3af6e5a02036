use super::*;
use crate::hash::Seed;
use crate::key::{Affinity, EncapPorts, KeyModes, SctpHash};
use alloc::string::ToString;
use proptest::prelude::*;

/// The memory of a table, as a file would hold it.
pub(super) struct Memory {
    header: Vec<AtomicU64>,
    body: Vec<AtomicU32>,
}

impl Memory {
    pub(super) fn new(config: &Config) -> Self {
        let header = header_of(config, Generation(0)).map(AtomicU64::new);
        let body_words = (file_len(config) - HEADER_LEN) / 4;
        Memory { header: header.into(), body: (0..body_words).map(|_| AtomicU32::new(0)).collect() }
    }

    pub(super) fn table(&self) -> WritableTable<'_> {
        WritableTable::view(&self.header, &self.body).unwrap()
    }
}

fn small() -> Config {
    Config { slots: 101, targets: 4, ..Config::default() }
}

fn mark(number: u32) -> Mark {
    Mark::new(number).unwrap()
}

fn targets(capacity: u32, marks: &[(u32, u16)]) -> Targets {
    let mut targets = Targets::new(capacity);
    for &(number, weight) in marks {
        targets.activate(mark(number), Some(Weight(weight)), None).unwrap();
    }
    targets
}

#[test]
fn what_is_published_is_read() {
    let config = Config {
        own_mark: 9,
        seed: Seed(7),
        modes: KeyModes {
            sctp_hash: SctpHash::Tuple,
            affinity: Affinity::Client,
            sctp_encap: EncapPorts([9899, 0xffff]),
        },
        ..small()
    };
    let memory = Memory::new(&config);
    let table = memory.table();
    let set = targets(4, &[(5, 1), (0, 3), (7, 0)]);
    assert_eq!(table.publish(&set), Generation(1));
    let snapshot = table.snapshot().unwrap();
    assert_eq!(snapshot.config, config);
    assert_eq!(snapshot.targets, set);
    assert_eq!(snapshot.generation, Generation(1));
    for (slot, held) in (0..).zip(&snapshot.slots) {
        assert_eq!(table.mark(Slot(slot)), Mark::new(*held));
    }
    assert_eq!(table.mark(Slot(101)), None);
    let held: Vec<u32> = snapshot.shares().iter().map(|share| share.slots).collect();
    assert_eq!(held, [25, 76, 0]);
}

#[test]
fn an_empty_table_has_no_marks() {
    let memory = Memory::new(&small());
    let table = memory.table();
    table.publish(&Targets::new(4));
    let snapshot = table.snapshot().unwrap();
    assert_eq!(snapshot.slots, [Mark::EMPTY; 101]);
    assert_eq!(snapshot.evenness(), None);
    assert_eq!(table.mark(Slot(5)), None);
}

/// A writer that dies while it fills the spare buffer leaves the published table in force, and the
/// next writer is not misled by what the spare holds.
#[test]
fn a_half_filled_spare_harms_nobody() {
    let memory = Memory::new(&small());
    let table = memory.table();
    table.publish(&targets(4, &[(1, 1), (2, 1)]));
    let before = table.snapshot().unwrap();
    let words = BodyWords::of(&small());
    for written in (0..words.buffer).step_by(7) {
        memory.body[written].store(0xdead_dead, Relaxed); // buffer 0 is spare at generation 1
        assert_eq!(table.snapshot().unwrap(), before);
    }
    table.publish(&targets(4, &[(3, 1)]));
    assert_eq!(table.snapshot().unwrap().slots, [3; 101]);
}

#[test]
fn the_fingerprint_covers_what_decides_and_nothing_else() {
    let of = |config: Config, marks: &[(u32, u16)]| {
        let memory = Memory::new(&config);
        memory.table().publish(&targets(config.targets, marks));
        memory.table().snapshot().unwrap().fingerprint
    };
    let base = of(small(), &[(1, 1), (2, 2)]);
    assert_eq!(base, of(small(), &[(2, 4), (1, 2)]), "order and common factors");
    assert_eq!(base, of(small(), &[(9, 0), (1, 1), (2, 2)]), "targets without weight");
    assert_eq!(base, of(Config { own_mark: 3, ..small() }, &[(1, 1), (2, 2)]), "own mark");
    assert_eq!(base, of(Config { targets: 9, ..small() }, &[(1, 1), (2, 2)]), "capacity");
    assert_ne!(base, of(small(), &[(1, 1), (2, 1)]));
    assert_ne!(base, of(small(), &[(1, 1), (3, 2)]));
    assert_ne!(base, of(Config { slots: 103, ..small() }, &[(1, 1), (2, 2)]));
    assert_ne!(base, of(Config { seed: Seed(1), ..small() }, &[(1, 1), (2, 2)]));
    for modes in [
        KeyModes { sctp_hash: SctpHash::Tuple, ..KeyModes::default() },
        KeyModes { affinity: Affinity::Client, ..KeyModes::default() },
        KeyModes { sctp_encap: EncapPorts([9899, 0]), ..KeyModes::default() },
        KeyModes { sctp_encap: EncapPorts([0, 9899]), ..KeyModes::default() },
    ] {
        assert_ne!(base, of(Config { modes, ..small() }, &[(1, 1), (2, 2)]), "{modes:?}");
    }
    assert_eq!(base.to_string().len(), "0x0123456789abcdef".len());
}

#[test]
fn other_files_and_other_versions_are_told_apart() {
    let memory = Memory::new(&small());
    assert_eq!(Table::view(&[], &[]).unwrap_err(), TableError::NotATable);
    assert_eq!(Table::view(&memory.header[..9], &[]).unwrap_err(), TableError::NotATable);
    memory.header[0].fetch_xor(1, Relaxed);
    assert_eq!(Table::view(&memory.header, &memory.body).unwrap_err(), TableError::NotATable);
    memory.header[0].fetch_xor(1, Relaxed);
    memory.header[1].store(77, Relaxed);
    let error = Table::view(&memory.header, &memory.body).unwrap_err();
    assert_eq!(error, TableError::OtherLayout { found: 77 });
    assert!(error.to_string().starts_with("layout version 77, this program reads version 1"));
}

/// Every bit of the header that has a meaning is guarded.
#[test]
fn every_damaged_header_word_is_noticed() {
    let memory = Memory::new(&small());
    for word in 0..12 {
        for bit in 0..64 {
            memory.header[word].fetch_xor(1 << bit, Relaxed);
            assert!(Table::view(&memory.header, &memory.body).is_err(), "word {word} bit {bit}");
            memory.header[word].fetch_xor(1 << bit, Relaxed);
        }
    }
    assert!(Table::view(&memory.header, &memory.body).is_ok());
}

#[test]
fn a_file_of_the_wrong_length_is_damaged() {
    let memory = Memory::new(&small());
    for len in [0, 1, memory.body.len() - 1] {
        let error = Table::view(&memory.header, &memory.body[..len]).unwrap_err();
        assert!(matches!(error, TableError::Damaged(_)), "{error}");
    }
}

#[test]
fn a_damaged_body_is_noticed_by_a_snapshot() {
    let memory = Memory::new(&small());
    memory.table().publish(&targets(4, &[(1, 1), (2, 1)]));
    let words = BodyWords::of(&small());
    let used = words.fingerprint + words.targets + words.slots;
    for word in words.buffer..words.buffer + used {
        let targets =
            words.buffer + words.fingerprint..words.buffer + words.fingerprint + words.targets;
        if targets.contains(&word) {
            continue; // a target's words are believed if they are possible
        }
        memory.body[word].fetch_xor(4, Relaxed);
        assert!(matches!(memory.table().snapshot(), Err(TableError::Damaged(_))), "word {word}");
        memory.body[word].fetch_xor(4, Relaxed);
    }
    let second_mark = words.buffer + words.fingerprint + 2;
    memory.body[second_mark].store(1, Relaxed);
    assert_eq!(
        memory.table().snapshot(),
        Err(TableError::Damaged("two targets have the same mark"))
    );
    memory.body[second_mark + 1].store(70_000, Relaxed);
    assert_eq!(
        memory.table().snapshot(),
        Err(TableError::Damaged("a target has an impossible mark or weight"))
    );
}

#[test]
fn a_reader_of_everything_never_sees_a_mixture() {
    let config = Config { slots: 997, ..small() };
    let memory = Memory::new(&config);
    memory.table().publish(&targets(4, &[(1, 1)]));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..3000u32 {
                memory.table().publish(&targets(4, &[(round % 5, 1), (5 + round % 3, 1)]));
            }
        });
        let mut seen = 0;
        while !writer.is_finished() {
            match memory.table().snapshot() {
                Ok(snapshot) => {
                    seen += 1;
                    let expected = maglev::build(snapshot.targets.iter().map(|(_, t)| t), 997);
                    assert_eq!(snapshot.slots, expected);
                }
                Err(TableError::Busy(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert!(seen > 0);
    });
}

proptest! {
    /// Whatever the detours, the table is that of the set in the end.
    #[test]
    fn detours_leave_no_trace(
        detour in prop::collection::vec((0u32..8, 0u16..4, any::<bool>()), 0..30),
        goal in prop::collection::btree_map(0u32..8, 1u16..4, 1..5),
    ) {
        let config = Config { slots: 211, targets: 8, ..Config::default() };
        let goal: Vec<(u32, u16)> = goal.into_iter().collect();
        let memory = Memory::new(&config);
        let mut set = Targets::new(8);
        for (number, weight, add) in detour {
            if add {
                set.activate(mark(number), Some(Weight(weight)), Some(number)).unwrap();
            } else {
                let _ = set.deactivate(mark(number));
            }
            memory.table().publish(&set);
        }
        for number in 0..8 {
            let _ = set.deactivate(mark(number));
        }
        for &(number, weight) in goal.iter().rev() {
            set.activate(mark(number), Some(Weight(weight)), None).unwrap();
        }
        memory.table().publish(&set);

        let straight = Memory::new(&config);
        straight.table().publish(&targets(8, &goal));
        let (a, b) = (memory.table().snapshot().unwrap(), straight.table().snapshot().unwrap());
        prop_assert_eq!(a.fingerprint, b.fingerprint);
        prop_assert_eq!(a.slots, b.slots);
    }

    #[test]
    fn no_header_makes_a_view_panic(words in prop::collection::vec(any::<u64>(), HEADER_WORDS)) {
        let mut header: Vec<AtomicU64> = words.into_iter().map(AtomicU64::new).collect();
        prop_assert!(Table::view(&header, &[]).is_err());
        header[0] = AtomicU64::new(u64::from_ne_bytes(*b"MARKWAY\0"));
        header[1] = AtomicU64::new(LAYOUT_VERSION);
        prop_assert!(Table::view(&header, &[]).is_err());
    }
}
