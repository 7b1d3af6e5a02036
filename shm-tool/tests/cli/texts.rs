//! Help, version, man pages and completions.

use std::fs;

use crate::room::{Room, finish};

const VERBS: [&str; 14] = [
    "init",
    "delete",
    "activate",
    "deactivate",
    "show",
    "list",
    "lookup",
    "explain",
    "verify",
    "export",
    "compare",
    "stats",
    "completions",
    "man",
];

#[test]
fn every_help_has_examples_and_exit_codes() {
    let room = Room::new();
    let help = room.ok("--help");
    for verb in VERBS {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb}");
        let help = room.ok(&format!("{verb} --help"));
        assert!(help.contains(&format!("Examples:\n  shm-tool {verb}")), "{verb}");
        let (_, codes) = help.split_once("\nExit codes: 0 ").unwrap();
        // Lines end where the terminal does.
        let codes = codes.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(codes.contains("; 1 "), "{verb}: {codes}");
        assert!(codes.contains("; 2 "), "{verb}: {codes}");
        assert!(codes.ends_with("wrong usage."), "{verb}: {codes}");
    }
    for part in ["MARKWAY_SHM_DIR", "Examples:", "Exit codes: 0 done; 1 failed"] {
        assert!(help.contains(part), "{part}");
    }
}

#[test]
fn the_version_is_that_of_the_package() {
    let expected = format!("shm-tool {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(Room::new().ok("--version"), expected);
}

#[test]
fn there_is_a_man_page_per_verb() {
    let (room, pages) = (Room::new(), Room::new());
    room.ok(&format!("man --dir {}", pages.dir().display()));
    let mut expected: Vec<String> = VERBS.map(|verb| format!("shm-tool-{verb}.1")).into();
    expected.push("shm-tool.1".into());
    expected.sort();
    assert_eq!(pages.names(), expected);
    assert_eq!(room.ok("man"), fs::read_to_string(pages.path("shm-tool.1")).unwrap());
    let init = fs::read_to_string(pages.path("shm-tool-init.1")).unwrap();
    assert!(init.contains(".SH NAME\nshm\\-tool\\-init \\- Make a table"));

    let error = room.fails("man --dir /nowhere/at/all");
    assert_eq!(error, "write man pages to /nowhere/at/all: No such file or directory (os error 2)");
}

#[test]
fn completions_know_the_verbs_and_need_no_folder() {
    for shell in ["bash", "zsh", "fish"] {
        let mut command = Room::new().command(&format!("completions {shell}"));
        command.env("MARKWAY_SHM_DIR", "/nowhere");
        let run = finish(command);
        assert_eq!(run.code, Some(0));
        for verb in VERBS {
            assert!(run.stdout.contains(verb), "{shell}: {verb}");
        }
    }
}
