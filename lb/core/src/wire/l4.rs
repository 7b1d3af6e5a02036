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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_bytes_are_enough() {
        assert_eq!(
            ports(Packet::whole(&[0x0f, 0xa0, 0, 80])),
            Ok([0x0f, 0xa0, 0, 80])
        );
        assert_eq!(
            ports(Packet::whole(&[0x0f, 0xa0, 0, 80, 1, 2])),
            Ok([0x0f, 0xa0, 0, 80])
        );
        for len in 0..4 {
            assert_eq!(
                ports(Packet::whole(&[1, 2, 3][..len.min(3)])),
                Err(WireError::Truncated)
            );
            assert_eq!(
                ports(Packet::copied(&[1, 2, 3][..len.min(3)], 8)),
                Err(WireError::NotCopied)
            );
        }
    }
}
