//! What stands before the IP header in a captured packet.

use lb_core::wire::Packet;
use thiserror::Error;

use super::Frame;

/// How packets begin (the numbers that tcpdump.org assigns).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkType {
    /// With the IP header.
    Ip,
    /// With two addresses, VLAN tags and an EtherType.
    Ethernet,
    /// With the pseudo-header of Linux' `any` device.
    LinuxCooked,
    /// With its second version.
    LinuxCooked2,
    /// With an address family in four bytes.
    Loopback,
}

/// Why a captured packet is none that lb could meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Skipped {
    #[error("not IP: EtherType {0:#06x}")]
    EtherType(u16),
    #[error("not IP: address family {0}")]
    Family(u32),
    #[error("it ends inside its link header")]
    Truncated,
}

mod ether_type {
    pub const IPV4: u16 = 0x0800;
    pub const IPV6: u16 = 0x86dd;
    /// Customer, service, and an older one in use for service.
    pub const VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];
}

/// IPv4, and IPv6 as Linux, OpenBSD, FreeBSD and macOS number it.
const FAMILIES: [u32; 5] = [2, 10, 24, 28, 30];

impl LinkType {
    /// The link type of this number, if it is supported.
    pub fn new(number: u32) -> Option<Self> {
        match number {
            0 | 108 => Some(LinkType::Loopback),
            1 => Some(LinkType::Ethernet),
            12 | 101 | 228 | 229 => Some(LinkType::Ip),
            113 => Some(LinkType::LinuxCooked),
            276 => Some(LinkType::LinuxCooked2),
            _ => None,
        }
    }
}

impl<'a> Frame<'a> {
    /// The IP packet inside.
    pub fn ip(&self) -> Result<Packet<'a>, Skipped> {
        let header_len = match self.link {
            LinkType::Ip => 0,
            LinkType::Ethernet => self.behind_ether_type(12, 14)?,
            LinkType::LinuxCooked => self.behind_ether_type(14, 16)?,
            LinkType::LinuxCooked2 => self.behind_ether_type(0, 20)?,
            LinkType::Loopback => self.behind_family()?,
        };
        let bytes = self.bytes.get(header_len..).ok_or(Skipped::Truncated)?;
        Ok(Packet::copied(bytes, self.full_len.saturating_sub(header_len)))
    }

    /// Where the packet begins if the EtherType at `at` is of IP. A VLAN tag stands at `next` and ends
    /// with the EtherType of what follows.
    fn behind_ether_type(&self, at: usize, next: usize) -> Result<usize, Skipped> {
        let (mut at, mut next) = (at, next);
        loop {
            match u16::from_be_bytes(self.read(at)?) {
                ether_type::IPV4 | ether_type::IPV6 => return Ok(next),
                tag if ether_type::VLAN.contains(&tag) => (at, next) = (next + 2, next + 4),
                other => return Err(Skipped::EtherType(other)),
            }
        }
    }

    /// The family is in the byte order of whoever captured it.
    fn behind_family(&self) -> Result<usize, Skipped> {
        let family = self.read(0)?;
        let (little, big) = (u32::from_le_bytes(family), u32::from_be_bytes(family));
        match FAMILIES.contains(&little) || FAMILIES.contains(&big) {
            true => Ok(4),
            false => Err(Skipped::Family(little.min(big))),
        }
    }

    fn read<const N: usize>(&self, at: usize) -> Result<[u8; N], Skipped> {
        let bytes = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        bytes.copied().ok_or(Skipped::Truncated)
    }
}
