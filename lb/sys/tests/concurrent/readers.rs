//! Readers that never pause under writers that never pause.

use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, fence};
use std::thread;
use std::time::{Duration, Instant};

use lb_core::hash::Slot;
use lb_core::table::Generation;

use crate::child::Actor;
use crate::effort::either;
use crate::random::Random;
use crate::room::Room;
use crate::sequence::{CONFIG, Sequence};

/// A slot holds a mark that is in force at the time; a whole table is one that was published.
#[test]
fn readers_never_see_an_invalid_slot_or_a_mixed_table() {
    let mut random = Random::announced();
    let (room, sequence) = (Room::new(), Sequence::new());
    sequence.begin(&room);
    let mut writers = [(); 2].map(|()| Actor::start("publish", &room, &mut random));
    writers.iter_mut().for_each(Actor::wait_ready);

    let over = AtomicBool::new(false);
    let deadline = Instant::now() + either(Duration::from_secs(2), Duration::from_secs(120));
    thread::scope(|scope| {
        let slots = scope.spawn(|| read_slots(&room, &sequence, &over));
        let tables = scope.spawn(|| read_tables(&room, &sequence, &over));
        while Instant::now() < deadline && !slots.is_finished() && !tables.is_finished() {
            thread::sleep(Duration::from_millis(10));
        }
        over.store(true, Relaxed);
        let (slots, tables) = (slots.join().unwrap(), tables.join().unwrap());
        println!("{slots:?} {tables:?}");
        for seen in [&slots, &tables] {
            assert!(seen.generations > 50, "nothing moved: {seen:?}");
            assert!(seen.readings > 500, "hardly anything was read: {seen:?}");
        }
        assert!(slots.under_change > 0, "no reading met a change: {slots:?}");
    });
    writers.into_iter().for_each(Actor::kill);
}

/// What a reader has met.
#[derive(Debug, Default)]
struct Seen {
    readings: u64,
    /// Publications while it read.
    generations: u64,
    /// Readings during which the table changed.
    under_change: u64,
}

fn read_slots(room: &Room, sequence: &Sequence, over: &AtomicBool) -> Seen {
    let mapped = room.open().unwrap();
    let table = mapped.table().unwrap();
    let first = table.generation();
    let mut seen = Seen::default();
    while !over.load(Relaxed) {
        for slot in 0..CONFIG.slots {
            let before = table.generation();
            let mark = table.mark(Slot(slot));
            fence(Acquire);
            let after = table.generation();
            let mark = mark.unwrap_or_else(|| panic!("slot {slot} was empty at {before:?}"));
            // While the table changes, the set in force may be any of those, or the next one.
            let last = if before == after { after } else { after.next() };
            let mut possible = (before.0..=last.0).map(Generation);
            assert!(
                possible.any(|at| sequence.slots(at)[slot as usize] == mark.get()),
                "slot {slot} had mark {mark} between {before:?} and {after:?}"
            );
            seen.readings += 1;
            seen.under_change += u64::from(before != after);
        }
    }
    seen.generations = table.generation().0 - first.0;
    seen
}

fn read_tables(room: &Room, sequence: &Sequence, over: &AtomicBool) -> Seen {
    let mapped = room.open().unwrap();
    let mut last = mapped.table().unwrap().generation();
    let mut seen = Seen::default();
    while !over.load(Relaxed) {
        let snapshot = mapped.snapshot().unwrap();
        sequence.check(&snapshot);
        assert!(snapshot.generation >= last);
        seen.generations += snapshot.generation.0 - last.0;
        seen.readings += 1;
        last = snapshot.generation;
    }
    seen
}
