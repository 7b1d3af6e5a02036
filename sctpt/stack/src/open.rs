//! Which stack is used.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::kernel::KernelStack;
use crate::user::UserStack;
use crate::{Encapsulation, Result, Stack};

/// What the user wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    Kernel,
    User,
    /// The kernel's if it works here.
    #[default]
    Auto,
}

/// Opens the stack; says which one it is and why. With encapsulation the stack must be able to do just that.
pub fn open(
    choice: Choice,
    encapsulation: Option<Encapsulation>,
) -> Result<(Box<dyn Stack>, String)> {
    let kernel = || KernelStack.check(encapsulation);
    let user = || -> Result<Box<dyn Stack>> {
        let stack = UserStack::new();
        stack.check(encapsulation)?;
        Ok(Box::new(stack))
    };
    match choice {
        Choice::Kernel => kernel().map(|()| boxed("kernel: as asked for")),
        Choice::User => Ok((user()?, "user: as asked for".into())),
        Choice::Auto => match kernel() {
            Ok(()) => Ok(boxed("kernel: it works here")),
            Err(missing) => Ok((user()?, format!("user: {missing}"))),
        },
    }
}

/// Whether the kernel answers plain SCTP of this machine. It does so as soon as it has the module, and aborts
/// associations of the stack in user space, which it does not know.
pub fn kernel_answers() -> bool {
    Path::new("/proc/net/sctp").exists()
}

fn boxed(why: &str) -> (Box<dyn Stack>, String) {
    (Box::new(KernelStack), why.into())
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(word: &str) -> std::result::Result<Self, Self::Err> {
        match word {
            "kernel" => Ok(Choice::Kernel),
            "user" => Ok(Choice::User),
            "auto" => Ok(Choice::Auto),
            _ => Err(format!("[{word}] is neither kernel, user nor auto")),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Choice::Kernel => "kernel",
            Choice::User => "user",
            Choice::Auto => "auto",
        })
    }
}
