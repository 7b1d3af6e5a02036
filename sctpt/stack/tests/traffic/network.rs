//! Two hosts with two links between them, made of namespaces: the test itself and its peer.

use std::fmt::Display;
use std::io::{BufRead as _, BufReader, Write as _, stderr};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use sctp_stack::{
    Addresses, Association, Choice, Encapsulation, Event, KernelStack, PathState, Result, Rto,
    Settings, Stack, open,
};

/// No wait in these tests is longer; none of them is used up by a success. A virtual machine may be slow.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Of a whole test.
const LONGEST: Duration = Duration::from_secs(180);
/// Set in the process that runs in the namespace.
const INSIDE: &str = "MARKWAY_SCTP_TEST_INSIDE";
const UDP_PORT: &str = "/proc/sys/net/sctp/udp_port";

pub const PORT: u16 = 6000;
/// The test's addresses and the peer's on both links, IPv4 and IPv6.
pub const NEAR: [&str; 4] = ["10.1.0.1", "10.2.0.1", "fd01::1", "fd02::1"];
pub const FAR: [&str; 4] = ["10.1.0.2", "10.2.0.2", "fd01::2", "fd02::2"];
pub const ENCAPSULATION: Encapsulation = Encapsulation { local: 9899, remote: 9899 };

/// Makes a test of each stack from a function.
macro_rules! on_both_stacks {
    ($($name:ident),+ $(,)?) => {
        mod user {$(
            #[test]
            fn $name() {
                $crate::network::run(module_path!(), stringify!($name), sctp_stack::Choice::User, super::$name);
            }
        )+}
        mod kernel {$(
            #[test]
            fn $name() {
                $crate::network::run(module_path!(), stringify!($name), sctp_stack::Choice::Kernel, super::$name);
            }
        )+}
    };
}
pub(crate) use on_both_stacks;

/// Runs a test in a namespace of its own.
pub fn run(module: &str, name: &str, choice: Choice, body: fn(&mut Net)) {
    if env::var_os(INSIDE).is_some() {
        return body(&mut Net::new(choice));
    }
    if choice == Choice::Kernel
        && let Err(missing) = KernelStack.check(None)
    {
        return skipped(&format!("{name} with the kernel's stack"), &missing);
    }
    if !unshare().arg("true").status().is_ok_and(|status| status.success()) {
        return skipped(name, &"this user may not make a network namespace");
    }
    // Without the crate's name, as the test harness calls it.
    let module = module.split_once("::").map_or(module, |(_, path)| path);
    let mut child = unshare()
        .arg(env::current_exe().unwrap())
        .args([&format!("{module}::{name}"), "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + LONGEST;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{name} does not end");
        }
        thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success(), "{name}: {status}");
}

/// Says so also when the test harness shows no output of what passed.
pub fn skipped(name: &str, why: &dyn Display) {
    stderr().write_all(format!("SKIPPED {name}: {why}\n").as_bytes()).unwrap();
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net"]);
    command
}

/// The test's own host.
pub struct Net {
    pub choice: Choice,
    pub stack: Box<dyn Stack>,
    pub settings: Settings,
}

impl Net {
    fn new(choice: Choice) -> Self {
        sh("ip link set lo up");
        let (stack, why) = open(choice, None).unwrap();
        eprintln!("{why}");
        // Quick, so that failures are seen soon.
        let ms = Duration::from_millis;
        let settings = Settings {
            heartbeat: Some(ms(200)),
            rto: Some(Rto { initial: ms(200), min: ms(100), max: ms(400) }),
            path_max_retransmits: Some(1),
            association_max_retransmits: Some(4),
            ..Settings::default()
        };
        Net { choice, stack, settings }
    }

    /// A second host, linked twice; its stack is of the same kind.
    pub fn peer(&self) -> Peer {
        self.peer_of(self.choice)
    }

    pub fn peer_of(&self, choice: Choice) -> Peer {
        let peer = Peer::start(Command::new("unshare").arg("--net"), choice);
        peer.link();
        peer
    }

    /// Another process on this host.
    pub fn neighbour(&self) -> Peer {
        Peer::start(&mut Command::new("env"), self.choice)
    }

    /// From now on all goes in UDP here.
    pub fn encapsulate(&mut self) {
        if self.choice == Choice::Kernel {
            fs::write(UDP_PORT, "9899").unwrap();
        }
        self.settings.encapsulation = Some(ENCAPSULATION);
    }

