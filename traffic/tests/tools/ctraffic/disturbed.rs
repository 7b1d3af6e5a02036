//! Connections that fail, and packets that a firewall takes away.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::harness::{CTRAFFIC, collect, in_namespace, run, start};

#[test]
fn a_failed_connection_is_replaced() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client = start(
        CTRAFFIC,
        &["-address", &address, "-stats=all", "-timeout=3s", "-rate=100", "-srccidr=127.8.0.0/16"],
    );
    let (mut stream, first) = listener.accept().unwrap();
    let mut packet = [0; 1_024];
    stream.read_exact(&mut packet).unwrap();
    packet[..2].copy_from_slice(b"vm");
    stream.write_all(&packet).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let (mut stream, second) = listener.accept().unwrap();
    // Its own echo until the client ends it.
    while stream.read_exact(&mut packet).is_ok() && stream.write_all(&packet).is_ok() {}
    let run = collect(client);
    assert_eq!(run.code, 0, "{run:?}");
    assert_ne!(first.ip(), second.ip());
    let found = run.json();
    assert_eq!(found["FailedConnections"], 1, "{found}");
    assert_eq!(found["FailedConnects"], 0);
    let connections = found["ConnStats"].as_array().unwrap();
    assert_eq!(connections.len(), 2);
    assert_eq!(connections[0]["Err"], "read: closed by the server");
    assert_eq!(connections[0]["Host"], "vm");
    assert_eq!(connections[0]["Local"], first.to_string());
    assert_eq!(connections[1]["Err"], "");
    assert_eq!(connections[1]["Started"], connections[0]["Ended"]);
}

#[test]
fn without_places_left_the_run_ends_with_its_statistics() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client = start(CTRAFFIC, &["-address", &address, "-retries=3", "-timeout=1h"]);
    for _ in 0..3 {
        listener.accept().unwrap().0.shutdown(Shutdown::Both).unwrap();
    }
    let run = collect(client);
    assert_eq!(run.code, 1);
    assert!(run.stderr.ends_with("ctraffic: Too many re-connects: 3\n"), "{run:?}");
    assert_eq!(run.json()["FailedConnections"], 3);
}

#[test]
fn without_reconnect_the_run_ends_with_the_last_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client = start(
        CTRAFFIC,
        &["-address", &address, "-reconnect=false", "-timeout=1h", "-fail-on=failed"],
    );
    listener.accept().unwrap().0.shutdown(Shutdown::Both).unwrap();
    let run = collect(client);
    assert_eq!(run.code, 3);
    assert_eq!(run.json()["FailedConnections"], 1);
    assert!(run.stderr.contains("ctraffic: 1 connections failed\n"), "{run:?}");
}

#[test]
fn a_wrong_answer_is_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client =
        start(CTRAFFIC, &["-address", &address, "-reconnect=false", "-timeout=1h", "-stats=all"]);
    let (mut stream, _) = listener.accept().unwrap();
    stream.read_exact(&mut [0; 1_024]).unwrap();
    stream.write_all(&[b'x'; 1_024]).unwrap();
    let found = collect(client).json();
    assert_eq!(found["ConnStats"][0]["Err"], "read: an answer that is not what was sent");
}

#[test]
fn a_refused_connect_is_tried_again_and_counted() {
    // The port is taken, and nobody listens.
    let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    deaf.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = deaf.local_addr().unwrap().as_socket().unwrap().to_string();
    let arguments = ["-address", &address, "-timeout=1s", "-stats=all"];
    let first = run(CTRAFFIC, &arguments);
    assert_eq!(first.code, 0, "without -fail-on all is well: {first:?}");
    let found = first.json();
    // At 0, 100, 300 and 600 ms; the next one would be at the end. A busy machine may be late for one.
    let tried = found["FailedConnects"].as_u64().unwrap();
    assert!((2..=4).contains(&tried), "{found}");
    assert_eq!(found["FailedConnections"], 1);
    assert_eq!(found["ConnStats"][0]["Connect"], 0);
    assert_eq!(found["ConnStats"][0]["Err"], "not connected before the end of the run");
    let refused = format!("Connection refused (os error 111) ({tried} times)");
    assert!(first.stderr.contains(&refused), "{first:?}");

    assert_eq!(run(CTRAFFIC, &[&arguments[..], &["-fail-on=failed"]].concat()).code, 3);
    let dropped = [&arguments[..], &["-fail-on=lost,dropped"]].concat();
    assert_eq!(run(CTRAFFIC, &dropped).code, 0);
}

