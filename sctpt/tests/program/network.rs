//! Real traffic between two namespaces.

use std::io::Write as _;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{Running, finish, number, wait_until};
use crate::lab::{CLIENT, Lab, SERVER};

/// What must be so after undisturbed traffic.
fn is_sound(json: &serde_json::Value) {
    assert!(number(json, "sent") > 0, "{json:#}");
    assert_eq!(json["sent"], json["received"], "{json:#}");
    for key in
        ["lost", "duplicates", "reordered", "corrupted", "failedConnects", "lostAssociations"]
    {
        assert_eq!(number(json, key), 0, "{key} in {json:#}");
    }
}

#[test]
fn lines_come_back_over_every_family() {
    let Some(lab) = Lab::new() else { return };
    let (mut server, log) = lab.server(&format!("--stack user --addr {SERVER}"));
    for (to, from) in [("192.168.1.2", "192.168.1.1"), ("fd00:2::2", "fd00:2::1"), (SERVER, CLIENT)]
    {
        let mut command =
            lab.client(&format!("client --stack user --log 6 --addr {to} --laddr {from}"));
        let mut client = Running::start(command.stdin(Stdio::piped()));
        client.type_in("Hi\n\nlonger text\n");
        client.close_stdin();
        let run = client.end();
        assert_eq!(run.stdout, "send> recv> Hi\nsend> recv> \nsend> recv> longer text\nsend> \n");
        assert_eq!(run.code, Some(0), "{run:?}");
        assert!(run.stderr.contains("Connected\nLocal addresses:\n  "), "{run:?}");
        for address in to.split(',') {
            assert!(run.stderr.contains(&format!("\n  {address},6000\n")), "{run:?}");
            let path = format!("\nAt the end: path {address}: ");
            assert!(run.stderr.contains(&path), "{run:?}");
        }
        log.until("Got a new connection (");
        log.until("Local addresses:");
        log.until("Peer addresses:");
    }
    let lines = server.stdout();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end().code, Some(0));
    assert_eq!(lines.rest(), ["Connection closed"; 3]);
}

#[test]
fn messages_of_any_size_come_back() {
    let Some(lab) = Lab::new() else { return };
    let _server = lab.server(&format!("--stack user --addr {SERVER}"));
    let to = format!("--stack user --addr {SERVER} --laddr {CLIENT}");
    for size in [1, 1400, 1500, 4096, 16_384] {
        let run = finish(lab.client(&format!("client --size {size} {to}")));
        assert_eq!(run.code, Some(0), "{run:?}");
        let said = format!("Sent {size} bytes\nReceived {size} bytes\n");
        assert!(run.stderr.ends_with(&said), "{run:?}");
    }
    for size in [112, 16_384] {
        let run = finish(lab.client(&format!(
            "ctraffic --init --size {size} --clients 2 --rate 50 --duration 1 {to}"
        )));
        assert_eq!(run.code, Some(0), "{run:?}");
        is_sound(&run.json());
        assert_eq!(run.json()["size"], size);
    }
}

#[test]
fn traffic_uses_every_path_and_names_its_server() {
    let Some(lab) = Lab::new() else { return };
    let (_server, log) = lab.server(&format!("--stack user --addr {SERVER} --name vm-001"));
    let run = finish(lab.client(&format!(
        "ctraffic --init --stack user --addr {SERVER} --laddr {CLIENT} --clients 8 --rate 200 --duration 2 \
         --fail-on lost,failed,duplicates,reordered,corrupted,paths,moves"
    )));
    assert_eq!(run.code, Some(0), "{run:?}");
    let json = run.json();
    is_sound(&json);
    // Who is not connected when its first message would be due has one less, on a busy machine a few.
    let due = number(&json, "sent") + number(&json, "dropped");
    assert!((200..=400).contains(&due), "{json:#}");
    assert_eq!(
        json["servers"],
        json!({ "vm-001": { "associations": 8, "received": json["received"] } })
    );
    for path in json["paths"].as_array().unwrap() {
        assert_eq!((number(path, "active"), number(path, "paths")), (8, 8), "{json:#}");
        let heartbeats = |key| number(&path["heartbeats"], key);
        assert!(heartbeats("acksReceived") <= heartbeats("sent"), "{json:#}");
        assert!(heartbeats("acksSent") <= heartbeats("received"), "{json:#}");
    }
    // Each end probes the path on which the association did not come up.
    assert!(json["paths"].as_array().unwrap().iter().any(|path| {
        let heartbeats = |key| number(&path["heartbeats"], key);
        heartbeats("acksReceived") + heartbeats("received") >= 8
    }));
    assert_eq!(json["paths"].as_array().unwrap().len(), 2);
    assert_eq!(json["associations"].as_array().unwrap().len(), 8);
    for _ in 0..8 {
        log.until("Got a new connection (");
    }
    // What is in shared memory agrees.
    let shown = lab.shm.run("stats json").json();
    for key in ["sent", "received", "maxRtt", "buckets", "rttMicros"] {
        assert_eq!(shown[key], json[key], "{key}");
    }
}

