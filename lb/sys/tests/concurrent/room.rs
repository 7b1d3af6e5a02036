//! A folder of shared memory for a test and the processes that it starts.

use std::fs;
use std::path::{Path, PathBuf};

use lb_core::table::{Config, Snapshot};
use lb_sys::shm::{Existing, Folder, MappedTable, Name, ShmError, TableWriter, init};

/// The folder, and the name of what is in it.
pub struct Room {
    path: PathBuf,
    pub folder: Folder,
    pub name: Name,
    _removed: Option<tempfile::TempDir>,
}

impl Room {
    /// A folder that goes with the test.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let room = Room::at(dir.path());
        Room { _removed: Some(dir), ..room }
    }

    /// The folder that somebody else made.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let name = "t".parse().unwrap();
        Room { folder: Folder::new(&path), path, name, _removed: None }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn init(&self, config: Config, existing: Existing) -> Result<Snapshot, ShmError> {
        init(&self.folder, &self.name, config, existing)
    }

    pub fn open(&self) -> Result<MappedTable, ShmError> {
        MappedTable::open(&self.folder, &self.name)
    }

    pub fn lock(&self) -> Result<TableWriter, ShmError> {
        TableWriter::lock(&self.folder, &self.name)
    }

    /// Names of all files, hidden ones too.
    pub fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.path).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}
