use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Command, CommandFactory as _};

use crate::args::{Cli, exit_codes};
use crate::output::print;

/// Print the man page, or write that of every verb
#[derive(Debug, Args)]
#[command(after_help = concat!(
    "Examples:
  sctpt man | man -l -
  sctpt man --dir /usr/local/share/man/man1

",
    exit_codes!("done")
))]
pub struct Man {
    /// Write sctpt.1 and sctpt-VERB.1 to this folder instead
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Man {
    pub fn run(&self) -> anyhow::Result<()> {
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        match &self.dir {
            Some(dir) => write_all(&command, dir)
                .with_context(|| format!("write man pages to {}", dir.display())),
            None => {
                let mut text = Vec::new();
                page(&command).render(&mut text).context("write the man page")?;
                print(text)
            }
        }
    }
}

fn write_all(command: &Command, dir: &Path) -> io::Result<()> {
    page(command).generate_to(dir)?;
    command.get_subcommands().try_for_each(|verb| page(verb).generate_to(dir).map(|_| ()))
}

fn page(command: &Command) -> clap_mangen::Man {
    let source = concat!("Markway ", env!("CARGO_PKG_VERSION"));
    clap_mangen::Man::new(command.clone()).source(source).manual("Markway")
}
