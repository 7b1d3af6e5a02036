//! What a case tells about its progress: lines as `12:34:56 vm-221: what it does`.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// The most of one thing's output that is told.
const MOST_LINES: usize = 50;

static LOG: Mutex<Option<Log>> = Mutex::new(None);

struct Log {
    file: File,
    folder: PathBuf,
}

/// From now on this process tells its progress in this file.
pub fn begin(path: &Path) -> Result<()> {
    let file = File::options().append(true).open(path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    *log() = Some(Log { file, folder });
    Ok(())
}

/// Keeps what a case found in a file beside its log.
pub fn keep(name: &str, content: &str) -> Result<()> {
    let Some(path) = log().as_ref().map(|log| log.folder.join(name)) else { return Ok(()) };
    fs::write(&path, content).with_context(|| format!("write {}", path.display()))
}

pub fn tell(who: &str, text: &str) {
    let mut log = log();
    let Some(log) = log.as_mut() else { return };
    let time = time_of_day(seconds_now());
    let lines: String = clipped(text).map(|line| format!("{time} {who}: {line}\n")).collect();
    // A full disk is not what is tested.
    let _ = (&log.file).write_all(lines.as_bytes());
}

fn log() -> MutexGuard<'static, Option<Log>> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

fn clipped(text: &str) -> impl Iterator<Item = &str> {
    let more = text.lines().nth(MOST_LINES).map(|_| "...");
    text.lines().take(MOST_LINES).chain(more)
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// In UTC, as in the logs of `lb`.
fn time_of_day(seconds: u64) -> String {
    let of_day = seconds % 86_400;
    format!("{:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_that_of_the_day() {
        assert_eq!(time_of_day(0), "00:00:00");
        assert_eq!(time_of_day(86_400 * 365 + 3600 * 23 + 60 * 5 + 9), "23:05:09");
    }

    #[test]
    fn a_flood_of_output_is_cut() {
        let text = "x\n".repeat(MOST_LINES + 5);
        assert_eq!(clipped(&text).count(), MOST_LINES + 1);
        assert_eq!(clipped("a\nb").collect::<Vec<_>>(), ["a", "b"]);
    }
}
