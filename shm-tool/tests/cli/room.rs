//! A folder of shared memory that goes with the test, and shm-tool in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

pub const SHM_TOOL: &str = env!("CARGO_BIN_EXE_shm-tool");

/// No wait in these tests is longer; none of them is used up by a success.
pub const DEADLINE: Duration = Duration::from_secs(30);

pub struct Room(tempfile::TempDir);

/// What became of a run.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Room {
    pub fn new() -> Self {
        Room(tempfile::tempdir().unwrap())
    }

    /// A room in which these commands were run.
    pub fn with(lines: &[&str]) -> Self {
        let room = Room::new();
        for line in lines {
            room.ok(line);
        }
        room
    }

    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.dir().join(file)
    }

    /// shm-tool with these arguments, to be run.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(SHM_TOOL);
        command
            .args(line.split_whitespace())
            .env("MARKWAY_SHM_DIR", self.dir())
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, line: &str) -> Run {
        finish(self.command(line))
    }

    /// What a run that succeeds prints.
    pub fn ok(&self, line: &str) -> String {
        let run = self.run(line);
        assert_eq!(run.code, Some(0), "{line}: {run:?}");
        assert_eq!(run.stderr, "", "{line}");
        run.stdout
    }

    /// What a run that succeeds prints as JSON.
    pub fn json(&self, line: &str) -> Value {
        let text = self.ok(&format!("{line} --json"));
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The one line in which a run that fails says why, without its `error: `. It changes no file.
    pub fn fails(&self, line: &str) -> String {
        let before = self.files();
        let run = self.run(line);
        assert_eq!(run.code, Some(1), "{line}: {run:?}");
        assert_eq!(run.stdout, "", "{line}");
        assert!(self.files() == before, "{line}: a file has changed");
        let error = run.stderr.strip_prefix("error: ");
        let error = error.and_then(|rest| rest.strip_suffix('\n'));
        let error = error.unwrap_or_else(|| panic!("{line}: {run:?}"));
        assert!(!error.contains('\n'), "{line}: {error}");
        error.into()
    }

    /// What a run that is refused for its arguments says. It changes no file.
    pub fn refused(&self, line: &str) -> String {
        let before = self.files();
        let run = self.run(line);
        assert_eq!(run.code, Some(2), "{line}: {run:?}");
        assert_eq!(run.stdout, "", "{line}");
        assert!(self.files() == before, "{line}: a file has changed");
        assert!(run.stderr.starts_with("error: "), "{line}: {run:?}");
        run.stderr
    }

    /// Every file with its content, hidden ones too.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.dir()).unwrap().map(Result::unwrap);
        entries
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read(entry.path()).unwrap())
            })
            .collect()
    }

    pub fn names(&self) -> Vec<String> {
        self.files().into_keys().collect()
    }

    /// Changes the content of a file.
    pub fn edit(&self, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path(file)).unwrap();
        change(&mut bytes);
        fs::write(self.path(file), bytes).unwrap();
    }

    pub fn fingerprint(&self, table: &str) -> String {
        let shown = self.json(&format!("show --shm {table}"));
        shown["fingerprint"].as_str().unwrap().into()
    }

    /// The targets of a table: index, mark and weight.
    pub fn targets(&self, table: &str) -> Vec<(u64, u64, u64)> {
        let shown = self.json(&format!("show --shm {table}"));
        let number = |target: &Value, key: &str| target[key].as_u64().unwrap();
        let targets = shown["targets"].as_array().unwrap().iter();
        targets
            .map(|target| {
                (number(target, "index"), number(target, "mark"), number(target, "weight"))
            })
            .collect()
    }

    pub fn generation(&self, table: &str) -> u64 {
        let shown = self.json(&format!("show --shm {table}"));
        shown["generation"].as_u64().unwrap()
    }
}

/// Runs a command to its end, which must come in time.
pub fn finish(mut command: Command) -> Run {
    let (sender, receiver) = mpsc::channel();
    let shown = format!("{command:?}");
    thread::spawn(move || sender.send(command.output()));
    let output = receiver.recv_timeout(DEADLINE);
    let Output { status, stdout, stderr } =
        output.unwrap_or_else(|_| panic!("{shown} hangs")).unwrap();
    Run {
        code: status.code(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        thread::yield_now();
    }
}
