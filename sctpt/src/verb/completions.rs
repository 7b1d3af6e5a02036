use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use crate::args::{Cli, exit_codes};
use crate::output::print;

/// Print the completions for a shell
#[derive(Debug, Args)]
#[command(after_help = concat!(
    "Examples:
  sctpt completions bash > /etc/bash_completion.d/sctpt
  source <(sctpt completions zsh)

",
    exit_codes!("printed")
))]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub fn run(&self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        generate(self.shell, &mut Cli::command(), "sctpt", &mut script);
        print(script)
    }
}
