//! Tables that are saved and compared.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::room::{Room, Run};

/// Where a copy goes.
fn copy_in(room: &Room) -> String {
    room.path("copy").display().to_string()
}

/// A comparison as JSON, with its exit code.
fn compare(room: &Room, line: &str) -> (Value, Option<i32>) {
    let run = room.run(&format!("compare {line} --json"));
    assert_eq!(run.stderr, "", "{run:?}");
    (serde_json::from_str(&run.stdout).unwrap(), run.code)
}

fn compare_text(room: &Room, line: &str) -> String {
    let run = room.run(&format!("compare {line}"));
    assert_eq!((run.code, &*run.stderr), (Some(1), ""), "{run:?}");
    run.stdout
}

// ---- export

#[test]
fn a_copy_shows_what_the_table_showed() {
    let (room, saved) = (Room::with(&["init --own-mark 9", "activate 101 102"]), Room::new());
    let copy = copy_in(&saved);
    assert_eq!(room.ok(&format!("export {copy}")), "");
    assert_eq!(saved.names(), ["copy"]);
    let shown = room.json("show");
    room.ok("activate 103");
    let mut of_copy = room.json(&format!("show {copy}"));
    assert_eq!(of_copy["name"].take(), json!(copy));
    of_copy["name"] = json!("markway");
    assert_eq!(of_copy, shown);
    let text = room.ok(&format!("show {copy}"));
    assert!(text.starts_with(&format!("file         {copy}\nslots (M)    997\n")), "{text}");

    // It is replaced whole.
    room.ok(&format!("export {copy}"));
    assert_eq!(room.json(&format!("show {copy}"))["generation"], 3);
    assert_eq!(saved.names(), ["copy"]);
}

#[test]
fn a_copy_on_stdout_is_the_same() {
    let (room, saved) = (Room::with(&["init", "activate 101"]), Room::new());
    room.ok(&format!("export {}", copy_in(&saved)));
    let output = room.command("export -").stderr(Stdio::inherit()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout == fs::read(saved.path("copy")).unwrap());
}

#[test]
fn what_is_not_saved_leaves_what_was_there() {
    let (room, saved) = (Room::with(&["init", "activate 101"]), Room::new());
    let own = |file: &str| room.path(file).display().to_string();
    let refused = "it would be a table in the folder of the tables";
    for path in [
        own("copy"),
        own("markway"),
        format!("{}/../{}/x", room.dir().display(), { room.dir().file_name().unwrap().display() }),
    ] {
        assert_eq!(
            room.fails(&format!("export {path}")),
            format!("save table to {path}: {refused}")
        );
    }
    for (path, cause) in [
        ("/nowhere/at/all", "No such file or directory (os error 2)"),
        ("/dev/null", "not a regular file"),
        ("/proc", "not a regular file"),
        ("..", "is a directory"),
    ] {
        assert_eq!(room.fails(&format!("export {path}")), format!("save table to {path}: {cause}"));
    }
    let copy = copy_in(&saved);
    fs::write(&copy, "precious").unwrap();
    room.edit("markway", |bytes| bytes[24] ^= 1);
    let error = room.fails(&format!("export {copy}"));
    assert!(error.contains("damaged table"), "{error}");
    assert_eq!(fs::read_to_string(copy).unwrap(), "precious");
    assert_eq!(saved.names(), ["copy"]);
}

// ---- compare

#[test]
fn equal_tables_and_their_copies() {
    let (room, saved) = (Room::with(&["init", "activate 101 102"]), Room::new());
    let copy = copy_in(&saved);
    room.ok(&format!("export {copy}"));
    room.ok("init --shm other");
    room.ok("activate --shm other 101");
    room.ok("activate --shm other 102");
    let fingerprint = room.fingerprint("markway");
    for (b, generation) in [("markway", 2), (&copy, 2), ("other", 3)] {
        let (found, code) = compare(&room, &format!("markway {b}"));
        assert_eq!(code, Some(0));
        assert_eq!(
            found,
            json!({
                "equal": true, "decide_alike": true,
                "a": {"name": "markway", "m": 997, "generation": 2, "fingerprint": fingerprint},
                "b": {"name": b, "m": 997, "generation": generation, "fingerprint": fingerprint},
                "settings": {}, "targets": [], "slots": {"differ": 0, "share": 0.0},
            })
        );
    }
    assert_eq!(
        room.ok("compare markway other"),
        format!(
            "             A                   B
table        markway             other
generation   2                   3
fingerprint  {fingerprint}  {fingerprint}

all 997 slots hold the same
equal
"
        )
    );
}

