//! mconnect as a user runs it, on loopback.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use traffic::process::host_name;

const MCONNECT: &str = env!("CARGO_BIN_EXE_mconnect");

/// No wait in these tests is longer; none of them is used up by a success.
const PATIENCE: Duration = Duration::from_secs(20);

// ---- Client and server together

#[test]
fn every_connection_is_answered() {
    let server = Server::start(&["-udp", "-address", "[::]:0"]);
    for host in ["127.0.0.1", "[::1]"] {
        for transport in [&[][..], &["-udp"]] {
            let address = format!("{host}:{}", server.port);
            let mut arguments = vec!["-address", &address, "-nconn=300", "--output", "json"];
            arguments.extend(transport);
            let run = run(&arguments);
            assert_eq!(run.code, 0, "{arguments:?}: {run:?}");
            assert_eq!(run.stderr, "");

            let report = run.json();
            let keys: Vec<_> = report.as_object().unwrap().keys().collect();
            assert_eq!(
                keys,
                [
                    "hosts",
                    "connects",
                    "failed_connects",
                    "failed_reads",
                    "start_time",
                    "timeout",
                    "duration"
                ]
            );
            assert_eq!(run.hosts(), [(host_name().unwrap(), 300)]);
            assert_eq!(report["connects"], 300);
            assert_eq!(report["failed_connects"], 0);
            assert_eq!(report["failed_reads"], 0);
            assert_eq!(report["timeout"], 2_300_000_000_u64);
            let duration = report["duration"].as_u64().unwrap();
            assert!((1..2_300_000_000).contains(&duration), "{duration}");
            humantime::parse_rfc3339(report["start_time"].as_str().unwrap()).unwrap();
        }
    }
}

#[test]
fn text_is_the_default_report() {
    let server = Server::start(&["-address", "127.0.0.1:0"]);
    let run = run(&["-address", &server.at("127.0.0.1"), "-nconn", "5"]);
    let expected = format!("Failed connects; 0\nFailed reads; 0\n{} 5\n", host_name().unwrap());
    assert_eq!(run.stdout, expected);
    assert_eq!(run.code, 0);
}

#[test]
fn a_udp_answer_comes_from_the_address_that_was_asked() {
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let server = Server::start(&["-server", "-udp", "-address", listen]);
        // Without packet info the answer would come from 127.0.0.1.
        let run = run(&["-udp", "-address", &server.at("127.0.0.2"), "-nconn=20"]);
        assert_eq!(run.code, 0, "{listen}: {run:?}");
    }
}

/// IPv6 has one loopback address: more of them need a network of their own.
#[test]
fn ipv6_sources_and_answers_from_many_addresses() {
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", "sh", "-ec", script, MCONNECT]);
        finish(command)
    };
    if unshare("true").code != 0 {
        eprintln!("skipped: this user may not make a network namespace");
        return;
    }
    // Asked at fd00::2 from fd00::1, an answer by route comes from fd00::1.
    let run = unshare(
        "ip link set lo up
        ip -6 addr add fd00::1/128 dev lo nodad
        ip -6 addr add fd00::2/128 dev lo nodad
        ip -6 route add local 1000::/64 dev lo
        $0 -server -udp -address [::]:5001 2>/dev/null &
        trap \"kill $!\" EXIT
        tries=100
        until $0 -address [fd00::2]:5001 >/dev/null 2>&1; do
            tries=$((tries - 1)); [ $tries -gt 0 ]; sleep 0.05
        done
        $0 -udp -address [fd00::2]:5001 -srccidr fd00::1/128 -nconn 20
        $0 -udp -address [fd00::2]:5001 -srccidr 1000::/64 -nconn 20
        $0 -address [fd00::2]:5001 -srccidr 1000::/64 -nconn 20",
    );
    let expected = format!("Failed connects; 0\nFailed reads; 0\n{} 20\n", host_name().unwrap());
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(run.stdout, expected.repeat(3));
}

// ---- The client alone

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
        let run = run(&[transport, "-address", &target, "-nconn=7", "-output=json"]);
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
    let server = Server::start(&["-address", "[::1]:0"]);
    // A group is nobody's source.
    let run = run(&["-address", &server.at("[::1]"), "-srccidr", "ff02::1/128"]);
    assert_eq!(run.code, 1);
    assert!(run.stdout.starts_with("Failed connects; 1\nFailed reads; 0\n"), "{run:?}");
}

