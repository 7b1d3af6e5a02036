//! What goes wrong: the exit code, one line that says why, and everything as before.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use crate::room::{Room, SHM_TOOL, finish};

/// Every verb that needs a table.
const NEED_A_TABLE: [&str; 13] = [
    "delete",
    "activate 1",
    "deactivate 101",
    "deactivate --index 0",
    "show",
    "show --json",
    "lookup --src 10.0.0.1:1 --dst 10.0.0.2:2",
    "lookup --src 10.0.0.1:1 --dst 10.0.0.2:2 --json",
    "activate 1 --dry-run",
    "deactivate 101 --dry-run",
    "export -",
    "explain --src 10.0.0.1:1 --dst 10.0.0.2:2",
    "explain --hex 45",
];

/// What a verb does to a table, as its errors name it.
fn operation(line: &str) -> &'static str {
    match line.split(' ').next().unwrap() {
        _ if line.contains("--dry-run") => "open table markway",
        "delete" => "delete table markway",
        "activate" | "deactivate" => "change table markway",
        _ => "open table markway",
    }
}

#[test]
fn a_missing_table() {
    let room = Room::new();
    for line in NEED_A_TABLE {
        assert_eq!(
            room.fails(line),
            format!(
                "{}: there is no such table; make it with `shm-tool init --shm markway`",
                operation(line)
            )
        );
    }
}

#[test]
fn a_full_table_takes_all_marks_or_none() {
    let room = Room::with(&["init --n 3", "activate 1 2"]);
    assert_eq!(
        room.fails("activate 3 4"),
        "change table markway: the table is full: all 3 indexes hold a target; \
         make room with `deactivate`, or a larger table with `init --keep --n N`"
    );
    room.ok("activate 3 1 2");
    room.fails("activate 4");
    // A present mark needs no room.
    room.ok("activate 3 --weight 2");
}

#[test]
fn an_unknown_mark_takes_nothing_away() {
    let room = Room::with(&["init", "activate 1 2 3"]);
    assert_eq!(
        room.fails("deactivate 1 9 2"),
        "change table markway: no target has mark 9; `show` lists the targets"
    );
    assert_eq!(
        room.fails("deactivate --index 3"),
        "change table markway: index 3 holds no target; `show` lists the targets"
    );
}

#[test]
fn an_index_out_of_range() {
    let room = Room::with(&["init --n 4", "activate 1"]);
    for line in ["activate 1 --index 4", "deactivate --index 4"] {
        assert_eq!(
            room.fails(line),
            "change table markway: index 4 is out of range: the table has indexes 0 to 3; \
             a larger table is made with `init --keep --n N`"
        );
    }
}

#[test]
fn init_over_targets_needs_a_word() {
    let room = Room::with(&["init", "activate 1 2 3"]);
    assert_eq!(
        room.fails("init --n 64"),
        "init table markway: the table has targets (3); \
         --keep carries them over, --force drops them"
    );
    assert_eq!(
        room.fails("init --keep --n 2"),
        "init table markway: mark 3 has index 2, beyond the new table's indexes 0 to 1; \
         give it a lower index first, with `activate MARK --index I`"
    );
}

#[test]
fn impossible_dimensions() {
    for room in [Room::new(), Room::with(&["init", "activate 1"])] {
        for (line, cause) in [
            ("init --m 2", "M = 2 is out of range: 3 to 16777216"),
            ("init --m 0", "M = 0 is out of range: 3 to 16777216"),
            ("init --m 16777217", "M = 16777217 is out of range: 3 to 16777216"),
            ("init --n 0", "N = 0 is out of range: 1 to 4096"),
            ("init --n 4097 --m 65537", "N = 4097 is out of range: 1 to 4096"),
            ("init --n 998", "N = 998 is larger than M = 997"),
        ] {
            let expected = format!("init table markway: {cause}");
            assert_eq!(room.fails(line), expected);
            assert_eq!(room.fails(&format!("{line} --force")), expected);
        }
    }
    // The error speaks of the M that was taken, so that is said as well.
    let run = Room::new().run("init --m 10 --n 8");
    assert_eq!(run.code, Some(1));
    assert_eq!(run.stdout, "M adjusted: 10 -> 7\n");
    assert_eq!(run.stderr, "error: init table markway: N = 8 is larger than M = 7\n");
}

// ---- Files that are not sound

#[test]
fn a_damaged_header() {
    let advice = "make it anew with `init --force`";
    let damaged = "damaged table: the header does not match its check word";
    for byte in [16, 24, 32, 40, 48, 56, 64, 72] {
        let room = Room::with(&["init", "activate 101"]);
        room.edit("markway", |bytes| bytes[byte] ^= 0x80);
        for line in NEED_A_TABLE.iter().filter(|line| **line != "delete") {
            let expected = format!("{}: {damaged}; {advice}", operation(line));
            assert_eq!(room.fails(line), expected);
        }
        for line in ["init", "init --keep"] {
            let expected = format!("init table markway: {damaged}; {advice}");
            assert_eq!(room.fails(line), expected);
        }
        room.ok("init --force");
        assert_eq!(room.targets("markway"), []);
    }
}

