//! What takes long to make, or comes from the network, and is kept: kernels and the disk with the
//! machine's programs. All of it may be removed while no machine runs.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

const DIR: &str = "/var/cache/markway";

/// With this the name of a folder begins in which something is made.
const UNFINISHED: &str = "new-";

/// The folder of it all.
pub fn dir() -> Result<PathBuf> {
    let dir = match env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => Path::new(&dir).join("markway"),
        None => DIR.into(),
    };
    fs::create_dir_all(&dir).with_context(|| format!("create folder {}", dir.display()))?;
    dir.canonicalize().with_context(|| format!("open folder {}", dir.display()))
}

/// The path of a thing in the cache, which is made if it is not there: whole or not at all, and by
/// one at a time. `make` gets a path in the same folder.
pub fn keep(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let dir = dir()?;
    let path = dir.join(name);
    if path.exists() {
        return Ok(path);
    }
    let _lock = lock(&dir)?;
    if path.exists() {
        return Ok(path);
    }
    remove_unfinished(&dir)?;
    let scratch = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(&dir);
    let scratch = scratch.with_context(|| format!("create a folder in {}", dir.display()))?;
    let new = scratch.path().join("it");
    make(&new)?;
    fs::rename(&new, &path).with_context(|| format!("put {} in its place", path.display()))?;
    Ok(path)
}

/// What somebody began who was killed; nobody else is just making anything.
fn remove_unfinished(dir: &Path) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("read folder {}", dir.display()))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default();
        if name.as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
            fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<Flock<File>> {
    let path = dir.join("lock");
    let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
    let locked = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error);
    locked.with_context(|| format!("lock {}", path.display()))
}

/// Runs a program of the machine that must succeed; returns what it printed.
pub fn run(program: &str, words: &[&OsStr], folder: Option<&Path>) -> Result<String> {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).env("LC_ALL", "C");
    if let Some(folder) = folder {
        command.current_dir(folder);
    }
    let output = command.output().with_context(|| format!("start {program} (run make deps)"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let last: Vec<&str> = errors.lines().rev().take(3).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        bail!("run {program}: {}: {}", output.status, last.join("; "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A disk image with all that is in a folder. Nothing is compressed: a machine without hardware
/// support would take long to undo it, and all machines share what is in the machine's memory.
pub fn make_disk(tree: &Path, disk: &Path) -> Result<()> {
    let options = "-all-root -noappend -noI -noD -noF -noX -no-xattrs -no-progress -quiet";
    let options = options.split(' ').map(OsStr::new);
    let words: Vec<&OsStr> =
        [tree.as_os_str(), disk.as_os_str()].into_iter().chain(options).collect();
    run("mksquashfs", &words, None).map(drop)
}

/// A text that differs when one of the files does: its path, size or time.
pub fn digest<'a>(files: impl IntoIterator<Item = &'a Path>) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for path in files {
        let data = fs::metadata(path).with_context(|| format!("open {}", path.display()))?;
        (path, data.len(), data.mtime(), data.mtime_nsec()).hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}
