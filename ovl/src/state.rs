//! What is kept about a running cluster for those who come later: a folder with its name.
//!
//! `lock` is held by whoever starts, stops or changes the cluster; `holder` names the process that
//! everything of the cluster is below; `cluster.json` says what it consists of, and is there once
//! the cluster is ready; `log` has what the holder had to say.

use std::env;
use std::fmt;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::wait;

/// Names another folder for the state of clusters.
pub const DIR_VARIABLE: &str = "OVL_STATE_DIR";

const DIR: &str = "/run/ovl";

/// How long a process that was killed may take to be gone, with all that is below it.
const DEATH: Duration = Duration::from_secs(20);

/// The name of a cluster; it can be the name of a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterName(String);

/// Where the state of a cluster is, if there is any.
#[derive(Clone, Debug)]
pub struct Folder {
    name: ClusterName,
    path: PathBuf,
}

/// The right to start, stop or change a cluster; the kernel takes it back when its owner ends.
pub struct Lock {
    file: Flock<File>,
}

/// A process that is not mistaken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: u32,
    /// When it started, in ticks since the machine did.
    pub start: u64,
}

/// The folder that holds the folders of all clusters.
pub fn dir() -> Result<PathBuf> {
    let dir = env::var_os(DIR_VARIABLE).map_or_else(|| DIR.into(), PathBuf::from);
    std::path::absolute(&dir).with_context(|| format!("find folder {}", dir.display()))
}

impl ClusterName {
    /// A name of this process alone.
    pub fn unique(prefix: &str) -> Self {
        Self(format!("{prefix}-{}", std::process::id()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let starts_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !starts_well || text.len() > 60 || !text.bytes().all(plain) {
            bail!("a cluster's name is up to 60 letters, digits, dots, dashes or underscores");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Folder {
    pub fn of(name: &ClusterName) -> Result<Self> {
        Ok(Self { name: name.clone(), path: dir()?.join(name.as_str()) })
    }

    /// All that are there, in order of their names.
    pub fn all() -> Result<Vec<Self>> {
        let dir = dir()?;
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("read folder {}", dir.display()))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("read folder {}", dir.display()))?;
            // Whatever else somebody put there is not a cluster's.
            names.extend(entry.file_name().to_str().and_then(|name| name.parse().ok()));
        }
        names.sort();
        names.iter().map(Self::of).collect()
    }

    pub fn name(&self) -> &ClusterName {
        &self.name
    }

    pub fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// Where the holder mounts what its cluster is made of.
    pub fn work(&self) -> PathBuf {
        self.path.join("work")
    }

    /// What the holder had to say when nobody listened any more.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Makes the folder if it is not there, and locks it. None when somebody else has the lock for
    /// longer than `limit`.
    pub fn create_and_lock(&self, limit: Duration) -> Result<Option<Lock>> {
        self.take_lock(limit, true)
    }

    /// Locks the folder. None when it is not there, or somebody else has the lock for longer than
    /// `limit`.
    pub fn lock(&self, limit: Duration) -> Result<Option<Lock>> {
        self.take_lock(limit, false)
    }

    fn take_lock(&self, limit: Duration, create: bool) -> Result<Option<Lock>> {
        let what = || format!("lock {}", self.path.display());
        let locked = wait::for_up_to(limit, || {
            if create {
                fs::create_dir_all(&self.path).with_context(what)?;
            }
            let file = match self.open_lock() {
                // The folder vanished: for one that wants to create it just now.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return Ok(if create { None } else { Some(None) });
                }
                file => file.with_context(what)?,
            };
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                // Whoever had the lock before may have removed the folder.
                Ok(file) if self.is_in_place(&file) => Ok(Some(Some(Lock { file }))),
                Ok(_) | Err((_, Errno::EWOULDBLOCK | Errno::EINTR)) => Ok(None),
                Err((_, error)) => Err(anyhow!(error)).with_context(what),
            }
        })?;
        Ok(locked.flatten())
    }

    /// Waits until nobody else has the lock, for as long as it takes. None when the folder is gone.
    pub fn wait_for_lock(&self) -> Option<Lock> {
        let file = Flock::lock(self.open_lock().ok()?, FlockArg::LockExclusive).ok()?;
        self.is_in_place(&file).then_some(Lock { file })
    }

