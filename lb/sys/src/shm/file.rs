//! Files that are locked by what their path names now, and replaced whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const NEW_SUFFIX: &str = ".new";

/// Opens a file for reading and writing and takes its lock, within `patience`. If the file was
/// replaced meanwhile the new one is taken. `None` if there is no file; [`ErrorKind::WouldBlock`] if
/// the lock was not to be had.
pub(super) fn lock_named(path: &Path, patience: Duration) -> io::Result<Option<File>> {
    let deadline = Instant::now() + patience;
    loop {
        let Some(file) = none_if_missing(OpenOptions::new().read(true).write(true).open(path))?
        else {
            return Ok(None);
        };
        let locked = try_lock(&file)?;
        if locked && names(path, &file)? {
            return Ok(Some(file));
        }
        if !locked {
            if Instant::now() >= deadline {
                return Err(ErrorKind::WouldBlock.into());
            }
            thread::sleep(Duration::from_micros(200));
        }
    }
}

/// `None` instead of the error that a file is missing.
pub(super) fn none_if_missing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes the lock of an open file if nobody has it. It goes when the file is closed, also by death.
pub(super) fn try_lock(file: &File) -> io::Result<bool> {
    // SAFETY: the descriptor is open.
    let result = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    match result {
        0 => Ok(true),
        _ => match io::Error::last_os_error() {
            error if error.kind() == ErrorKind::WouldBlock => Ok(false),
            error if error.kind() == ErrorKind::Interrupted => Ok(false),
            error => Err(error),
        },
    }
}

/// Whether somebody else holds the lock of the file.
pub(super) fn is_locked(file: &File) -> io::Result<bool> {
    // SAFETY: the descriptor is open.
    let result = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) };
    match result {
        0 => Ok(false),
        _ => match io::Error::last_os_error() {
            error if error.kind() == ErrorKind::WouldBlock => Ok(true),
            error => Err(error),
        },
    }
}

/// Whether the path still names this file.
pub(super) fn names(path: &Path, file: &File) -> io::Result<bool> {
    let (opened, named) = (file.metadata()?, none_if_missing(fs::metadata(path))?);
    Ok(named.is_some_and(|named| named.dev() == opened.dev() && named.ino() == opened.ino()))
}

/// A file that is made under a name of its own before it takes its place. It is locked from the
/// start, so that the first to lock it later finds it complete.
pub(super) struct Staged {
    pub file: File,
    staged: PathBuf,
    path: PathBuf,
}

impl Staged {
    /// A file of `len` zero bytes that will be named `path`.
    pub fn new(path: &Path, len: usize) -> io::Result<Self> {
        remove_leftovers(path)?;
        let staged = staged_path(path, std::process::id());
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o644).open(&staged)?;
        let staged = Staged { file, staged, path: path.into() };
        try_lock(&staged.file)?;
        staged.file.set_len(len as u64)?;
        Ok(staged)
    }

    /// Takes the place of whatever the path names.
    pub fn replace(&self) -> io::Result<()> {
        fs::rename(&self.staged, &self.path)
    }

    /// Takes the path if it names nothing; says whether it did.
    pub fn put_new(&self) -> io::Result<bool> {
        match fs::hard_link(&self.staged, &self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After `replace` there is nothing under this name; after a failure there must not be.
        let _ = fs::remove_file(&self.staged);
    }
}

fn staged_path(path: &Path, pid: u32) -> PathBuf {
    path.with_file_name(format!("{}{pid}{NEW_SUFFIX}", staged_prefix(path)))
}

fn staged_prefix(path: &Path) -> String {
    format!(".{}.", path.file_name().unwrap_or_default().to_string_lossy())
}

/// Removes what processes left that died while they made a file for this path: nobody has its lock.
fn remove_leftovers(path: &Path) -> io::Result<()> {
    let prefix = staged_prefix(path);
    let folder = path.parent().unwrap_or(Path::new("."));
    for entry in fs::read_dir(folder)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(NEW_SUFFIX));
        if pid.is_some_and(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()))
            && let Ok(file) = File::open(entry.path())
            && !is_locked(&file)?
        {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}
