//! The verbs: a file each, which holds its arguments and what it does.

mod client;
mod completions;
mod ctraffic;
mod man;
pub mod server;
mod stats;

use std::process::ExitCode;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum Verb {
    Server(server::Server),
    Client(client::Client),
    Ctraffic(ctraffic::Ctraffic),
    Stats(stats::Stats),
    Completions(completions::Completions),
    Man(man::Man),
}

impl Verb {
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let done = match self {
            Verb::Ctraffic(ctraffic) => return ctraffic.run(),
            Verb::Server(server) => server.run(),
            Verb::Client(client) => client.run(),
            Verb::Stats(stats) => stats.run(),
            Verb::Completions(completions) => completions.run(),
            Verb::Man(man) => man.run(),
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}
