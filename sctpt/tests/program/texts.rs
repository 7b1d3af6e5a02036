//! Help, version, man pages and completions.

use std::fs;

use crate::harness::Shm;

const VERBS: [&str; 6] = ["server", "client", "ctraffic", "stats", "completions", "man"];

#[test]
fn every_help_has_examples_and_exit_codes() {
    let shm = Shm::new();
    let help = shm.run("--help").ok();
    for verb in VERBS {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb}");
        let run = shm.run(&format!("{verb} --help"));
        assert_eq!(run.stderr, "");
        let help = run.ok();
        assert!(help.contains("Examples:\n  "), "{verb}");
        assert!(help.contains("\nExit codes: 0 "), "{verb}");
    }
}

#[test]
fn defaults_are_told_as_they_are() {
    let help = Shm::new().run("ctraffic --help").ok();
    for part in ["[default: 100.0]", "[default: 10]", "[default: 6000]", "[default: sctpstats]"] {
        assert!(help.contains(part), "{part} in {help}");
    }
}

#[test]
fn the_version_is_that_of_the_package() {
    let expected = format!("sctpt {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(Shm::new().run("--version").ok(), expected);
}

#[test]
fn there_is_a_man_page_per_verb() {
    let (shm, pages) = (Shm::new(), tempfile::tempdir().unwrap());
    shm.run(&format!("man --dir {}", pages.path().display())).ok();
    for verb in VERBS {
        let page = fs::read_to_string(pages.path().join(format!("sctpt-{verb}.1"))).unwrap();
        assert!(page.contains(".SH OPTIONS"), "{verb}");
    }
    let page = fs::read_to_string(pages.path().join("sctpt.1")).unwrap();
    assert_eq!(shm.run("man").ok(), page);
    let run = shm.run("man --dir /nowhere/at/all");
    let expected =
        "error: write man pages to /nowhere/at/all: No such file or directory (os error 2)";
    assert_eq!(run.fails(), expected);
}

#[test]
fn completions_know_verbs_and_options() {
    for shell in ["bash", "zsh", "fish"] {
        let script = Shm::new().run(&format!("completions {shell}")).ok();
        for word in VERBS.iter().chain(&["fail-on", "encap-remote"]) {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}
