//! Flows with fixed addresses and ports: the same ones again and again, so that it can be told
//! which of them moved.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::address::{FAMILIES, Family};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    Tcp,
    Udp,
    Sctp,
    /// Type and code stand where the others have their source port, and are taken for it.
    Icmp,
}

/// Those that sockets of every kernel speak.
pub const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Udp];

/// A flow from the tester to a virtual address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    pub transport: Transport,
    pub source: SocketAddr,
}

/// Nobody listens here.
const UNUSED_PORT: u16 = 9;

impl Flow {
    pub fn family(&self) -> Family {
        match self.source.ip() {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.family().vip(), UNUSED_PORT)
    }
}

/// `count` flows of one kind, always the same ones.
pub fn list(family: Family, transport: Transport, count: u16) -> Vec<Flow> {
    (0..count)
        .map(|index| {
            // Odd factors, so that neither addresses nor ports come twice.
            let address = family.source(index.wrapping_mul(257).wrapping_add(1));
            let port = 1024 + index.wrapping_mul(31) % 32768;
            Flow { transport, source: SocketAddr::new(address, port) }
        })
        .collect()
}

/// `count` flows of echo requests, from the sources that flows of other kinds have too.
pub fn list_echo(family: Family, count: u16) -> Vec<Flow> {
    let request = u16::from_be_bytes([family.echo_request(), 0]);
    list(family, Transport::Icmp, count)
        .into_iter()
        .map(|flow| Flow { source: SocketAddr::new(flow.source.ip(), request), ..flow })
        .collect()
}

/// `count` flows of every kind.
pub fn list_of_each(count: u16) -> Vec<Flow> {
    let kinds =
        FAMILIES.into_iter().flat_map(|family| TRANSPORTS.map(|transport| (family, transport)));
    kinds.flat_map(|(family, transport)| list(family, transport, count)).collect()
}

/// The transport's name on command lines.
impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Icmp => "icmp",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn flows_differ_and_come_again() {
        let flows = list_of_each(1000);
        assert_eq!(flows.iter().collect::<BTreeSet<_>>().len(), 4000);
        assert_eq!(flows, list_of_each(1000));
    }

    #[test]
    fn a_flow_leads_to_the_vip_of_its_family() {
        let flow = list(Family::V6, Transport::Udp, 1)[0];
        assert_eq!(flow.source.to_string(), "[1000::1:1400:1]:1024");
        assert_eq!(flow.destination().to_string(), "[1000::]:9");
    }
}
