//! Command lines that are refused, and servers that are not there: a message and an exit code, in time.

use std::time::Duration;

use crate::harness::{Shm, finish};
use crate::lab::Lab;

/// Two seconds of waiting, and what a busy machine needs to start a program. The stacks' own limits are beyond it.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn wrong_arguments_are_told_with_exit_code_1() {
    let shm = Shm::new();
    shm.run("stats init").ok();
    for verb in ["server", "client", "ctraffic"] {
        for port in ["0", "x", "65536", "-1", ""] {
            let run = shm.run(&format!("{verb} --port={port}"));
            assert_eq!(run.fails(), format!("error: Invalid port [{port}]"), "{verb}");
        }
    }
    for (line, expected) in [
        ("server --addr=", "Invalid (or no) addresses []: no address"),
        ("server --addr host", "Invalid (or no) addresses [host]: [host] is not a numeric address"),
        ("client --addr ::1,x", "Invalid addresses [::1,x]: [x] is not a numeric address"),
        ("ctraffic --addr=", "Invalid addresses []: no address"),
        ("client --laddr=", "Invalid local addresses []: no address"),
        ("ctraffic --laddr ,", "Invalid local addresses [,]: [] is not a numeric address"),
        ("client --addr 127.0.0.1", "connect 127.0.0.1 port 6000: ::1 is not of its family"),
        (
            "ctraffic --addr ::1 --laddr 127.0.0.1,127.0.0.2",
            "connect ::1 port 6000: 127.0.0.1,127.0.0.2 is not of its family",
        ),
        ("ctraffic --clients 10 --lport 65530", "--lport: there are not 10 ports from 65530 on"),
    ] {
        assert_eq!(shm.run(line).fails(), format!("error: {expected}"), "{line}");
    }
    for (line, part) in [
        ("", "Usage: sctpt <COMMAND>"),
        ("hide", "unrecognized subcommand 'hide'"),
        ("client --hide", "unexpected argument '--hide'"),
        ("client x", "unexpected argument 'x'"),
        ("client --size 0", "0 is not in 1..=16384"),
        ("client --size 16385", "16385 is not in 1..=16384"),
        ("ctraffic --size 111", "not a number from 112 to 16384"),
        ("ctraffic --rate 0", "not a number from 0.001"),
        ("ctraffic --rate NaN", "not a number from 0.001"),
        ("ctraffic --clients 0", "0 is not in 1..=65536"),
        ("ctraffic --duration 0", "more than nothing is needed"),
        ("ctraffic --duration 1d", "unknown unit"),
        ("ctraffic --fail-on late", "\"late\" is none of lost, failed"),
        ("server --encap-local 0", "0 is not in 1.."),
        ("server --stack none", "possible values: auto, kernel, user"),
        ("server --log 8", "8 is not in 0..=7"),
        ("server --rto 1s,2s,3s", "initial is not between min and max"),
        ("server --nodelay maybe", "possible values: true, false"),
    ] {
        let run = shm.run(line);
        assert!(run.fails().contains(part), "{line}: {run:?}");
    }
}

#[test]
fn nobody_there_is_told_in_time() {
    let Some(lab) = Lab::new() else { return };
    let from = "--stack user --laddr 192.168.1.1,fd00:1::1";
    for (line, expected) in [
        (format!("--addr 192.168.1.9 {from}"), "connect 192.168.1.9 port 6000: "),
        (format!("--addr fd00:1::9 {from}"), "connect fd00:1::9 port 6000: "),
        (format!("--addr 10.1.1.1 {from}"), "connect 10.1.1.1 port 6000: Network is unreachable"),
        // No SCTP there at all.
        (format!("--addr 192.168.1.2 {from}"), "connect 192.168.1.2 port 6000: "),
        (
            "--stack user --addr 192.168.1.2 --laddr 192.168.1.77".to_owned(),
            "bind 192.168.1.77 port 0: Cannot assign requested address",
        ),
    ] {
        for verb in ["client", "client --size 100"] {
            let run = finish(lab.client(&format!("{verb} {line}")));
            assert!(run.fails().contains(&format!("error: {expected}")), "{line}: {run:?}");
            assert!(run.took < SOON, "{line}: {run:?}");
        }
    }
}

#[test]
fn a_port_without_a_server_is_refused() {
    let Some(lab) = Lab::new() else { return };
    let _server = lab.server("--stack user --addr 192.168.1.2");
    let to = "--stack user --addr 192.168.1.2 --laddr 192.168.1.1 --port 6001";
    let run = finish(lab.client(&format!("client {to}")));
    assert!(run.fails().contains("error: connect 192.168.1.2 port 6001: refused"), "{run:?}");
    assert!(run.took < SOON, "{run:?}");
    // The run itself comes to its end; what failed is shown, and complained about if that is asked for.
    let traffic = format!("ctraffic --init --clients 3 --duration 1 {to}");
    let run = finish(lab.client(&traffic));
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!((&run.json()["failedConnects"], &run.json()["unconnected"]), (&3.into(), &3.into()));
    let run = finish(lab.client(&format!("{traffic} --fail-on failed,lost")));
    assert_eq!(run.code, Some(3), "{run:?}");
    for complaint in ["error: 3 connects failed\n", "error: 3 clients never connected\n"] {
        assert!(run.stderr.contains(complaint), "{run:?}");
    }
}
