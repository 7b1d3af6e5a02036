use clap::Args;
use lb_core::target::{Mark, Target, TargetError, Targets, Weight};
use lb_sys::shm::Folder;

use crate::args::{TableArg, exit_codes, mark};
use crate::error::Error;
use crate::output::print;
use crate::verb::change;
use crate::verb::dry_run::DryRunArgs;

/// Add targets, or change their weight or index
///
/// Several marks are one change: lb sees all of it or nothing.
#[derive(Debug, Args)]
#[command(after_help = concat!(
    "Examples:
  shm-tool activate 101 102 103
  shm-tool activate 0x65 --weight 3      also if it is active already
  shm-tool activate 101 --weight 0       no new share, but it stays listed
  shm-tool activate 104 --index 0        in place of whatever has index 0
  shm-tool activate 105 --dry-run        what would move, and from whom to whom

",
    exit_codes!(changing)
))]
pub struct Activate {
    /// The marks, decimal or 0x hexadecimal
    #[arg(value_name = "MARK", required = true, value_parser = mark)]
    marks: Vec<Mark>,
    #[command(flatten)]
    table: TableArg,
    /// Share in relation to the others, 0 to 65535; 0 holds no slot [default: 1, or as it was]
    #[arg(long, value_name = "W")]
    weight: Option<u16>,
    /// The place in the table, from 0; its target is replaced [default: the first free, or as it was]
    #[arg(long, value_name = "I")]
    index: Option<u32>,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

impl Activate {
    pub fn run(&self, folder: &Folder) -> Result<(), Error> {
        if self.index.is_some() && self.marks.len() > 1 {
            return Err(Error::Usage { verb: "activate", problem: "--index is for one mark only" });
        }
        let name = &self.table.name;
        if self.dry_run.dry_run {
            return self.dry_run.run(folder, name, |targets| self.change(targets));
        }
        let replaced = change(folder, name, |targets| self.change(targets))?;
        if let (Some(old), Some(index), [mark]) = (replaced, self.index, &self.marks[..]) {
            let old = old.mark;
            print(format!("index {index}: mark {old} replaced by {mark}\n"))?;
        }
        Ok(())
    }

    /// Returns the target that gave up its index.
    fn change(&self, targets: &mut Targets) -> Result<Option<Target>, TargetError> {
        let weight = self.weight.map(Weight);
        let mut replaced = None;
        for mark in &self.marks {
            replaced = targets.activate(*mark, weight, self.index)?;
        }
        Ok(replaced)
    }
}
