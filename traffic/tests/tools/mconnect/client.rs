//! The client alone, against servers that the tests play.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Child;

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};
use traffic::process::host_name;

use crate::harness::{MCONNECT, PATIENCE, Server, collect, run, send_signal, start};

/// A client of a server that the test plays.
fn ask_tcp(options: &[&str]) -> (TcpListener, Child) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client = start(MCONNECT, &[&["-address", &address], options].concat());
    (listener, client)
}

/// The same over UDP.
fn ask_udp(options: &[&str]) -> (UdpSocket, Child) {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = server.local_addr().unwrap().to_string();
    let client = start(MCONNECT, &[&["-udp", "-address", &address], options].concat());
    (server, client)
}

#[test]
fn a_refused_connection_is_counted_and_explained() {
    // Both ports are taken and yet nobody answers there: a socket that does not
    // listen, and one that hears its peer alone.
    let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    deaf.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let tcp = deaf.local_addr().unwrap().as_socket().unwrap();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    taken.connect("127.0.0.1:9").unwrap();
    let udp = taken.local_addr().unwrap();
    for (transport, target, counter, verb) in [
        ("-udp=false", tcp, "failed_connects", "connect to"),
        ("-udp", udp, "failed_reads", "read from"),
    ] {
        let target = target.to_string();
        let run = run(MCONNECT, &[transport, "-address", &target, "-nconn=7", "-output=json"]);
        assert_eq!(run.code, 1);
        let report = run.json();
        assert_eq!(report[counter], 7, "{run:?}");
        assert_eq!(report["hosts"], serde_json::json!({}));
        let failures =
            report["failed_connects"].as_u64().unwrap() + report["failed_reads"].as_u64().unwrap();
        assert_eq!(failures, 7);
        assert_eq!(
            run.stderr,
            format!("mconnect: {verb} {target}: Connection refused (os error 111) (7 times)\n")
        );
    }
}

#[test]
fn a_source_that_cannot_be_used_is_a_failed_connect() {
    let server = Server::start(MCONNECT, &["-address", "[::1]:0"]);
    // A group is nobody's source.
    let run = run(MCONNECT, &["-address", &server.at("[::1]"), "-srccidr", "ff02::1/128"]);
    assert_eq!(run.code, 1);
    assert!(run.stdout.starts_with("Failed connects; 1\nFailed reads; 0\n"), "{run:?}");
}

#[test]
fn a_closed_connection_is_a_failed_read() {
    let (listener, client) = ask_tcp(&["-nconn=2", "-output=json"]);
    drop(listener.accept().unwrap());
    listener.accept().unwrap().0.write_all(b"vm-001").unwrap();
    let run = collect(client);
    assert_eq!(run.code, 1);
    assert_eq!(run.json()["failed_reads"], 1);
    assert_eq!(run.hosts(), [("vm-001".to_owned(), 1)]);
}

#[test]
fn hosts_are_counted_each_and_sorted() {
    let (listener, client) = ask_tcp(&["-nconn=6", "-maxconcurrent=3"]);
    let held: Vec<TcpStream> = ["vm-003", "vm-001", "vm-002", "vm-001", "vm-003", "vm-003"]
        .map(|name| {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(name.as_bytes()).unwrap();
            stream
        })
        .into();
    let run = collect(client);
    assert_eq!(run.stdout, "Failed connects; 0\nFailed reads; 0\nvm-001 2\nvm-002 1\nvm-003 3\n");
    assert_eq!(run.code, 0);
    drop(held);
}

/// One slot, and nothing is answered before the fourth question is there: the
/// slot has to be passed on three times, and not too early.
#[test]
fn a_late_udp_answer_counts_and_its_slot_is_passed_on() {
    let (server, client) =
        ask_udp(&["-nconn=4", "-maxconcurrent=1", "-timeout=20s", "-output=json"]);
    let peers = [(); 4].map(|()| {
        let mut buffer = [0; 64];
        let (length, peer) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"Hello");
        peer
    });
    for peer in peers {
        server.send_to(b"vm-001", peer).unwrap();
    }
    let run = collect(client);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(run.hosts(), [("vm-001".to_owned(), 4)]);
    assert!(run.json()["duration"].as_u64().unwrap() >= 750_000_000);
}

#[test]
fn what_is_not_answered_in_time_is_a_failed_read() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let run = run(
        MCONNECT,
        &[
            "-udp",
            "-address",
            &server.local_addr().unwrap().to_string(),
            "-nconn=5",
            "-maxconcurrent=3",
            "-timeout=200ms",
            "-output=json",
        ],
    );
    assert_eq!(run.code, 1);
    let report = run.json();
    assert_eq!(report["timeout"], 200_000_000);
    assert!(report["duration"].as_u64().unwrap() >= 200_000_000);
    // Slots are passed on after 250 ms, so two were never tried.
    assert_eq!(report["failed_reads"], 3, "{run:?}");
    assert_eq!(report["failed_connects"], 2);
}

