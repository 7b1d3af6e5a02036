//! Command lines in the style of Go programs: `-flag` or `--flag`, the value
//! behind `=` or as the next argument, switches as `-switch` or
//! `-switch=false`.
//!
//! A tool declares its flags as a table over its own struct of values. The
//! struct's `Default` holds the defaults, so neither a value nor a default is
//! ever looked up by name:
//!
//! ```
//! use traffic::flags::{CommandLine, Flag, Request};
//!
//! #[derive(Default)]
//! struct Args {
//!     udp: bool,
//!     address: String,
//! }
//!
//! const COMMAND_LINE: CommandLine<Args> = CommandLine {
//!     program: "tool",
//!     summary: "Does what tools do.",
//!     flags: &[
//!         Flag { name: "udp", value: "", help: "Use UDP", slot: |a| &mut a.udp },
//!         Flag { name: "address", value: "A:P", help: "Where to", slot: |a| &mut a.address },
//!     ],
//!     operands: None,
//! };
//!
//! let Ok(Request::Run(args)) = COMMAND_LINE.parse(["-udp", "--address=[::1]:5001"]) else {
//!     panic!("a valid command line");
//! };
//! assert!(args.udp);
//! assert_eq!(args.address, "[::1]:5001");
//! ```

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::time::Duration;

use thiserror::Error;

use crate::manual::Print;
use crate::{duration, process};

/// What a program accepts: its name, a text about it, and its flags.
pub struct CommandLine<Args: 'static> {
    pub program: &'static str,
    pub summary: &'static str,
    pub flags: &'static [Flag<Args>],
    /// Arguments that are no flags, if the program takes any.
    pub operands: Option<Operands<Args>>,
}

/// Arguments that are no flags. They may stand anywhere.
pub struct Operands<Args> {
    /// What they are, for the usage text.
    pub form: &'static str,
    /// Where they are kept.
    pub slot: fn(&mut Args) -> &mut Vec<String>,
}

/// One declared flag.
pub struct Flag<Args> {
    /// The name without its dashes.
    pub name: &'static str,
    /// What the value is, for the usage text; empty for a switch.
    pub value: &'static str,
    pub help: &'static str,
    /// Where the value is kept.
    pub slot: fn(&mut Args) -> &mut dyn FlagValue,
}

/// A flag as it is shown to the user.
pub struct Declared {
    pub name: &'static str,
    pub value: &'static str,
    pub help: &'static str,
    /// Empty if there is none worth telling.
    pub default: String,
}

/// A type that a flag can have.
pub trait FlagValue {
    /// Whether the flag may stand alone, meaning `true`.
    fn is_switch(&self) -> bool {
        false
    }

    /// Takes the value over from the command line, or says what is wrong.
    fn set(&mut self, text: &str) -> Result<(), String>;

    /// The value as the usage text shows a default; empty if it is none.
    fn shown(&self) -> String;
}

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Request<Args> {
    Run(Args),
    Help,
    Version,
    Print(Print),
    /// There were no arguments at all.
    Nothing,
}

/// Why a command line is refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FlagError {
    #[error("unknown flag: {0}")]
    Unknown(String),
    #[error("flag {0}: needs a value")]
    NeedsValue(String),
    #[error("flag {flag}: bad value {value:?}: {reason}")]
    BadValue { flag: String, value: String, reason: String },
    #[error("unexpected argument: {0:?} (a switch takes its value as -switch=false)")]
    Unexpected(String),
    #[error("argument {0:?}: not valid UTF-8")]
    NotUtf8(OsString),
}

impl<Args: Default> CommandLine<Args> {
    /// Parses the arguments of this process and answers by itself what needs
    /// no run: help, version, no arguments, and errors.
    pub fn parse_or_exit_code(&self) -> Result<Args, ExitCode> {
        match self.parse(std::env::args_os().skip(1)) {
            Ok(Request::Run(args)) => Ok(args),
            Ok(Request::Help) => Err(self.print(&self.usage())),
            Ok(Request::Version) => Err(self.print(concat!(env!("CARGO_PKG_VERSION"), "\n"))),
            Ok(Request::Print(print)) => Err(self.print(&print.text(self))),
            Ok(Request::Nothing) => {
                process::log(self.usage().trim_end());
                Err(ExitCode::SUCCESS)
            }
            Err(error) => {
                let program = self.program;
                process::log(format_args!("{program}: {error}"));
                process::log(format_args!("Try '{program} -help'."));
                Err(ExitCode::from(2))
            }
        }
    }

