//! Classic pcap: a file header of 24 bytes, then records of a 16-byte header and the packet.

use std::io::Read;

use super::input::Input;
use super::{ByteOrder, CaptureError, Cause, KEPT, LinkType, MAX_PACKET, Record};

pub struct Pcap {
    order: ByteOrder,
    link: LinkType,
}

const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;
const LINK_TYPE_AT: u64 = 20;

impl Pcap {
    /// Reads what follows the magic number.
    pub fn open<R: Read>(magic: [u8; 4], input: &mut Input<R>) -> Result<Self, CaptureError> {
        let is_magic = |order: &ByteOrder| [MICROSECONDS, NANOSECONDS].contains(&order.u32(magic));
        let orders = [ByteOrder::Little, ByteOrder::Big];
        let order = orders
            .into_iter()
            .find(is_magic)
            .ok_or(CaptureError { offset: 0, cause: Cause::Magic(u32::from_be_bytes(magic)) })?;
        let version_at = input.offset();
        let [a, b, c, d] = input.read("the file header")?;
        let (major, minor) = (order.u16([a, b]), order.u16([c, d]));
        if major != 2 {
            return Err(CaptureError {
                offset: version_at,
                cause: Cause::Version { major, minor },
            });
        }
        let rest: [u8; 16] = input.read("the file header")?;
        let [_, _, _, link] = order.words(&rest);
        // The upper half is about check sums behind the packets.
        let link = LinkType::new(link & 0xffff)
            .ok_or(CaptureError { offset: LINK_TYPE_AT, cause: Cause::LinkType(link) })?;
        Ok(Pcap { order, link })
    }

    pub fn next<R: Read>(
        &self,
        input: &mut Input<R>,
        packet: &mut Vec<u8>,
    ) -> Result<Option<Record>, CaptureError> {
        let offset = input.offset();
        let Some(header) = input.read_or_end::<16>("the header of a packet")? else {
            return Ok(None);
        };
        let [_, _, captured, full_len] = self.order.words(&header);
        if captured > MAX_PACKET {
            return Err(CaptureError { offset, cause: Cause::PacketLength(captured) });
        }
        input.take(captured, KEPT, packet, "a packet")?;
        Ok(Some(Record { offset, full_len, link: self.link }))
    }
}
