//! Being told that a file of the folder changed.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use super::Folder;

/// An inotify watch on the whole folder, so that it also sees files that are not there yet. An event
/// comes when a writer closes a file (also by its death), and when one is moved or removed.
#[derive(Debug)]
pub struct FolderWatch(OwnedFd);

impl FolderWatch {
    /// Begins to watch.
    pub fn new(folder: &Folder) -> io::Result<Self> {
        let path = CString::new(folder.path().as_os_str().as_bytes())?;
        // SAFETY: no pointers.
        let fd = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let mask = libc::IN_CLOSE_WRITE | libc::IN_MOVED_TO | libc::IN_DELETE | libc::IN_ONLYDIR;
        // SAFETY: `path` is a C string that lives through the call.
        let watch = unsafe { libc::inotify_add_watch(fd.as_raw_fd(), path.as_ptr(), mask) };
        if watch < 0 { Err(io::Error::last_os_error()) } else { Ok(FolderWatch(fd)) }
    }

    /// Takes all events that wait and says whether there were any. Whoever asks looks at the files
    /// themselves, so that an overflow of the kernel's list of events does no harm.
    pub fn drain(&self) -> bool {
        let mut buffer = [0u8; 4096];
        let mut any = false;
        loop {
            // SAFETY: the buffer is valid for writes of its length.
            let read =
                unsafe { libc::read(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
            if read <= 0 {
                return any;
            }
            any = true;
        }
    }
}

impl AsFd for FolderWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::wait;
    use std::fs;
    use std::time::Duration;

    #[test]
    fn closing_moving_and_removing_are_told_and_reading_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let watch = FolderWatch::new(&Folder::new(dir.path())).unwrap();
        let told = || {
            wait([watch.as_fd()], Duration::from_secs(5)).unwrap();
            watch.drain()
        };
        assert!(!watch.drain());
        fs::write(dir.path().join("a"), "x").unwrap();
        assert!(told());
        fs::read(dir.path().join("a")).unwrap();
        assert!(!watch.drain());
        fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
        assert!(told());
        fs::remove_file(dir.path().join("b")).unwrap();
        assert!(told());
        assert!(FolderWatch::new(&Folder::new(dir.path().join("none"))).is_err());
    }
}