#[test]
fn damaged_slots() {
    let room = Room::with(&["init", "activate 101"]);
    // In the buffer in force: the first follows the header, the second is in force after two publications.
    room.edit("markway", |bytes| bytes[4096 + 2 * 4 + 32 * 8 + 4 * 10] ^= 1);
    for line in NEED_A_TABLE.iter().filter(|line| **line != "delete") {
        let operation = match operation(line) {
            "open table markway" => "read table markway",
            other => other,
        };
        assert_eq!(
            room.fails(line),
            format!(
                "{operation}: damaged table: the slots do not match the fingerprint; \
                 make it anew with `init --force`"
            )
        );
    }
    room.fails("init --keep");
    room.ok("delete");
    assert_eq!(room.names(), [""; 0]);
}

#[test]
fn a_truncated_table() {
    for len in [4096, 4100, 8192, 12_287] {
        let room = Room::with(&["init", "activate 101"]);
        room.edit("markway", |bytes| bytes.truncate(len));
        for line in NEED_A_TABLE.iter().filter(|line| **line != "delete") {
            let error = room.fails(line);
            let expected = format!(
                "{}: damaged table: the length of the file does not match its dimensions; \
                 make it anew with `init --force`",
                operation(line)
            );
            assert_eq!(error, expected, "{len}");
        }
        room.ok("init --force");
    }
    let room = Room::with(&["init"]);
    room.edit("markway", |bytes| bytes.extend([0; 4]));
    assert!(room.fails("show").contains("the length of the file"));
}

#[test]
fn a_table_of_another_layout_version() {
    let room = Room::with(&["init", "activate 101"]);
    room.edit("markway", |bytes| bytes[8] = 200);
    for line in NEED_A_TABLE.iter().filter(|line| **line != "delete") {
        assert_eq!(
            room.fails(line),
            format!(
                "{}: layout version 200, this program reads version 1; use programs of one \
                 release, or make the table anew with `init --force`",
                operation(line)
            )
        );
    }
    room.fails("init");
    room.fails("init --keep");
    room.ok("init --force");
    assert_eq!(room.targets("markway"), []);
}

#[test]
fn a_file_that_is_no_table_is_nobody_elses_to_replace() {
    let room = Room::new();
    for content in [vec![], b"MARKWAY".to_vec(), vec![0; 12_288]] {
        fs::write(room.path("markway"), content).unwrap();
        for line in NEED_A_TABLE {
            assert_eq!(
                room.fails(line),
                format!(
                    "{}: not a Markway table; take another name, or remove that file yourself",
                    operation(line)
                )
            );
        }
        for line in ["init", "init --keep", "init --force"] {
            let error = room.fails(line);
            assert!(error.starts_with("init table markway: not a Markway table; "));
        }
    }
    fs::remove_file(room.path("markway")).unwrap();
    fs::create_dir(room.path("markway")).unwrap();
    for line in NEED_A_TABLE.iter().chain(&["init --force"]) {
        let run = room.run(line);
        assert_eq!(run.code, Some(1), "{run:?}");
        assert!(run.stderr.starts_with("error: "), "{run:?}");
    }
}

// ---- The command line

