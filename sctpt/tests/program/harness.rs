//! Programs that are started, told to end, and waited for, each with a deadline.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

pub const SCTPT: &str = env!("CARGO_BIN_EXE_sctpt");

/// No wait in these tests is longer; none of them is used up by a success.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// What became of a run.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Run {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Its output, if it succeeded.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// The lines of what it says after it failed.
    pub fn fails(&self) -> &str {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert!(!self.stdout.contains('{'), "{self:?}");
        self.stderr.trim_end()
    }
}

/// Statistics in a folder that goes with the test.
pub struct Shm(tempfile::TempDir);

impl Shm {
    pub fn new() -> Self {
        Shm(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// sctpt with these arguments, to be run.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(SCTPT);
        command.args(line.split_whitespace());
        self.prepare(&mut command);
        command
    }

    pub fn prepare(&self, command: &mut Command) {
        command.env("MARKWAY_SHM_DIR", self.0.path()).stdin(Stdio::null());
    }

    pub fn run(&self, line: &str) -> Run {
        finish(self.command(line))
    }
}

/// Runs a command to its end, which must come in time.
pub fn finish(mut command: Command) -> Run {
    Running::start(&mut command).end()
}

/// A program that runs. It is killed when this goes.
pub struct Running {
    child: Option<Child>,
    shown: String,
    begin: Instant,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let shown = format!("{command:?}");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running { child: Some(child), shown, begin: Instant::now() }
    }

    fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("a child that was not waited for")
    }

    pub fn pid(&mut self) -> u32 {
        self.child().id()
    }

    /// Lines of its stderr, from now on.
    pub fn stderr(&mut self) -> Lines {
        let stream = self.child().stderr.take().unwrap();
        Lines::of(&self.shown, stream)
    }

    /// Lines of its stdout, from now on.
    pub fn stdout(&mut self) -> Lines {
        let stream = self.child().stdout.take().unwrap();
        Lines::of(&self.shown, stream)
    }

    pub fn type_in(&mut self, text: &str) {
        self.child().stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    pub fn close_stdin(&mut self) {
        drop(self.child().stdin.take());
    }

    pub fn signal(&mut self, signal: Signal) {
        kill(Pid::from_raw(self.pid().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for its end.
    pub fn end(mut self) -> Run {
        let child = self.child.take().unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(child.wait_with_output()));
        let output = receiver.recv_timeout(DEADLINE).unwrap_or_else(|_| {
            let _ = kill(pid, Signal::SIGKILL);
            panic!("{} hangs", self.shown)
        });
        let Output { status, stdout, stderr } = output.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let took = self.begin.elapsed();
        Run { code: status.code(), stdout: text(stdout), stderr: text(stderr), took }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub struct Lines {
    lines: Receiver<String>,
    shown: String,
}

impl Lines {
    fn of(shown: &str, stream: impl io::Read + Send + 'static) -> Self {
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                // Nobody may be interested any more; the pipe is emptied nevertheless.
                let _ = sender.send(line);
            }
        });
        Lines { lines, shown: shown.to_owned() }
    }

    /// Waits for a line that contains this, and returns it.
    pub fn until(&self, text: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        let mut seen = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => seen += &(line + "\n"),
                Err(_) => panic!("{}: no line with {text:?} in\n{seen}", self.shown),
            }
        }
    }

    /// All lines up to the end of the stream.
    pub fn rest(self) -> Vec<String> {
        self.lines.into_iter().collect()
    }
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

pub fn number(json: &Value, key: &str) -> u64 {
    json[key].as_u64().unwrap_or_else(|| panic!("{key} in {json:#}"))
}
