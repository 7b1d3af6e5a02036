//! A program that runs in the background of a node.

use std::process::{Child, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::node::{Entry, run_path};
use crate::wait;

/// Empties the log of a run before, tells the number of the process, which then becomes the program.
const START: &str = r#": >"/run/$0.log"; echo $$ >"/run/$0.pid"; exec "$@" >>"/run/$0.log" 2>&1"#;

/// Ends (by SIGKILL) when it is dropped. What it prints goes to /run/NAME.log in its node.
pub struct Process {
    name: String,
    entry: Entry,
    /// The process in between, which ends as the program does.
    enter: Child,
    /// The number of the process in its node.
    id: u32,
}

impl Process {
    /// Starts `words` in a node.
    pub fn start(entry: &Entry, name: &str, words: &[&str]) -> Result<Self> {
        let pid_file = run_path(name, "pid");
        // The number of an earlier one.
        if entry.read_file(&pid_file)?.is_some() {
            entry.write_file(&pid_file, &[])?;
        }
        let enter = entry
            .command("sh")
            .arg("-c")
            .arg(START)
            .arg(name)
            .args(words)
            .stdin(std::process::Stdio::null())
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let id = wait::until(&format!("{name} to start"), Duration::from_secs(5), || {
            Ok(entry
                .read_file(&pid_file)?
                .filter(|text| text.ends_with('\n'))
                .and_then(|text| text.trim().parse().ok()))
        })?;
        Ok(Self { name: name.to_owned(), entry: entry.clone(), enter, id })
    }

    /// All that it printed so far.
    pub fn log(&self) -> String {
        // Before the program's first line the file may not be there yet.
        self.entry.read_file(&run_path(&self.name, "log")).unwrap_or_default().unwrap_or_default()
    }

    /// Its number in the node.
    pub fn id(&self) -> u32 {
        self.id
    }

    pub fn signal(&self, signal: &str) -> Result<()> {
        let id = self.id.to_string();
        self.entry.run(&["sh", "-c", r#"kill -s "$0" "$1""#, signal, &id])?.success()?;
        Ok(())
    }

    /// The exit status, when it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.enter.try_wait().with_context(|| format!("wait for {}", self.name))
    }

    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        wait::until(&what, limit, || self.ended())
    }

    /// Waits for a line of its log that contains `text`.
    pub fn wait_for_log(&mut self, text: &str, limit: Duration) -> Result<()> {
        let what = format!("{} to log {text:?}", self.name);
        wait::until(&what, limit, || {
            if self.log().contains(text) {
                return Ok(Some(()));
            }
            if let Some(status) = self.ended()? {
                bail!("start {}: ended with {status}: {}", self.name, self.log().trim());
            }
            Ok(None)
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.ended(), Ok(None)) {
            // These fail only because the process, or its whole node, has just ended.
            let _ = self.signal("KILL");
            if self.wait(Duration::from_secs(5)).is_err() {
                let _ = self.enter.kill();
                let _ = self.enter.wait();
            }
        }
    }
}
