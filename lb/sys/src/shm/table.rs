//! Tables as files: opened by readers, locked by writers, replaced whole by `init`.

use std::fs::{self, File};
use std::io;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use lb_core::table::{
    Config, Generation, HEADER_LEN, Snapshot, Table, TableError, WritableTable, file_len, header_of,
};
use lb_core::target::Targets;

use super::file::{Access, Staged, lock_named, none_if_missing, open};
use super::mapping::Mapping;
use super::{Cause, Folder, Name, ShmError, doing};

/// How long a writer waits for another one.
const PATIENCE: Duration = Duration::from_secs(10);

/// A table mapped for reading.
#[derive(Debug)]
pub struct MappedTable {
    mapping: Mapping,
    identity: (u64, u64),
}

impl MappedTable {
    /// Opens a table and checks it.
    pub fn open(folder: &Folder, name: &Name) -> Result<Self, ShmError> {
        let open = || -> Result<Self, Cause> {
            let file = none_if_missing(open(&folder.table(name), Access::Read))?
                .ok_or_else(|| Cause::MissingTable(name.clone()))?;
            let metadata = checked_metadata(&file)?;
            let mapping = Mapping::read_only(&file)?;
            let mapped = MappedTable { mapping, identity: (metadata.dev(), metadata.ino()) };
            view(&mapped.mapping)?;
            Ok(mapped)
        };
        open().map_err(doing("open table", name))
    }

    /// The view of the table. [`MappedTable::open`] has checked what is checked here once more.
    pub fn table(&self) -> Result<Table<'_>, TableError> {
        view(&self.mapping)
    }

    /// A consistent copy of the whole table.
    pub fn snapshot(&self) -> Result<Snapshot, TableError> {
        self.table()?.snapshot()
    }

    /// Whether the name stands for another file by now. A table that was deleted is in force until
    /// it has a successor.
    pub fn is_replaced(&self, folder: &Folder, name: &Name) -> bool {
        fs::metadata(folder.table(name))
            .is_ok_and(|named| (named.dev(), named.ino()) != self.identity)
    }
}

/// A table of which this process holds the writers' lock.
#[derive(Debug)]
pub struct TableWriter {
    name: Name,
    mapping: Mapping,
    // Dropped after the mapping: closing it is what readers that watch the folder are told.
    _locked: File,
}

impl TableWriter {
    /// Opens a table for writing once no other writer has it.
    pub fn lock(folder: &Folder, name: &Name) -> Result<Self, ShmError> {
        let lock = || -> Result<Self, Cause> {
            let file =
                lock_table(folder, name)?.ok_or_else(|| Cause::MissingTable(name.clone()))?;
            let mapping = writable(&file)?;
            Ok(TableWriter { name: name.clone(), mapping, _locked: file })
        };
        lock().map_err(doing("change table", name))
    }

    /// A copy of the table, which nobody else changes now.
    pub fn snapshot(&self) -> Result<Snapshot, ShmError> {
        let snapshot = || Ok(view(&self.mapping)?.snapshot()?);
        snapshot().map_err(doing("change table", &self.name))
    }

    /// Puts these targets in force.
    pub fn publish(&self, targets: &Targets) -> Result<Snapshot, ShmError> {
        let publish = || {
            let table = writable_view(&self.mapping)?;
            table.publish(targets);
            Ok(table.snapshot()?)
        };
        publish().map_err(doing("change table", &self.name))
    }
}

/// What `init` does with a table that is there. A file that is no table is never touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuses if it has targets.
    Refuse,
    /// Carries its targets over.
    Keep,
    /// Drops its targets, also if the file is damaged or of another version.
    Drop,
}

/// Makes a table. One that was there is replaced whole, so that readers go on with the old one until
/// they move over.
pub fn init(
    folder: &Folder,
    name: &Name,
    config: Config,
    existing: Existing,
) -> Result<Snapshot, ShmError> {
    init_from(folder, name, existing, |_| config)
}

/// As [`init`], with a configuration that may follow that of the table of which the targets are kept.
pub fn init_from(
    folder: &Folder,
    name: &Name,
    existing: Existing,
    config_of: impl Fn(Option<&Config>) -> Config,
) -> Result<Snapshot, ShmError> {
    let checked = |kept: Option<&Config>| -> Result<Config, Cause> {
        let config = config_of(kept);
        config.check()?;
        Ok(config)
    };
    let init = || -> Result<Snapshot, Cause> {
        loop {
            let Some(file) = lock_table(folder, name)? else {
                let staged = stage(folder, name, &checked(None)?, Generation(0), None)?;
                if staged.put_new()? {
                    return published(&staged);
                }
                continue; // Somebody else was faster.
            };
            let (config, generation, targets) = match (old_snapshot(&file), existing) {
                (Ok(old), Existing::Keep) => {
                    let config = checked(Some(&old.config))?;
                    (config, old.generation, Some(carried(&old, &config)?))
                }
                (Ok(old), Existing::Drop) => (checked(None)?, old.generation, None),
                (Ok(old), Existing::Refuse) => {
                    let config = checked(None)?;
                    match old.targets.iter().count() {
                        0 => (config, old.generation, None),
                        count => return Err(Cause::HasTargets(count)),
                    }
                }
                (
                    Err(Cause::Table(TableError::Damaged(_) | TableError::OtherLayout { .. })),
                    Existing::Drop,
                ) => (checked(None)?, Generation(0), None),
                (Err(cause), _) => return Err(cause),
            };
            let staged = stage(folder, name, &config, generation, targets)?;
            staged.replace()?;
            return published(&staged);
        }
    };
    init().map_err(doing("init table", name))
}

