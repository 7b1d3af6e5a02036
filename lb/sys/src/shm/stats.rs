//! The counters of a running `lb` as a file: one header, one row per queue.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use lb_core::counters::{Counts, LAYOUT, ROW_WORDS, Row};

use super::file::{Access, Staged, is_locked, lock_named, names, none_if_missing, open};
use super::mapping::Mapping;
use super::{Cause, Folder, Name, ShmError, doing};

const MAGIC_WORD: u64 = u64::from_ne_bytes(*b"MKWSTATS");
const HEADER_WORDS: usize = 64;
const MAGIC: usize = 0;
const COUNTERS_LAYOUT: usize = 1;
const ROWS: usize = 2;
const PID: usize = 3;
const STARTED: usize = 4;
const TABLE_LEN: usize = 5;
const TABLE: usize = 6;
const MAX_ROWS: usize = 65_536;

/// The counters that this process keeps. The file is locked as long as it runs.
#[derive(Debug)]
pub struct StatsWriter {
    mapping: Mapping,
    _locked: File,
}

impl StatsWriter {
    /// Makes the counters of an instance, which nobody else may be.
    pub fn create(
        folder: &Folder,
        instance: &Name,
        table: &Name,
        queues: &[u16],
    ) -> Result<Self, ShmError> {
        create(&folder.stats(instance), table, queues).map_err(doing("run instance", instance))
    }

    /// The row of the queue at this place in the list.
    pub fn row(&self, place: usize) -> Option<Row<'_>> {
        rows(&self.mapping).get(place).map(Row::new)
    }
}

fn create(path: &Path, table: &Name, queues: &[u16]) -> Result<StatsWriter, Cause> {
    let words = HEADER_WORDS + queues.len() * ROW_WORDS;
    loop {
        // Whoever holds the lock of the old file is alive.
        let old = match lock_named(path, Duration::ZERO) {
            Ok(old) => old,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let pid = StatsFile::open_path(path).map(|stats| stats.pid()).unwrap_or_default();
                return Err(Cause::InUse(pid));
            }
            Err(error) => return Err(error.into()),
        };
        let staged = Staged::new(path, words * size_of::<u64>())?;
        let mapping = Mapping::writable(&staged.file)?;
        fill_header(mapping.words64(usize::MAX), table, queues.len());
        for (row, queue) in rows(&mapping).iter().zip(queues) {
            Row::new(row).store(*queue, &Counts::default());
        }
        let placed = match old {
            Some(_) => staged.replace().map(|()| true)?,
            None => staged.put_new()?,
        };
        if placed {
            // The clone shares the lock, which goes with the last of the two.
            return Ok(StatsWriter { mapping, _locked: staged.file.try_clone()? });
        }
    }
}

fn fill_header(words: &[AtomicU64], table: &Name, rows: usize) {
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let name = table.to_string();
    for (at, word) in [
        (MAGIC, MAGIC_WORD),
        (COUNTERS_LAYOUT, LAYOUT),
        (ROWS, rows as u64),
        (PID, u64::from(std::process::id())),
        (STARTED, started.as_secs()),
        (TABLE_LEN, name.len() as u64),
    ] {
        words[at].store(word, Relaxed);
    }
    for (word, chunk) in words[TABLE..].iter().zip(name.as_bytes().chunks(8)) {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        word.store(u64::from_ne_bytes(bytes), Relaxed);
    }
}

fn rows(mapping: &Mapping) -> &[[AtomicU64; ROW_WORDS]] {
    let words = mapping.words64(usize::MAX);
    words.get(HEADER_WORDS..).unwrap_or_default().as_chunks().0
}

/// The counters of some instance, seen from outside.
#[derive(Debug)]
pub struct StatsFile {
    mapping: Mapping,
    file: File,
}

impl StatsFile {
    /// Opens the counters of an instance and checks them.
    pub fn open(folder: &Folder, instance: &Name) -> Result<Self, ShmError> {
        Self::open_path(&folder.stats(instance)).map_err(doing("read counters of", instance))
    }

    fn open_path(path: &Path) -> Result<Self, Cause> {
        let file = none_if_missing(open(path, Access::Read))?.ok_or(Cause::MissingStats)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() < (HEADER_WORDS * size_of::<u64>()) as u64 {
            return Err(Cause::Stats("the file does not hold counters"));
        }
        let stats = StatsFile { mapping: Mapping::read_only(&file)?, file };
        if stats.word(MAGIC) != MAGIC_WORD {
            return Err(Cause::Stats("the file does not hold counters"));
        }
        if stats.word(COUNTERS_LAYOUT) != LAYOUT {
            return Err(Cause::Stats(
                "the `lb` that counts there is of another version; use programs of one release",
            ));
        }
        let rows = rows(&stats.mapping).len();
        if stats.word(ROWS) != rows as u64 || rows > MAX_ROWS {
            return Err(Cause::Stats("damaged: the length of the file does not match its header"));
        }
        Ok(stats)
    }

