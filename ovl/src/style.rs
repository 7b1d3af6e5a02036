//! How text looks: colours on a terminal, none elsewhere.

use std::env;
use std::io::{self, IsTerminal};

#[derive(Clone, Copy)]
pub enum Colour {
    Red = 31,
    Green = 32,
    Yellow = 33,
    Blue = 34,
    Cyan = 36,
}

#[derive(Clone, Copy)]
pub struct Style {
    coloured: bool,
}

impl Style {
    /// For standard output.
    pub fn of_stdout() -> Self {
        let coloured = io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none();
        Self { coloured }
    }

    #[cfg(test)]
    pub fn plain() -> Self {
        Self { coloured: false }
    }

    pub fn paint(self, colour: Colour, text: &str) -> String {
        self.wrap(&(colour as u8).to_string(), text)
    }

    pub fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A bar of `count`, `width` characters long when it is `most`.
pub fn bar(count: u64, most: u64, width: u64) -> String {
    let length = if most == 0 { 0 } else { (count * width).div_ceil(most) };
    "#".repeat(usize::try_from(length).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_has_no_codes() {
        assert_eq!(Style { coloured: false }.paint(Colour::Red, "x"), "x");
        assert_eq!(Style { coloured: true }.paint(Colour::Red, "x"), "\x1b[31mx\x1b[0m");
    }

    #[test]
    fn a_bar_fills_its_width() {
        assert_eq!(bar(10, 10, 4), "####");
        assert_eq!(bar(5, 10, 4), "##");
        assert_eq!(bar(1, 1000, 4), "#");
        assert_eq!(bar(0, 10, 4), "");
        assert_eq!(bar(0, 0, 4), "");
    }
}
