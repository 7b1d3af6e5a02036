//! SCTP as far as it is counted: the type of the first chunk (RFC 9260, section 3.2).

use super::{Packet, WireError};

/// Length of the common header: ports, verification tag, checksum.
pub const HEADER_LEN: u8 = 12;

/// The type of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// User data.
    Data,
    /// A new association is asked for.
    Init,
    /// Answer to it.
    InitAck,
    /// Data was received.
    Sack,
    /// Is this path alive?
    Heartbeat,
    /// It is.
    HeartbeatAck,
    /// The association ends at once.
    Abort,
    /// It is to end in order.
    Shutdown,
    /// Answer to it.
    ShutdownAck,
    /// Something is wrong.
    Error,
    /// The association is set up: what INIT ACK brought comes back.
    CookieEcho,
    /// Answer to it.
    CookieAck,
    /// Congestion was noticed.
    Ecne,
    /// The window was reduced.
    Cwr,
    /// The association has ended.
    ShutdownComplete,
    /// Authentication (RFC 4895).
    Auth,
    /// User data of interleaved messages (RFC 8260).
    IData,
    /// Answer to a change of addresses (RFC 5061).
    AsconfAck,
    /// Streams are to be changed (RFC 6525).
    ReConfig,
    /// Filling, as in a probe of the path's MTU (RFC 4820).
    Pad,
    /// Data that will not come (RFC 3758).
    ForwardTsn,
    /// Addresses are to be changed (RFC 5061).
    Asconf,
    /// Any other.
    Other,
    /// The packet ends before its first chunk, or its header cannot be read.
    None,
}

/// Every kind with its name among the counters.
pub const CHUNKS: [(Chunk, &str); 24] = [
    (Chunk::Data, "data"),
    (Chunk::Init, "init"),
    (Chunk::InitAck, "init_ack"),
    (Chunk::Sack, "sack"),
    (Chunk::Heartbeat, "heartbeat"),
    (Chunk::HeartbeatAck, "heartbeat_ack"),
    (Chunk::Abort, "abort"),
    (Chunk::Shutdown, "shutdown"),
    (Chunk::ShutdownAck, "shutdown_ack"),
    (Chunk::Error, "error"),
    (Chunk::CookieEcho, "cookie_echo"),
    (Chunk::CookieAck, "cookie_ack"),
    (Chunk::Ecne, "ecne"),
    (Chunk::Cwr, "cwr"),
    (Chunk::ShutdownComplete, "shutdown_complete"),
    (Chunk::Auth, "auth"),
    (Chunk::IData, "i_data"),
    (Chunk::AsconfAck, "asconf_ack"),
    (Chunk::ReConfig, "re_config"),
    (Chunk::Pad, "pad"),
    (Chunk::ForwardTsn, "forward_tsn"),
    (Chunk::Asconf, "asconf"),
    (Chunk::Other, "other_chunk"),
    (Chunk::None, "no_chunk"),
];

/// The number of INIT on the wire.
pub const INIT: u8 = 1;

impl Chunk {
    /// The kind that this number on the wire stands for.
    #[inline]
    pub fn of(number: u8) -> Self {
        match number {
            0..=15 => CHUNKS[usize::from(number)].0,
            64 => Chunk::IData,
            128 => Chunk::AsconfAck,
            130 => Chunk::ReConfig,
            132 => Chunk::Pad,
            192 => Chunk::ForwardTsn,
            193 => Chunk::Asconf,
            _ => Chunk::Other,
        }
    }
}

/// The first chunk of an SCTP packet.
#[inline]
pub fn first_chunk(packet: Packet<'_>) -> Result<Chunk, WireError> {
    packet.read(usize::from(HEADER_LEN)).map(|[number]| Chunk::of(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_the_first_chunk_follows_the_header() {
        let mut bytes = [0xff; 13];
        for (number, chunk) in [
            (0, Chunk::Data),
            (INIT, Chunk::Init),
            (10, Chunk::CookieEcho),
            (15, Chunk::Auth),
            (16, Chunk::Other),
            (0x40, Chunk::IData),
            (0x80, Chunk::AsconfAck),
            (0x82, Chunk::ReConfig),
            (0x84, Chunk::Pad),
            (0xc0, Chunk::ForwardTsn),
            (0xc1, Chunk::Asconf),
            (0xff, Chunk::Other),
        ] {
            bytes[12] = number;
            assert_eq!(first_chunk(Packet::whole(&bytes)), Ok(chunk), "{number}");
        }
        assert_eq!(first_chunk(Packet::whole(&bytes[..12])), Err(WireError::Truncated));
        assert_eq!(first_chunk(Packet::copied(&bytes[..12], 13)), Err(WireError::NotCopied));
    }

    #[test]
    fn kinds_stand_in_the_order_of_their_names() {
        for (place, (chunk, _)) in CHUNKS.iter().enumerate() {
            assert_eq!(*chunk as usize, place);
        }
    }
}
