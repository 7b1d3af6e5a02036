use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use lb_sys::shm::Folder;

use crate::args::{TableArg, exit_codes};
use crate::error::Error;
use crate::output::print;
use crate::verb::read;

/// Save a copy of a table
///
/// The copy is the file of a table at the generation that is in force; `show`, `verify` and `compare`
/// read it. A file that is there is replaced whole.
#[derive(Debug, Args)]
#[command(after_help = concat!(
    "Examples:
  shm-tool export ./before
  shm-tool export --shm tier2 - | ssh router2 'cat > /tmp/tier2 && shm-tool compare tier2 /tmp/tier2'

",
    exit_codes!("saved", "not saved")
))]
pub struct Export {
    #[command(flatten)]
    table: TableArg,
    /// The file to write, not in the folder of the tables; - is stdout
    file: PathBuf,
}

impl Export {
    pub fn run(&self, folder: &Folder) -> Result<(), Error> {
        let bytes = read(folder, &self.table.name)?.to_bytes();
        if self.file.as_os_str() == "-" {
            return print(bytes);
        }
        save(&self.file, &bytes, folder)
            .map_err(|cause| Error::Save { path: self.file.clone(), cause })
    }
}

/// Puts a complete file in the place of what is there.
fn save(path: &Path, bytes: &[u8], tables: &Folder) -> io::Result<()> {
    let name = path.file_name().ok_or(ErrorKind::IsADirectory)?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if fs::canonicalize(parent)? == fs::canonicalize(tables.path())? {
        return Err(io::Error::other("it would be a table in the folder of the tables"));
    }
    match fs::symlink_metadata(path) {
        Ok(there) if !there.is_file() => return Err(io::Error::other("not a regular file")),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut staged = OsString::from(".");
    staged.push(name);
    staged.push(format!(".{}.new", std::process::id()));
    let staged = parent.join(staged);
    let saved = write_new(&staged, bytes).and_then(|()| fs::rename(&staged, path));
    if saved.is_err() {
        // The first error is the one that counts.
        let _ = fs::remove_file(&staged);
    }
    saved
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
