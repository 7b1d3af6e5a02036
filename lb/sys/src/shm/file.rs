//! Files that are locked by what their path names now, and replaced whole.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
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
        let Some(file) = none_if_missing(open(path, Access::Write))? else {
            return Ok(None);
        };
        let locked = try_lock(&file)?;
        if locked && names(path, &file)? {
            return Ok(Some(file));
        }
        if Instant::now() >= deadline {
            return Err(ErrorKind::WouldBlock.into());
        }
        if !locked {
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

/// What an opened file is for. The lock is for who may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// Opens the file of that name, not one that a link leads to. It never waits, as the opening of a
/// pipe would for the other end.
pub(super) fn open(path: &Path, access: Access) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(access == Access::Write)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(path)
}

/// Takes the lock of a file that is open for writing, if nobody has it. It goes when the file is
/// closed, also by death.
pub(super) fn try_lock(file: &File) -> io::Result<bool> {
    let lock = whole_file(libc::F_WRLCK);
    // SAFETY: the descriptor is open, and `lock` lives through the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    match io::Error::last_os_error() {
        _ if result == 0 => Ok(true),
        error if error.kind() == ErrorKind::WouldBlock => Ok(false),
        error => Err(error),
    }
}

/// Whether somebody else holds the lock of the file. To ask takes no lock, not even for a moment:
/// nobody who wants it is kept from it.
pub(super) fn is_locked(file: &File) -> io::Result<bool> {
    let mut lock = whole_file(libc::F_RDLCK);
    // SAFETY: the descriptor is open, and `lock` lives through the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    match result {
        0 => Ok(i32::from(lock.l_type) != libc::F_UNLCK),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A lock that belongs to the open file, not to the process, so that threads exclude each other too.
fn whole_file(kind: libc::c_int) -> libc::flock {
    // SAFETY: zeros are a valid `flock`; they mean from the first byte to the last.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::c_short::try_from(kind).unwrap_or_default();
    lock.l_whence = libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default();
    lock
}

/// Whether the path still names this file.
pub(super) fn names(path: &Path, file: &File) -> io::Result<bool> {
    let (opened, named) = (file.metadata()?, none_if_missing(fs::symlink_metadata(path))?);
    Ok(named.is_some_and(|named| named.dev() == opened.dev() && named.ino() == opened.ino()))
}

/// A file that is made under a name of its own before it takes its place. It is locked from the
/// start, so that the first to lock it later finds it complete. Only who has the lock of a staged
/// file may remove or rename it.
pub(super) struct Staged {
    pub file: File,
    staged: PathBuf,
    path: PathBuf,
}

impl Staged {
    /// A file of `len` zero bytes that will be named `path`.
    pub fn new(path: &Path, len: usize) -> io::Result<Self> {
        remove_leftovers(path)?;
        let mut numbers = std::process::id()..;
        loop {
            let staged = staged_path(path, numbers.next().ok_or(ErrorKind::AlreadyExists)?);
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(0o644);
            let file = match options.open(&staged) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                opened => opened?,
            };
            // Until it was locked it looked like a leftover.
            if try_lock(&file)? && names(&staged, &file)? {
                let staged = Staged { file, staged, path: path.into() };
                // Whatever the umask: an `lb` that is not root must be able to read it.
                staged.file.set_permissions(Permissions::from_mode(0o644))?;
                reserve(&staged.file, len)?;
                return Ok(staged);
            }
        }
    }

    /// Takes the place of whatever the path names.
    pub fn replace(&self) -> io::Result<()> {
        fs::rename(&self.staged, &self.path)
    }

    /// Takes the path if it names nothing; says whether it did. It is one step: a file with two names
    /// would keep the second one for good if this process died before it could remove it, because
    /// whoever cleans up has the lock of the file already.
    pub fn put_new(&self) -> io::Result<bool> {
        let [from, to] =
            [&self.staged, &self.path].map(|path| CString::new(path.as_os_str().as_bytes()));
        let (from, to) = (from?, to?);
        let (here, flags) = (libc::AT_FDCWD, libc::RENAME_NOREPLACE);
        // SAFETY: both are C strings that live through the call.
        match unsafe { libc::renameat2(here, from.as_ptr(), here, to.as_ptr(), flags) } {
            0 => Ok(true),
            _ => match io::Error::last_os_error() {
                error if error.kind() == ErrorKind::AlreadyExists => Ok(false),
                error => Err(error),
            },
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Once in its place the name is free for others; after a failure it must become so.
        if names(&self.staged, &self.file).unwrap_or(false) {
            let _ = fs::remove_file(&self.staged);
        }
    }
}

/// Gives a file its length together with the memory for it: a store to a mapped page for which there
/// is none would kill the process.
fn reserve(file: &File, len: usize) -> io::Result<()> {
    let len = libc::off_t::try_from(len).map_err(|_| ErrorKind::FileTooLarge)?;
    // SAFETY: the descriptor is open.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, len) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn staged_path(path: &Path, number: u32) -> PathBuf {
    path.with_file_name(format!("{}{number}{NEW_SUFFIX}", staged_prefix(path)))
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
        let number = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(NEW_SUFFIX));
        if number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit())) {
            remove_unlocked(&entry.path());
        }
    }
    Ok(())
}

/// Removes a file that nobody has locked. One that cannot be removed is no reason to fail.
fn remove_unlocked(path: &Path) {
    let Ok(file) = open(path, Access::Write) else {
        return;
    };
    if try_lock(&file).unwrap_or(false) && names(path, &file).unwrap_or(false) {
        let _ = fs::remove_file(path);
    }
}
