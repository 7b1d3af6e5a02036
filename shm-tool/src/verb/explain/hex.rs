//! A packet in hexadecimal digits.

use std::io::{self, Read as _};

use crate::error::Error;

/// Two digits for each byte of the largest packet that Linux joins segments to, and as much for spaces.
const MOST: usize = 4 << 20;

/// The packet that these digits are, or those on stdin if they are `-`.
pub fn packet(digits: &str) -> Result<Vec<u8>, Error> {
    let text = match digits {
        "-" => stdin().map_err(|cause| Error::Read { path: "stdin".into(), cause })?,
        _ => digits.into(),
    };
    bytes(&text).map_err(Error::Hex)
}

fn stdin() -> io::Result<String> {
    let mut text = String::new();
    io::stdin().lock().take(MOST as u64 + 1).read_to_string(&mut text)?;
    match text.len() {
        ..=MOST => Ok(text),
        _ => Err(io::Error::other("it is longer than any packet")),
    }
}

fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut high = None;
    for (place, character) in (1..).zip(text.chars()) {
        if character.is_whitespace() || character == ':' {
            continue;
        }
        let digit = character.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let digit = digit
            .ok_or_else(|| format!("{character:?}, character {place}, is no hexadecimal digit"))?;
        match high.take() {
            None => high = Some(digit),
            Some(high) => bytes.push(high << 4 | digit),
        }
    }
    match (high, bytes.len()) {
        (Some(_), whole) => Err(format!("half a byte follows the {whole} whole ones")),
        (None, 0) => Err("there are no digits".into()),
        (None, _) => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_colons_and_newlines_do_no_harm() {
        for text in
            ["4500 0014", "45:00:00:14", "45\n00 00\t14\r\n", " 4 5 0 0 0 0 1 4 ", "45000014"]
        {
            assert_eq!(bytes(text), Ok(vec![0x45, 0, 0, 0x14]), "{text:?}");
        }
        assert_eq!(bytes("aBcD"), Ok(vec![0xab, 0xcd]));
    }

    #[test]
    fn what_is_no_digit_is_named_with_its_place() {
        for (text, error) in [
            ("45 0g", "'g', character 5, is no hexadecimal digit"),
            ("0x45", "'x', character 2, is no hexadecimal digit"),
            ("é", "'é', character 1, is no hexadecimal digit"),
            ("45 0", "half a byte follows the 1 whole ones"),
            ("", "there are no digits"),
            (" :\n", "there are no digits"),
        ] {
            assert_eq!(bytes(text), Err(error.into()), "{text:?}");
        }
    }
}
