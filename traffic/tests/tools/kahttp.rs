//! kahttp: client and server together, and each with other programs.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use traffic::process::host_name;

use crate::harness::{
    KAHTTP, PATIENCE, Run, Server, collect, finish, lines_of, run, send_signal, start, wait,
};

/// A server with a certificate made at start.
struct Site {
    server: Server,
    tls_port: u16,
}

fn site(arguments: &[&str]) -> Site {
    let common = ["-address", "[::]:0", "-https_addr", "[::]:0", "-https_selfsigned"];
    let server = Server::start(KAHTTP, &[&common, arguments].concat());
    let line = server.expect_line("Listen on TLS address; ");
    let address: SocketAddr = line.rsplit(' ').next().unwrap().parse().unwrap();
    Site { server, tls_port: address.port() }
}

impl Site {
    fn url(&self, scheme: &str, host: &str) -> String {
        let port = if scheme == "https" { self.tls_port } else { self.server.port };
        format!("{scheme}://{host}:{port}/some/path?and=more")
    }
}

fn ask(url: &str, arguments: &[&str]) -> Run {
    let common = ["-address", url, "-nclients=5", "-rate=100", "-timeout=500ms", "-host_stats"];
    run(KAHTTP, &[&common, arguments].concat())
}

#[test]
fn every_request_is_answered_on_kept_connections() {
    let site = site(&[]);
    for (scheme, arguments) in
        [("http", &[][..]), ("http", &["-http2"]), ("https", &[]), ("https", &["-http2"])]
    {
        for host in ["127.0.0.1", "[::1]", "localhost"] {
            let run = ask(&site.url(scheme, host), arguments);
            assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{scheme} {arguments:?}");
            let found = run.json();
            let sent = found["Sent"].as_u64().unwrap();
            // Five clients, each of which sends at once or a moment later; a busy machine drops some.
            assert!((6..=50).contains(&sent), "{found}");
            assert_eq!(found["Received"], sent);
            assert_eq!(found["Dials"], 5, "{found}");
            assert_eq!(found["Hosts"][host_name().unwrap()], sent);
            for key in ["FailedConnections", "FailedConnects", "NotOK", "Lost"] {
                assert_eq!(found[key], 0, "{found}");
            }
        }
    }
}

#[test]
fn without_keep_alive_each_request_has_its_connection() {
    let site = site(&[]);
    for (scheme, arguments) in
        [("http", &["-disable_ka"][..]), ("https", &["-disable_ka", "-http2"])]
    {
        let found = ask(&site.url(scheme, "127.0.0.1"), arguments).json();
        assert_eq!(found["Dials"], found["Sent"], "{found}");
        assert_eq!(found["Received"], found["Sent"]);
        assert_eq!(found["FailedConnections"], 0);
    }
    // The end of the run meets connections that are being made. None of them fails.
    let found = ask(&site.url("http", "127.0.0.1"), &["-disable_ka", "-rate=100000"]).json();
    assert_eq!(found["Dials"], found["Sent"], "{found}");
    assert_eq!(found["FailedConnects"], 0, "{found}");
    // The server may want it, too. Then the client notices and dials again.
    let site = self::site(&["-disable_ka"]);
    let found = ask(&site.url("http", "127.0.0.1"), &[]).json();
    assert_eq!(found["Dials"], found["Received"], "{found}");
    assert_eq!(found["FailedConnections"], 0, "{found}");
}

