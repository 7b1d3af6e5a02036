//! Where a table is read from: its name, or a file that holds one.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{Ordering, fence};

use clap::Args;
use lb_core::table::{Config, HEADER_LEN, MAX_SLOTS, MAX_TARGETS, Snapshot, file_len};
use lb_sys::shm::{Cause, MappedTable, Name};

use crate::args::{TableArg, folder};
use crate::error::Error;
use crate::verb;

// No documentation comment: clap would show it as that of the verb.
#[derive(Debug, Args)]
pub struct SourceArg {
    #[command(flatten)]
    table: TableArg,
    /// A file instead, as `export` writes it
    #[arg(value_name = "FILE", conflicts_with = "name")]
    file: Option<PathBuf>,
}

impl SourceArg {
    pub fn source(&self) -> Source {
        match &self.file {
            Some(path) => Source::File(path.clone()),
            None => Source::Table(self.table.name.clone()),
        }
    }
}

#[derive(Clone, Debug)]
pub enum Source {
    Table(Name),
    File(PathBuf),
}

impl Source {
    /// A consistent copy of the table, which must be sound.
    pub fn read(&self) -> Result<Snapshot, Error> {
        match self {
            Source::Table(name) => verb::read(&folder()?, name),
            Source::File(path) => Snapshot::from_bytes(&copy(path)?)
                .map_err(|cause| Error::File { path: path.clone(), cause }),
        }
    }

    /// The bytes of the table, of one generation, whatever they say.
    pub fn bytes(&self) -> Result<Vec<u8>, Error> {
        match self {
            Source::File(path) => copy(path),
            Source::Table(name) => {
                let folder = folder()?;
                match MappedTable::open(&folder, name) {
                    Err(error) if !matches!(error.cause, Cause::Table(_)) => Err(error.into()),
                    _ => copy(&folder.path().join(name.to_string())),
                }
            }
        }
    }

    /// The word for what it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Source::Table(_) => "table",
            Source::File(_) => "file",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Table(name) => name.fmt(f),
            Source::File(path) => path.display().fmt(f),
        }
    }
}

/// What has a `/` is a file. So nothing depends on which files there are.
impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('/') {
            return Ok(Source::File(text.into()));
        }
        let name = text.parse().map(Source::Table);
        name.map_err(|error| format!("{error}; a file is named with a '/', such as ./FILE"))
    }
}

fn copy(path: &Path) -> Result<Vec<u8>, Error> {
    stable_copy(path).map_err(|cause| Error::Read { path: path.into(), cause })
}

/// Reads a file that may be a table in use.
fn stable_copy(path: &Path) -> io::Result<Vec<u8>> {
    const ATTEMPTS: u32 = 1000;
    // To open a pipe would be to wait.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let len = usize::try_from(len).ok().filter(|len| *len <= longest());
    let len = len.ok_or_else(|| io::Error::other("it is larger than any table"))?;
    let mut bytes = vec![0; len];
    let mut header = vec![0; len.min(HEADER_LEN)];
    for _ in 0..ATTEMPTS {
        // The generation is in the header, and nothing else there ever changes. A writer fills the
        // buffer in force only after the generation has moved on.
        file.read_exact_at(&mut header, 0)?;
        fence(Ordering::SeqCst);
        file.read_exact_at(&mut bytes, 0)?;
        fence(Ordering::SeqCst);
        let before = header.clone();
        file.read_exact_at(&mut header, 0)?;
        if header == before && bytes.starts_with(&header) {
            return Ok(bytes);
        }
    }
    Err(io::Error::new(
        ErrorKind::WouldBlock,
        format!("it changed at every one of {ATTEMPTS} attempts to read it"),
    ))
}

/// Bytes of the largest table, and a few that do not belong there.
fn longest() -> usize {
    let largest = Config { slots: MAX_SLOTS, targets: MAX_TARGETS, ..Config::default() };
    file_len(&largest) + HEADER_LEN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_slash_is_a_file() {
        for (text, is_file) in
            [("markway", false), ("saved.1", false), ("./saved", true), ("/a", true), ("a/", true)]
        {
            let source: Source = text.parse().unwrap();
            assert_eq!(matches!(source, Source::File(_)), is_file, "{text}");
            assert_eq!(source.to_string(), text);
        }
        for text in ["", ".", "a b", "x.stats"] {
            let error = text.parse::<Source>().unwrap_err();
            assert!(error.ends_with("; a file is named with a '/', such as ./FILE"), "{error}");
        }
    }
}
