//! Programs as a user runs them: started, waited for, and what they left.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

pub const BREAK_TEST: &str = env!("CARGO_BIN_EXE_break-test");
pub const CTRAFFIC: &str = env!("CARGO_BIN_EXE_ctraffic");
pub const EVIL: &str = env!("CARGO_BIN_EXE_evil");
pub const HELLO_CLIENT: &str = env!("CARGO_BIN_EXE_hello-client");
pub const HELLO_SERVER: &str = env!("CARGO_BIN_EXE_hello-server");
pub const KAHTTP: &str = env!("CARGO_BIN_EXE_kahttp");
pub const MCONNECT: &str = env!("CARGO_BIN_EXE_mconnect");

/// No wait in these tests is longer; none of them is used up by a success.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often something is measured that a busy machine may disturb.
const TRIES: usize = 5;

/// A server on a free port; ended when dropped.
pub struct Server {
    pub child: Child,
    pub port: u16,
    lines: Receiver<String>,
}

/// What a finished program left behind.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Server {
    pub fn start(tool: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(tool);
        command.arg("-server");
        Self::spawn(command, arguments)
    }

    pub fn spawn(mut command: Command, arguments: &[&str]) -> Self {
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let has_udp = arguments.contains(&"-udp") || command.get_program() == HELLO_SERVER;
        let expected = match has_udp {
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

    pub fn at(&self, host: &str) -> String {
        format!("{host}:{}", self.port)
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The next line on stderr that has this in it.
    pub fn expect_line(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).expect(part);
            if line.contains(part) {
                return line;
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
    pub fn json(&self) -> Value {
        assert_eq!(self.stdout.matches('\n').count(), 1, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap()
    }

    pub fn hosts(&self) -> Vec<(String, u64)> {
        self.json()["hosts"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(host, count)| (host.clone(), count.as_u64().unwrap()))
            .collect()
    }
}

pub fn run(tool: &str, arguments: &[&str]) -> Run {
    collect(start(tool, arguments))
}

pub fn start(tool: &str, arguments: &[&str]) -> Child {
    let mut command = Command::new(tool);
    command.args(arguments);
    spawn_piped(command)
}

pub fn finish(command: Command) -> Run {
    collect(spawn_piped(command))
}

/// Runs a shell script in a network namespace of its own, with a tool as `$0`.
/// `None` if this user may not make a namespace.
pub fn in_namespace(script: &str, tool: &str) -> Option<Run> {
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", "sh", "-ec", script, tool]);
        finish(command)
    };
    if unshare("true").code != 0 {
        eprintln!("skipped: this user may not make a network namespace");
        return None;
    }
    Some(unshare(script))
}

/// The same with a second host: here are 10.9.0.2 and fd00:9::2, there 10.9.0.1, 10.9.1.1, fd00:9::1 and
/// fd00:9:1::1. The script runs a command there as `far COMMAND`, and waits for one with `until_true COMMAND`.
pub fn between_hosts(script: &str, tool: &str) -> Option<Run> {
    let script = format!(
        "unshare --net sleep 60 & peer=$!; export peer
        trap 'kill $peer' EXIT
        far() {{ nsenter --net --target $peer \"$@\"; }}
        until_true() {{
            tries=500
            until \"$@\" >/dev/null 2>&1; do tries=$((tries - 1)); [ $tries -gt 0 ]; sleep 0.02; done
        }}
        is_apart() {{ [ $(readlink /proc/$peer/ns/net) != $(readlink /proc/self/ns/net) ]; }}
        until_true is_apart
        ip link set lo up
        ip link add near type veth peer name far netns $peer
        ip addr add 10.9.0.2/24 dev near
        ip addr add fd00:9::2/64 dev near nodad
        ip link set near up
        far ip link set lo up
        far ip link set far up
        far ip addr add 10.9.0.1/24 dev far
        far ip addr add fd00:9::1/64 dev far nodad
        far ip addr add 10.9.1.1/32 dev lo
        far ip addr add fd00:9:1::1/128 dev lo nodad
        ip route add 10.9.1.1 via 10.9.0.1
        ip route add fd00:9:1::1 via fd00:9::1
        {script}"
    );
    in_namespace(&script, tool)
}

fn spawn_piped(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What Debian's nc makes of a server here that is told `input`.
pub fn netcat(arguments: &[&str], port: &str, input: &[u8]) -> Run {
    let mut child = Command::new("nc")
        .args(arguments)
        .args(["127.0.0.1", port])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nc of netcat-openbsd (make deps)");
    type_in(&mut child, input);
    collect(child)
}

/// Gives a program all of its standard input. One that refuses its arguments has ended before it reads any.
pub fn type_in(child: &mut Child, input: &[u8]) {
    if let Err(error) = child.stdin.take().unwrap().write_all(input) {
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{error}");
    }
}

/// Waits for the end of a program whose output fits into a pipe.
pub fn collect(mut child: Child) -> Run {
    let code = wait(&mut child);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    let output = receiver.recv_timeout(PATIENCE);
    // A script that failed may have left a server in the background.
    let output =
        output.unwrap_or_else(|_| panic!("exit code {code}, and its output is still open"));
    let Output { stdout, stderr, .. } = output.unwrap();
    Run {
        code,
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

/// Waits for the end of a program and returns its exit code.
pub fn wait(child: &mut Child) -> i32 {
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

/// A measurement in milliseconds is wrong when a busy machine makes a pause of its own, but hardly each time: it must
/// come out right once. `None` if it cannot be made here.
pub fn comes_out_right(mut measure: impl FnMut() -> Option<Result<(), String>>) {
    let mut wrong = Vec::new();
    for _ in 0..TRIES {
        match measure() {
            None | Some(Ok(())) => return,
            Some(Err(why)) => wrong.push(why),
        }
    }
    panic!("{wrong:#?}");
}

pub fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

pub fn send_signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

pub fn lines_of(stream: impl io::Read + Send + 'static) -> Receiver<String> {
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
