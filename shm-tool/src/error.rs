//! What can go wrong, in one line each: what failed, on what, why, and what to do.

use std::io::{self, ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory as _;
use lb_core::table::TableError;
use lb_core::target::TargetError;
use lb_core::tier::NoOwnMark;
use lb_sys::shm::{Cause, Name, ShmError};
use thiserror::Error;

use crate::args::Cli;
use crate::capture::CaptureError;
use crate::source::Source;

#[derive(Debug, Error)]
pub enum Error {
    #[error("{0}{advice}", advice = advice(.0))]
    Shm(#[from] ShmError),
    #[error("read table {table}: {cause}{}", table_advice(.cause))]
    Table { table: Name, cause: TableError },
    #[error("read table {table}: {cause}")]
    Tier { table: Name, cause: NoOwnMark },
    #[error("change table {table}: {cause}{}", target_advice(.cause))]
    Targets { table: Name, cause: TargetError },
    #[error(
        "look up in table {table}: UDP to port {port} holds SCTP there; \
         ask with `--proto sctp` for the ports inside"
    )]
    SctpInUdp { table: Name, port: u16 },
    #[error("open folder {}: {cause}; MARKWAY_SHM_DIR names the folder of the tables", .path.display())]
    Folder { path: PathBuf, cause: io::Error },
    #[error("read {}: {cause}", .path.display())]
    Read { path: PathBuf, cause: io::Error },
    #[error("read {}: {cause}", .path.display())]
    File { path: PathBuf, cause: TableError },
    #[error("read {}: {cause}", .path.display())]
    Capture { path: PathBuf, cause: CaptureError },
    #[error("read packet: {0}")]
    Hex(String),
    #[error("save table to {}: {cause}", .path.display())]
    Save { path: PathBuf, cause: io::Error },
    #[error("verify {} {object}: {}", .object.kind(), counted(*.problems))]
    Unsound { object: Source, problems: usize },
    /// What keeps a comparison from being made: 1 would mean that there is a difference.
    #[error("{0}")]
    Trouble(Box<Error>),
    #[error("write man pages to {}: {cause}", .folder.display())]
    Man { folder: PathBuf, cause: io::Error },
    #[error("watch counters: {0}")]
    Watch(io::Error),
    #[error("write to stdout: {0}")]
    Output(io::Error),
    /// Options that are right by themselves and wrong together.
    #[error("{problem}")]
    Usage { verb: &'static str, problem: &'static str },
}

impl Error {
    /// Says what is wrong and returns the exit code that goes with it.
    pub fn report(&self) -> ExitCode {
        match self {
            // Nobody reads on (`shm-tool show | head`), which is their right.
            error if error.is_nobody_reading() => ExitCode::SUCCESS,
            Error::Usage { verb, problem } => {
                let mut command = Cli::command();
                command.build();
                let verb = command.find_subcommand_mut(verb);
                let error = verb.map(|verb| {
                    verb.error(clap::error::ErrorKind::ArgumentConflict, problem)
                        .render()
                        .to_string()
                });
                say(error.unwrap_or_default().trim_end());
                ExitCode::from(2)
            }
            other => {
                say(&format!("error: {other}"));
                match other {
                    Error::Trouble(_) => ExitCode::from(2),
                    _ => ExitCode::FAILURE,
                }
            }
        }
    }

    /// Whether stdout leads nowhere any more.
    pub fn is_nobody_reading(&self) -> bool {
        matches!(self, Error::Output(cause) if cause.kind() == ErrorKind::BrokenPipe)
    }
}

/// Writes to stderr, where perhaps nobody reads any more either.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn counted(problems: usize) -> String {
    match problems {
        1 => "1 problem".into(),
        _ => format!("{problems} problems"),
    }
}

fn advice(error: &ShmError) -> &'static str {
    match &error.cause {
        Cause::Table(cause) => table_advice(cause),
        Cause::MissingStats => "; another instance is named with --instance",
        Cause::NoRoom { .. } => "; give it a lower index first, with `activate MARK --index I`",
        Cause::Io(error) if error.kind() == ErrorKind::PermissionDenied => {
            "; only the table's owner and root may do this"
        }
        _ => "",
    }
}

fn table_advice(cause: &TableError) -> &'static str {
    match cause {
        TableError::Damaged(_) => "; make it anew with `init --force`",
        TableError::NotATable => "; take another name, or remove that file yourself",
        TableError::Busy(_) => "; try again",
        TableError::OtherLayout { .. } => "",
    }
}

fn target_advice(cause: &TargetError) -> &'static str {
    match cause {
        TargetError::Full { .. } => {
            "; make room with `deactivate`, or a larger table with `init --keep --n N`"
        }
        TargetError::IndexOutOfRange { .. } => "; a larger table is made with `init --keep --n N`",
        TargetError::UnknownMark(_) | TargetError::EmptyIndex(_) => "; `show` lists the targets",
    }
}