#[test]
fn encapsulated_traffic_reaches_an_encapsulated_server_alone() {
    let Some(lab) = Lab::new() else { return };
    let _server = lab.server(&format!("--addr {SERVER} --encap-local 9899"));
    let to = format!("--addr {SERVER} --laddr {CLIENT}");
    let run = finish(lab.client(&format!(
        "ctraffic --init {to} --encap-local 9900 --encap-remote 9899 --clients 3 --rate 100 --duration 1"
    )));
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stderr.starts_with("Stack: user"), "{run:?}");
    is_sound(&run.json());
    for path in run.json()["paths"].as_array().unwrap() {
        assert_eq!(number(path, "active"), 3);
    }
    let run = finish(lab.client(&format!("client {to} --encap-remote 9898 --size 100")));
    assert!(run.fails().contains("error: connect "), "{run:?}");
}

#[test]
fn statistics_can_be_read_while_they_grow_and_a_signal_ends_the_run() {
    let Some(lab) = Lab::new() else { return };
    let _server = lab.server("--stack user --addr 192.168.1.2");
    lab.shm.run("stats init --buckets 5 --interval 2000").ok();
    let mut traffic = Running::start(&mut lab.client(
        "ctraffic --stack user --addr 192.168.1.2 --laddr 192.168.1.1 --clients 2 --rate 200 --duration 1h",
    ));
    let mut before = 0;
    for _ in 0..3 {
        wait_until("more messages", || {
            let json = lab.shm.run("stats json").json();
            let now = number(&json, "received");
            assert!(now <= number(&json, "sent") && now >= before);
            let is_more = now > before;
            before = now;
            is_more
        });
    }
    assert_eq!(number(&lab.shm.run("stats json").json(), "active"), 2);
    traffic.signal(Signal::SIGINT);
    let run = traffic.end();
    assert_eq!(run.code, Some(0), "{run:?}");
    let json = run.json();
    is_sound(&json);
    assert_eq!((number(&json, "nBuckets"), number(&json, "interval")), (5, 2000));
    assert_eq!(number(&lab.shm.run("stats json").json(), "active"), 0);
}

#[test]
fn many_processes_count_together() {
    let Some(lab) = Lab::new() else { return };
    let _server = lab.server("--stack user --addr 192.168.1.2,fd00:1::2");
    lab.shm.run("stats init").ok();
    let start = |host: &str, from: &str| {
        Running::start(&mut lab.client(&format!(
            "ctraffic --keep --stack user --addr {host} --laddr {from} --rate 100 --duration 1"
        )))
    };
    let both = [start("192.168.1.2", "192.168.1.1"), start("fd00:1::2", "fd00:1::1")];
    let sent = both.map(|traffic| {
        let json = traffic.end().json();
        is_sound(&json);
        number(&json, "sent")
    });
    let shown = lab.shm.run("stats json").json();
    assert_eq!(number(&shown, "sent"), sent.iter().sum::<u64>());
    assert_eq!(number(&shown, "received"), sent.iter().sum::<u64>());
}

#[test]
fn output_that_nobody_reads_ends_the_client_quietly() {
    let Some(lab) = Lab::new() else { return };
    let _server = lab.server("--stack user --addr 192.168.1.2");
    let mut command = lab.client("client --stack user --addr 192.168.1.2 --laddr 192.168.1.1");
    let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    drop(client.stdout.take());
    // Its stdin may be closed already.
    let _ = client.stdin.take().unwrap().write_all(b"Hi\n");
    assert_eq!(client.wait().unwrap().code(), Some(0));
}