#[test]
fn curl_is_served() {
    let site = site(&["-log-access=/some"]);
    let version = |run: &Run| {
        let proto = run.stdout.lines().find_map(|line| line.strip_prefix("Proto: "));
        proto.unwrap_or_default().to_owned()
    };
    for (scheme, arguments, expected) in [
        ("http", &["--http1.1"][..], "HTTP/1.1"),
        ("http", &["--http1.0"], "HTTP/1.0"),
        ("http", &["--http2-prior-knowledge"], "HTTP/2.0"),
        ("https", &["--http1.1", "-k"], "HTTP/1.1"),
        ("https", &["--http2", "-k"], "HTTP/2.0"),
    ] {
        let mut command = Command::new("curl");
        command.args(["-gsS", "-m5", "-H", "X-Some: thing"]).args(arguments);
        command.arg(site.url(scheme, "127.0.0.1"));
        let run = finish(command);
        assert_eq!(run.code, 0, "{run:?}");
        assert_eq!(version(&run), expected);
        let header = format!("@{}\n", host_name().unwrap());
        for part in [
            "Method: GET\n",
            "URL: /some/path?and=more\n",
            "RequestURI: /some/path?and=more\n",
            "ContentLength: 0\n",
            "RemoteAddr: ",
            "Host: 127.0.0.1:",
            "X-Kahttp-Server-Host: Kahttp/",
            &header,
            "x-some: thing\n",
        ] {
            assert!(run.stdout.contains(part), "{part:?}: {run:?}");
        }
        assert_eq!(run.stdout.contains("Tls-nPeerCertificates: 0\n"), scheme == "https");
        let line = site.server.expect_line("; 127.0.0.1:");
        assert!(line.contains("/some/path?and=more from "), "{line}");
    }
}

/// Certificates made by openssl: one for the server, which clients may show
/// too, and one from elsewhere.
#[test]
fn certificates_of_files_are_used_and_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for name in ["own", "other"] {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]);
        openssl.args(["-subj", "/CN=kahttp.localdomain"]);
        // One that may stand for itself, not only for others.
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        openssl.args(["-keyout", &path(&format!("{name}.key"))]);
        openssl.args(["-out", &path(&format!("{name}.crt"))]);
        let child = openssl
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl (make deps)");
        assert_eq!(collect(child).code, 0);
    }
    let (certificate, key) = (path("own.crt"), path("own.key"));
    let arguments = ["-address", "127.0.0.1:0", "-https_addr", "127.0.0.1:0"];
    let files = ["-https_cert", &certificate, "-https_key", &key];
    let server = Server::start(KAHTTP, &[&arguments[..], &files].concat());
    let line = server.expect_line("Listen on TLS address; ");
    let address = line.rsplit(' ').next().unwrap();

    let curl = |with: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-gsSk", "-m5"]).args(with).arg(format!("https://{address}/"));
        finish(command)
    };
    assert!(curl(&[]).stdout.contains("Tls-nPeerCertificates: 0\n"));
    let own = curl(&["--cert", &certificate, "--key", &key]);
    assert!(own.stdout.contains("Tls-nPeerCertificates: 1\n"), "{own:?}");
    let other = curl(&["--cert", &path("other.crt"), "--key", &path("other.key")]);
    assert_ne!(other.code, 0, "{other:?}");
    // Without one the own client gets in, too.
    let found = ask(&format!("https://{address}/"), &[]).json();
    assert_eq!(found["Sent"], found["Received"]);
}

#[test]
fn other_answers_are_counted_as_what_they_are() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let client = start(
        KAHTTP,
        &["-address", &url, "-rate=1000", "-timeout=1h", "-host_stats", "-fail-on=failed"],
    );
    let mut buffer = [0; 1_024];
    let mut answer = |text: &str| {
        let (mut stream, _) = listener.accept().unwrap();
        let length = stream.read(&mut buffer).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let question = answer(
        "HTTP/1.1 503 Busy\r\nConnection: close\r\nX-Kahttp-Server-Host: a@b\r\n\
         Content-Length: 0\r\n\r\n",
    );
    assert!(question.starts_with("GET / HTTP/1.1\r\n"), "{question}");
    answer("no HTTP at all\r\n\r\n");
    // Nothing, and the end.
    answer("");
    let (_held, _) = listener.accept().unwrap();
    send_signal(&client, Signal::SIGTERM);
    let run = collect(client);
    assert_eq!(run.code, 3, "{run:?}");
    let found = run.json();
    assert_eq!(found["NotOK"], 1, "{found}");
    assert_eq!(found["Received"], 1);
    assert_eq!(found["Hosts"]["b"], 1);
    assert_eq!(found["FailedConnections"], 2);
    assert!(run.stderr.contains("kahttp: 2 connections failed\n"), "{run:?}");
}

