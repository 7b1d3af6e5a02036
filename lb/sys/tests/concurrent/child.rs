//! Processes that a test starts: this test binary once more, in a role.

use std::env;
use std::io::{BufRead, BufReader, Write, stdout};
use std::os::unix::process::{ExitStatusExt, parent_id};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::random::Random;
use crate::room::Room;
use crate::{counters, killed, racing};

const ROLE: &str = "MARKWAY_TEST_ROLE";
const FOLDER: &str = "MARKWAY_TEST_FOLDER";
const SEED: &str = "MARKWAY_TEST_CHILD_SEED";

type Play = fn(&Room, Random, &Stage);

const ROLES: [(&str, Play); 6] = [
    ("publish", killed::publish),
    ("replace", racing::replace),
    ("activate", racing::activate),
    ("upset", racing::upset),
    ("change", racing::change),
    ("count", counters::count),
];

/// In a test run this does nothing; in a child it is all that runs.
#[test]
fn entry() {
    let Ok(role) = env::var(ROLE) else { return };
    let (_, play) = ROLES.iter().find(|(name, _)| *name == role).expect("a role");
    let room = Room::at(env::var_os(FOLDER).expect("a folder"));
    let seed = env::var(SEED).ok().and_then(|text| text.parse().ok()).expect("a seed");
    play(&room, Random::new(seed), &Stage::enter());
}

/// What a child knows about who started it.
pub struct Stage {
    parent: u32,
    deadline: Instant,
}

impl Stage {
    fn enter() -> Self {
        /// A child that is forgotten ends all the same.
        const LONGEST: Duration = Duration::from_secs(3600);
        Stage { parent: parent_id(), deadline: Instant::now() + LONGEST }
    }

    /// Tells that the child is at work.
    pub fn ready(&self) {
        // The macros would go through the test harness.
        writeln!(stdout(), "{READY}").expect("the parent listens");
    }

    /// Whether anybody still wants the child to work: the parent lives.
    pub fn is_wanted(&self) -> bool {
        parent_id() == self.parent && Instant::now() < self.deadline
    }
}

const READY: &str = "ready";

/// A child as its parent sees it. It is killed when it is dropped.
pub struct Actor {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Actor {
    /// Starts a child in a room.
    pub fn start(role: &str, room: &Room, random: &mut Random) -> Self {
        assert!(ROLES.iter().any(|(name, _)| *name == role), "{role}");
        let mut child = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "child::entry", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(FOLDER, room.path())
            .env(SEED, random.next().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program runs");
        let said = BufReader::new(child.stdout.take().expect("it is piped"));
        Actor { child, said }
    }

    /// Waits until the child is at work.
    pub fn wait_ready(&mut self) {
        let mut line = String::new();
        while !line.trim_end().ends_with(READY) {
            line.clear();
            let len = self.said.read_line(&mut line).expect("it writes text");
            assert!(len > 0, "the child ended: {:?}", self.child.wait());
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills the child, which must not have ended by itself: it does so when it finds something wrong.
    pub fn kill(mut self) {
        self.child.kill().expect("it is ours");
        let status = self.child.wait().expect("it is ours");
        assert_eq!(status.signal(), Some(SIGKILL), "the child ended by itself: {status}");
    }
}

const SIGKILL: i32 = 9;

impl Drop for Actor {
    fn drop(&mut self) {
        // Mostly it is dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
