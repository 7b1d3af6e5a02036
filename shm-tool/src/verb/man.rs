use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory as _};

use crate::args::{Cli, exit_codes};
use crate::error::Error;
use crate::output::print;

/// Print the man page, or write that of every verb
#[derive(Debug, Args)]
#[command(after_help = concat!(
    "Examples:
  shm-tool man | man -l -
  shm-tool man --dir /usr/local/share/man/man1

",
    exit_codes!("done", "failed")
))]
pub struct Man {
    /// Write shm-tool.1 and shm-tool-VERB.1 to this folder instead
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Man {
    pub fn run(&self) -> Result<(), Error> {
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        match &self.dir {
            Some(dir) => {
                write_all(&command, dir).map_err(|cause| Error::Man { folder: dir.clone(), cause })
            }
            None => {
                let mut text = Vec::new();
                page(&command).render(&mut text).map_err(Error::Output)?;
                print(text)
            }
        }
    }
}

fn write_all(command: &Command, dir: &Path) -> io::Result<()> {
    page(command).generate_to(dir)?;
    for verb in command.get_subcommands() {
        page(verb).generate_to(dir)?;
    }
    Ok(())
}

fn page(command: &Command) -> clap_mangen::Man {
    clap_mangen::Man::new(command.clone())
        .source(concat!("Markway ", env!("CARGO_PKG_VERSION")))
        .manual("Markway")
}
