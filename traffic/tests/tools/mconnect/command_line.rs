//! The command line.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::harness::{MCONNECT, Server, collect, run};

#[test]
fn usage_and_version() {
    let nothing = run(MCONNECT, &[]);
    assert_eq!((nothing.code, nothing.stdout.as_str()), (0, ""));
    assert!(nothing.stderr.starts_with("Usage: mconnect "));
    for flag in ["-help", "-h", "--help"] {
        let help = run(MCONNECT, &[flag]);
        assert_eq!((help.code, help.stderr.as_str()), (0, ""));
        assert_eq!(help.stdout, nothing.stderr);
    }
    let version = run(MCONNECT, &["-version"]);
    assert_eq!(version.code, 0);
    assert_eq!(version.stdout, format!("{}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_bad_command_line_is_refused() {
    for (code, arguments, complaint) in [
        (2, &["-bogus"][..], "unknown flag: -bogus"),
        (2, &["-nconn"], "flag -nconn: needs a value"),
        (2, &["-nconn=-1"], "flag -nconn: bad value \"-1\""),
        (2, &["-maxconcurrent=0"], "flag -maxconcurrent: bad value"),
        (2, &["-timeout=5"], "flag -timeout: bad value \"5\": no unit"),
        (2, &["-output=xml"], "flag -output: bad value \"xml\""),
        (2, &["-udp", "yes"], "unexpected argument: \"yes\""),
        (2, &["-srccidr=10.0.0.0/33"], "flag -srccidr: bad value \"10.0.0.0/33\""),
        (1, &["-address=10.0.0.1"], "address \"10.0.0.1\": not of"),
        (1, &["-address=[::1]:x"], "address \"[::1]:x\": \"x\" is not"),
        (
            1,
            &["-address=[::1]:5001", "-srccidr=10.0.0.0/8"],
            "not of the family of the source addresses 10.0.0.0/8",
        ),
        (1, &["-server", "-address=5001"], "address \"5001\": not of"),
        (1, &["-keep", "-nconn=4294967295"], "keep 4294967295 connections: only "),
        (
            1,
            &["-server", "-address=192.0.2.1:5001"],
            "listen on 192.0.2.1:5001: Cannot assign requested address",
        ),
    ] {
        let run = run(MCONNECT, arguments);
        assert_eq!(run.code, code, "{arguments:?}: {run:?}");
        assert!(run.stderr.contains(complaint), "{arguments:?}: {run:?}");
        assert!(run.stderr.starts_with("mconnect: "));
        assert_eq!(run.stdout, "");
    }
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let server = Server::start(MCONNECT, &["-address", "127.0.0.1:0"]);
    for arguments in [vec!["-address".to_owned(), server.at("127.0.0.1")], vec!["-help".to_owned()]]
    {
        let child = Command::new(MCONNECT)
            .args(&arguments)
            .stdout(File::options().write(true).open("/dev/full").unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let run = collect(child);
        assert_eq!(run.code, 1, "{run:?}");
        assert!(run.stderr.contains("No space left on device"), "{run:?}");
    }
}

#[test]
fn the_dead_flag_of_the_original_is_accepted() {
    let server = Server::start(MCONNECT, &["-address", "127.0.0.1:0"]);
    let run = run(MCONNECT, &["-k8sprobe", "x", "-address", &server.at("127.0.0.1")]);
    assert_eq!(run.code, 0, "{run:?}");
}