    /// The process that counts or counted.
    pub fn pid(&self) -> u64 {
        self.word(PID)
    }

    /// When it started, in seconds since 1970.
    pub fn started(&self) -> u64 {
        self.word(STARTED)
    }

    /// The table that it serves.
    pub fn table(&self) -> String {
        let len = usize::try_from(self.word(TABLE_LEN)).unwrap_or(0);
        let bytes: Vec<u8> =
            (TABLE..HEADER_WORDS).flat_map(|at| self.word(at).to_ne_bytes()).take(len).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether that process is alive.
    pub fn is_running(&self) -> bool {
        is_locked(&self.file).unwrap_or(false)
    }

    /// Whether a newer process has taken the instance over.
    pub fn is_replaced(&self, folder: &Folder, instance: &Name) -> bool {
        !names(&folder.stats(instance), &self.file).unwrap_or(true)
    }

    /// The counters of each queue. A row that a killed process left half written is `None`.
    pub fn queues(&self) -> impl Iterator<Item = Option<(u16, Counts)>> {
        rows(&self.mapping).iter().map(|row| Row::new(row).load())
    }

    fn word(&self, at: usize) -> u64 {
        self.mapping.words64(usize::MAX)[at].load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_core::counters::Counter;
    use std::fs;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn what_one_writes_another_reads() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Folder::new(folder.path());
        let writer = StatsWriter::create(&folder, &name("a"), &name("table-1"), &[4, 7]).unwrap();
        let mut counts = Counts::default();
        counts.add(Counter::Received, 11);
        writer.row(1).unwrap().store(7, &counts);
        assert!(writer.row(2).is_none());

        let stats = StatsFile::open(&folder, &name("a")).unwrap();
        assert_eq!(stats.table(), "table-1");
        assert_eq!(stats.pid(), u64::from(std::process::id()));
        assert!(stats.started() > 1_600_000_000);
        let queues: Vec<_> = stats.queues().collect();
        assert_eq!(queues, [Some((4, Counts::default())), Some((7, counts))]);
        assert!(stats.is_running());
        drop(writer);
        assert!(!stats.is_running());
    }

    #[test]
    fn an_instance_is_one_process_and_the_next_one_starts_anew() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Folder::new(folder.path());
        let first = StatsWriter::create(&folder, &name("a"), &name("t"), &[1]).unwrap();
        let seen = StatsFile::open(&folder, &name("a")).unwrap();
        let error = StatsWriter::create(&folder, &name("a"), &name("t"), &[1]).unwrap_err();
        let pid = std::process::id();
        assert_eq!(
            error.to_string(),
            format!(
                "run instance a: a running `lb` (process {pid}) has this instance name; choose another with --instance"
            )
        );
        assert!(!seen.is_replaced(&folder, &name("a")));
        drop(first);
        let _second = StatsWriter::create(&folder, &name("a"), &name("t"), &[1, 2]).unwrap();
        assert!(seen.is_replaced(&folder, &name("a")));
        assert_eq!(StatsFile::open(&folder, &name("a")).unwrap().queues().count(), 2);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn watching_a_stopped_instance_does_not_keep_it_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Folder::new(folder.path());
        let create = || StatsWriter::create(&folder, &name("a"), &name("t"), &[1]);
        drop(create().unwrap());
        let watched = StatsFile::open(&folder, &name("a")).unwrap();
        assert!(!watched.is_running());
        let next = create().unwrap();
        assert!(watched.is_replaced(&folder, &name("a")));
        assert!(!watched.is_running());
        assert!(StatsFile::open(&folder, &name("a")).unwrap().is_running(), "{next:?}");
    }

    #[test]
    fn other_files_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Folder::new(folder.path());
        let open = |content: &[u8]| {
            fs::write(folder.stats(&name("a")), content).unwrap();
            StatsFile::open(&folder, &name("a")).unwrap_err().to_string()
        };
        for content in [&[][..], &[0; 100], &[7; 512], &[0; 4096]] {
            assert_eq!(open(content), "read counters of a: the file does not hold counters");
        }
        let mut other = [0u8; 1024];
        other[..8].copy_from_slice(b"MKWSTATS");
        assert!(open(&other).contains("of another version"));
        other[8..16].copy_from_slice(&LAYOUT.to_ne_bytes());
        other[16] = 9;
        assert!(open(&other).contains("damaged"));
        let error = StatsFile::open(&folder, &name("none")).unwrap_err().to_string();
        assert!(error.contains("no `lb` of this instance has run"), "{error}");
    }
}
