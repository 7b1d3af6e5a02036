//! Which stack speaks SCTP.

use anyhow::Context as _;
use clap::ValueEnum;
use sctp_stack::{Encapsulation, Result, Stack};

use crate::log;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    Kernel,
    User,
    Auto,
}

/// How each stack is opened.
pub struct Makers {
    pub kernel: fn() -> Result<Box<dyn Stack>>,
    pub user: fn(Option<Encapsulation>) -> Result<Box<dyn Stack>>,
}

impl Makers {
    /// The stack that was chosen, and why if that was not the user's choice.
    pub fn open(
        &self,
        choice: Choice,
        encapsulation: Option<Encapsulation>,
    ) -> Result<(Box<dyn Stack>, Option<String>)> {
        match choice {
            Choice::Kernel => Ok(((self.kernel)()?, None)),
            Choice::User => Ok(((self.user)(encapsulation)?, None)),
            Choice::Auto if encapsulation.is_some() => {
                let why = "the kernel has its own UDP port for all of a namespace";
                Ok(((self.user)(encapsulation)?, Some(why.to_owned())))
            }
            Choice::Auto => match (self.kernel)() {
                Ok(kernel) => Ok((kernel, Some("the kernel has SCTP".to_owned()))),
                Err(why) => Ok(((self.user)(encapsulation)?, Some(why.to_string()))),
            },
        }
    }
}

/// Opens the chosen stack and tells what was chosen.
pub fn open(
    choice: Choice,
    encapsulation: Option<Encapsulation>,
) -> anyhow::Result<Box<dyn Stack>> {
    let (stack, why) = MAKERS.open(choice, encapsulation).context("open SCTP")?;
    if let Some(why) = why {
        log::notice(format_args!("Stack: {} ({why})", stack.name()));
    }
    Ok(stack)
}

/// Until the stacks are there.
const MAKERS: Makers = Makers {
    kernel: || Err(sctp_stack::Error::Unavailable { stack: "kernel", cause: "not built".into() }),
    user: |_| Err(sctp_stack::Error::Unavailable { stack: "user", cause: "not built".into() }),
};
