//! The command line as a whole, and the arguments that several verbs share.

use clap::{Args, Parser};
use lb_core::target::Mark;
use lb_sys::shm::{Folder, Name};

use crate::error::Error;
use crate::verb::Verb;

/// The end of every help text.
macro_rules! exit_codes {
    ($zero:literal, $one:literal) => {
        concat!(
            "Exit codes: 0 ",
            $zero,
            "; 1 ",
            $one,
            " (one line on stderr says why); 2 wrong usage."
        )
    };
    (changing) => {
        crate::args::exit_codes!("done", "failed, and the table is as before")
    };
    (reading) => {
        crate::args::exit_codes!("shown", "not shown")
    };
}
pub(crate) use exit_codes;

/// Make, change and show the target tables that lb reads.
///
/// A table is a file in shared memory: targets, each a fwmark with a weight, and the slots
/// over which they are spread. A running lb follows every change at once.
#[derive(Debug, Parser)]
#[command(
    name = "shm-tool",
    version,
    after_help = concat!(
        "Examples:
  shm-tool init                          make the table `markway`
  shm-tool activate 101 102 103          add three targets
  shm-tool activate 103 --weight 2       give one of them a double share
  shm-tool deactivate 102                take one away
  shm-tool show                          see the shares
  shm-tool lookup --src 192.0.2.1:4000 --dst 10.0.0.0:80

Environment:
  MARKWAY_SHM_DIR  the folder of the tables, /dev/shm if not set

",
        exit_codes!("done", "failed")
    )
)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

// No documentation comment: clap would show it as that of the verb.
#[derive(Debug, Args)]
pub struct TableArg {
    /// The table [default: markway]
    #[arg(long = "shm", value_name = "NAME", default_value = "markway", hide_default_value = true)]
    pub name: Name,
}

#[derive(Debug, Args)]
pub struct JsonArg {
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// The folder of the tables, which must be there.
pub fn folder() -> Result<Folder, Error> {
    let folder = Folder::from_env();
    match std::fs::read_dir(folder.path()) {
        Ok(_) => Ok(folder),
        Err(cause) => Err(Error::Folder { path: folder.path().into(), cause }),
    }
}

/// Reads a number of 32 bits.
pub fn number(text: &str) -> Result<u32, String> {
    let (digits, radix) = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // The standard parser would take a sign, too.
    let parsed = u32::from_str_radix(digits, radix).ok();
    parsed
        .filter(|_| digits.starts_with(|first: char| first.is_digit(radix)))
        .ok_or_else(|| "not a number of 32 bits, decimal or 0x hexadecimal".into())
}

/// Reads a mark.
pub fn mark(text: &str) -> Result<Mark, String> {
    Mark::new(number(text)?).ok_or_else(|| "no mark: it stands for an empty slot".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        for (text, expected) in
            [("0", 0), ("101", 101), ("0x65", 101), ("0XfF", 255), ("0xffffffff", u32::MAX)]
        {
            assert_eq!(number(text), Ok(expected), "{text}");
        }
        for text in ["", "0x", "+1", "0x+1", "-1", "1a", "0x1g", "4294967296", " 1", "1_0"] {
            assert!(number(text).is_err(), "{text:?}");
        }
        assert_eq!(mark("0").map(Mark::get), Ok(0));
        assert!(mark("0xffffffff").is_err());
    }
}
