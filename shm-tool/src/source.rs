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
    // To open a pipe would be to wait.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let len = usize::try_from(len).ok().filter(|len| *len <= longest());
    let len = len.ok_or_else(|| io::Error::other("it is larger than any table"))?;
    of_one_generation(len, |into| file.read_exact_at(into, 0))
}

/// Bytes that were in force together; `read` reads as many of the first as are asked for.
fn of_one_generation(
    len: usize,
    mut read: impl FnMut(&mut [u8]) -> io::Result<()>,
) -> io::Result<Vec<u8>> {
    const ATTEMPTS: u32 = 1000;
    let mut bytes = vec![0; len];
    let [mut before, mut after] = [(); 2].map(|()| vec![0; len.min(HEADER_LEN)]);
    for _ in 0..ATTEMPTS {
        // The generation is in the header, and nothing else there ever changes. A writer fills the
        // buffer in force only after the generation has moved on.
        read(&mut before)?;
        fence(Ordering::SeqCst);
        read(&mut bytes)?;
        fence(Ordering::SeqCst);
        read(&mut after)?;
        if before == after && bytes.starts_with(&after) {
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
    use lb_core::table::inspect;
    use lb_core::target::{Mark, Targets};
    use lb_sys::shm::{self, Existing, Folder, TableWriter};

    fn publish(writer: &TableWriter, mark: u32) {
        let mut targets = Targets::new(4);
        targets.activate(Mark::new(mark).unwrap(), None, None).unwrap();
        writer.publish(&targets).unwrap();
    }

    /// A writer publishes twice in the middle of the first copies, so that these are mixed.
    #[test]
    fn a_copy_of_a_table_in_use_is_of_one_generation() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, name) = (Folder::new(dir.path()), "busy".parse().unwrap());
        let config = Config { slots: 997, targets: 4, ..Config::default() };
        shm::init(&folder, &name, config, Existing::Refuse).unwrap();
        let writer = TableWriter::lock(&folder, &name).unwrap();
        publish(&writer, 1);

        let file = File::open(dir.path().join("busy")).unwrap();
        let mut mark = 1;
        let mut mixed_copy = |into: &mut [u8], publications| {
            // The second buffer lies on both sides, and the header on one.
            let (first, second) = into.split_at_mut(into.len() * 3 / 4);
            file.read_exact_at(first, 0)?;
            for _ in 0..publications {
                mark += 1;
                publish(&writer, mark);
            }
            file.read_exact_at(second, first.len() as u64)
        };
        for publications in 1..=3 {
            let mut disturbances = 3;
            let copy = of_one_generation(file_len(&config), |into| {
                let is_body = into.len() > HEADER_LEN;
                disturbances -= i32::from(is_body);
                mixed_copy(into, if is_body && disturbances >= 0 { publications } else { 0 })
            });
            let inspection = inspect(&copy.unwrap());
            assert_eq!(inspection.problems, []);
            assert_eq!(disturbances, -1, "the mixed ones were made again, and no other");
        }

        let error = of_one_generation(file_len(&config), |into| mixed_copy(into, 1));
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "it changed at every one of 1000 attempts to read it");
    }

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