#[test]
fn a_closed_connection_is_a_failed_read() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = start(&[
        "-address",
        &listener.local_addr().unwrap().to_string(),
        "-nconn=2",
        "-output=json",
    ]);
    drop(listener.accept().unwrap());
    listener.accept().unwrap().0.write_all(b"vm-001").unwrap();
    let run = collect(client);
    assert_eq!(run.code, 1);
    assert_eq!(run.json()["failed_reads"], 1);
    assert_eq!(run.hosts(), [("vm-001".to_owned(), 1)]);
}

#[test]
fn hosts_are_counted_each_and_sorted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = start(&[
        "-address",
        &listener.local_addr().unwrap().to_string(),
        "-nconn=6",
        "-maxconcurrent=3",
    ]);
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
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let client = start(&[
        "-udp",
        "-address",
        &server.local_addr().unwrap().to_string(),
        "-nconn=4",
        "-maxconcurrent=1",
        "-timeout=20s",
        "-output=json",
    ]);
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
    let run = run(&[
        "-udp",
        "-address",
        &server.local_addr().unwrap().to_string(),
        "-nconn=5",
        "-maxconcurrent=3",
        "-timeout=200ms",
        "-output=json",
    ]);
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
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = start(&[
        "-keep",
        "-address",
        &listener.local_addr().unwrap().to_string(),
        "-nconn=4",
        "-maxconcurrent=1",
        "-output=json",
    ]);
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
    let server = Server::start(&["-udp", "-address", "127.0.0.1:0"]);
    for transport in ["-udp", "-udp=false"] {
        let run = run(&[
            transport,
            "-keep",
            "-address",
            &server.at("127.0.0.1"),
            "-nconn=100",
            "-timeout=1s",
            "-output=json",
        ]);
        assert_eq!(run.code, 0, "{run:?}");
        assert_eq!(run.hosts(), [(host_name().unwrap(), 100)]);
        assert!(run.json()["duration"].as_u64().unwrap() >= 1_000_000_000);
    }
}

#[test]
fn a_signal_ends_the_client_with_its_report() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let client = start(&[
            "-address",
            &listener.local_addr().unwrap().to_string(),
            "-nconn=3",
            "-maxconcurrent=1",
            "-timeout=1h",
            "-output=json",
        ]);
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
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = start(&[
            "-address",
            &listener.local_addr().unwrap().to_string(),
            "-srccidr",
            cidr,
            "-seed",
            seed,
            "-nconn=50",
        ]);
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
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let client = start(&[
        "-udp",
        "-address",
        &server.local_addr().unwrap().to_string(),
        "-srccidr=127.7.0.0/16",
        "-nconn=50",
    ]);
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

// ---- The command line

#[test]
fn usage_and_version() {
    let nothing = run(&[]);
    assert_eq!((nothing.code, nothing.stdout.as_str()), (0, ""));
    assert!(nothing.stderr.starts_with("Usage: mconnect "));
    for flag in ["-help", "-h", "--help"] {
        let help = run(&[flag]);
        assert_eq!((help.code, help.stderr.as_str()), (0, ""));
        assert_eq!(help.stdout, nothing.stderr);
    }
    let version = run(&["-version"]);
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
        let run = run(arguments);
        assert_eq!(run.code, code, "{arguments:?}: {run:?}");
        assert!(run.stderr.contains(complaint), "{arguments:?}: {run:?}");
        assert!(run.stderr.starts_with("mconnect: "));
        assert_eq!(run.stdout, "");
    }
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let server = Server::start(&["-address", "127.0.0.1:0"]);
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
    let server = Server::start(&["-address", "127.0.0.1:0"]);
    let run = run(&["-k8sprobe", "x", "-address", &server.at("127.0.0.1")]);
    assert_eq!(run.code, 0, "{run:?}");
}

// ---- The server alone

#[test]
fn a_signal_ends_the_server_well() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = Server::start(&["-udp", "-address", "[::]:0"]);
        let _held = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        send_signal(&server.child, signal);
        assert_eq!(wait(&mut server.child), 0);
    }
}

#[test]
fn an_address_in_use_ends_the_server_with_an_error() {
    let server = Server::start(&["-address", "127.0.0.1:0"]);
    let address = server.at("127.0.0.1");
    let second = run(&["-server", "-address", &address]);
    assert_eq!(second.code, 1);
    assert_eq!(
        second.stderr,
        format!("mconnect: listen on {address}: Address already in use (os error 98)\n")
    );
}

#[test]
fn whatever_is_sent_is_answered_with_the_host_name() {
    let server = Server::start(&["-address", "[::]:0"]);
    let name = host_name().unwrap();
    let mut stream = server.connect();
    let mut answer = vec![0; name.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, name.as_bytes());
    for question in [&b"x"[..], &[0, 0xff, 0x80], &[7; 4_000]] {
        stream.write_all(question).unwrap();
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, name.as_bytes());
    }
    // What remains of answers to a question taken in pieces ends with the
    // stream, and holds nothing but names.
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, name.repeat(rest.len() / name.len()).as_bytes());
}

