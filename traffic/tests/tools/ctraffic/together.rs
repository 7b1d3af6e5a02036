//! Client and server together, and the server against other programs.

use nix::sys::signal::Signal;
use traffic::process::host_name;

use crate::harness::{CTRAFFIC, Server, collect, netcat, run, send_signal, start};

#[test]
fn every_packet_is_answered() {
    let server = Server::start(CTRAFFIC, &["-udp", "-address", "[::]:0"]);
    for host in ["127.0.0.1", "[::1]"] {
        for transport in ["-udp", "-udp=false"] {
            let address = format!("{host}:{}", server.port);
            let run = run(
                CTRAFFIC,
                &[
                    transport,
                    "-address",
                    &address,
                    "-nconn=50",
                    "-rate=200",
                    "-timeout=2s",
                    "-stats=all",
                    "-fail-on=lost,failed",
                ],
            );
            assert_eq!(run.code, 0, "{run:?}");
            assert_eq!(run.stderr, "");
            let found = run.json();
            assert_eq!(found["Rate"], 200);
            assert_eq!(found["PacketSize"], 1024);
            assert_eq!(found["Sent"], found["Received"]);
            // Random beginnings take up to a packet from each connection, and what a machine with other
            // work is too late for at the end another one.
            let sent = found["Sent"].as_u64().unwrap();
            let due = sent + found["Dropped"].as_u64().unwrap();
            assert!((300..=400).contains(&due), "{due}");
            // The answers to the last packets may be a second late.
            let duration = found["Duration"].as_u64().unwrap();
            assert!((2_000_000_000..4_000_000_000).contains(&duration), "{duration}");
            let connections = found["ConnStats"].as_array().unwrap();
            assert_eq!(connections.len(), 50);
            for connection in connections {
                assert_eq!(connection["Host"], host_name().unwrap());
                assert_eq!(connection["Err"], "");
                assert_eq!(connection["Remote"], address);
                assert!(connection["Connect"].as_u64().unwrap() > 0);
                assert_eq!(connection["Ended"], duration);
            }
            // One at the beginning, one each second until the end.
            let samples = found["Samples"].as_array().unwrap();
            let last = samples.last().unwrap();
            assert!((3..=4).contains(&samples.len()), "{samples:?}");
            assert_eq!((&last["Time"], &last["Received"]), (&duration.into(), &sent.into()));
        }
    }
}

#[test]
fn packets_of_any_size_go_through() {
    let server = Server::start(CTRAFFIC, &["-udp", "-address", "127.0.0.1:0"]);
    let address = server.at("127.0.0.1");
    for (transport, size, rate) in [
        ("-udp=false", "1", "10"),
        ("-udp=false", "65507", "2000"),
        ("-udp", "1", "10"),
        ("-udp", "65507", "2000"),
    ] {
        let run = run(
            CTRAFFIC,
            &[
                transport,
                "-address",
                &address,
                "-psize",
                size,
                "-rate",
                rate,
                "-timeout=1s",
                "-window=4",
                "-fail-on=lost,failed",
            ],
        );
        assert_eq!(run.code, 0, "{transport} {size}: {run:?}");
        assert!(run.json()["Received"].as_u64().unwrap() > 10, "{run:?}");
    }
}

/// Enough for both directions to fill their buffers: packets go in parts.
#[test]
fn a_full_stream_loses_nothing() {
    let server = Server::start(CTRAFFIC, &["-address", "127.0.0.1:0"]);
    let run = run(
        CTRAFFIC,
        &[
            "-address",
            &server.at("127.0.0.1"),
            "-psize=65000",
            "-window=200",
            "-rate=1e6",
            "-timeout=1s",
            "-fail-on=lost,failed",
        ],
    );
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.json()["Received"].as_u64().unwrap() > 200, "{run:?}");
}

#[test]
fn a_signal_ends_the_client_with_its_statistics() {
    let server = Server::start(CTRAFFIC, &["-udp", "-address", "127.0.0.1:0"]);
    let address = server.at("127.0.0.1");
    for (transport, signal) in [("-udp", Signal::SIGTERM), ("-udp=false", Signal::SIGINT)] {
        let mut client = start(
            CTRAFFIC,
            &[
                transport,
                "-address",
                &address,
                "-timeout=1h",
                "-rate=1000",
                "-monitor",
                "-fail-on=lost,failed",
            ],
        );
        // Not before it has sent something.
        let lines = crate::harness::lines_of(client.stderr.take().unwrap());
        let line = lines.recv_timeout(crate::harness::PATIENCE).unwrap();
        let counts = line
            .strip_prefix("Conn act/fail/connecting: 1/0/0, Packets send/rec/dropped: ")
            .unwrap_or_else(|| panic!("{line}"));
        let told: u64 = counts.split('/').next().unwrap().parse().unwrap();
        send_signal(&client, signal);
        let run = collect(client);
        assert_eq!(run.code, 0, "{run:?}");
        let found = run.json();
        assert!(told > 0 && found["Sent"].as_u64().unwrap() >= told, "{line}: {run:?}");
        assert_eq!(found["Sent"], found["Received"]);
    }
}

/// The stream's first 64 bytes come back with the name, the others as they are.
#[test]
fn netcat_is_served() {
    let server = Server::start(CTRAFFIC, &["-udp", "-address", "127.0.0.1:0"]);
    let port = server.port.to_string();
    let name = host_name().unwrap();
    let question = [vec![b'.'; 64], b"and more".to_vec()].concat();
    let mut expected = question.clone();
    expected[..name.len()].copy_from_slice(name.as_bytes());
    for arguments in [&["-N", "-w5"][..], &["-u", "-w1"]] {
        let run = netcat(arguments, &port, &question);
        assert_eq!(run.stdout.as_bytes(), expected, "{arguments:?}");
    }
}

#[test]
fn ten_thousand_connections_stand_in_one_process() {
    let server = Server::start(CTRAFFIC, &["-address", "127.0.0.1:0"]);
    let run = run(
        CTRAFFIC,
        &["-address", &server.at("127.0.0.1"), "-nconn=10000", "-rate=2000", "-timeout=4s"],
    );
    if run.stderr.contains("files may be open") {
        eprintln!("skipped: {}", run.stderr);
        return;
    }
    let found = run.json();
    assert_eq!(found["FailedConnections"], 0, "{}", run.stderr);
    assert!(found["Received"].as_u64().unwrap() > 0);
    assert_eq!(found["Lost"], 0);
}
