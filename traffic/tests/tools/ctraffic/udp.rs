//! UDP against a server that the tests play: what is late, lost, doubled,
//! overtaken or refused.

use std::net::{SocketAddr, UdpSocket};

use serde_json::Value;

use crate::harness::{CTRAFFIC, PATIENCE, collect, run, start};

/// A server that a test plays, and the client that asks it.
struct Play {
    server: UdpSocket,
    client: std::process::Child,
}

impl Play {
    /// 100 packets a second on one connection.
    fn begin(arguments: &[&str]) -> Self {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let address = server.local_addr().unwrap().to_string();
        let common = ["-udp", "-address", &address, "-psize=100", "-rate=9.765625"];
        let client = start(CTRAFFIC, &[&common, arguments].concat());
        Self { server, client }
    }

    fn hear(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 200];
        let (length, peer) = self.server.recv_from(&mut buffer).unwrap();
        assert_eq!(length, 100);
        (buffer[..length].to_vec(), peer)
    }

    fn say(&self, packet: &[u8], peer: SocketAddr) {
        self.server.send_to(packet, peer).unwrap();
    }

    /// Ends the client with SIGTERM.
    fn end(self) -> Value {
        crate::harness::send_signal(&self.client, nix::sys::signal::Signal::SIGTERM);
        let run = collect(self.client);
        assert_eq!(run.code, 0, "{run:?}");
        run.json()
    }
}

#[test]
fn a_late_answer_is_credited_to_its_own_packet() {
    let play = Play::begin(&["-timeout=1h"]);
    let (first, peer) = play.hear();
    // The second one comes after the first was given up.
    let (second, _) = play.hear();
    play.say(&first, peer);
    play.say(&second, peer);
    let (third, _) = play.hear();
    play.say(&third, peer);
    play.hear();
    let found = play.end();
    assert_eq!(found["Late"], 1, "{found}");
    assert_eq!(found["Received"], 3);
    assert_eq!(found["Reordered"], 0);
    let (sent, lost) = (found["Sent"].as_u64().unwrap(), found["Lost"].as_u64().unwrap());
    assert_eq!(sent - lost, 3);
    // A second of waiting for the first one: 99 or so were not sent.
    assert!(found["Dropped"].as_u64().unwrap() >= 90, "{found}");
}

#[test]
fn answers_that_overtake_each_other_are_counted() {
    let play = Play::begin(&["-timeout=1h", "-window=8"]);
    let packets: Vec<_> = (0..8).map(|_| play.hear()).collect();
    // 0 1 3 2 7 4 5 6: number 2, 4, 5 and 6 were overtaken.
    for place in [0, 1, 3, 2, 7, 4, 5, 6] {
        let (packet, peer) = &packets[place];
        play.say(packet, *peer);
    }
    // The window is open again.
    let (packet, peer) = play.hear();
    play.say(&packet, peer);
    play.hear();
    let found = play.end();
    assert_eq!(found["Reordered"], 4, "{found}");
    assert_eq!(found["Received"], 9);
    assert_eq!(found["Late"], 0);
}

#[test]
fn doubled_and_foreign_datagrams_are_told_apart_from_answers() {
    let play = Play::begin(&["-timeout=1h"]);
    let (first, peer) = play.hear();
    play.say(b"", peer);
    play.say(b"too short", peer);
    play.say(&[0; 100], peer);
    play.say(&[&first[..], b"x"].concat(), peer);
    // A number that was never sent.
    let mut future = first.clone();
    future[99] ^= 0x40;
    play.say(&future, peer);
    play.say(&first, peer);
    play.say(&first, peer);
    play.hear();
    let found = play.end();
    assert_eq!(found["Invalid"], 5, "{found}");
    assert_eq!(found["Duplicates"], 1);
    assert_eq!(found["Received"], 1);
}

#[test]
fn a_move_to_another_host_is_seen() {
    let play = Play::begin(&["-timeout=1h", "-stats=all"]);
    for name in ["vm-001", "vm-001", "vm-002", "vm-002", "vm-001"] {
        let (mut packet, peer) = play.hear();
        packet[..name.len()].copy_from_slice(name.as_bytes());
        play.say(&packet, peer);
    }
    play.hear();
    let found = play.end();
    assert_eq!(found["Moves"], 2, "{found}");
    assert_eq!(found["ConnStats"][0]["Host"], "vm-001");
}

#[test]
fn a_refusal_is_a_loss_and_no_end() {
    // Taken, and deaf for all but one peer.
    let deaf = UdpSocket::bind("127.0.0.1:0").unwrap();
    deaf.connect("127.0.0.1:9").unwrap();
    let address = deaf.local_addr().unwrap().to_string();
    let run =
        run(CTRAFFIC, &["-udp", "-address", &address, "-rate=50", "-timeout=1s", "-fail-on=lost"]);
    assert_eq!(run.code, 3, "{run:?}");
    let found = run.json();
    // Nobody waits a second for each answer that cannot come: then it would be one packet, or two.
    let sent = found["Sent"].as_u64().unwrap();
    assert!((3..=51).contains(&sent), "{found}");
    assert_eq!(found["Lost"], sent);
    assert_eq!(found["FailedConnections"], 0);
    assert!(run.stderr.contains("Connection refused"), "{run:?}");
    assert!(run.stderr.contains(&format!("ctraffic: {sent} packets lost\n")), "{run:?}");
}