#[test]
fn every_difference_is_told() {
    let room = Room::with(&[
        "init --shm a --own-mark 4 --sctp-encap 9899",
        "activate --shm a 1 2 3",
        "activate --shm a 4 --index 7",
        "activate --shm a 6",
        "init --shm b --n 40 --seed 0x99 --sctp-hash tuple --affinity client",
        "activate --shm b 1",
        "activate --shm b 2 --weight 5",
        "activate --shm b 4 --index 9",
        "activate --shm b 5 --weight 2",
        "activate --shm b 6 --weight 3 --index 3",
    ]);
    let (found, code) = compare(&room, "a b");
    assert_eq!(code, Some(1));
    assert_eq!((&found["equal"], &found["decide_alike"]), (&json!(false), &json!(false)));
    assert_eq!(
        found["settings"],
        json!({
            "n": {"a": 32, "b": 40},
            "own_mark": {"a": 4, "b": 0},
            "seed": {"a": 0x4d57_4159, "b": 0x99},
            "sctp_hash": {"a": "ports", "b": "tuple"},
            "sctp_encap": {"a": [9899], "b": []},
            "affinity": {"a": "flow", "b": "client"},
        })
    );
    let place = |weight, index| json!({ "weight": weight, "index": index });
    assert_eq!(
        found["targets"],
        json!([
            {"mark": 2, "a": place(1, 1), "b": place(5, 1)},
            {"mark": 3, "a": place(1, 2), "b": null},
            {"mark": 4, "a": place(1, 7), "b": place(1, 9)},
            {"mark": 5, "a": null, "b": place(2, 2)},
            {"mark": 6, "a": place(1, 3), "b": place(3, 3)},
        ])
    );
    let differ = found["slots"]["differ"].as_u64().unwrap();
    assert!((200..997).contains(&differ), "{differ}");
    let share = found["slots"]["share"].as_f64().unwrap();
    assert!((share - differ as f64 / 997.0).abs() < 1e-9);

    let (a, b) = (room.fingerprint("a"), room.fingerprint("b"));
    assert_eq!(
        compare_text(&room, "a b"),
        format!(
            "             A                   B
table        a                   b
generation   4                   6
fingerprint  {a}  {b}
room (N)     32 targets          40 targets
own mark     4                   none
seed         0x4d574159          0x00000099
SCTP hash    ports               tuple
SCTP in UDP  to port 9899        none
affinity     flow                client
mark 2       weight 1            weight 5
mark 3       weight 1            -
mark 4       index 7             index 9
mark 5       -                   weight 2
mark 6       weight 1            weight 3

{differ} of 997 slots differ, {:.2} %
different
",
            100.0 * share
        )
    );
}

#[test]
fn slots_differ_as_many_as_a_dry_run_says() {
    let (room, saved) = (Room::with(&["init", "activate 101 102 103"]), Room::new());
    let copy = copy_in(&saved);
    room.ok(&format!("export {copy}"));
    let told = room.json("deactivate 102 --dry-run");
    room.ok("deactivate 102");
    let (found, code) = compare(&room, &format!("{copy} markway"));
    assert_eq!(code, Some(1));
    assert_eq!(found["slots"]["differ"], told["moved"]["slots"]);
    assert_eq!(found["a"]["fingerprint"], told["fingerprint"]["before"]);
    assert_eq!(found["b"]["fingerprint"], told["fingerprint"]["after"]);
}

#[test]
fn tables_that_decide_alike_and_tables_of_other_dimensions() {
    let room = Room::with(&[
        "init --shm a",
        "activate --shm a 1 2",
        "init --shm b --own-mark 7",
        "activate --shm b 2 --weight 4",
        "activate --shm b 1 --weight 4",
        "init --shm c --m 101",
        "activate --shm c 1 2",
    ]);
    let (found, code) = compare(&room, "a b");
    assert_eq!(code, Some(1));
    assert_eq!((&found["equal"], &found["decide_alike"]), (&json!(false), &json!(true)));
    let text = compare_text(&room, "a b");
    assert!(text.contains("\nmark 1       weight 1, index 0   weight 4, index 1\n"), "{text}");
    let end =
        "\nall 997 slots hold the same\ndifferent, but they decide about every packet alike\n";
    assert!(text.ends_with(end), "{text}");

    let (found, code) = compare(&room, "a c");
    assert_eq!((code, &found["slots"]), (Some(1), &Value::Null));
    assert_eq!(found["settings"], json!({"m": {"a": 997, "b": 101}}));
    let text = compare_text(&room, "a c");
    assert!(text.contains("\nslots (M)    997                 101\n"), "{text}");
    assert!(text.ends_with("\nslots of tables of different M cannot be compared\ndifferent\n"));
}

#[test]
fn what_cannot_be_compared_is_neither_equal_nor_different() {
    let (room, saved) =
        (Room::with(&["init", "init --shm bad", "activate --shm bad 1"]), Room::new());
    room.edit("bad", |bytes| bytes[24] ^= 1);
    let copy = copy_in(&saved);
    fs::write(&copy, "not a table").unwrap();
    for (line, expected) in [
        ("markway none".into(), "open table none: there is no such table; make it with"),
        ("none markway".into(), "open table none: there is no such table; make it with"),
        ("markway bad".into(), "open table bad: damaged table: the header does not match"),
        (format!("{copy} markway"), &*format!("read {copy}: not a Markway table")),
        ("markway /nowhere/x".into(), "read /nowhere/x: No such file or directory (os error 2)"),
        ("markway /dev/zero".into(), "read /dev/zero: not a regular file"),
    ] {
        let Run { code, stdout, stderr } = room.run(&format!("compare {line}"));
        assert_eq!((code, &*stdout), (Some(2), ""), "{line}");
        assert!(stderr.starts_with(&format!("error: {expected}")), "{line}: {stderr}");
        assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
    }
    for length in [1, 2, 3] {
        room.ok(&format!("export {copy}"));
        saved.edit("copy", |bytes| bytes.extend([0; 3][..length].iter()));
        let run = room.run(&format!("compare markway {copy}"));
        assert_eq!(run.code, Some(2));
        assert!(run.stderr.ends_with("damaged table: the file ends inside a word\n"), "{run:?}");
    }
    let error = room.refused("compare markway x.stats");
    assert!(error.contains("a file is named with a '/', such as ./FILE"), "{error}");
    room.refused("compare markway");
}

#[test]
fn the_exit_code_of_a_comparison_needs_no_reader() {
    let room = Room::with(&["init --shm a", "init --shm b", "init --shm c --seed 1"]);
    for (line, code) in [("compare a b", 0), ("compare a c", 1), ("compare a c --json", 1)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = room.command(line).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(code), 0), "{line}");
    }
    // To be unable to write is trouble, not a difference.
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let status = room.command("compare a b").stdout(full).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(2));
}