    fn print(&self, text: &str) -> ExitCode {
        match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                process::log(format_args!("{}: write to stdout: {error}", self.program));
                ExitCode::FAILURE
            }
        }
    }

    /// Parses arguments; the program's name is not among them.
    pub fn parse(
        &self,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Result<Request<Args>, FlagError> {
        let mut arguments = arguments
            .into_iter()
            .map(|argument| argument.into().into_string().map_err(FlagError::NotUtf8))
            .peekable();
        if arguments.peek().is_none() {
            return Ok(Request::Nothing);
        }

        let mut args = Args::default();
        let mut version = false;
        let mut print = None;
        while let Some(argument) = arguments.next() {
            let argument = argument?;
            let Some((name, attached)) = split_flag(&argument) else {
                match &self.operands {
                    Some(operands) => (operands.slot)(&mut args).push(argument),
                    None => return Err(FlagError::Unexpected(argument)),
                }
                continue;
            };
            let flag = format!("-{name}");
            let slot: &mut dyn FlagValue = match self.flags.iter().find(|flag| flag.name == name) {
                Some(declared) => (declared.slot)(&mut args),
                None if matches!(name, "help" | "h") => return Ok(Request::Help),
                None if name == "version" => &mut version,
                None if name == "print" => &mut print,
                None => return Err(FlagError::Unknown(flag)),
            };
            let value = match attached {
                Some(value) => value.to_owned(),
                None if slot.is_switch() => "true".to_owned(),
                None => match arguments.next() {
                    Some(value) => value?,
                    None => return Err(FlagError::NeedsValue(flag)),
                },
            };
            if let Err(reason) = slot.set(&value) {
                return Err(FlagError::BadValue { flag, value, reason });
            }
        }
        Ok(match (version, print) {
            (true, _) => Request::Version,
            (false, Some(print)) => Request::Print(print),
            (false, None) => Request::Run(args),
        })
    }

    /// The tool's flags and those that every tool has.
    pub fn declared(&self) -> impl Iterator<Item = Declared> {
        let mut defaults = Args::default();
        let declared = self.flags.iter().map(move |flag| Declared {
            name: flag.name,
            value: flag.value,
            help: flag.help,
            default: (flag.slot)(&mut defaults).shown(),
        });
        let own = [
            ("help", "", "Print this text"),
            ("version", "", "Print the version"),
            ("print", "man|bash|zsh|fish", "Print a manual page, or the completions of a shell"),
        ];
        declared.chain(own.map(|(name, value, help)| Declared {
            name,
            value,
            help,
            default: String::new(),
        }))
    }

    /// The text that `-help` prints.
    pub fn usage(&self) -> String {
        let operands = self.operands.as_ref().map_or("", |operands| operands.form);
        let usage = format!("Usage: {} [-flag value]... {operands}", self.program);
        let mut text = format!("{}\n\n{}\n\nFlags:\n", usage.trim_end(), self.summary);
        for Declared { name, value, help, default } in self.declared() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", format!("  -{name} {value}").trim_end());
            let _ = match default.as_str() {
                "" => writeln!(text, "        {help}"),
                default => writeln!(text, "        {help} (default {default})"),
            };
        }
        text
    }
}

/// The name of a flag and the value behind `=`, if there is one. `None` for
/// what is no flag: no dash, dashes alone, or an empty name.
fn split_flag(argument: &str) -> Option<(&str, Option<&str>)> {
    let body = argument.strip_prefix('-')?;
    let body = body.strip_prefix('-').unwrap_or(body);
    let (name, value) = match body.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (body, None),
    };
    match name.is_empty() || name.starts_with('-') {
        true => None,
        false => Some((name, value)),
    }
}

impl FlagValue for bool {
    fn is_switch(&self) -> bool {
        true
    }

    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
            "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
            _ => return Err("neither true nor false".to_owned()),
        };
        Ok(())
    }

    fn shown(&self) -> String {
        match self {
            true => "true".to_owned(),
            false => String::new(),
        }
    }
}

impl FlagValue for String {
    fn set(&mut self, text: &str) -> Result<(), String> {
        text.clone_into(self);
        Ok(())
    }

    fn shown(&self) -> String {
        self.clone()
    }
}

impl FlagValue for Duration {
    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = duration::parse(text).map_err(|error| error.to_string())?;
        Ok(())
    }

    fn shown(&self) -> String {
        match self.is_zero() {
            true => String::new(),
            false => format!("{self:?}"),
        }
    }
}

/// Numbers read and print themselves; their errors name no value, which the
/// flag's own error does.
macro_rules! number_flags {
    ($($number:ty),*) => {$(
        impl FlagValue for $number {
            fn set(&mut self, text: &str) -> Result<(), String> {
                *self = text.parse().map_err(|error| format!("{error}"))?;
                Ok(())
            }

            fn shown(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

number_flags!(u16, u32, i64, f64, NonZeroU32);

impl FlagValue for Option<Print> {
    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = Some(Print::named(text).ok_or("neither man, bash, zsh nor fish")?);
        Ok(())
    }

    fn shown(&self) -> String {
        String::new()
    }
}

#[cfg(test)]
mod tests;
