//! A table in memory that may hold anything.

use lb_core::hash::Slot;
use lb_core::maglev;
use lb_core::table::{Fingerprint, Moves, Snapshot, Table, TableError, file_len, inspect};
use lb_core::target::{Mark, Targets};

use crate::choices::Choices;
use crate::memory::Memory;

/// A table is refused, or can be looked at from all sides and be published.
pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let memory = Memory::harmed(&mut choices);
    let read = check_file(&memory.bytes());
    let Ok(table) = memory.view() else {
        return;
    };
    assert_eq!(memory.len(), file_len(table.config()));
    assert_eq!(table.snapshot(), read);
    if let Ok(snapshot) = &read {
        assert_eq!(snapshot.fingerprint, memory.stored_fingerprint(&table));
    }
    check(&table);

    let targets = choices.targets(table.config().targets);
    let before = table.generation();
    assert_eq!(table.publish(&targets), before.next());
    let published = table.snapshot().unwrap();
    check_published(&published, &targets);
    check(&table);
    if let Ok(read) = read {
        check_moves(&read, &published);
        assert_eq!(read.changed(targets), published);
    }
}

/// Looks at the file of a table that may hold anything, and gives what it is taken for.
pub fn check_file(file: &[u8]) -> Result<Snapshot, TableError> {
    let read = Snapshot::from_bytes(file);
    let inspection = inspect(file);
    for problem in &inspection.problems {
        assert!(!problem.to_string().is_empty() && !problem.name().is_empty());
    }
    match &read {
        Ok(snapshot) => {
            assert_eq!(inspection.config, Some(snapshot.config));
            assert_eq!(Snapshot::from_bytes(&snapshot.to_bytes()).as_ref(), Ok(snapshot));
            if inspection.problems.is_empty() {
                assert_eq!(inspection.fingerprint, Some(snapshot.fingerprint));
                check_published(snapshot, &snapshot.targets);
            }
        }
        Err(_) => assert!(!inspection.problems.is_empty()),
    }
    read
}

fn check_moves(before: &Snapshot, after: &Snapshot) {
    let moves = Moves::between(&before.slots, &after.slots);
    let moved = before.slots.iter().zip(&after.slots).filter(|(from, to)| from != to).count();
    assert_eq!(moves.slots() as usize, moved);
    assert!(moves.needed() <= moves.slots());
}

/// Looks at a table that was accepted. Nobody writes it.
pub fn check(table: &Table<'_>) {
    let config = table.config();
    assert_eq!(config.check(), Ok(()));
    for beyond in [config.slots, config.slots + 1, u32::MAX] {
        assert_eq!(table.mark(Slot(beyond)), None);
    }
    match table.snapshot() {
        Ok(snapshot) => check_snapshot(&snapshot, table),
        Err(TableError::Damaged(_)) => {}
        Err(error) => panic!("{error}"),
    }
}

fn check_snapshot(snapshot: &Snapshot, table: &Table<'_>) {
    let config = table.config();
    assert_eq!(snapshot.config, *config);
    assert_eq!(snapshot.generation, table.generation());
    assert_eq!(snapshot.slots.len(), config.slots as usize);
    assert_eq!(snapshot.fingerprint, Fingerprint::of(config, &snapshot.slots));
    for (slot, &held) in (0..).zip(&snapshot.slots) {
        assert_eq!(table.mark(Slot(slot)), Mark::new(held));
    }

    assert_eq!(snapshot.targets.capacity(), config.targets);
    for (index, target) in snapshot.targets.iter() {
        assert_eq!(snapshot.targets.index_of(target.mark), Some(index));
    }
    let held: u64 = snapshot.shares().iter().map(|share| u64::from(share.slots)).sum();
    assert!(held <= u64::from(config.slots));
    let active = snapshot.targets.iter().any(|(_, target)| target.weight.0 > 0);
    assert_eq!(snapshot.evenness().map(f64::is_finite), active.then_some(true));
}

/// What everybody must see after these targets were published.
pub fn check_published(snapshot: &Snapshot, targets: &Targets) {
    assert_eq!(snapshot.targets, *targets);
    let set = targets.iter().map(|(_, target)| target);
    assert_eq!(snapshot.slots, maglev::build(set, snapshot.config.slots));
}
