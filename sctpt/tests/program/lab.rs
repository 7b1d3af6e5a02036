//! A client's and a server's network namespace with two links between them.

use std::process::{Command, Stdio};

use crate::harness::{Lines, Running, SCTPT, Shm, finish};

pub struct Lab {
    client: Node,
    server: Node,
    pub shm: Shm,
}

/// A namespace, which lasts as long as the program in it.
struct Node {
    pid: u32,
    _holder: Running,
}

pub const SERVER: &str = "192.168.1.2,fd00:2::2";
pub const CLIENT: &str = "192.168.1.1,fd00:2::1";

/// Link N has 192.168.N.0/24 and fd00:N::/64; the client is host 1 and the server host 2.
const LINKS: [&str; 2] = ["1", "2"];

impl Lab {
    /// `None` if this user may not make a namespace, which is told.
    pub fn new() -> Option<Self> {
        let mut probe = Command::new("unshare");
        probe.args(["--map-root-user", "--net", "true"]);
        if finish(probe).code != Some(0) {
            eprintln!("skipped: this user may not make a network namespace");
            return None;
        }
        let client = Node::new(Command::new("unshare").args(["--map-root-user", "--net", "cat"]));
        let mut inner = Command::new("nsenter");
        inner.args(["--target", &client.pid.to_string(), "--user", "--preserve-credentials"]);
        let server = Node::new(inner.args(["unshare", "--net", "cat"]));
        let lab = Lab { client, server, shm: Shm::new() };
        let peer = lab.server.pid;
        for link in LINKS {
            lab.at_client(&format!("ip link add l{link} type veth peer name l{link} netns {peer}"));
        }
        for (at, host) in [(&lab.client, 1), (&lab.server, 2)] {
            at.run("ip link set lo up");
            for link in LINKS {
                at.run(&format!("ip link set l{link} up"));
                at.run(&format!("ip addr add 192.168.{link}.{host}/24 dev l{link}"));
                at.run(&format!("ip addr add fd00:{link}::{host}/64 dev l{link} nodad"));
            }
        }
        Some(lab)
    }

    pub fn at_client(&self, line: &str) {
        self.client.run(line);
    }

    /// Drops all SCTP that comes to the server on a link, or no longer.
    pub fn cut(&self, link: &str) {
        for line in [
            "nft add table inet cut",
            "nft add chain inet cut in { type filter hook input priority 0 ; }",
            &format!("nft add rule inet cut in iifname l{link} drop"),
        ] {
            self.server.run(line);
        }
    }

    pub fn mend(&self) {
        self.server.run("nft delete table inet cut");
    }

    /// sctpt in the client's namespace, to be run.
    pub fn client(&self, line: &str) -> Command {
        self.sctpt(&self.client, line)
    }

    fn sctpt(&self, node: &Node, line: &str) -> Command {
        let mut command = node.command(SCTPT);
        command.args(line.split_whitespace());
        self.shm.prepare(&mut command);
        command
    }

    /// A server that is ready, with the lines that it will tell.
    pub fn server(&self, line: &str) -> (Running, Lines) {
        let mut command = self.sctpt(&self.server, &format!("server --log 6 {line}"));
        let mut server = Running::start(&mut command);
        let lines = server.stderr();
        lines.until("Accepting connections on:");
        (server, lines)
    }
}

impl Node {
    fn new(command: &mut Command) -> Self {
        let mut holder = Running::start(command.stdin(Stdio::piped()));
        // `cat` answers when it is there, and so is its namespace. It ends with its stdin.
        holder.type_in("ready\n");
        holder.stdout().until("ready");
        let pid = holder.pid();
        Node { pid, _holder: holder }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let pid = self.pid.to_string();
        command.args(["--target", &pid, "--user", "--net", "--preserve-credentials", program]);
        command
    }

    fn run(&self, line: &str) {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().unwrap());
        command.args(words);
        finish(command).ok();
    }
}
