//! Bytes that are read once, with the count of them.

use std::io::{BufRead as _, BufReader, ErrorKind, Read};

use super::{CaptureError, Cause};

pub struct Input<R> {
    reader: BufReader<R>,
    offset: u64,
}

impl<R: Read> Input<R> {
    pub fn new(reader: R) -> Self {
        Input { reader: BufReader::with_capacity(1 << 16, reader), offset: 0 }
    }

    /// Where the next byte stands.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub fn is_drained(&self) -> bool {
        self.reader.buffer().is_empty()
    }

    /// Bytes that must be there; `what` they belong to is named if they are not.
    pub fn read<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], CaptureError> {
        let offset = self.offset;
        let truncated = CaptureError { offset, cause: Cause::Truncated(what) };
        self.read_or_end(what)?.ok_or(truncated)
    }

    /// Bytes, or none if the file ends here.
    pub fn read_or_end<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<Option<[u8; N]>, CaptureError> {
        let (mut bytes, mut filled, start) = ([0; N], 0, self.offset);
        while filled < N {
            let wanted = &mut bytes[filled..];
            let got =
                self.chunk(wanted.len(), |chunk| wanted[..chunk.len()].copy_from_slice(chunk))?;
            filled += got;
            match (got, filled) {
                (0, 0) => return Ok(None),
                (0, _) => {
                    return Err(CaptureError { offset: start, cause: Cause::Truncated(what) });
                }
                _ => {}
            }
        }
        Ok(Some(bytes))
    }

    /// Goes past `len` bytes and puts the first of them, at most `kept`, into `into`.
    pub fn take(
        &mut self,
        len: u32,
        kept: usize,
        into: &mut Vec<u8>,
        what: &'static str,
    ) -> Result<(), CaptureError> {
        let start = self.offset;
        let mut left = usize::try_from(len).unwrap_or(usize::MAX);
        into.clear();
        while left > 0 {
            let got = self.chunk(left, |chunk| {
                let room = kept - into.len();
                into.extend_from_slice(&chunk[..chunk.len().min(room)]);
            })?;
            if got == 0 {
                return Err(CaptureError { offset: start, cause: Cause::Truncated(what) });
            }
            left -= got;
        }
        Ok(())
    }

    pub fn skip(&mut self, len: u32, what: &'static str) -> Result<(), CaptureError> {
        self.take(len, 0, &mut Vec::new(), what)
    }

    /// Hands over what is at hand of the next bytes, at most `most`; none at the end of the file.
    fn chunk(&mut self, most: usize, take: impl FnOnce(&[u8])) -> Result<usize, CaptureError> {
        let offset = self.offset;
        let chunk = loop {
            match self.reader.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(CaptureError { offset, cause: error.into() }),
                Ok(_) => break self.reader.buffer(),
            }
        };
        let got = chunk.len().min(most);
        take(&chunk[..got]);
        self.reader.consume(got);
        self.offset += got as u64;
        Ok(got)
    }
}
