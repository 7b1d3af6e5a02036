//! What TCP, UDP and SCTP have in common: the two ports, first in the header.

use super::{Packet, WireError};

/// Source and destination port as they stand on the wire.
pub type Ports = [u8; 4];

/// The ports of a TCP, UDP or SCTP payload. The four bytes are enough, as they are for the kernel's
/// hash; the rest of the header need not be there.
#[inline]
pub fn ports(payload: Packet<'_>) -> Result<Ports, WireError> {
    payload.read(0).copied()
}

/// The destination among the ports.
#[inline]
pub fn destination([_, _, high, low]: Ports) -> u16 {
    u16::from_be_bytes([high, low])
}

/// The ports of the packets in the other direction.
#[inline]
pub fn swapped([s0, s1, d0, d1]: Ports) -> Ports {
    [d0, d1, s0, s1]
}

/// Length of a UDP header.
pub const UDP_HEADER_LEN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_bytes_are_enough() {
        assert_eq!(ports(Packet::whole(&[0x0f, 0xa0, 0, 80])), Ok([0x0f, 0xa0, 0, 80]));
        assert_eq!(ports(Packet::whole(&[0x0f, 0xa0, 0, 80, 1, 2])), Ok([0x0f, 0xa0, 0, 80]));
        for len in 0..4 {
            assert_eq!(ports(Packet::whole(&[1, 2, 3][..len.min(3)])), Err(WireError::Truncated));
            assert_eq!(
                ports(Packet::copied(&[1, 2, 3][..len.min(3)], 8)),
                Err(WireError::NotCopied)
            );
        }
    }
}
