//! Which stack is used.

use std::fmt;
use std::str::FromStr;

use crate::user::UserStack;
use crate::{Encapsulation, Error, Result, Stack};

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
    let user = || -> Result<Box<dyn Stack>> {
        let stack = UserStack::new();
        stack.check(encapsulation)?;
        Ok(Box::new(stack))
    };
    match choice {
        Choice::User => Ok((user()?, "user: as asked for".into())),
        Choice::Kernel => {
            Err(Error::Unavailable { stack: "kernel", cause: "not supported yet".into() })
        }
        Choice::Auto => Ok((user()?, "user: the kernel's is not supported yet".into())),
    }
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
