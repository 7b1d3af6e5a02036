//! Tars: how an overlay's program makes one, and how one is unpacked.
//!
//! The system's `tar` unpacks, into an empty folder of its own, from where [`Layer`] lays the files.
//! It knows every kind of tar and compression, refuses names with `..`, takes absolute ones as
//! relative, and makes links that lead out only after everything else, so that no file of the same
//! tar is written through one.
//!
//! [`Layer`]: super::layer::Layer

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::{NamedTempFile, TempDir};

/// Tars are made of blocks of this size.
const BLOCK: u64 = 512;

/// How many of the last lines of standard error become part of an error.
const LAST_LINES: usize = 3;

/// How often a program is looked after.
const PAUSE: Duration = Duration::from_millis(5);

/// What is given to the programs of overlays.
pub struct Maker<'a> {
    pub variables: &'a BTreeMap<String, String>,
    pub bin_dir: &'a Path,
    /// Where temporary files go.
    pub scratch: &'a Path,
    /// The longest that a program may take.
    pub limit: Duration,
}

impl Maker<'_> {
    /// Runs an overlay's program; returns the tar that it wrote.
    pub fn make(&self, program: &Path) -> Result<NamedTempFile> {
        let made = self.run_program(program).context("run its tar")?;
        let length = made.as_file().metadata().context("run its tar")?.len();
        if length == 0 {
            bail!("run its tar: it wrote no tar to standard output");
        }
        if !length.is_multiple_of(BLOCK) {
            bail!("run its tar: standard output holds something else than a tar");
        }
        Ok(made)
    }

    /// Unpacks a tar, compressed or not, into a folder of its own.
    pub fn extract(&self, archive: &Path) -> Result<TempDir> {
        if fs::metadata(archive).context("unpack")?.len() == 0 {
            bail!("unpack: the file is empty");
        }
        let folder = TempDir::new_in(self.scratch).context("unpack: make folder")?;
        let mut command = self.limited("tar");
        command.args(["--extract", "--no-same-owner", "--preserve-permissions", "--touch"]);
        command.arg("--directory").arg(folder.path()).arg("--file").arg(archive);
        // Options of the user's own, such as to trust absolute names, are not for this.
        command.env_remove("TAR_OPTIONS").env("LC_ALL", "C").stdout(Stdio::null());
        self.run(command, io::sink()).context("unpack")?;
        Ok(folder)
    }

    fn run_program(&self, program: &Path) -> Result<NamedTempFile> {
        let folder = program.parent().context("find its folder")?;
        let tar = NamedTempFile::new_in(self.scratch)?;
        let mut command = self.limited(program);
        command.arg("-").current_dir(folder).stdout(tar.reopen()?);
        // Programs may count on it; the user's own comes with the environment or the variables.
        if env::var_os("SETUP").is_none() {
            command.env("SETUP", "");
        }
        command.envs(self.variables).env("OVL_BIN_DIR", self.bin_dir);
        self.run(command, io::stderr())?;
        Ok(tar)
    }

    /// `timeout` puts what it runs into a process group of its own and ends all of that.
    fn limited(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("timeout");
        command.arg("--kill-after=1").arg(self.limit.as_secs().to_string()).arg(program);
        command
    }

    /// Runs a command to its end and passes on to `heard` what it says on standard error.
    fn run(&self, mut command: Command, mut heard: impl Write) -> Result<()> {
        // A file, unlike a pipe, is at its end when the program is, even if a child of the program
        // still has it open.
        let errors = NamedTempFile::new_in(self.scratch)?;
        let mut news = errors.reopen()?;
        let start = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stderr(errors.reopen()?)
            .spawn()
            .context("start timeout (of coreutils)")?;
        let status = loop {
            let ended = child.try_wait()?;
            io::copy(&mut news, &mut heard)?;
            match ended {
                Some(status) => break status,
                None => thread::sleep(PAUSE),
            }
        };
        if status.success() {
            return Ok(());
        }
        if start.elapsed() >= self.limit {
            bail!("not done within {} s, ended", self.limit.as_secs());
        }
        bail!("{status}: {}", last_lines(&fs::read(errors.path())?))
    }
}

fn last_lines(errors: &[u8]) -> String {
    let errors = String::from_utf8_lossy(errors);
    let lines: Vec<&str> = errors.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.split_at(lines.len().saturating_sub(LAST_LINES)).1 {
        [] => "no message".to_owned(),
        last => last.join("; "),
    }
}
