//! Tables that are made anew, removed and changed at the same time.

use std::collections::BTreeMap;
use std::process;
use std::time::{Duration, Instant};

use lb_core::maglev;
use lb_core::table::{Config, Snapshot};
use lb_core::target::{Mark, Target, Targets, Weight};
use lb_sys::shm::{Cause, Existing, ShmError, TableWriter, delete, list};

use crate::child::{Actor, Stage};
use crate::effort::either;
use crate::random::Random;
use crate::room::Room;

/// A table that is only ever replaced with its targets loses no change, and is never missing.
#[test]
fn nothing_is_lost_when_tables_are_replaced_under_their_writers() {
    let mut random = Random::announced();
    let room = Room::new();
    room.init(config(&mut random), Existing::Refuse).unwrap();
    let roles = ["activate", "activate", "activate", "replace", "replace"];
    let mut actors = roles.map(|role| Actor::start(role, &room, &mut random));
    actors.iter_mut().for_each(Actor::wait_ready);

    let (mut configs, mut generations) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + either(Duration::from_secs(3), Duration::from_secs(120));
    while Instant::now() < deadline {
        let snapshot = room.open().unwrap().snapshot().unwrap();
        check(&snapshot);
        configs.push(snapshot.config.slots);
        generations.push(snapshot.generation);
    }
    actors.into_iter().for_each(Actor::kill);
    assert!(generations.is_sorted(), "a table was replaced by an older one");
    configs.dedup();
    generations.dedup();
    assert!(configs.len() > 5 && generations.len() > 50, "nothing moved");
}

/// Whatever happens, who opens a table finds a whole one or none, and the dead leave nothing behind.
#[test]
fn every_open_finds_a_whole_table_or_none() {
    let mut random = Random::announced();
    let room = Room::new();
    const ROLES: [&str; 4] = ["upset", "upset", "change", "change"];
    let mut actors = ROLES.map(|role| Actor::start(role, &room, &mut random));
    let (mut found, mut missing) = (0, 0);
    let deadline = Instant::now() + either(Duration::from_secs(3), Duration::from_secs(300));
    while Instant::now() < deadline {
        for _ in 0..20 {
            match whole(&room) {
                Some(_) => found += 1,
                None => missing += 1,
            }
            let listed = list(&room.folder).unwrap();
            assert!(listed.is_empty() || listed == [room.name.clone()], "{listed:?}");
        }
        let which = random.below(4) as usize;
        actors[which].wait_ready();
        random.pause(1_000);
        let next = Actor::start(ROLES[which], &room, &mut random);
        std::mem::replace(&mut actors[which], next).kill();
    }
    actors.into_iter().for_each(Actor::kill);
    assert!(found > 50 && missing > 50, "{found} found, {missing} missing");

    let made = room.init(config(&mut random), Existing::Drop).unwrap();
    assert_eq!(whole(&room).unwrap(), made);
    assert_eq!(room.files(), ["t"]);
}

/// The role of who replaces tables and keeps their targets.
pub fn replace(room: &Room, mut random: Random, stage: &Stage) {
    stage.ready();
    while stage.is_wanted() {
        let made = room.init(config(&mut random), Existing::Keep).unwrap();
        check(&made);
    }
}

/// The role of who changes targets of its own in a table that is only ever replaced with its targets:
/// it must find them as it left them.
pub fn activate(room: &Room, mut random: Random, stage: &Stage) {
    const OWN: u32 = 8;
    let first = process::id() * OWN;
    let mut left: BTreeMap<Mark, Weight> = BTreeMap::new();
    stage.ready();
    while stage.is_wanted() {
        let writer = room.lock().unwrap();
        let mut targets = writer.snapshot().unwrap().targets;
        let own = |target: &Target| (first..first + OWN).contains(&target.mark.get());
        let found = targets.iter().map(|(_, target)| target).filter(own);
        let found: BTreeMap<Mark, Weight> = found.map(|t| (t.mark, t.weight)).collect();
        assert_eq!(found, left, "a change was lost");

        let mark = Mark::new(first + random.below(OWN)).unwrap();
        if left.contains_key(&mark) && random.below(2) == 0 {
            targets.deactivate(mark).unwrap();
            left.remove(&mark);
        } else {
            let weight = Weight(u16::try_from(random.below(4)).unwrap());
            targets.activate(mark, Some(weight), None).unwrap();
            left.insert(mark, weight);
        }
        publish(room, &writer, &targets);
    }
}

/// The role of who makes, replaces and removes tables.
pub fn upset(room: &Room, mut random: Random, stage: &Stage) {
    stage.ready();
    while stage.is_wanted() {
        let existing = random.one_of([Existing::Keep, Existing::Drop, Existing::Refuse]);
        match room.init(config(&mut random), existing) {
            Ok(made) => check(&made),
            Err(ShmError { cause: Cause::HasTargets(_), .. }) if existing == Existing::Refuse => {}
            Err(error) => panic!("{error}"),
        }
        if random.below(2) == 0 {
            match delete(&room.folder, &room.name) {
                Ok(()) | Err(ShmError { cause: Cause::MissingTable(_), .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// The role of who changes whatever table it finds.
pub fn change(room: &Room, mut random: Random, stage: &Stage) {
    stage.ready();
    while stage.is_wanted() {
        let writer = match room.lock() {
            Ok(writer) => writer,
            Err(ShmError { cause: Cause::MissingTable(_), .. }) => continue,
            Err(error) => panic!("{error}"),
        };
        let mut targets = writer.snapshot().unwrap().targets;
        for _ in 0..random.below(3) {
            let (mark, index) = (Mark::new(random.below(40)).unwrap(), random.below(32));
            targets.activate(mark, None, Some(index)).unwrap();
        }
        publish(room, &writer, &targets);
    }
}

/// Publishes; while the lock is held, the table that others find is the one that was changed.
fn publish(room: &Room, writer: &TableWriter, targets: &Targets) {
    let published = writer.publish(targets).unwrap();
    check(&published);
    assert_eq!(published.targets, *targets);
    assert_eq!(whole(room), Some(published), "the change went into a table without a name");
}

/// The table of a room, if there is one.
fn whole(room: &Room) -> Option<Snapshot> {
    match room.open() {
        Ok(mapped) => {
            let snapshot = mapped.snapshot().unwrap();
            check(&snapshot);
            Some(snapshot)
        }
        Err(ShmError { cause: Cause::MissingTable(_), .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// The slots are those of the targets.
fn check(snapshot: &Snapshot) {
    let targets = snapshot.targets.iter().map(|(_, target)| target);
    assert_eq!(snapshot.slots, maglev::build(targets, snapshot.config.slots));
}

fn config(random: &mut Random) -> Config {
    Config { slots: random.one_of([101, 251, 499]), targets: 32, ..Config::default() }
}
