use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use crate::args::{Cli, exit_codes};
use crate::error::Error;
use crate::output::print;

/// Print the completions for a shell
#[derive(Debug, Args)]
#[command(after_help = concat!(
    "Examples:
  shm-tool completions bash > /etc/bash_completion.d/shm-tool
  source <(shm-tool completions zsh)

",
    exit_codes!("printed", "not printed")
))]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub fn run(&self) -> Result<(), Error> {
        let mut script = Vec::new();
        generate(self.shell, &mut Cli::command(), "shm-tool", &mut script);
        print(script)
    }
}