#[test]
fn wrong_usage_is_told_apart() {
    let room = Room::with(&["init", "activate 101 102"]);
    for (line, part) in [
        ("", "Usage: shm-tool <COMMAND>"),
        ("frobnicate", "unrecognized subcommand 'frobnicate'"),
        ("activate", "<MARK>..."),
        ("activate x", "'x' for '<MARK>...': not a number of 32 bits"),
        ("activate 4294967296", "not a number of 32 bits"),
        ("activate 0xffffffff", "no mark: it stands for an empty slot"),
        ("activate -1", "unexpected argument '-1'"),
        ("activate 1 --weight 65536", "65536 is not in 0..=65535"),
        ("activate 1 2 --index 3", "--index is for one mark only"),
        ("deactivate", "<MARK>..."),
        ("deactivate 101 --index 0", "cannot be used with"),
        ("init --keep --force", "cannot be used with"),
        ("init --m many", "'many' for '--m <M>'"),
        ("init --seed 0x100000000", "'0x100000000' for '--seed <SEED>'"),
        ("init --sctp-hash addresses", "[possible values: ports, tuple]"),
        ("init --affinity host", "[possible values: flow, client]"),
        ("init --sctp-encap 1,2,3", "not one or two ports"),
        ("init --own-mark 0xffffffff", "it stands for an empty slot"),
        ("lookup --src 10.0.0.1:1", "--dst <A:P>"),
        ("lookup --src 10.0.0.1 --dst 10.0.0.2:2", "not of the form ADDRESS:PORT or [IPV6]:PORT"),
        ("lookup --src 10.0.0.1:1 --dst 1000::1:80", "not of the form"),
        ("lookup --src 10.0.0.1:1 --dst 10.0.0.2:65536", "not of the form"),
        (
            "lookup --src 10.0.0.1:1 --dst [1000::1]:80",
            "--src and --dst are of different families: one is IPv4, the other IPv6",
        ),
        (
            "lookup --src 10.0.0.1:1 --dst 10.0.0.2:2 --proto icmp",
            "[possible values: tcp, udp, sctp]",
        ),
        ("stats --watch 0", "not a number of seconds from 0.1 to 86400"),
        ("stats --watch nan", "not a number of seconds"),
        ("completions csh", "[possible values: bash,"),
    ] {
        let run = room.run(line);
        assert_eq!(run.code, Some(2), "{line}: {run:?}");
        assert!(run.stderr.contains(part), "{line}: {run:?}");
        assert_eq!(run.stdout, "", "{line}");
    }
}

#[test]
fn names_never_leave_the_folder() {
    let room = Room::with(&["init"]);
    let long = "x".repeat(201);
    for name in ["a/b", "/etc/passwd", "..", ".", ".x", "a.stats", "é", &long] {
        for line in NEED_A_TABLE.iter().chain(&["init", "stats"]) {
            let error = room.refused(&format!("{line} --shm {name}"));
            assert!(error.contains("is not a name: 1 to 200 letters"), "{error}");
        }
        room.refused(&format!("stats --instance {name}"));
    }
}

// ---- The system

#[test]
fn a_folder_that_is_not_there_is_named() {
    let room = Room::new();
    for line in NEED_A_TABLE.iter().chain(&["init", "list", "stats", "verify"]) {
        let mut command = room.command(line);
        command.env("MARKWAY_SHM_DIR", "/nowhere/at/all");
        let run = finish(command);
        assert_eq!(run.code, Some(1), "{run:?}");
        assert_eq!(
            run.stderr,
            "error: open folder /nowhere/at/all: No such file or directory (os error 2); \
             MARKWAY_SHM_DIR names the folder of the tables\n"
        );
    }
}

#[test]
fn nobody_reading_is_no_error_and_no_panic() {
    let room = Room::with(&["init", "activate 101"]);
    for line in [
        "show",
        "show --json",
        "list",
        "lookup --src 10.0.0.1:1 --dst 10.0.0.2:2",
        "explain --hex 45",
        "activate 9 --dry-run",
        "verify",
        "export -",
        "completions bash",
        "man",
        "--help",
        "activate 102 --index 0",
        "init --keep --m 1000",
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = room.command(line).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*stderr), (Some(0), ""), "{line}");
    }
    // What there was to do was done.
    assert_eq!(room.targets("markway"), [(0, 102, 1)]);
    assert_eq!(room.generation("markway"), 4);
}

#[test]
fn a_full_disk_behind_stdout_is_told() {
    let room = Room::with(&["init"]);
    let mut command = room.command("show");
    let full = File::options().write(true).open("/dev/full").unwrap();
    let child = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "error: write to stdout: No space left on device (os error 28)\n"
    );
}

/// Without reserving its memory the first store would kill the process.
#[test]
fn a_table_without_room_in_memory_is_told_and_leaves_nothing() {
    let room = Room::new();
    let in_small_folder = |script: &str| {
        let mut command = Command::new("unshare");
        command
            .args(["--map-root-user", "--mount", "sh", "-ec", script])
            .args([SHM_TOOL.as_ref(), room.dir()])
            .env("MARKWAY_SHM_DIR", room.dir());
        finish(command)
    };
    if in_small_folder("mount -t tmpfs -o size=256k none $1").code != Some(0) {
        eprintln!("skipped: this user may not mount a small folder");
        return;
    }
    let run = in_small_folder(
        "mount -t tmpfs -o size=256k none $1
        $0 init && $0 activate 101
        $0 init --keep --m 1000003 || echo exit code $?
        $0 init --shm large --m 65537 || echo exit code $?
        ls -A $1
        $0 activate 102
        $0 show --json",
    );
    assert_eq!(
        run.stderr,
        "error: init table markway: No space left on device (os error 28)\n\
         error: init table large: No space left on device (os error 28)\n"
    );
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines[..3], ["exit code 1", "exit code 1", "markway"]);
    assert!(lines[3].contains(r#""m":997"#) && lines[3].contains(r#""mark":102"#));
}
