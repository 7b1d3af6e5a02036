//! The verbs: a file each, which holds its arguments and what it does.

mod activate;
mod compare;
mod completions;
mod deactivate;
mod delete;
mod dry_run;
mod explain;
mod export;
mod init;
mod list;
mod lookup;
mod man;
mod show;
mod stats;
mod verify;

use std::process::ExitCode;

use clap::Subcommand;
use lb_core::table::Snapshot;
use lb_core::target::{TargetError, Targets};
use lb_sys::shm::{Folder, MappedTable, Name, TableWriter};

use crate::args::folder;
use crate::error::Error;

#[derive(Debug, Subcommand)]
pub enum Verb {
    Init(init::Init),
    Delete(delete::Delete),
    Activate(activate::Activate),
    Deactivate(deactivate::Deactivate),
    Show(show::Show),
    List(list::List),
    Lookup(lookup::Lookup),
    Explain(explain::Explain),
    Verify(verify::Verify),
    Export(export::Export),
    Compare(compare::Compare),
    Stats(stats::Stats),
    Completions(completions::Completions),
    Man(man::Man),
}

impl Verb {
    pub fn run(&self) -> Result<ExitCode, Error> {
        let done = match self {
            Verb::Compare(compare) => return compare.run(),
            Verb::Init(init) => init.run(&folder()?),
            Verb::Delete(delete) => delete.run(&folder()?),
            Verb::Activate(activate) => activate.run(&folder()?),
            Verb::Deactivate(deactivate) => deactivate.run(&folder()?),
            Verb::Show(show) => show.run(),
            Verb::List(list) => list.run(&folder()?),
            Verb::Lookup(lookup) => lookup.run(&folder()?),
            Verb::Explain(explain) => explain.run(&folder()?),
            Verb::Verify(verify) => verify.run(),
            Verb::Export(export) => export.run(&folder()?),
            Verb::Stats(stats) => stats.run(&folder()?),
            Verb::Completions(completions) => completions.run(),
            Verb::Man(man) => man.run(),
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}

/// A consistent copy of a table.
pub fn read(folder: &Folder, name: &Name) -> Result<Snapshot, Error> {
    let mapped = MappedTable::open(folder, name)?;
    mapped.snapshot().map_err(|cause| Error::Table { table: name.clone(), cause })
}

/// Changes the targets of a table in one publication, or not at all. A change that changes nothing
/// is not published.
fn change<T>(
    folder: &Folder,
    name: &Name,
    change: impl FnOnce(&mut Targets) -> Result<T, TargetError>,
) -> Result<T, Error> {
    let writer = TableWriter::lock(folder, name)?;
    let before = writer.snapshot()?.targets;
    let mut targets = before.clone();
    let changed =
        change(&mut targets).map_err(|cause| Error::Targets { table: name.clone(), cause })?;
    if targets != before {
        writer.publish(&targets)?;
    }
    Ok(changed)
}
