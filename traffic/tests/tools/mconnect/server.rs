//! The server alone, against clients that the tests play.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use socket2::Socket;
use traffic::process::host_name;

use crate::harness::{MCONNECT, Server, run, send_signal, wait};

#[test]
fn a_signal_ends_the_server_well() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = Server::start(MCONNECT, &["-udp", "-address", "[::]:0"]);
        let _held = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        send_signal(&server.child, signal);
        assert_eq!(wait(&mut server.child), 0);
    }
}

#[test]
fn an_address_in_use_ends_the_server_with_an_error() {
    let server = Server::start(MCONNECT, &["-address", "127.0.0.1:0"]);
    let address = server.at("127.0.0.1");
    let second = run(MCONNECT, &["-server", "-address", &address]);
    assert_eq!(second.code, 1);
    assert_eq!(
        second.stderr,
        format!("mconnect: listen on {address}: Address already in use (os error 98)\n")
    );
}

#[test]
fn whatever_is_sent_is_answered_with_the_host_name() {
    let server = Server::start(MCONNECT, &["-address", "[::]:0"]);
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
    let server = Server::start(MCONNECT, &["-udp", "-address", "[::]:0"]);
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
        let run = run(MCONNECT, &[transport, "-address", &server.at("127.0.0.1"), "-nconn=100"]);
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
        run(MCONNECT, &[&common, arguments].concat())
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
