//! Several writers at a time, and writers that are killed.

use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::room::{Room, wait_until};

#[test]
fn two_writers_lose_nothing() {
    const EACH: u64 = 50;
    let room = Room::with(&["init --n 100"]);
    thread::scope(|scope| {
        for first in [1000, 2000] {
            let room = &room;
            scope.spawn(move || {
                for mark in first..first + EACH {
                    room.ok(&format!("activate {mark}"));
                }
            });
        }
    });
    let mut marks: Vec<u64> = room.targets("markway").iter().map(|t| t.1).collect();
    marks.sort_unstable();
    let expected: Vec<u64> = (1000..1000 + EACH).chain(2000..2000 + EACH).collect();
    assert_eq!(marks, expected);
    assert_eq!(room.generation("markway"), 1 + 2 * EACH);
}

#[test]
fn of_two_that_make_the_same_table_both_succeed() {
    for _ in 0..10 {
        let room = Room::new();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| room.ok("init"));
            }
        });
        assert_eq!(room.generation("markway"), 4);
        assert_eq!(room.names(), ["markway"]);
    }
}

#[test]
fn writers_and_those_that_replace_the_table_lose_nothing() {
    let room = Room::with(&["init"]);
    thread::scope(|scope| {
        scope.spawn(|| {
            for mark in 1..=25 {
                room.ok(&format!("activate {mark}"));
            }
        });
        scope.spawn(|| {
            for slots in [101, 997, 211, 503, 1009, 4099, 997, 499, 65537, 997] {
                room.ok(&format!("init --keep --m {slots}"));
            }
        });
    });
    assert_eq!(room.targets("markway").len(), 25);
    assert_eq!(room.generation("markway"), 1 + 25 + 10);
    assert_eq!(room.names(), ["markway"]);
}

#[test]
fn a_killed_init_leaves_the_table_and_the_next_one_cleans_up() {
    let room = Room::with(&["init", "activate 1 2 3 4 5 6 7 8"]);
    let before = std::fs::read(room.path("markway")).unwrap();
    let mut killed = room.command("init --keep --m 4000037").stdout(Stdio::null()).spawn().unwrap();
    let entries = || std::fs::read_dir(room.dir()).unwrap().count();
    wait_until("init stages a file", || entries() == 2);
    killed.kill().unwrap();
    assert!(!killed.wait().unwrap().success(), "it was too fast");

    assert!(std::fs::read(room.path("markway")).unwrap() == before);
    assert_eq!(entries(), 2);
    assert_eq!(room.json("list").as_array().unwrap().len(), 1);
    room.ok("init --keep --m 1009");
    assert_eq!(room.names(), ["markway"]);
    assert_eq!(room.targets("markway").len(), 8);
}

/// Whenever a writer is killed, the table is that of before or that of after.
#[test]
fn a_killed_writer_leaves_a_sound_table_and_no_lock() {
    let room = Room::with(&["init --m 100003 --n 100", "activate 1000"]);
    // As long as a writer takes here, in as many steps.
    let started = Instant::now();
    room.ok("activate 1001");
    let whole = started.elapsed();
    const STEPS: u32 = 30;
    let mut changed = 0;
    for step in 0..STEPS {
        let before = room.targets("markway");
        let mark = 2000 + u64::from(step);
        let mut writer = room.command(&format!("activate {mark}")).spawn().unwrap();
        let (started, moment) = (Instant::now(), whole * step / STEPS);
        while started.elapsed() < moment {
            thread::sleep(Duration::from_micros(50));
        }
        writer.kill().unwrap();
        writer.wait().unwrap();

        let after = room.targets("markway");
        let mut expected = before.clone();
        if after.len() > before.len() {
            expected.push((before.len() as u64, mark, 1));
            changed += 1;
        }
        assert_eq!(after, expected);
    }
    assert!(changed < STEPS, "none was killed in time");
    room.ok("activate 1");
}