#[test]
fn a_kept_connection_is_counted_once_whatever_it_reads() {
    let (listener, client) = ask_tcp(&["-keep", "-nconn=4", "-maxconcurrent=1", "-output=json"]);
    // With one slot the next connection says that this one was answered.
    let mut held = Vec::new();
    for _ in 0..3 {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"vm-001").unwrap();
        held.push(stream);
    }
    let (fourth, _) = listener.accept().unwrap();
    for stream in &mut held {
        stream.write_all(b"vm-001").unwrap();
    }
    // One is lost after its answer, which still counts, one without. The client
    // gives both up by a reset.
    for mut stream in [held.pop().unwrap(), fourth] {
        stream.shutdown(Shutdown::Write).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    send_signal(&client, Signal::SIGTERM);
    let run = collect(client);
    let report = run.json();
    assert_eq!(run.hosts(), [("vm-001".to_owned(), 3)]);
    assert_eq!(report["timeout"], 3_600_000_000_000_u64);
    assert_eq!(report["failed_connects"], 0);
    assert_eq!(report["failed_reads"], 2);
    assert_eq!(run.code, 1);
}

#[test]
fn kept_connections_end_well_at_the_time_limit() {
    let server = Server::start(MCONNECT, &["-udp", "-address", "127.0.0.1:0"]);
    for transport in ["-udp", "-udp=false"] {
        let run = run(
            MCONNECT,
            &[
                transport,
                "-keep",
                "-address",
                &server.at("127.0.0.1"),
                "-nconn=100",
                "-timeout=1s",
                "-output=json",
            ],
        );
        assert_eq!(run.code, 0, "{run:?}");
        assert_eq!(run.hosts(), [(host_name().unwrap(), 100)]);
        assert!(run.json()["duration"].as_u64().unwrap() >= 1_000_000_000);
    }
}

#[test]
fn a_signal_ends_the_client_with_its_report() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let client = start(
            MCONNECT,
            &[
                "-address",
                &listener.local_addr().unwrap().to_string(),
                "-nconn=3",
                "-maxconcurrent=1",
                "-timeout=1h",
                "-output=json",
            ],
        );
        let held = listener.accept().unwrap();
        send_signal(&client, signal);
        let run = collect(client);
        let report = run.json();
        let failures =
            report["failed_connects"].as_u64().unwrap() + report["failed_reads"].as_u64().unwrap();
        assert_eq!(failures, 3, "{run:?}");
        assert_eq!(run.code, 1);
        drop(held);
        // What was begun before the signal came must not meet the next client.
        listener.set_nonblocking(true).unwrap();
        while listener.accept().is_ok() {}
        listener.set_nonblocking(false).unwrap();
    }
}

#[test]
fn sources_come_from_the_subnet_and_a_seed_repeats_them() {
    let tcp = |cidr, seed| {
        let (listener, client) = ask_tcp(&["-srccidr", cidr, "-seed", seed, "-nconn=50"]);
        let sources: Vec<IpAddr> = (0..50)
            .map(|_| {
                let (mut stream, peer) = listener.accept().unwrap();
                stream.write_all(b"vm-001").unwrap();
                // The client's reset says that it has read its answer.
                let _ = stream.read(&mut [0]);
                peer.ip()
            })
            .collect();
        assert_eq!(collect(client).code, 0);
        sources
    };
    let sources = tcp("127.7.0.0/16", "5");
    assert!(sources.iter().all(|source| is_in_127_7(*source)));
    assert!(sources.iter().collect::<BTreeSet<_>>().len() > 40);
    let sorted = |mut sources: Vec<IpAddr>| {
        sources.sort();
        sources
    };
    let sources = sorted(sources);
    assert_eq!(sorted(tcp("127.7.0.0/16", "5")), sources);
    assert_ne!(sorted(tcp("127.7.0.0/16", "6")), sources);
    assert_eq!(tcp("127.7.7.7/32", "0"), [IpAddr::from(Ipv4Addr::new(127, 7, 7, 7)); 50]);
}

#[test]
fn udp_sources_come_from_the_subnet() {
    let (server, client) = ask_udp(&["-srccidr=127.7.0.0/16", "-nconn=50"]);
    let mut sources = BTreeSet::new();
    for _ in 0..50 {
        let (_, peer) = server.recv_from(&mut [0; 64]).unwrap();
        server.send_to(b"vm-001", peer).unwrap();
        assert!(is_in_127_7(peer.ip()), "{peer}");
        sources.insert(peer.ip());
    }
    assert_eq!(collect(client).code, 0);
    assert!(sources.len() > 40);
}

fn is_in_127_7(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.octets()[..2] == [127, 7])
}
