//! Writing to stdout.

use std::io::{self, Write as _};

use serde_json::Value;

use crate::error::Error;

/// Prints a text as it is.
pub fn print(text: impl AsRef<[u8]>) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_ref()).and_then(|()| stdout.flush()).map_err(Error::Output)
}

/// Prints a value on a line of its own.
pub fn print_json(value: &Value) -> Result<(), Error> {
    print(format!("{value}\n"))
}
