//! Statistics in shared memory, without traffic.

use std::fs;

use nix::sys::signal::Signal;

use crate::harness::{Running, Shm, number};

#[test]
fn init_makes_what_old_readers_know() {
    let shm = Shm::new();
    assert_eq!(shm.run("stats init --buckets 3 --interval 500").ok(), "");
    let bytes = fs::read(shm.path("sctpstats")).unwrap();
    // Three counters, buckets, interval, three buckets, in 32 bits each.
    let words: Vec<_> =
        [0u32, 0, 0, 3, 500, 0, 0, 0].iter().flat_map(|w| w.to_ne_bytes()).collect();
    assert_eq!(bytes[..32], words);
    assert_eq!(bytes[32..40], *b"MkSctpt\x01");
    let json = shm.run("stats json").json();
    assert_eq!((number(&json, "nBuckets"), number(&json, "interval")), (3, 500));
    // The default, in the place of the old ones.
    shm.run("stats init").ok();
    let json = shm.run("stats json").json();
    assert_eq!((number(&json, "nBuckets"), number(&json, "interval")), (16, 1000));
}

#[test]
fn show_is_the_default_and_names_are_free() {
    let shm = Shm::new();
    shm.run("stats --shm /other init --buckets 2").ok();
    let shown = shm.run("stats --shm other").ok();
    assert!(shown.starts_with(
        "Sent:     0\nReceived: 0\nMaxRTT:   0\nInterval: 1000\n     0 |\n     0 |\n"
    ));
    assert_eq!(shown, shm.run("stats show --sh other").ok());
}

#[test]
fn clear_keeps_interval_and_buckets_and_sets_counters_to_zero() {
    let shm = Shm::new();
    shm.run("stats init --buckets 3 --interval 500").ok();
    let path = shm.path("sctpstats");
    let empty = fs::read(&path).unwrap();
    let mut bytes = empty.clone();
    bytes[..12].fill(7);
    bytes[20..32].fill(7);
    bytes[48..].fill(7);
    fs::write(&path, &bytes).unwrap();
    shm.run("stats clear").ok();
    assert!(fs::read(&path).unwrap() == empty);
    shm.run("stats clear --interval 700").ok();
    let json = shm.run("stats json").json();
    assert_eq!((number(&json, "nBuckets"), number(&json, "interval")), (3, 700));
}

#[test]
fn every_error_is_told() {
    let shm = Shm::new();
    fs::write(shm.path("foreign"), "something else").unwrap();
    fs::write(shm.path("older"), [0u32, 0, 0, 1, 1000, 0].map(u32::to_ne_bytes).concat()).unwrap();
    fs::create_dir(shm.path("folder")).unwrap();
    std::os::unix::fs::symlink("/dev/null", shm.path("link")).unwrap();
    shm.run("stats init --shm newer").ok();
    let mut newer = fs::read(shm.path("newer")).unwrap();
    let at = newer.windows(8).position(|bytes| bytes == b"MkSctpt\x01").unwrap();
    newer[at + 7] = 2;
    fs::write(shm.path("newer"), newer).unwrap();
    for (line, expected) in [
        ("stats hide", "error: Invalid command: hide"),
        ("stats init --buckets 0", "error: Too few buckets"),
        ("stats init --buckets -1", "error: Too few buckets"),
        ("stats init --buckets 70000", "error: Too many buckets (at most 65536)"),
        ("stats init --interval 0", "error: Too small interval"),
        ("stats init --interval=-5", "error: Too small interval"),
        ("stats show --buckets 5", "error: stats show: it takes no --buckets"),
        ("stats json --interval 5", "error: stats json: it takes no --interval"),
        ("stats clear --refresh 5", "error: stats clear: it takes no --refresh"),
        ("stats --shm a/b", "error: Invalid shm [a/b]"),
        (
            "stats",
            "error: FAILED mapSharedData: sctpstats: No such file or directory (os error 2); make it with `sctpt stats init`",
        ),
        (
            "stats clear --shm foreign",
            "error: FAILED mapSharedData: foreign: 14 bytes are no statistics; make it anew with `sctpt stats init`",
        ),
        (
            "stats json --shm older",
            "error: FAILED mapSharedData: older: made by the C program, which counts less; make it anew with `sctpt stats init`",
        ),
        (
            "ctraffic --shm newer",
            "error: FAILED mapSharedData: newer: made by another version of sctpt; make it anew with `sctpt stats init`",
        ),
        ("stats watch --shm folder", "error: FAILED mapSharedData: folder: not a file"),
        (
            "stats --shm link",
            "error: FAILED mapSharedData: link: Too many levels of symbolic links (os error 40)",
        ),
    ] {
        assert_eq!(shm.run(line).fails(), expected, "{line}");
    }
    assert!(shm.run("stats --refresh 0 watch").fails().contains("more than nothing is needed"));
}

#[test]
fn watch_shows_again_and_again_until_a_signal() {
    let shm = Shm::new();
    shm.run("stats init").ok();
    let mut watch = Running::start(&mut shm.command("stats watch --refresh 20ms"));
    let lines = watch.stdout();
    lines.until("Sent:     0");
    let path = shm.path("sctpstats");
    let mut bytes = fs::read(&path).unwrap();
    let counters = bytes.windows(8).position(|bytes| bytes == b"MkSctpt\x01").unwrap() + 16;
    bytes[counters] = 42;
    fs::write(&path, bytes).unwrap();
    lines.until("Sent:     42");
    // What `init` puts in their place is shown, too.
    shm.run("stats init --interval 77").ok();
    lines.until("Interval: 77");
    watch.signal(Signal::SIGINT);
    let run = watch.end();
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
}
