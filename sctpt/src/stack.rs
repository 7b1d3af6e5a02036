//! Which stack speaks SCTP.

use anyhow::Context as _;
use sctp_stack::{Choice, Encapsulation, Stack};

use crate::log;

/// Opens the chosen stack and tells why it is this one.
pub fn open(
    choice: Choice,
    encapsulation: Option<Encapsulation>,
) -> anyhow::Result<Box<dyn Stack>> {
    let (stack, why) = sctp_stack::open(choice, encapsulation).context("open SCTP")?;
    match choice {
        Choice::Auto => log::notice(format_args!("Stack: {why}")),
        Choice::Kernel | Choice::User => log::info(format_args!("Stack: {why}")),
    }
    if choice == Choice::User && encapsulation.is_none() && sctp_stack::kernel_answers() {
        log::warning(
            "this kernel has SCTP, too, and aborts what it does not know: use --stack kernel, or UDP",
        );
    }
    Ok(stack)
}
