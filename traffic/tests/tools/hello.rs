//! hello-server and hello-client.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::process::Command;

use nix::sys::signal::Signal;
use traffic::process::host_name;

use crate::harness::{
    HELLO_CLIENT, HELLO_SERVER, PATIENCE, Server, collect, netcat, run, send_signal, wait,
};

fn server(arguments: &[&str]) -> Server {
    let mut command = Command::new(HELLO_SERVER);
    command.args(arguments);
    Server::spawn(command, &["-address", "[::]:0"])
}

fn greeting() -> String {
    format!("{}: HELLO, I AM ALIVE!!!", host_name().unwrap())
}

#[test]
fn the_answer_names_the_host() {
    let server = server(&[]);
    let port = server.port.to_string();
    for protocol in ["tcp", "udp"] {
        for ip in ["127.0.0.1", "::1"] {
            let run = run(HELLO_CLIENT, &["-protocol", protocol, ip, &port]);
            assert_eq!(run.code, 0, "{protocol} {ip}: {run:?}");
            assert_eq!(run.stdout, format!("Sending Message\n{}\n", greeting()));
            assert_eq!(run.stderr, "");
        }
    }
    let address = server.at("127.0.0.1");
    let run = run(HELLO_CLIENT, &["-address", &address, "-message=hi", "-count=2"]);
    let answer = format!("Sending Message\n{}: hi\n", host_name().unwrap());
    assert_eq!((run.code, run.stdout), (0, answer.repeat(2)));
}

#[test]
fn the_client_does_not_wait_for_ever() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let deaf = UdpSocket::bind("127.0.0.1:0").unwrap();
    for (protocol, address) in
        [("tcp", silent.local_addr().unwrap()), ("udp", deaf.local_addr().unwrap())]
    {
        let address = address.to_string();
        let run =
            run(HELLO_CLIENT, &["-address", &address, "-protocol", protocol, "-timeout=200ms"]);
        assert_eq!(run.code, 1);
        assert_eq!(run.stderr, format!("hello-client: ask {address}: no answer within 200ms\n"));
    }
}

#[test]
fn an_answer_in_pieces_is_put_together_and_a_cut_one_is_an_error() {
    for (pieces, code, part) in [
        (&["vm-001: HELLO, I AM", " ALIVE!!!"][..], 0, "vm-001: HELLO, I AM ALIVE!!!\n"),
        (&["vm-001: HELLO"], 1, "closed by the server"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let client = crate::harness::start(HELLO_CLIENT, &["-address", &address]);
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        stream.read_exact(&mut [0; 20]).unwrap();
        for piece in pieces {
            stream.write_all(piece.as_bytes()).unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
        let run = collect(client);
        assert_eq!(run.code, code, "{run:?}");
        assert!((run.stdout.clone() + &run.stderr).contains(part), "{run:?}");
    }
}

#[test]
fn a_bad_command_line_is_refused() {
    for (code, arguments, complaint) in [
        (1, &["10.0.0.1"][..], "1 operands: needs IP and PORT"),
        (1, &["10.0.0.1", "x"], "\"x\" is not a port"),
        (1, &["here", "90"], "\"here\" is not an IP address"),
        (1, &["-timeout=0"], "timeout 0: needs some time"),
        (2, &["-protocol=icmp"], "neither tcp, udp nor sctp"),
        (2, &["-stack=none"], "neither auto, kernel nor user"),
        (2, &["-encap-local=0"], "not a port"),
    ] {
        let run = run(HELLO_CLIENT, arguments);
        assert_eq!(run.code, code, "{arguments:?}: {run:?}");
        assert!(run.stderr.contains(complaint), "{run:?}");
        assert_eq!(run.stdout, "");
    }
    let run = run(HELLO_SERVER, &["-address=192.0.2.1:1"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.starts_with("hello-server: listen on 192.0.2.1:1: "), "{run:?}");
}

#[test]
fn an_idle_connection_is_closed_and_a_talking_one_is_not() {
    let server = server(&["-timeout=1s"]);
    let mut idle = server.connect();
    let mut talking = server.connect();
    let talk = |stream: &mut TcpStream| {
        stream.write_all(b"x")?;
        stream.read_exact(&mut vec![0; host_name().unwrap().len() + 3])
    };
    // The idle one is closed; until then the other talks.
    idle.set_nonblocking(true).unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        talk(&mut talking).unwrap();
        match idle.read(&mut [0]) {
            Ok(length) => break assert_eq!(length, 0),
            Err(_) => assert!(std::time::Instant::now() < deadline, "it is never closed"),
        }
    }
    talk(&mut talking).unwrap();
}

#[test]
fn netcat_is_served() {
    let server = server(&[]);
    let port = server.port.to_string();
    for arguments in [&["-N", "-w5"][..], &["-u", "-w1"]] {
        assert_eq!(
            netcat(arguments, &port, b"HELLO, I AM ALIVE!!!").stdout,
            greeting(),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_signal_ends_the_server_well() {
    let mut server = server(&[]);
    send_signal(&server.child, Signal::SIGTERM);
    assert_eq!(wait(&mut server.child), 0);
}
