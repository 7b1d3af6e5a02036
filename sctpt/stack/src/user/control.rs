//! Control data of a message: this host's address of it.

use std::ffi::c_int;
use std::net::{IpAddr, Ipv6Addr};

/// Control data with one element, which tells this host's address of a packet.
#[repr(C, align(8))]
pub(super) struct Control {
    bytes: [u8; 40],
}

impl Control {
    /// Length, level and type.
    const HEADER: usize = size_of::<libc::cmsghdr>();

    pub fn new() -> Self {
        Control { bytes: [0; 40] }
    }

    /// Asks for a source; returns the length.
    pub fn set_source(&mut self, source: IpAddr) -> usize {
        let (level, kind, at, length) = match source {
            // Interface, source, destination.
            IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO, 4, 12),
            // Source, interface.
            IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, 0, 20),
        };
        let whole = Self::HEADER + length;
        self.bytes[..8].copy_from_slice(&whole.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&level.to_ne_bytes());
        self.bytes[12..16].copy_from_slice(&kind.to_ne_bytes());
        let place = &mut self.bytes[Self::HEADER + at..];
        match source {
            IpAddr::V4(source) => place[..4].copy_from_slice(&source.octets()),
            IpAddr::V6(source) => place[..16].copy_from_slice(&source.octets()),
        }
        whole.next_multiple_of(8)
    }

    /// The destination of what was received.
    pub fn destination(bytes: &[u8]) -> Option<IpAddr> {
        let int = |at: usize| -> Option<c_int> {
            Some(c_int::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
        };
        let data = bytes.get(Self::HEADER..)?;
        match (int(8)?, int(12)?) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                Some(IpAddr::from(*data.get(8..)?.first_chunk::<4>()?))
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                Some(Ipv6Addr::from(*data.first_chunk::<16>()?).into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_data_names_the_source() {
        let mut control = Control::new();
        assert_eq!(control.set_source([192, 0, 2, 1].into()), 32);
        let expected = [28, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1];
        assert_eq!(control.bytes[..24], expected);
        let mut control = Control::new();
        let source = "2001:db8::1".parse().unwrap();
        assert_eq!(control.set_source(source), 40);
        assert_eq!(control.bytes[..16], [36, 0, 0, 0, 0, 0, 0, 0, 41, 0, 0, 0, 50, 0, 0, 0]);
        assert_eq!(Control::destination(&control.bytes), Some(source));
        let received =
            [28, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 1, 1, 1, 1, 192, 0, 2, 9];
        assert_eq!(Control::destination(&received), Some([192, 0, 2, 9].into()));
        assert_eq!(Control::destination(&received[..27]), None);
        assert_eq!(Control::destination(&[]), None);
    }
}
