//! Tables that are checked.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use serde_json::{Value, json};

use crate::room::Room;

/// The first slot of the first buffer of a table with room for 32.
const FIRST_SLOT: usize = 4096 + 2 * 4 + 32 * 8;

/// The problems of a table that is not sound: short names and texts.
fn problems(room: &Room, line: &str) -> Vec<(String, String)> {
    let before = room.files();
    let run = room.run(&format!("{line} --json"));
    assert_eq!(run.code, Some(1), "{run:?}");
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["ok"], false);
    let text = |problem: &Value, key: &str| problem[key].as_str().unwrap().to_string();
    let listed = report["problems"].as_array().unwrap().iter();
    let problems: Vec<_> = listed.map(|p| (text(p, "problem"), text(p, "text"))).collect();

    // The text has the same, a line each, and stderr their number.
    let run = room.run(line);
    assert_eq!(run.code, Some(1), "{run:?}");
    let name = report["name"].as_str().unwrap();
    let lines: String = problems.iter().map(|(_, text)| format!("{name}: {text}\n")).collect();
    assert_eq!(run.stdout, lines);
    let number = match problems.len() {
        1 => "1 problem".to_string(),
        number => format!("{number} problems"),
    };
    let kind = if name.contains('/') { "file" } else { "table" };
    assert_eq!(run.stderr, format!("error: verify {kind} {name}: {number}\n"));
    assert!(room.files() == before);
    problems
}

fn names(room: &Room, line: &str) -> Vec<String> {
    problems(room, line).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_sound_table_and_its_copy() {
    let (room, saved) = (Room::new(), Room::new());
    for line in
        ["init --sctp-encap 9899 --affinity client", "activate 1 2 3", "activate 4 --weight 9"]
    {
        room.ok(line);
        let shown = room.json("show");
        let copy = saved.path("copy").display().to_string();
        room.ok(&format!("export {copy}"));
        for (line, name) in
            [("verify".to_string(), "markway".to_string()), (format!("verify {copy}"), copy)]
        {
            let (generation, fingerprint) = (&shown["generation"], &shown["fingerprint"]);
            assert_eq!(
                room.json(&line),
                json!({
                    "name": name, "ok": true, "m": 997, "n": 32, "generation": generation,
                    "fingerprint": fingerprint, "problems": [],
                })
            );
            let fingerprint = fingerprint.as_str().unwrap();
            assert_eq!(
                room.ok(&line),
                format!(
                    "{name}: OK, M = 997, generation {generation}, fingerprint {fingerprint}\n"
                )
            );
        }
    }
}

#[test]
fn all_that_is_wrong_is_told() {
    let room = Room::with(&["init", "activate 101 102"]);
    room.edit("markway", |bytes| {
        bytes[0] ^= 1; // magic
        bytes[500] = 7; // no meaning
        bytes[FIRST_SLOT..FIRST_SLOT + 4].copy_from_slice(&55u32.to_ne_bytes());
        bytes[FIRST_SLOT + 4..FIRST_SLOT + 8].copy_from_slice(&[0xff; 4]);
        bytes.push(0);
    });
    let problems = problems(&room, "verify");
    let names: Vec<&str> = problems.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "magic",
            "check_word",
            "header_padding",
            "file_length",
            "fingerprint",
            "foreign_slots",
            "empty_slots",
            "other_slots",
        ]
    );
    assert_eq!(problems[3].1, "the file has 20481 bytes, a table of these dimensions has 20480");
    assert_eq!(problems[5].1, "slots with a mark that no active target has: 1, such as 55");
    assert_eq!(problems[7].1, "2 of 997 slots differ from those that these targets are given");
}

#[test]
fn every_kind_of_damage_has_a_name() {
    type Damage = fn(&mut Vec<u8>);
    let cases: [(Damage, &[&str]); 10] = [
        (|bytes| bytes[8] = 7, &["layout_version"]),
        (|bytes| bytes[48] ^= 1, &["check_word", "fingerprint"]),
        (|bytes| bytes[24] ^= 1, &["check_word", "dimensions"]),
        (|bytes| bytes[128] = 0, &["never_published"]),
        (
            // As if there had been one publication more.
            |bytes| {
                bytes[128] += 1;
                bytes[8192..].fill(0);
            },
            &["buffer_empty"],
        ),
        (|bytes| bytes.truncate(8192), &["file_length", "buffer_missing"]),
        (|bytes| bytes.truncate(100), &["no_header"]),
        (|bytes| bytes.extend([0; 3]), &["file_length"]),
        (|bytes| bytes[FIRST_SLOT + 997 * 4] = 1, &["buffer_padding"]),
        (|bytes| bytes[4096 + 8 + 8] = 101, &["duplicate_mark", "foreign_slots"]),
    ];
    for (damage, expected) in cases {
        let room = Room::with(&["init", "activate 101 102"]);
        room.edit("markway", damage);
        assert_eq!(names(&room, "verify"), expected);
        let path = room.path("markway").display().to_string();
        assert_eq!(names(&room, &format!("verify {path}")), expected);
    }
}

#[test]
fn a_file_that_is_no_table_is_told_as_such() {
    let room = Room::new();
    fs::write(room.path("markway"), "").unwrap();
    assert_eq!(names(&room, "verify"), ["no_header"]);
    fs::write(room.path("markway"), "x".repeat(5000)).unwrap();
    assert_eq!(names(&room, "verify"), ["magic", "layout_version"]);
}

#[test]
fn what_cannot_be_read() {
    let room = Room::new();
    assert_eq!(
        room.fails("verify"),
        "open table markway: there is no such table; make it with `shm-tool init --shm markway`"
    );
    assert_eq!(
        room.fails("verify /nowhere/at/all"),
        "read /nowhere/at/all: No such file or directory (os error 2)"
    );
    assert_eq!(room.fails("verify /dev/null"), "read /dev/null: not a regular file");
    let dir = room.dir().display().to_string();
    assert_eq!(room.fails(&format!("verify {dir}")), format!("read {dir}: not a regular file"));
    let huge = Room::new();
    let path = huge.path("huge");
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let path = path.display();
    let larger = format!("read {path}: it is larger than any table");
    assert_eq!(room.fails(&format!("verify {path}")), larger);
    let error = room.refused("verify ./x --shm markway");
    assert!(error.contains("cannot be used with"), "{error}");
}

/// A table in use is of one generation, whenever it is looked at.
#[test]
fn a_table_that_others_change_is_sound_all_the_time() {
    let room = Room::with(&["init --m 10007", "activate 1 2 3"]);
    let (done, room) = (AtomicBool::new(false), &room);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for weight in 2..60 {
                room.ok(&format!("activate 2 --weight {weight}"));
            }
            done.store(true, Relaxed);
        });
        let mut checks = 0;
        while !done.load(Relaxed) && !writer.is_finished() {
            room.ok("verify");
            checks += 1;
        }
        assert!(checks > 0);
    });
}
