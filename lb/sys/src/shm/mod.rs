//! Tables and counters as files in the folder of POSIX shared memory.
//!
//! | file | what |
//! |---|---|
//! | `NAME` | a table (`lb_core::table`) |
//! | `NAME.stats` | the counters of the `lb` instance NAME |
//! | `.NAME.NUMBER.new` | either of them while it is made |

mod file;
mod mapping;
mod stats;
mod table;
mod watch;

pub use stats::{StatsFile, StatsWriter};
pub use table::{Existing, MappedTable, TableWriter, delete, init, init_from, list};
pub use watch::FolderWatch;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use lb_core::table::{ConfigError, TableError};
use lb_core::target::Mark;
use thiserror::Error;

/// The folder that holds tables and counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder(PathBuf);

impl Folder {
    /// Where Linux mounts POSIX shared memory.
    pub const DEFAULT: &str = "/dev/shm";
    /// The variable that names another folder.
    pub const VARIABLE: &str = "MARKWAY_SHM_DIR";

    /// A folder of your own.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Folder(path.into())
    }

    /// The folder that [`Folder::VARIABLE`] names, else [`Folder::DEFAULT`].
    pub fn from_env() -> Self {
        let path = std::env::var_os(Self::VARIABLE).filter(|path| !path.is_empty());
        Folder(path.map_or_else(|| Self::DEFAULT.into(), PathBuf::from))
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn table(&self, name: &Name) -> PathBuf {
        self.0.join(&name.0)
    }

    fn stats(&self, name: &Name) -> PathBuf {
        self.0.join(format!("{name}{STATS_SUFFIX}"))
    }
}

const STATS_SUFFIX: &str = ".stats";

/// The name of a table or of an instance of `lb`: a file name that is nobody else's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// Why a text is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{0:?} is not a name: 1 to 200 letters, digits, '-', '_' or '.', \
     not beginning with '.', not ending with '{STATS_SUFFIX}'"
)]
pub struct NameError(String);

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let name = (1..=200).contains(&text.len())
            && text.chars().all(legal)
            && !text.starts_with('.')
            && !text.ends_with(STATS_SUFFIX);
        if name { Ok(Name(text.into())) } else { Err(NameError(text.into())) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What failed, on what, and why.
#[derive(Debug, Error)]
#[error("{operation} {object}: {cause}")]
pub struct ShmError {
    operation: &'static str,
    object: String,
    /// Why. It is part of the text, so it is not given as a source once more.
    pub cause: Cause,
}

/// Why an operation on shared memory failed.
#[derive(Debug, Error)]
pub enum Cause {
    /// There is no such table.
    #[error("there is no such table; make it with `shm-tool init --shm {0}`")]
    MissingTable(Name),
    /// There are no such counters.
    #[error("there are no counters: no `lb` of this instance has run")]
    MissingStats,
    /// Another process holds the lock for too long.
    #[error("another process has held its lock for {0} seconds")]
    Locked(u64),
    /// A live `lb` has this instance name.
    #[error("a running `lb` (process {0}) has this instance name; choose another with --instance")]
    InUse(u64),
    /// `init` over a table with targets.
    #[error("the table has targets ({0}); --keep carries them over, --force drops them")]
    HasTargets(usize),
    /// `init --keep` into a table without room for a target.
    #[error("mark {mark} has index {index}, beyond the new table's indexes 0 to {}", targets - 1)]
    NoRoom {
        /// The target.
        mark: Mark,
        /// Its index.
        index: u32,
        /// N of the new table.
        targets: u32,
    },
    /// The file is not a table that this program can use.
    #[error(transparent)]
    Table(#[from] TableError),
    /// There can be no such table.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file does not hold the counters of this version.
    #[error("{0}")]
    Stats(&'static str),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Adds what failed and on what.
fn doing(operation: &'static str, object: impl fmt::Display) -> impl FnOnce(Cause) -> ShmError {
    let object = object.to_string();
    move |cause| ShmError { operation, object, cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_file_names_and_never_leave_the_folder() {
        for good in ["markway", "a", "nfqlb-2", "tier_1.old", "0"] {
            assert_eq!(good.parse::<Name>().unwrap().to_string(), good);
        }
        let long = "x".repeat(201);
        for bad in ["", ".", "..", ".hidden", "a/b", "../a", "a b", "é", "x.stats", "a\0b", &long]
        {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }
}
