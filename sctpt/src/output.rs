//! Writing to stdout.

use std::io::{self, ErrorKind, Write as _};

use anyhow::Context as _;

/// Prints a text as it is.
pub fn print(text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_ref()).and_then(|()| stdout.flush()).context("write to stdout")
}

/// Whether stdout leads nowhere any more.
pub fn is_nobody_reading(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == ErrorKind::BrokenPipe)
}