    pub fn connect(&self, local: &str, remote: &str) -> Result<Arc<dyn Association>> {
        let local = Addresses::parse(local, 0).unwrap();
        let remote = Addresses::parse(remote, PORT).unwrap();
        self.stack.connect(&local, &remote, &self.settings, in_time())
    }
}

pub fn in_time() -> Instant {
    Instant::now() + PATIENCE
}

/// Runs shell commands.
pub fn sh(script: &str) {
    let status = Command::new("sh").args(["-ec", script]).status().unwrap();
    assert!(status.success(), "{script}: {status}");
}

/// The next message; events before it are left out.
pub fn message(association: &dyn Association, buffer: &mut [u8]) -> usize {
    let deadline = in_time();
    loop {
        match association.receive(buffer, Some(deadline)).unwrap() {
            Some(Event::Message { length, .. }) => return length,
            Some(Event::Path { .. }) => {}
            other => panic!("{other:?} instead of a message"),
        }
    }
}

/// Waits until all paths are active.
pub fn all_active(association: &dyn Association) {
    let deadline = in_time();
    let mut buffer = vec![0; sctp_stack::MAX_MESSAGE];
    loop {
        let paths = association.paths().unwrap();
        if paths.iter().all(|path| path.state == PathState::Active) {
            return;
        }
        assert!(Instant::now() < deadline, "{paths:?}");
        let soon = Instant::now() + Duration::from_millis(20);
        association.receive(&mut buffer, Some(soon)).unwrap();
    }
}

/// Waits for an event that is wanted.
pub fn expect(association: &dyn Association, wanted: impl Fn(&Event) -> bool) -> Event {
    let deadline = in_time();
    let mut buffer = vec![0; sctp_stack::MAX_MESSAGE];
    let mut seen = Vec::new();
    loop {
        match association.receive(&mut buffer, Some(deadline)) {
            Ok(Some(event)) if wanted(&event) => return event,
            Ok(Some(event)) => seen.push(event),
            other => panic!("{other:?} after {seen:?}"),
        }
    }
}

/// A process on the other host, which does what it is told (`peer`).
pub struct Peer {
    child: Child,
    commands: ChildStdin,
    lines: Receiver<String>,
}

impl Peer {
    /// Starts it by another command.
    fn start(by: &mut Command, choice: Choice) -> Self {
        let mut child = by
            .arg(env::current_exe().unwrap())
            .args(["peer::peer", "--exact", "--ignored", "--nocapture"])
            .env("MARKWAY_SCTP_TEST_STACK", choice.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.map_while(|line| line.ok()) {
                // The test harness prints, too.
                if let Some((_, line)) = line.split_once("peer: ")
                    && sender.send(line.to_string()).is_err()
                {
                    return;
                }
            }
        });
        let peer = Peer { child, commands, lines: receiver };
        assert_eq!(peer.line(), "ready");
        peer
    }

    /// Makes the links between its host and this one.
    fn link(&self) {
        let peer = self;
        for (index, net) in [1, 2].into_iter().enumerate() {
            let pid = peer.child.id();
            sh(&format!(
                "ip link add near{net} type veth peer name far{net} netns {pid}
                ip addr add {}/24 dev near{net}
                ip addr add {}/64 dev near{net} nodad
                ip link set near{net} up",
                NEAR[index],
                NEAR[index + 2],
            ));
            peer.sh(&format!(
                "ip addr add {}/24 dev far{net}
                ip addr add {}/64 dev far{net} nodad
                ip link set far{net} up",
                FAR[index],
                FAR[index + 2],
            ));
        }
        peer.sh("ip link set lo up");
    }

    /// Runs shell commands on its host.
    pub fn sh(&self, script: &str) {
        let pid = self.child.id().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &pid, "sh", "-ec", script]);
        let status = command.status().unwrap();
        assert!(status.success(), "{script}: {status}");
    }

    /// Tells it something and waits for the answer.
    pub fn tell(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}").unwrap();
        self.line()
    }

    /// Lets it listen and send everything back.
    pub fn echo(&mut self, addresses: &str) {
        assert_eq!(self.tell(&format!("echo {addresses}")), format!("listening {PORT}"));
    }

    /// The same, in UDP.
    pub fn echo_encapsulated(&mut self, addresses: &str) {
        let command = format!("encapsulated-echo {addresses}");
        assert_eq!(self.tell(&command), format!("listening {PORT}"));
    }

    pub fn line(&self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("the peer says nothing"),
            Err(RecvTimeoutError::Disconnected) => panic!("the peer is gone"),
        }
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