    /// Whoever was removing the folder may have removed the file, and been killed.
    fn open_lock(&self) -> std::io::Result<File> {
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.path.join("lock"))
    }

    fn is_in_place(&self, file: &File) -> bool {
        let identity = |data: fs::Metadata| (data.dev(), data.ino());
        let own = file.metadata().map(identity).ok();
        own.is_some() && own == fs::metadata(self.path.join("lock")).map(identity).ok()
    }

    /// Removes what an earlier cluster left in the folder, so that it can hold a new one.
    pub fn clear(&self, _lock: &Lock) -> Result<()> {
        for file in ["holder", "holder.new", "cluster.json", "cluster.json.new", "log"] {
            remove(&self.path.join(file), |path| fs::remove_file(path))?;
        }
        remove(&self.work(), |path| fs::remove_dir(path))
    }

    /// Removes the folder. Nothing must run any more.
    pub fn remove(&self, lock: &Lock) -> Result<()> {
        let what = format!("remove {}", self.path.display());
        let path = self.path.join("lock");
        wait::until(&what, DEATH, || {
            if path.exists() && !self.is_in_place(&lock.file) {
                // The folder is another's already.
                return Ok(Some(()));
            }
            self.clear(lock)?;
            remove(&path, |path| fs::remove_file(path))?;
            match fs::remove_dir(&self.path) {
                // A process that was killed may be within a call that still makes a file.
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(None),
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(error).context(what.clone())
                }
                _ => Ok(Some(())),
            }
        })
    }

    /// Whether the cluster is there for those who come later.
    pub fn is_ready(&self) -> Result<bool> {
        Ok(self.holder()?.is_some() && self.path.join("cluster.json").exists())
    }

    /// The process that everything of the cluster is below. None when there is none any more.
    pub fn holder(&self) -> Result<Option<ProcessId>> {
        let holder: Option<ProcessId> = self.read("holder")?;
        Ok(holder.filter(|holder| holder.is_alive()))
    }

    pub fn set_holder(&self, holder: ProcessId) -> Result<()> {
        self.write("holder", &holder)
    }

    /// What the cluster consists of. None when it is not ready, or not there.
    pub fn cluster<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        self.read("cluster.json")
    }

    pub fn set_cluster(&self, cluster: &impl Serialize) -> Result<()> {
        self.write("cluster.json", cluster)
    }

    fn read<T: DeserializeOwned>(&self, file: &str) -> Result<Option<T>> {
        let path = self.path.join(file);
        let what = || format!("read {}", path.display());
        match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            content => serde_json::from_slice(&content.with_context(what)?).with_context(what),
        }
    }

    /// A reader sees the file as it was, or as it is to be.
    fn write(&self, file: &str, value: &impl Serialize) -> Result<()> {
        let path = self.path.join(file);
        let new = self.path.join(format!("{file}.new"));
        let text = serde_json::to_string_pretty(value)?;
        fs::write(&new, text + "\n")
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("write {}", path.display()))
    }
}

impl ProcessId {
    /// A process as /proc shows it here and now. None when there is none, or it has ended.
    pub fn of(pid: u32) -> Option<Self> {
        Self::of_in(Path::new("/proc"), pid)
    }

    fn of_in(proc: &Path, pid: u32) -> Option<Self> {
        let proc = proc.join(pid.to_string());
        let (state, start) = stat(&proc)?;
        // One that looks ended may have a thread that is ending still; with a holder that is the
        // thread that waits for all that is below it.
        let threads = || fs::read_dir(proc.join("task")).map_or(0, Iterator::count);
        let ended = matches!(state, 'Z' | 'X') && threads() <= 1;
        (!ended).then_some(Self { pid, start })
    }

    /// This process by the number that it has where /proc was mounted.
    pub fn of_self() -> Result<Self> {
        let link = fs::read_link("/proc/self").context("read /proc/self")?;
        let pid = link.to_str().and_then(|text| text.parse().ok());
        pid.and_then(Self::of).context("read /proc/self: odd number")
    }

    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Whether the process is there that has this number for a holder.
    pub fn is_alive_below(self, holder: Self) -> bool {
        let proc = Path::new("/proc").join(holder.pid.to_string()).join("root/proc");
        Self::of_in(&proc, self.pid) == Some(self)
    }

    /// Kills the process, and with a holder all that is below it; returns when they are gone.
    pub fn kill(self) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        let what = format!("process {} to end", self.pid);
        match kill(self.as_pid()?, Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error).with_context(|| format!("kill process {}", self.pid)),
        }
        wait::until(&what, DEATH, || Ok((!self.is_alive()).then_some(())))
    }

    /// Sends SIGUSR1, for which programs tell what they have done.
    pub fn signal_user(self) -> Result<()> {
        if !self.is_alive() {
            bail!("signal process {}: it has ended", self.pid);
        }
        kill(self.as_pid()?, Signal::SIGUSR1)
            .with_context(|| format!("signal process {}", self.pid))
    }

    fn as_pid(self) -> Result<Pid> {
        Ok(Pid::from_raw(self.pid.try_into().context("kill: odd number of a process")?))
    }
}

/// State and start time of a process.
fn stat(proc: &Path) -> Option<(char, u64)> {
    parse_stat(&fs::read_to_string(proc.join("stat")).ok()?)
}

fn parse_stat(stat: &str) -> Option<(char, u64)> {
    // The name before may contain anything, brackets too.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn remove(path: &Path, how: impl Fn(&Path) -> std::io::Result<()>) -> Result<()> {
    let what = || format!("remove {}", path.display());
    // A process that was killed may be within a call that still makes a file.
    wait::until(&what(), DEATH, || match how(path) {
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(None),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(what),
        _ => Ok(Some(())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_path() {
        for good in ["a", "default", "test-12.x_y"] {
            assert_eq!(good.parse::<ClusterName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "-x", "a b", "ä", &"a".repeat(61)] {
            assert!(bad.parse::<ClusterName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_process_is_told_from_a_later_one() {
        let own = ProcessId::of_self().unwrap();
        assert_eq!(own.pid, std::process::id());
        assert!(own.is_alive());
        assert!(!ProcessId { start: own.start + 1, ..own }.is_alive());
        ProcessId { start: own.start + 1, ..own }.kill().unwrap();
    }

    #[test]
    fn a_name_with_brackets_is_read() {
        let stat = format!("7 (a) b) S {}77 {}", "0 ".repeat(18), "0 ".repeat(10));
        assert_eq!(parse_stat(&stat), Some(('S', 77)));
        assert_eq!(parse_stat("7 (a) S 1"), None);
    }
}
