use clap::Args;
use lb_sys::shm::{self, Folder};

use crate::args::{TableArg, exit_codes};
use crate::error::Error;

/// Remove a table
///
/// A running lb goes on with it until there is a new one of that name.
#[derive(Debug, Args)]
#[command(after_help = concat!(
    "Examples:
  shm-tool delete
  shm-tool delete --shm tier2

",
    exit_codes!(changing)
))]
pub struct Delete {
    #[command(flatten)]
    table: TableArg,
}

impl Delete {
    pub fn run(&self, folder: &Folder) -> Result<(), Error> {
        Ok(shm::delete(folder, &self.table.name)?)
    }
}
