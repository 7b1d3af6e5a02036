//! What is told on stderr, by level. Stdout belongs to results.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// The levels of syslog that are in use. Errors are told at any level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    Warning = 4,
    Notice = 5,
    Info = 6,
    Debug = 7,
}

static MOST: AtomicU8 = AtomicU8::new(Level::Notice as u8);

/// From now on what has this level or a lower number is told.
pub fn set_level(level: u8) {
    MOST.store(level, Relaxed);
}

pub fn is_told(level: Level) -> bool {
    level as u8 <= MOST.load(Relaxed)
}

pub fn warning(line: impl Display) {
    tell(Level::Warning, line);
}

pub fn notice(line: impl Display) {
    tell(Level::Notice, line);
}

pub fn info(line: impl Display) {
    tell(Level::Info, line);
}

pub fn debug(line: impl Display) {
    tell(Level::Debug, line);
}

fn tell(level: Level, line: impl Display) {
    if is_told(level) {
        // In one piece, whoever else writes to the same file.
        let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
    }
}
