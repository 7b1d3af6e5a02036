//! What a change would do, told without doing it.

use serde_json::{Value, json};

use crate::room::Room;

/// What a dry run says is what the change then does.
fn foretells(room: &Room, line: &str) -> Value {
    let before = (room.files(), room.json("show"));
    let told = room.json(&format!("{line} --dry-run"));
    assert!(room.files() == before.0, "{line}: a file has changed");
    room.ok(line);
    let (before, after) = (before.1, room.json("show"));

    assert_eq!(told["m"], after["m"]);
    for key in ["generation", "fingerprint"] {
        assert_eq!(told[key], json!({ "before": before[key], "after": after[key] }), "{line}");
    }
    for (side, shown) in [("before", before), ("after", after)] {
        let mut shown: Vec<Value> = shown["targets"].as_array().unwrap().clone();
        shown.sort_by_key(|target| target["mark"].as_u64());
        let told: Vec<Value> = told["targets"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|target| !target[side].is_null())
            .map(|target| {
                let mut share = target[side].clone();
                share["mark"] = target["mark"].clone();
                share
            })
            .collect();
        assert_eq!(told, shown, "{line}: {side}");
    }
    told
}

/// From whom, to whom, how many slots.
type Move = (Option<u64>, Option<u64>, u64);

fn moves(told: &Value) -> Vec<Move> {
    let moves = told["moves"].as_array().unwrap().iter();
    moves
        .map(|moved| {
            (moved["from"].as_u64(), moved["to"].as_u64(), moved["slots"].as_u64().unwrap())
        })
        .collect()
}

#[test]
fn what_is_told_is_what_happens() {
    let room = Room::with(&["init"]);
    for line in [
        "activate 101 102 103",
        "activate 104 --weight 3",
        "activate 102 --weight 2",
        "activate 101 --index 9",
        "activate 105 --index 9",
        "activate 105 --weight 0",
        "deactivate 104",
        "deactivate --index 2",
        "deactivate 105",
        "deactivate 102",
    ] {
        let told = foretells(&room, line);
        let number = |key: &str| told[key]["slots"].as_u64().unwrap();
        let moved: u64 = moves(&told).iter().map(|(_, _, slots)| slots).sum();
        assert_eq!(number("moved"), moved, "{line}");
        assert_eq!(number("needed") + number("needless"), moved, "{line}");
        // To replace a target is to take one away and to add one.
        let changes = if line == "activate 105 --index 9" { 3 } else { 1 };
        assert!(number("needless") < 50 * changes, "{line}: {told}");
        for part in ["moved", "needed", "needless"] {
            let share = told[part]["share"].as_f64().unwrap();
            let slots = told[part]["slots"].as_f64().unwrap();
            assert!((share - slots / 997.0).abs() < 1e-9, "{line}: {part}");
        }
        // Who gives and who takes explains every change of a share.
        for target in told["targets"].as_array().unwrap() {
            let held = |side: &str| target[side]["slots"].as_u64().unwrap_or(0);
            let mark = target["mark"].as_u64();
            let sum = |of: fn(&Move) -> Option<u64>| -> u64 {
                let all = moves(&told);
                all.iter().filter(|moved| of(moved) == mark).map(|moved| moved.2).sum()
            };
            assert_eq!(held("before") + sum(|m| m.1), held("after") + sum(|m| m.0), "{line}");
        }
    }
}

#[test]
fn an_empty_table_gives_all_and_takes_all() {
    let room = Room::with(&["init"]);
    let told = foretells(&room, "activate 7");
    assert_eq!(moves(&told), [(None, Some(7), 997)]);
    assert_eq!(told["needed"], json!({ "slots": 997, "share": 1.0 }));
    let told = foretells(&room, "deactivate 7");
    assert_eq!(moves(&told), [(Some(7), None, 997)]);
    assert_eq!(told["targets"][0]["after"], Value::Null);
}

#[test]
fn the_text_is_aligned_and_says_that_nothing_was_changed() {
    let room = Room::with(&["init", "activate 7"]);
    let (before, after) = {
        let told = room.json("activate 8 --weight 0 --dry-run");
        let of = |side: &str| told["fingerprint"][side].as_str().unwrap().to_string();
        (of("before"), of("after"))
    };
    assert_eq!(
        room.ok("activate 8 --weight 0 --dry-run"),
        format!(
            "\
dry run: nothing was changed

moved        0 of 997 slots, 0.00 %
needed       0 of 997 slots, 0.00 %
needless     0 of 997 slots, 0.00 %
generation   2 -> 3
fingerprint  {before} -> {after}

mark  weight  slots     share  ->  weight  slots     share
   7       1    997  100.00 %  ->       1    997  100.00 %
   8       -      -         -  ->       0      0    0.00 %
"
        )
    );
    let text = room.ok("activate 9 --index 0 --dry-run");
    assert!(text.contains("\nneeded       997 of 997 slots, 100.00 %\n"), "{text}");
    assert!(text.contains("\nfrom  to  slots     share\n   7   9    997  100.00 %\n"), "{text}");
    assert!(text.ends_with("   9       -      -         -  ->       1    997  100.00 %\n"));
}

#[test]
fn a_change_that_changes_nothing_is_told_as_such() {
    let room = Room::with(&["init", "activate 7 8"]);
    let told = room.json("activate 8 7 --dry-run");
    assert_eq!(told["generation"], json!({ "before": 2, "after": 2 }));
    assert_eq!(told["moves"], json!([]));
}

#[test]
fn what_would_fail_fails() {
    let room = Room::with(&["init --n 2", "activate 7 8"]);
    for (line, part) in [
        ("activate 9", "change table markway: the table is full"),
        ("activate 9 --index 2", "index 2 is out of range"),
        ("deactivate 7 9", "no target has mark 9"),
        ("deactivate --index 5", "index 5 is out of range"),
    ] {
        let error = room.fails(&format!("{line} --dry-run"));
        assert!(error.contains(part), "{error}");
        assert_eq!(error, room.fails(&format!("{line} --dry-run --json")));
        assert_eq!(error, room.fails(line));
    }
    let error = room.refused("activate 9 --json");
    assert!(error.contains("--dry-run"), "{error}");
}
