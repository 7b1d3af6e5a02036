//! Statistics as files in shared memory, where other programs find them by name.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use sctpt_sys::Counters;
use thiserror::Error;

use super::figures::{Figures, MOST_BUCKETS, Shape};
use super::snapshot::{Broken, Snapshot, shape_of};

/// Where named memory is. Tests use a folder of their own.
const FOLDER: &str = "/dev/shm";
const FOLDER_VARIABLE: &str = "MARKWAY_SHM_DIR";

/// The name of statistics in shared memory, as `shm_open` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

#[derive(Debug, Error)]
pub enum ShmError {
    #[error("Invalid shm [{0}]")]
    Name(String),
    // The first words are those of the older program, which scripts look for.
    #[error("FAILED mapSharedData: {name}: {cause}{}", advice(.cause))]
    Open { name: String, cause: io::Error },
    #[error("FAILED mapSharedData: {name}: {cause}; make it anew with `sctpt stats init`")]
    Broken { name: String, cause: Broken },
    #[error("init statistics {name}: {cause}")]
    Init { name: String, cause: io::Error },
}

impl Name {
    pub fn new(text: &str) -> Result<Self, ShmError> {
        let name = text.strip_prefix('/').unwrap_or(text);
        let fits = (1..=200).contains(&name.len()) && !name.contains(['/', '\0']);
        match fits && !name.starts_with('.') {
            true => Ok(Name(name.to_owned())),
            false => Err(ShmError::Name(text.to_owned())),
        }
    }

    fn path(&self) -> PathBuf {
        let folder = std::env::var_os(FOLDER_VARIABLE).filter(|folder| !folder.is_empty());
        PathBuf::from(folder.unwrap_or_else(|| OsString::from(FOLDER))).join(&self.0)
    }

    /// Makes statistics, or puts new ones in the place of the old. Who counts in the old ones is not disturbed, and
    /// goes on to do so.
    pub fn init(&self, shape: Shape) -> Result<(), ShmError> {
        let staged = self.path().with_file_name(format!(".{}.{}", self.0, std::process::id()));
        let made = stage(&staged, shape).and_then(|()| fs::rename(&staged, self.path()));
        made.map_err(|cause| {
            // It may not even be there.
            let _ = fs::remove_file(&staged);
            ShmError::Init { name: self.0.clone(), cause }
        })
    }

    /// Whether nothing has this name.
    pub fn is_missing(&self) -> bool {
        fs::symlink_metadata(self.path()).is_err_and(|error| error.kind() == ErrorKind::NotFound)
    }

    /// Opens statistics to count in them.
    pub fn open(&self) -> Result<Figures, ShmError> {
        let failed = |cause| self.failed(cause);
        let file =
            regular(OpenOptions::new().read(true).write(true), &self.path()).map_err(failed)?;
        let shape =
            shape_of(&content(&file).map_err(failed)?).map_err(|cause| self.broken(cause))?;
        let counters = Counters::map(&file, shape.narrow_bytes()).map_err(failed)?;
        Ok(Figures::shared(counters, shape))
    }

    /// The values now.
    pub fn read(&self) -> Result<Snapshot, ShmError> {
        let file = regular(OpenOptions::new().read(true), &self.path());
        let bytes = file.and_then(|file| content(&file)).map_err(|cause| self.failed(cause))?;
        Snapshot::from_bytes(&bytes).map_err(|cause| self.broken(cause))
    }

    fn failed(&self, cause: io::Error) -> ShmError {
        ShmError::Open { name: self.0.clone(), cause }
    }

    fn broken(&self, cause: Broken) -> ShmError {
        ShmError::Broken { name: self.0.clone(), cause }
    }
}

/// Statistics of zeros under a name of their own.
fn stage(path: &Path, shape: Shape) -> io::Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(path)?;
    // Written out, not left as a hole: what is missing shows now and not as a fault later.
    file.write_all_at(&vec![0; shape.bytes()], 0)?;
    Figures::shared(Counters::map(&file, shape.narrow_bytes())?, shape).write_form();
    Ok(())
}

/// Opens a file of this name, not a link to another one; a pipe is not waited for.
fn regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a file")),
    }
}

/// What is in a file, and no more than statistics can have.
fn content(file: &File) -> io::Result<Vec<u8>> {
    let most = Shape { buckets: MOST_BUCKETS, interval: 1 }.bytes();
    let mut bytes = Vec::new();
    file.take(u64::try_from(most).unwrap_or(u64::MAX) + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn advice(cause: &io::Error) -> &'static str {
    match cause.kind() {
        ErrorKind::NotFound => "; make it with `sctpt stats init`",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        for good in ["sctpstats", "/sctpstats", "a.b", "x y"] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "a/b", "//a", ".", "..", ".hidden", "a\0b", &"x".repeat(201)] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }
}
