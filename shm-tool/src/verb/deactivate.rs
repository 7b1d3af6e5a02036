use std::collections::BTreeSet;

use clap::Args;
use lb_core::target::{Mark, TargetError, Targets};
use lb_sys::shm::Folder;

use crate::args::{TableArg, exit_codes, mark};
use crate::error::Error;
use crate::verb::change;
use crate::verb::dry_run::DryRunArgs;

/// Take targets away
///
/// Several marks are one change: lb sees all of it or nothing. An unknown mark is an error, and then
/// none of them is taken away.
#[derive(Debug, Args)]
#[command(after_help = concat!(
    "Examples:
  shm-tool deactivate 102
  shm-tool deactivate 101 0x67
  shm-tool deactivate --index 3
  shm-tool deactivate 102 --dry-run      what would move, and from whom to whom

",
    exit_codes!(changing)
))]
pub struct Deactivate {
    /// The marks, decimal or 0x hexadecimal
    #[arg(
        value_name = "MARK",
        required_unless_present = "index",
        conflicts_with = "index",
        value_parser = mark
    )]
    marks: Vec<Mark>,
    #[command(flatten)]
    table: TableArg,
    /// The place in the table of the target to take away
    #[arg(long, value_name = "I")]
    index: Option<u32>,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

impl Deactivate {
    pub fn run(&self, folder: &Folder) -> Result<(), Error> {
        let name = &self.table.name;
        match self.dry_run.dry_run {
            true => self.dry_run.run(folder, name, |targets| self.change(targets)),
            false => change(folder, name, |targets| self.change(targets)),
        }
    }

    fn change(&self, targets: &mut Targets) -> Result<(), TargetError> {
        // To name a mark twice is not to name an unknown one.
        let marks: BTreeSet<Mark> = self.marks.iter().copied().collect();
        for mark in marks {
            targets.deactivate(mark)?;
        }
        if let Some(index) = self.index {
            targets.deactivate_index(index)?;
        }
        Ok(())
    }
}