/// Removes a table. A running `lb` goes on with it until there is a new one.
pub fn delete(folder: &Folder, name: &Name) -> Result<(), ShmError> {
    let delete = || -> Result<(), Cause> {
        let file = lock_table(folder, name)?.ok_or_else(|| Cause::MissingTable(name.clone()))?;
        match old_snapshot(&file) {
            Ok(_) | Err(Cause::Table(TableError::OtherLayout { .. } | TableError::Damaged(_))) => {
                Ok(fs::remove_file(folder.table(name))?)
            }
            Err(cause) => Err(cause),
        }
    };
    delete().map_err(doing("delete table", name))
}

/// The names of all tables in the folder, damaged ones too.
pub fn list(folder: &Folder) -> Result<Vec<Name>, ShmError> {
    let list = || -> Result<Vec<Name>, Cause> {
        let mut names: Vec<Name> = fs::read_dir(folder.path())?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|name| is_table(folder, name))
            .collect();
        names.sort();
        Ok(names)
    };
    list().map_err(doing("list tables in", folder.path().display()))
}

fn is_table(folder: &Folder, name: &Name) -> bool {
    match MappedTable::open(folder, name) {
        Ok(_) => true,
        Err(ShmError { cause: Cause::Table(error), .. }) => error != TableError::NotATable,
        Err(_) => false,
    }
}

fn lock_table(folder: &Folder, name: &Name) -> Result<Option<File>, Cause> {
    lock_named(&folder.table(name), PATIENCE).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Cause::Locked(PATIENCE.as_secs()),
        _ => Cause::Io(error),
    })
}

fn writable(file: &File) -> Result<Mapping, Cause> {
    checked_metadata(file)?;
    let mapping = Mapping::writable(file)?;
    view(&mapping)?;
    Ok(mapping)
}

/// Only a regular file with content can be mapped and be a table.
fn checked_metadata(file: &File) -> Result<fs::Metadata, Cause> {
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.len() > 0 {
        Ok(metadata)
    } else {
        Err(TableError::NotATable.into())
    }
}

fn view(mapping: &Mapping) -> Result<Table<'_>, TableError> {
    let table = Table::view(mapping.words64(HEADER_LEN), mapping.words32_after(HEADER_LEN))?;
    if mapping.len() == file_len(table.config()) {
        Ok(table)
    } else {
        Err(TableError::Damaged("the file ends inside a word"))
    }
}

/// Of a mapping that was made by [`Mapping::writable`].
fn writable_view(mapping: &Mapping) -> Result<WritableTable<'_>, TableError> {
    view(mapping)?;
    WritableTable::view(mapping.words64(HEADER_LEN), mapping.words32_after(HEADER_LEN))
}

fn old_snapshot(file: &File) -> Result<Snapshot, Cause> {
    Ok(view(&writable(file)?)?.snapshot()?)
}

/// The targets of the old table in one of the new dimensions.
fn carried(old: &Snapshot, config: &Config) -> Result<Targets, Cause> {
    let mut targets = Targets::new(config.targets);
    for (index, target) in old.targets.iter() {
        let no_room = Cause::NoRoom { mark: target.mark, index, targets: config.targets };
        targets.activate(target.mark, Some(target.weight), Some(index)).map_err(|_| no_room)?;
    }
    Ok(targets)
}

fn stage(
    folder: &Folder,
    name: &Name,
    config: &Config,
    generation: Generation,
    targets: Option<Targets>,
) -> Result<Staged, Cause> {
    let staged = Staged::new(&folder.table(name), file_len(config))?;
    let header: Vec<u8> =
        header_of(config, generation).iter().flat_map(|word| word.to_ne_bytes()).collect();
    (&staged.file).write_all(&header)?;
    let mapping = Mapping::writable(&staged.file)?;
    writable_view(&mapping)?.publish(&targets.unwrap_or_else(|| Targets::new(config.targets)));
    Ok(staged)
}

fn published(staged: &Staged) -> Result<Snapshot, Cause> {
    let mapping = Mapping::read_only(&staged.file)?;
    Ok(view(&mapping)?.snapshot()?)
}

#[cfg(test)]
mod tests;