#[test]
fn sources_of_a_file_are_used_in_turn_until_there_are_none() {
    let list = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(list.path(), "127.9.0.1\n127.9.0.2\n").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client = start(
        CTRAFFIC,
        &["-address", &address, "-srcfile", list.path().to_str().unwrap(), "-timeout=1h"],
    );
    for source in ["127.9.0.1", "127.9.0.2"] {
        let (stream, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip().to_string(), source);
        drop(stream);
    }
    let run = collect(client);
    assert_eq!(run.code, 1);
    assert!(run.stderr.ends_with("ctraffic: Ran out of source addresses\n"), "{run:?}");
    assert_eq!(run.json()["FailedConnections"], 3);
}

/// A script for a namespace: a server on port 5003, then `traffic`.
fn with_server(traffic: &str) -> String {
    format!(
        "ip link set lo up
        $0 -server -udp -address 127.0.0.1:5003 2>/dev/null &
        trap \"kill $!\" EXIT
        tries=100
        until $0 -address 127.0.0.1:5003 -timeout 100ms -fail-on failed >/dev/null 2>&1; do
            tries=$((tries - 1)); [ $tries -gt 0 ]; sleep 0.05
        done
        nft 'add table t; add chain t c {{ type filter hook input priority 0; }}'
        {traffic}"
    )
}

/// Each tenth datagram to the server is taken away, and each of them is found.
#[test]
fn lost_packets_are_counted_exactly() {
    let script = with_server(
        "nft add rule t c udp dport 5003 numgen inc mod 10 == 0 counter drop
        $0 -udp -address 127.0.0.1:5003 -nconn 10 -window 1000 -rate 500 -timeout 3s
        nft -j list chain t c",
    );
    let Some(run) = in_namespace(&script, CTRAFFIC) else {
        return;
    };
    assert_eq!(run.code, 0, "{run:?}");
    let (found, rules) = run.stdout.split_once('\n').unwrap();
    let found: Value = serde_json::from_str(found).unwrap();
    let taken = counted_packets(rules);
    let sent = found["Sent"].as_u64().unwrap();
    assert_eq!(taken, sent.div_ceil(10), "{rules}");
    assert_eq!(found["Lost"], taken, "{found}");
    assert_eq!(sent, found["Received"].as_u64().unwrap() + taken);
    // Nobody waited for them, a second each: then most of what was due would have been dropped.
    assert!(found["Dropped"].as_u64().unwrap() < sent, "{found}");
}

/// For half a second nothing goes through, and TCP has to send again. The kernel itself ends the break.
#[test]
fn a_break_of_tcp_is_seen_as_retransmits_and_drops() {
    let script = with_server(
        "nft 'add set t gone { type inet_service; flags timeout; }'
        nft add rule t c tcp dport @gone drop
        (sleep 1; nft add element t gone { 5003 timeout 500ms }) &
        $0 -address 127.0.0.1:5003 -nconn 10 -rate 1000 -timeout 3s -fail-on failed,lost
        wait $!",
    );
    let Some(run) = in_namespace(&script, CTRAFFIC) else {
        return;
    };
    assert_eq!(run.code, 0, "{run:?}");
    let found = run.json();
    assert!(found["Retransmits"].as_u64().unwrap() >= 10, "{found}");
    // Half a second and more of 1,000 packets a second.
    assert!(found["Dropped"].as_u64().unwrap() >= 400, "{found}");
    // Who waited longer than a second would have failed.
    assert!(found["ReplyTime"]["Max"].as_u64().unwrap() >= 400_000_000, "{found}");
}

/// What was sent again on a connection that failed counts as well.
#[test]
fn retransmits_of_failed_connections_are_counted() {
    let script = with_server(
        "(sleep 1; nft add rule t c tcp dport 5003 drop) &
        $0 -address 127.0.0.1:5003 -nconn 10 -rate 1000 -timeout 3s -stats all -reconnect=false
        wait $!",
    );
    let Some(run) = in_namespace(&script, CTRAFFIC) else {
        return;
    };
    let found = run.json();
    assert_eq!(found["FailedConnections"], 10, "{run:?}");
    assert!(found["Retransmits"].as_u64().unwrap() >= 10, "{found}");
    assert_eq!(found["Lost"], 10);
    let connections = found["ConnStats"].as_array().unwrap();
    let sum = |key: &str| connections.iter().map(|c| c[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!(found["Retransmits"], sum("Retransmits"));
    assert_eq!(found["Sent"], sum("Sent"));
    assert!(connections.iter().all(|c| c["Err"] == "no answer in time"), "{found}");
}

fn counted_packets(rules: &str) -> u64 {
    let rules: Value = serde_json::from_str(rules).unwrap();
    let parts = rules["nftables"].as_array().unwrap().iter();
    let mut expressions = parts.filter_map(|part| part["rule"]["expr"].as_array()).flatten();
    expressions.find_map(|expression| expression["counter"]["packets"].as_u64()).unwrap()
}
