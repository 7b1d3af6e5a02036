//! What is said on one stream between a client on the machine and the agent in a node: frames, each a
//! kind, a length and bytes.
//!
//! The client begins: a command to run, or a file to read or write.

use std::io::{self, Read, Write};

/// What the agent says first on a channel: it is there.
pub const HELLO: &[u8; 8] = b"ovl node";

/// The name of the serial port that the channel is.
pub const PORT: &str = "ovl";

/// The most bytes of one frame.
pub const LONGEST: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Run a command: its words, with a zero byte between them.
    Run,
    /// Run the next one on a terminal: rows, columns and the kind of terminal, with blanks between.
    Terminal,
    /// Bytes for the command, or of the file.
    Input,
    InputEnd,
    /// A signal for the command, as its number.
    Signal,
    /// Send the content of the file with this path.
    Read,
    /// Write a file with this path; its content follows as input.
    Write,

    /// The request was understood.
    Begun,
    /// What the command printed, or the file has.
    Output,
    Errors,
    /// The end, with an exit code.
    Ended,
    /// The end: why it could not be done.
    Failed,
    /// The end: the file is not there.
    Absent,
}

const KINDS: [Kind; 13] = [
    Kind::Run,
    Kind::Terminal,
    Kind::Input,
    Kind::InputEnd,
    Kind::Signal,
    Kind::Read,
    Kind::Write,
    Kind::Begun,
    Kind::Output,
    Kind::Errors,
    Kind::Ended,
    Kind::Failed,
    Kind::Absent,
];

pub fn write(mut out: impl Write, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    let mut frame = Vec::with_capacity(bytes.len() + 5);
    frame.push(kind as u8);
    frame.extend(u32::try_from(bytes.len()).map_err(io::Error::other)?.to_le_bytes());
    frame.extend(bytes);
    out.write_all(&frame)
}

/// The next frame; None at the end.
pub fn read(mut input: impl Read) -> io::Result<Option<(Kind, Vec<u8>)>> {
    let mut kind = [0];
    if input.read(&mut kind)? == 0 {
        return Ok(None);
    }
    read_after(kind, input).map(Some)
}

/// The rest of a frame whose first byte was read.
pub fn read_after(kind: [u8; 1], mut input: impl Read) -> io::Result<(Kind, Vec<u8>)> {
    let kind = KINDS.get(usize::from(kind[0])).copied();
    let kind = kind.ok_or_else(|| io::Error::other("odd kind of frame"))?;
    let mut len = [0; 4];
    input.read_exact(&mut len)?;
    let len = usize::try_from(u32::from_le_bytes(len)).map_err(io::Error::other)?;
    if len > LONGEST {
        return Err(io::Error::other(format!("a frame of {len} bytes")));
    }
    let mut bytes = vec![0; len];
    input.read_exact(&mut bytes)?;
    Ok((kind, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_back() {
        let mut line = Vec::new();
        for kind in KINDS {
            write(&mut line, kind, &[kind as u8; 3]).unwrap();
        }
        let mut input = &line[..];
        for kind in KINDS {
            assert_eq!(read(&mut input).unwrap(), Some((kind, vec![kind as u8; 3])));
        }
        assert_eq!(read(&mut input).unwrap(), None);
    }

    #[test]
    fn rubbish_is_an_error() {
        assert!(read(&[99, 0, 0, 0, 0][..]).is_err());
        assert!(read(&[0, 255, 255, 255, 255][..]).is_err());
        assert!(read(&[0, 2, 0, 0, 0, 7][..]).is_err());
    }
}
