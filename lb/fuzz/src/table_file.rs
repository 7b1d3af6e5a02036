//! A file that should be a table, through the doors of everybody who uses tables.

use std::fs;
use std::path::Path;

use lb_core::table::{Config, Snapshot, TableError};
use lb_sys::shm::{
    Cause, Existing, Folder, MappedTable, Name, ShmError, TableWriter, delete, init, list,
};

use crate::choices::Choices;
use crate::memory::Memory;
use crate::table::{check, check_file, check_published};

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let room = Room::new();
    let mut content = if choices.bool() {
        Memory::harmed(&mut choices).bytes()
    } else {
        let mut bytes = vec![0; usize::from(choices.u16())];
        let start = choices.bytes(bytes.len());
        bytes[..start.len()].copy_from_slice(start);
        bytes
    };
    if choices.bool() {
        // Whole and broken words more or less.
        let by = usize::from(choices.u8());
        let len = content.len();
        content.resize(if choices.bool() { len + by } else { len.saturating_sub(by) }, 0);
    }
    fs::write(&room.path, &content).unwrap();

    let opened = room.check_opened(check_file(&content));
    assert_eq!(fs::read(&room.path).unwrap(), content, "who only looks changes nothing");
    match choices.below(3) {
        0 => room.check_written(opened, &mut choices),
        1 => room.check_init(opened, &content, &mut choices),
        _ => room.check_deleted(opened),
    }
}

/// What became of opening: the whole table, or why it is none.
type Opened = Result<Snapshot, TableError>;

/// A folder of shared memory with one file.
struct Room {
    dir: tempfile::TempDir,
    folder: Folder,
    name: Name,
    path: Box<Path>,
}

impl Room {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t").into();
        Room { folder: Folder::new(dir.path()), dir, name: "t".parse().unwrap(), path }
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn open(&self) -> Result<MappedTable, TableError> {
        MappedTable::open(&self.folder, &self.name).map_err(table_error)
    }

    /// A file is taken for what its content is in memory.
    fn check_opened(&self, expected: Opened) -> Opened {
        let listed = list(&self.folder).unwrap();
        let opened = self.open().and_then(|mapped| {
            check(&mapped.table()?);
            mapped.snapshot()
        });
        assert_eq!(opened, expected);
        assert_eq!(listed.is_empty(), opened == Err(TableError::NotATable));
        opened
    }

    /// A writer opens what a reader opens, and what it publishes mends a buffer that was damaged.
    fn check_written(&self, opened: Opened, choices: &mut Choices<'_>) {
        let writer = TableWriter::lock(&self.folder, &self.name);
        let reader = self.open();
        assert_eq!(writer.is_ok(), reader.is_ok());
        let (Ok(writer), Ok(reader)) = (writer, reader) else {
            return;
        };
        assert_eq!(writer.snapshot().map_err(table_error), opened);
        let targets = choices.targets(reader.table().unwrap().config().targets);
        let published = writer.publish(&targets).unwrap();
        check_published(&published, &targets);
        assert_eq!(reader.snapshot().unwrap(), published);
    }

    /// A new table is in place and whole, or nothing has changed.
    fn check_init(&self, opened: Opened, content: &[u8], choices: &mut Choices<'_>) {
        let existing = choices.one_of([Existing::Refuse, Existing::Keep, Existing::Drop]);
        let config = Config { slots: 101, targets: 8, ..Config::default() };
        let made = init(&self.folder, &self.name, config, existing);
        match (&opened, existing) {
            (Err(TableError::NotATable), _) => assert!(made.is_err()),
            (_, Existing::Drop) => assert!(made.is_ok()),
            (Err(_), _) => assert!(made.is_err()),
            (Ok(old), _) if old.targets.iter().count() == 0 => assert!(made.is_ok()),
            (Ok(_), Existing::Refuse) => assert!(made.is_err()),
            (Ok(old), Existing::Keep) => {
                let room = old.targets.iter().all(|(index, _)| index < config.targets);
                assert_eq!(made.is_ok(), room);
            }
        }
        match made {
            Ok(made) => {
                assert_eq!(made, self.open().unwrap().snapshot().unwrap());
                assert_eq!(made.config, config);
                check_published(&made, &made.targets);
                if existing == Existing::Keep {
                    assert!(opened.is_ok_and(|old| old.targets.iter().eq(made.targets.iter())));
                } else {
                    assert_eq!(made.targets.iter().count(), 0);
                }
            }
            Err(_) => assert_eq!(fs::read(&self.path).unwrap(), content),
        }
        assert_eq!(self.files(), ["t"]);
    }

    /// Only a table is removed, also a damaged one.
    fn check_deleted(&self, opened: Opened) {
        let deleted = delete(&self.folder, &self.name);
        assert_eq!(deleted.is_ok(), opened != Err(TableError::NotATable));
        assert_eq!(self.files().is_empty(), deleted.is_ok());
    }
}

fn table_error(error: ShmError) -> TableError {
    match error.cause {
        Cause::Table(error) => error,
        _ => panic!("{error}"),
    }
}
