//! The analysis of saved statistics.

use std::process::{Command, Stdio};

use crate::harness::{CTRAFFIC, Server, collect, run, type_in};

/// As the Go program of the same name saves them.
const FOREIGN: &str = include_str!("foreign.json");

fn analyze(arguments: &[&str], statistics: &str) -> crate::harness::Run {
    let mut child = Command::new(CTRAFFIC)
        .args(["-stat_file", "-"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    type_in(&mut child, statistics.as_bytes());
    collect(child)
}

#[test]
fn foreign_statistics_are_analysed() {
    for (arguments, expected) in [
        (&[][..], "Time Throughput\n1.5 50\n2.5 30\n"),
        (
            &["-analyze=connections"],
            "Time Active New Failed Connecting\n\
             0.5 3 3 0 0\n1.5 3 0 0 0\n2.5 2 1 1 1\n3.5 3 0 0 0\n",
        ),
        (
            &["-analyze", "hosts"],
            "Lost connections: 1\n  vm-001 1\nLasting connections: 3\n  vm-002 2\n  vm-003 1\n",
        ),
    ] {
        let run = analyze(arguments, FOREIGN);
        assert_eq!(run.code, 0, "{run:?}");
        assert_eq!(run.stdout, expected, "{arguments:?}");
    }
}

#[test]
fn own_statistics_are_analysed_and_drawn() {
    let server = Server::start(CTRAFFIC, &["-address", "127.0.0.1:0"]);
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("stats.json");
    let traffic = run(
        CTRAFFIC,
        &[
            "-address",
            &server.at("127.0.0.1"),
            "-nconn=10",
            "-rate=100",
            "-timeout=3s",
            "-stats=all",
        ],
    );
    std::fs::write(&saved, &traffic.stdout).unwrap();
    let saved = saved.to_str().unwrap();
    let text = run(CTRAFFIC, &["-stat_file", saved, "-analyze=connections"]).stdout;
    assert_eq!(
        text,
        "Time Active New Failed Connecting\n0.5 10 10 0 0\n1.5 10 0 0 0\n2.5 10 0 0 0\n"
    );
    let text = run(CTRAFFIC, &["-stat_file", saved]).stdout;
    let rates: Vec<f64> =
        text.lines().skip(1).map(|l| l.split(' ').nth(1).unwrap().parse().unwrap()).collect();
    // Between two samples: KB of packets of 1 KB.
    let found = traffic.json();
    let samples: Vec<(f64, f64)> = found["Samples"]
        .as_array()
        .unwrap()
        .iter()
        .map(|sample| {
            (sample["Time"].as_f64().unwrap() / 1e9, sample["Received"].as_f64().unwrap())
        })
        .collect();
    assert_eq!(rates.len(), samples.len() - 1, "{text}");
    for (rate, pair) in rates.iter().zip(samples.windows(2)) {
        let expected = (pair[1].1 - pair[0].1) / (pair[1].0 - pair[0].0);
        assert!((rate - expected).abs() <= 1.0, "{text} {samples:?}");
    }
    for kind in ["throughput", "connections", "hosts"] {
        for (ending, beginning) in [("svg", &b"<svg"[..]), ("png", b"\x89PNG")] {
            let picture = folder.path().join(format!("{kind}.{ending}"));
            let drawn = run(
                CTRAFFIC,
                &["-stat_file", saved, "-analyze", kind, "-plot", picture.to_str().unwrap()],
            );
            assert_eq!((drawn.code, drawn.stdout.as_str()), (0, ""), "{drawn:?}");
            assert!(std::fs::read(picture).unwrap().starts_with(beginning));
        }
    }
}

#[test]
fn what_cannot_be_analysed_is_an_error() {
    let summary = FOREIGN.split_once(r#","ConnStats""#).unwrap().0.to_owned() + "}";
    for (arguments, statistics, complaint) in [
        (&["-analyze=bogus"][..], FOREIGN, "analyze \"bogus\": neither throughput"),
        (&[], summary.as_str(), "No samples found"),
        (&["-analyze=hosts", "-plot=x.svg"], &summary, "no connections found"),
        (&[], "", "read statistics -: EOF while parsing"),
        (&[], "{\"Started\":5}", "read statistics -: invalid type"),
        (&["-plot=x.gif"], FOREIGN, "plot x.gif: the ending is neither .svg nor .png"),
    ] {
        let run = analyze(arguments, statistics);
        assert_eq!(run.code, 1, "{arguments:?}");
        assert!(run.stderr.contains(complaint), "{run:?}");
        assert_eq!(run.stdout, "");
    }
}
