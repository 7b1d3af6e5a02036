//! pcapng: sections of blocks, each with its length before and behind; interfaces are described before
//! their packets.

use std::io::Read;

use super::input::Input;
use super::{ByteOrder, CaptureError, Cause, KEPT, LinkType, MAX_INTERFACES, Record};

pub struct Pcapng {
    order: ByteOrder,
    interfaces: Vec<Interface>,
}

struct Interface {
    link: LinkType,
    /// Bytes of a packet that are captured; 0 is all.
    most: u32,
}

/// The type of the block that begins a section, the same in either byte order.
pub const SECTION: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
const INTERFACE: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const PACKET: u32 = 6;

const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// Type and length before, length behind.
const AROUND: u32 = 12;

/// A block of which the type and the length were read.
struct Block {
    offset: u64,
    len: u32,
    /// Bytes that are left of what it holds.
    left: u32,
}

impl Pcapng {
    /// Reads what follows the type of the first block.
    pub fn open<R: Read>(input: &mut Input<R>) -> Result<Self, CaptureError> {
        let mut pcapng = Pcapng { order: ByteOrder::Little, interfaces: Vec::new() };
        let offset = 0;
        let len = input.read("a block")?;
        pcapng.section(offset, len, input)?;
        Ok(pcapng)
    }

    pub fn next<R: Read>(
        &mut self,
        input: &mut Input<R>,
        packet: &mut Vec<u8>,
    ) -> Result<Option<Record>, CaptureError> {
        loop {
            let offset = input.offset();
            let Some(kind) = input.read_or_end::<4>("a block")? else {
                return Ok(None);
            };
            let len = input.read("a block")?;
            if kind == SECTION {
                self.section(offset, len, input)?;
                continue;
            }
            let mut block = Block::new(offset, self.order.u32(len))?;
            let record = match self.order.u32(kind) {
                INTERFACE => {
                    self.interface(&mut block, input)?;
                    None
                }
                PACKET => {
                    let [interface, _, _, captured, full_len] =
                        self.order.words(&block.read::<20, R>(input)?);
                    Some((self.described(&block, interface)?.link, captured, full_len))
                }
                OLD_PACKET => {
                    let bytes = block.read::<20, R>(input)?;
                    let interface = self.order.u16([bytes[0], bytes[1]]);
                    let [_, _, _, captured, full_len] = self.order.words(&bytes);
                    Some((self.described(&block, interface.into())?.link, captured, full_len))
                }
                SIMPLE_PACKET => {
                    let [full_len] = self.order.words(&block.read::<4, R>(input)?);
                    let Interface { link, most } = *self.described(&block, 0)?;
                    let most = if most == 0 { u32::MAX } else { most };
                    Some((link, full_len.min(most).min(block.left), full_len))
                }
                _ => None,
            };
            if let Some((_, captured, _)) = record {
                block.take(captured, input, packet)?;
            }
            block.end(self.order, input)?;
            if let Some((link, _, full_len)) = record {
                return Ok(Some(Record { offset, full_len, link }));
            }
        }
    }

    /// Reads what follows the length of a block that begins a section.
    fn section<R: Read>(
        &mut self,
        offset: u64,
        len: [u8; 4],
        input: &mut Input<R>,
    ) -> Result<(), CaptureError> {
        let magic = input.read("a block")?;
        let orders = [ByteOrder::Little, ByteOrder::Big];
        let order = orders.into_iter().find(|order| order.u32(magic) == BYTE_ORDER);
        let unknown = Cause::ByteOrder(u32::from_be_bytes(magic));
        self.order = order.ok_or(CaptureError { offset, cause: unknown })?;
        self.interfaces.clear();
        let mut block = Block::new(offset, self.order.u32(len))?;
        let past_magic = block.left.checked_sub(4);
        block.left = past_magic.ok_or_else(|| block.too_short())?;
        let [a, b, c, d] = block.read::<4, R>(input)?;
        let (major, minor) = (self.order.u16([a, b]), self.order.u16([c, d]));
        if major != 1 {
            return Err(CaptureError { offset, cause: Cause::Version { major, minor } });
        }
        block.end(self.order, input)
    }

    fn interface<R: Read>(
        &mut self,
        block: &mut Block,
        input: &mut Input<R>,
    ) -> Result<(), CaptureError> {
        let error = |cause| CaptureError { offset: block.offset, cause };
        if self.interfaces.len() >= MAX_INTERFACES {
            return Err(error(Cause::Interfaces));
        }
        let bytes = block.read::<8, R>(input)?;
        let number = u32::from(self.order.u16([bytes[0], bytes[1]]));
        let [_, most] = self.order.words(&bytes);
        let link = LinkType::new(number);
        let error = |cause| CaptureError { offset: block.offset, cause };
        let link = link.ok_or_else(|| error(Cause::LinkType(number)))?;
        self.interfaces.push(Interface { link, most });
        Ok(())
    }

    fn described(&self, block: &Block, interface: u32) -> Result<&Interface, CaptureError> {
        let number = usize::try_from(interface).unwrap_or(usize::MAX);
        let missing = CaptureError { offset: block.offset, cause: Cause::Interface(number) };
        self.interfaces.get(number).ok_or(missing)
    }
}

impl Block {
    fn new(offset: u64, len: u32) -> Result<Self, CaptureError> {
        let left = len.checked_sub(AROUND).filter(|_| len.is_multiple_of(4));
        let left = left.ok_or(CaptureError { offset, cause: Cause::BlockLength(len) })?;
        Ok(Block { offset, len, left })
    }

    fn read<const N: usize, R: Read>(
        &mut self,
        input: &mut Input<R>,
    ) -> Result<[u8; N], CaptureError> {
        let left = u32::try_from(N).ok().and_then(|len| self.left.checked_sub(len));
        self.left = left.ok_or_else(|| self.too_short())?;
        input.read("a block")
    }

    fn take<R: Read>(
        &mut self,
        captured: u32,
        input: &mut Input<R>,
        packet: &mut Vec<u8>,
    ) -> Result<(), CaptureError> {
        let cause = Cause::PacketInBlock { packet: captured };
        let left = self.left.checked_sub(captured);
        self.left = left.ok_or(CaptureError { offset: self.offset, cause })?;
        input.take(captured, KEPT, packet, "a packet")
    }

    /// Goes past what is left of the block and its length behind.
    fn end<R: Read>(self, order: ByteOrder, input: &mut Input<R>) -> Result<(), CaptureError> {
        input.skip(self.left, "a block")?;
        let ends = order.u32(input.read("a block")?);
        if ends == self.len {
            return Ok(());
        }
        let cause = Cause::BlockEnd { begins: self.len, ends };
        Err(CaptureError { offset: self.offset, cause })
    }

    fn too_short(&self) -> CaptureError {
        CaptureError { offset: self.offset, cause: Cause::BlockLength(self.len) }
    }
}
