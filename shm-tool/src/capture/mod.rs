//! Packets out of capture files, one at a time: classic pcap and pcapng, read from the first byte to the
//! last, so that a file of any length takes the memory of one packet.

mod input;
mod link;
mod pcap;
mod pcapng;

pub use link::LinkType;

use std::io::{self, Read};

use thiserror::Error;

use self::input::Input;

/// Why a capture cannot be read any further, and where in the file that is.
#[derive(Debug, Error)]
#[error("offset {offset}: {cause}")]
pub struct CaptureError {
    /// Where the header, record or block begins.
    pub offset: u64,
    pub cause: Cause,
}

#[derive(Debug, Error)]
pub enum Cause {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the file ends inside {0}")]
    Truncated(&'static str),
    #[error("neither pcap nor pcapng: it begins with {0:#010x}")]
    Magic(u32),
    #[error("unknown version {major}.{minor}")]
    Version { major: u16, minor: u16 },
    #[error(
        "link type {0} is not supported; supported are Ethernet (1), raw IP (12, 101, 228, 229), \
         Linux cooked (113, 276) and loopback (0, 108)"
    )]
    LinkType(u32),
    #[error("a packet of {0} bytes cannot be: more than {MAX_PACKET}")]
    PacketLength(u32),
    #[error("a block of {0} bytes cannot be")]
    BlockLength(u32),
    #[error("the block begins with length {begins} and ends with length {ends}")]
    BlockEnd { begins: u32, ends: u32 },
    #[error("{0:#010x} is no byte order")]
    ByteOrder(u32),
    #[error("a packet of {packet} bytes does not fit into its block")]
    PacketInBlock { packet: u32 },
    #[error("a packet of interface {0}, which was not described")]
    Interface(usize),
    #[error("more than {MAX_INTERFACES} interfaces")]
    Interfaces,
}

/// More than any capture program takes. A larger number is damage, not a length.
const MAX_PACKET: u32 = 1 << 24;
/// They are kept as long as their section lasts.
const MAX_INTERFACES: usize = 65_536;
/// Bytes of a packet that are kept: the largest copy range, and any link header.
const KEPT: usize = 65_535 + 1024;

/// A capture file that is being read.
pub struct Capture<R> {
    input: Input<R>,
    format: Format,
    packet: Vec<u8>,
}

enum Format {
    Pcap(pcap::Pcap),
    Pcapng(pcapng::Pcapng),
}

/// A packet as it was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The bytes, from the link header on, or the first of them.
    pub bytes: &'a [u8],
    /// How many there were on the wire.
    pub full_len: usize,
    pub link: LinkType,
    /// Where its record or block begins in the file.
    pub offset: u64,
}

/// What a format tells of a packet whose bytes it put into a buffer.
struct Record {
    offset: u64,
    full_len: u32,
    link: LinkType,
}

impl<R: Read> Capture<R> {
    /// Begins to read.
    pub fn open(reader: R) -> Result<Self, CaptureError> {
        let mut input = Input::new(reader);
        let magic = input.read("the file header")?;
        let format = match magic {
            pcapng::SECTION => Format::Pcapng(pcapng::Pcapng::open(&mut input)?),
            _ => Format::Pcap(pcap::Pcap::open(magic, &mut input)?),
        };
        Ok(Capture { input, format, packet: Vec::new() })
    }

    /// The next packet, or `None` at the end of the file.
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, CaptureError> {
        let record = match &mut self.format {
            Format::Pcap(pcap) => pcap.next(&mut self.input, &mut self.packet)?,
            Format::Pcapng(pcapng) => pcapng.next(&mut self.input, &mut self.packet)?,
        };
        Ok(record.map(|Record { offset, full_len, link }| Frame {
            bytes: &self.packet,
            full_len: usize::try_from(full_len).unwrap_or(usize::MAX).max(self.packet.len()),
            link,
            offset,
        }))
    }

    /// Whether nothing that was read is left, so that the next packet may have to be waited for.
    pub fn is_drained(&self) -> bool {
        self.input.is_drained()
    }
}

/// In which order a file has the bytes of its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            ByteOrder::Little => u16::from_le_bytes(bytes),
            ByteOrder::Big => u16::from_be_bytes(bytes),
        }
    }

    fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            ByteOrder::Little => u32::from_le_bytes(bytes),
            ByteOrder::Big => u32::from_be_bytes(bytes),
        }
    }

    /// The words that these bytes hold.
    fn words<const BYTES: usize, const WORDS: usize>(self, bytes: &[u8; BYTES]) -> [u32; WORDS] {
        const { assert!(BYTES == 4 * WORDS) };
        let (chunks, _) = bytes.as_chunks();
        std::array::from_fn(|i| self.u32(chunks[i]))
    }
}

#[cfg(test)]
mod tests;