#[test]
fn bad_connections_do_not_harm_the_others() {
    let server = Server::start(&["-udp", "-address", "[::]:0"]);
    let name = host_name().unwrap();
    // One that asks and asks and takes no answer.
    let mut greedy = server.connect();
    greedy.write_all(&vec![b'x'; 8 << 20]).unwrap();
    // Many that go away at once, some by a reset.
    for number in 0..300 {
        let stream = Socket::from(server.connect());
        if number % 2 == 0 {
            stream.set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
    // Datagrams without a word, and too long ones.
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    for length in [0, 1, 60_000] {
        let payload = vec![b'x'; length];
        datagrams.send_to(&payload, ("127.0.0.1", server.port)).unwrap();
    }
    for transport in ["-udp", "-udp=false"] {
        let run = run(&[transport, "-address", &server.at("127.0.0.1"), "-nconn=100"]);
        assert_eq!(run.code, 0, "{run:?}");
    }
    // The greedy one was not cut off.
    let mut answer = vec![0; name.len() * 3];
    greedy.read_exact(&mut answer).unwrap();
    assert_eq!(answer, name.repeat(3).as_bytes());
}

#[test]
fn a_server_without_file_descriptors_recovers() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 32; exec \"$0\" \"$@\"", MCONNECT, "-server"]);
    let server = Server::spawn(command, &["-address", "127.0.0.1:0"]);
    let address = server.at("127.0.0.1");
    let run_many = |arguments: &[&str]| {
        let common = ["-address", &address, "-nconn=100", "-output=json"];
        run(&[&common, arguments].concat())
    };

    let crowd = run_many(&["-keep", "-timeout=1s", "-maxconcurrent=100"]);
    assert_eq!(crowd.code, 1);
    let answered = crowd.hosts()[0].1;
    assert!((10..32).contains(&answered), "{crowd:?}");
    assert_eq!(crowd.json()["failed_reads"], 100 - answered);
    server.expect_line("Too many open files");

    // The crowd is gone: everyone is answered again.
    let after = run_many(&["-timeout=20s"]);
    assert_eq!(after.code, 0, "{after:?}");
}

// ---- Helpers

/// A server on a free port; ended when dropped.
struct Server {
    child: Child,
    port: u16,
    lines: Receiver<String>,
}

/// What a finished program left behind.
#[derive(Debug)]
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(MCONNECT);
        command.arg("-server");
        Self::spawn(command, arguments)
    }

    fn spawn(mut command: Command, arguments: &[&str]) -> Self {
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let expected = match arguments.contains(&"-udp") {
            true => "Listen on UDP address; ",
            false => "Listen on address; ",
        };
        // The port that is free for TCP may be taken for UDP: try again.
        for _ in 0..5 {
            let mut child = command.spawn().unwrap();
            let lines = lines_of(child.stderr.take().unwrap());
            while let Ok(line) = lines.recv_timeout(PATIENCE) {
                if let Some(address) = line.strip_prefix(expected) {
                    let port = address.parse::<SocketAddr>().unwrap().port();
                    return Self { child, port, lines };
                }
            }
            let _ = child.kill();
            child.wait().unwrap();
        }
        panic!("no server with {arguments:?}");
    }

    fn at(&self, host: &str) -> String {
        format!("{host}:{}", self.port)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn expect_line(&self, part: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).expect(part);
            if line.contains(part) {
                return;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Run {
    fn json(&self) -> Value {
        assert_eq!(self.stdout.matches('\n').count(), 1, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap()
    }

    fn hosts(&self) -> Vec<(String, u64)> {
        self.json()["hosts"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(host, count)| (host.clone(), count.as_u64().unwrap()))
            .collect()
    }
}

fn run(arguments: &[&str]) -> Run {
    collect(start(arguments))
}

fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(MCONNECT);
    command.args(arguments);
    spawn_piped(command)
}

fn finish(command: Command) -> Run {
    collect(spawn_piped(command))
}

fn spawn_piped(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for the end of a program whose output fits into a pipe.
fn collect(mut child: Child) -> Run {
    let code = wait(&mut child);
    let Output { stdout, stderr, .. } = child.wait_with_output().unwrap();
    Run {
        code,
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

/// Waits for the end of a program and returns its exit code.
fn wait(child: &mut Child) -> i32 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().expect("an exit code and no signal");
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("process {} does not end", child.id());
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn send_signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

fn lines_of(stream: impl io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn is_in_127_7(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.octets()[..2] == [127, 7])
}