#[test]
fn a_refused_connect_is_counted() {
    let taken = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    taken.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = taken.local_addr().unwrap().as_socket().unwrap();
    let url = format!("http://{address}/");
    let run = run(KAHTTP, &["-address", &url, "-rate=100", "-timeout=1s"]);
    assert_eq!(run.code, 0);
    let found = run.json();
    // At 0, 100, 300 and 600 ms; a busy machine is late for some.
    assert!((2..=4).contains(&found["FailedConnects"].as_u64().unwrap()), "{found}");
    assert_eq!((&found["Dials"], &found["Sent"]), (&0.into(), &0.into()));
    assert!(run.stderr.contains("Connection refused"), "{run:?}");
}

#[test]
fn a_server_without_http2_is_fatal_where_it_is_asked_for() {
    // openssl's server takes no part in ALPN.
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x"]);
    openssl.args(["-keyout", &path("key"), "-out", &path("crt")]);
    let child =
        openssl.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("openssl (make deps)");
    assert_eq!(collect(child).code, 0);
    let mut openssl = Command::new("openssl");
    openssl.args(["s_server", "-accept", "0", "-www", "-key", &path("key"), "-cert", &path("crt")]);
    let mut server = openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = lines_of(server.stdout.take().unwrap());
    let address = loop {
        let line = lines.recv_timeout(PATIENCE).unwrap();
        if let Some(address) = line.strip_prefix("ACCEPT ") {
            break address.to_owned();
        }
    };
    let port = address.rsplit(':').next().unwrap();
    let url = format!("https://127.0.0.1:{port}/");
    let http2 = run(KAHTTP, &["-address", &url, "-http2", "-timeout=2s", "-rate=20"]);
    let http1 = run(KAHTTP, &["-address", &url, "-timeout=1s", "-rate=20"]);
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(http2.code, 1, "{http2:?}");
    assert!(http2.stderr.ends_with("kahttp: the server does not speak HTTP/2\n"), "{http2:?}");
    // And it does serve the others, a connection each.
    let found = http1.json();
    assert_eq!(found["Received"], found["Sent"], "{http1:?}");
    assert_eq!(found["Dials"], found["Sent"], "{http1:?}");
}

#[test]
fn the_progress_is_told_and_a_signal_ends_both_well() {
    let mut site = site(&[]);
    let url = site.url("http", "127.0.0.1");
    let mut client = start(KAHTTP, &["-address", &url, "-rate=100", "-timeout=1h", "-monitor"]);
    let lines = lines_of(client.stderr.take().unwrap());
    let line = lines.recv_timeout(PATIENCE).unwrap();
    let counts = line
        .strip_prefix("Clients act/fail/Dials: 1/0/1, Packets send/rec/dropped: ")
        .unwrap_or_else(|| panic!("{line}"));
    let told: u64 = counts.split('/').next().unwrap().parse().unwrap();
    send_signal(&client, Signal::SIGINT);
    let run = collect(client);
    assert_eq!(run.code, 0);
    let found = run.json();
    assert_eq!(found["Lost"], 0, "{found}");
    assert!(told > 0 && found["Sent"].as_u64().unwrap() >= told, "{line}: {found}");
    send_signal(&site.server.child, Signal::SIGTERM);
    assert_eq!(wait(&mut site.server.child), 0);
}

#[test]
fn a_bad_command_line_is_refused() {
    for (code, arguments, complaint) in [
        (2, &["-bogus"][..], "unknown flag: -bogus"),
        (1, &["-server"], "serve: needs -address"),
        (1, &["-address=ftp://x/"], "neither http:// nor https://"),
        (1, &["-rate=-1"], "rate -1: no rate above 0"),
        (
            1,
            &["-server", "-address=:0", "-https_cert=/nowhere", "-https_key=/nowhere"],
            "read certificate /nowhere: ",
        ),
    ] {
        let run = run(KAHTTP, arguments);
        assert_eq!(run.code, code, "{arguments:?}: {run:?}");
        assert!(run.stderr.contains(complaint), "{run:?}");
        assert_eq!(run.stdout, "");
    }
    assert!(run(KAHTTP, &["-print=man"]).stdout.starts_with(".TH kahttp 1"));
}
