//! What the kernel's routing would do with a packet, and whether that may have changed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netlink::Socket;
use crate::netlink::attribute::{Attributes, attribute};

/// A connection to the kernel's routing of this network namespace.
#[derive(Debug)]
pub struct Routes {
    requests: Socket,
    events: Socket,
    buffer: Vec<u8>,
}

/// A packet that the kernel is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Where it goes.
    pub to: IpAddr,
    /// Its fwmark.
    pub mark: u32,
    /// The index of the device that it came in by.
    pub input: u32,
}

/// Where the kernel would send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The index of the device that it leaves by.
    pub device: u32,
    /// The neighbour.
    pub address: IpAddr,
    /// How long it may be, if the route says it.
    pub mtu: Option<u32>,
}

/// A network device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its number.
    pub index: u32,
    /// How long a packet may be.
    pub mtu: u32,
    /// The same for IPv6, which has a limit of its own.
    pub mtu6: u32,
}

/// How a device is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which<'a> {
    /// By its name.
    Name(&'a str),
    /// By its number.
    Index(u32),
}

const HEADER_LEN: usize = 16;
const BUFFER: usize = 32 * 1024;

/// Messages (linux/rtnetlink.h).
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
/// Groups of events: devices, routes, rules and next hops.
const GROUPS: [libc::c_int; 6] = [1, 7, 8, 11, 19, 32];

impl Routes {
    /// Opens it. This is the only call that needs new sockets.
    pub fn open() -> io::Result<Self> {
        let events = Socket::open_routing()?;
        for group in GROUPS {
            match events.join(group) {
                // A kernel without next hops as objects has no such group.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) && group == 32 => {}
                joined => joined?,
            }
        }
        Ok(Routes { requests: Socket::open_routing()?, events, buffer: vec![0; BUFFER] })
    }

    /// Whether something happened to devices, routes or rules since it was asked last.
    pub fn changed(&mut self) -> io::Result<bool> {
        // As many as a full buffer can hold: nobody keeps this from ending.
        const MOST: u32 = 10_000;
        let mut changed = false;
        for _ in 0..MOST {
            match self.events.receive_waiting(&mut self.buffer)? {
                Some(_) => changed = true,
                None => break,
            }
        }
        Ok(changed)
    }

    /// A device, if it is there.
    pub fn device(&mut self, which: Which<'_>) -> io::Result<Option<Device>> {
        const INFO_LEN: usize = 16;
        let mut info = [0; INFO_LEN];
        if let Which::Index(index) = which {
            info[4..8].copy_from_slice(&index.to_ne_bytes());
        }
        let answer = self.ask(GET_LINK, &info, |attributes| {
            if let Which::Name(name) = which {
                attributes.text(3, name);
            }
            // To gather them takes time, and locks.
            const WITHOUT_STATISTICS: u32 = 8;
            attributes.bytes(29, &WITHOUT_STATISTICS.to_ne_bytes());
        })?;
        Ok(answer.and_then(|(kind, body)| {
            let index = u32::from_ne_bytes(*body.get(4..8)?.first_chunk()?);
            let attributes = body.get(INFO_LEN..)?;
            let mtu = own_number(attribute(attributes, 4)?)?;
            let mtu6 = mtu.min(ipv6_mtu(attributes).unwrap_or(u32::MAX));
            (kind == NEW_LINK).then_some(Device { index, mtu, mtu6 })
        }))
    }

    /// The one neighbour to whom the kernel would send such a packet, whoever it is from. None if there is
    /// none or several, or if it has more to do than to send it there.
    pub fn next_hop(&mut self, query: &Query) -> io::Result<Option<NextHop>> {
        const INFO_LEN: usize = 12;
        const WHOLE_ROUTE: u32 = 0x2000;
        // Sources for documentation (RFC 5737, RFC 3849): the kernel takes none that is not given.
        const SOURCE4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
        const SOURCE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        let (family, bits, source, to) = match query.to {
            IpAddr::V4(to) => (libc::AF_INET, 32, SOURCE4.octets().to_vec(), to.octets().to_vec()),
            IpAddr::V6(to) => {
                (libc::AF_INET6, 128, SOURCE6.octets().to_vec(), to.octets().to_vec())
            }
        };
        let mut info = [0; INFO_LEN];
        info[..3].copy_from_slice(&[u8::try_from(family).unwrap_or_default(), bits, bits]);
        info[8..].copy_from_slice(&WHOLE_ROUTE.to_ne_bytes());
        let answer = self.ask(GET_ROUTE, &info, |attributes| {
            attributes.bytes(1, &to);
            attributes.bytes(2, &source);
            attributes.bytes(3, &query.input.to_ne_bytes());
            attributes.bytes(16, &query.mark.to_ne_bytes());
        })?;
        Ok(answer.and_then(|(kind, body)| {
            (kind == NEW_ROUTE).then(|| next_hop(body, INFO_LEN)).flatten()
        }))
    }

    /// One question with one answer; none if the kernel refuses it, for whatever is not there.
    fn ask(
        &mut self,
        kind: u16,
        info: &[u8],
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) -> io::Result<Option<(u16, &[u8])>> {
        const REQUEST: u16 = 1;
        let mut message = vec![0; HEADER_LEN];
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message[6..8].copy_from_slice(&REQUEST.to_ne_bytes());
        message.extend(info);
        attributes(&mut Attributes::behind(&mut message));
        let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
        message[..4].copy_from_slice(&len.to_ne_bytes());
        self.requests.send(&message)?;
        // The kernel works on it within the call that sends it.
        let len = self.requests.receive_waiting(&mut self.buffer)?;
        let answer = len.and_then(|len| self.buffer.get(..len)).unwrap_or_default();
        Ok(message_of(answer))
    }
}

/// The kind and the body of a datagram's first message.
fn message_of(datagram: &[u8]) -> Option<(u16, &[u8])> {
    let len = u32::from_ne_bytes(*datagram.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*datagram.get(4..)?.first_chunk()?);
    Some((kind, datagram.get(HEADER_LEN..len)?))
}

fn next_hop(body: &[u8], info_len: usize) -> Option<NextHop> {
    const UNICAST: u8 = 1;
    const OUTPUT: u16 = 4;
    const GATEWAY: u16 = 5;
    const METRICS: u16 = 8;
    const METRIC_MTU: u16 = 2;
    const MULTIPATH: u16 = 9;
    const VIA: u16 = 18;
    const TUNNEL: u16 = 22;
    let attributes = body.get(info_len..)?;
    let has = |kind| attribute(attributes, kind).is_some();
    if *body.get(7)? != UNICAST || has(MULTIPATH) || has(TUNNEL) {
        return None;
    }
    let (family, gateway) = match attribute(attributes, GATEWAY) {
        Some(gateway) => (libc::c_int::from(*body.first()?), gateway),
        // A neighbour of the other family.
        None => {
            let (family, gateway) = attribute(attributes, VIA)?.split_first_chunk::<2>()?;
            (libc::c_int::from(u16::from_ne_bytes(*family)), gateway)
        }
    };
    let is_own_family = family == libc::c_int::from(*body.first()?);
    let address = match gateway.len() {
        4 => IpAddr::from(*gateway.first_chunk::<4>()?),
        16 => IpAddr::from(*gateway.first_chunk::<16>()?),
        _ => return None,
    };
    let metrics = attribute(attributes, METRICS).unwrap_or_default();
    is_own_family.then_some(NextHop {
        device: own_number(attribute(attributes, OUTPUT)?)?,
        address,
        mtu: attribute(metrics, METRIC_MTU).and_then(own_number).filter(|mtu| *mtu > 0),
    })
}

/// The setting `mtu` of IPv6; none where the device has no IPv6.
fn ipv6_mtu(link: &[u8]) -> Option<u32> {
    const BY_FAMILY: u16 = 26;
    const INET6: u16 = 10;
    const SETTINGS: u16 = 2;
    const MTU: usize = 2;
    let settings = attribute(attribute(attribute(link, BY_FAMILY)?, INET6)?, SETTINGS)?;
    own_number(settings.get(4 * MTU..)?).filter(|mtu| *mtu > 0)
}

/// In the machine's byte order, as routing has them.
fn own_number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    /// `10.0.0.0/24 via 192.168.2.11 dev 3 mtu 1400`, as the kernel tells it.
    const ROUTE: [u8; 48] = [
        2, 24, 0, 0, 254, 3, 0, 1, 0, 0, 0,
        0, // family, lengths, table, maker, scope, unicast
        12, 0, 8, 0x80, 8, 0, 2, 0, 0x78, 5, 0, 0, // metrics
        8, 0, 5, 0, 192, 168, 2, 11, // gateway
        8, 0, 4, 0, 3, 0, 0, 0, // device
        8, 0, 15, 0, 101, 0, 0, 0, // table
    ];

    #[test]
    fn the_next_hop_of_a_route() {
        let hop = NextHop { device: 3, address: [192, 168, 2, 11].into(), mtu: Some(1400) };
        assert_eq!(next_hop(&ROUTE, 12), Some(hop));
    }

    #[test]
    fn what_is_more_than_one_neighbour_is_none() {
        for (place, byte, why) in [
            (7, 6, "black hole"),
            (26, 9, "several next hops"),
            (26, 22, "tunnel"),
            (26, 30, "no gateway"),
            (24, 7, "cut gateway"),
            (34, 40, "no device"),
        ] {
            let mut route = ROUTE;
            route[place] = byte;
            assert_eq!(next_hop(&route, 12), None, "{why}");
        }
    }

    #[test]
    fn any_bytes_are_survived() {
        for len in 0..ROUTE.len() {
            next_hop(&ROUTE[..len], 12);
            message_of(&ROUTE[..len]);
        }
        assert_eq!(message_of(&[0xff; 64]), None);
        assert_eq!(next_hop(&[0xff; 64], 12), None);
    }

    #[test]
    fn the_loopback_device_is_found_by_name_and_number() {
        let mut routes = Routes::open().unwrap();
        let by_name = routes.device(Which::Name("lo")).unwrap().unwrap();
        assert_eq!(routes.device(Which::Index(by_name.index)).unwrap(), Some(by_name));
        assert!((1280..=by_name.mtu).contains(&by_name.mtu6), "{by_name:?}");
        assert_eq!(routes.device(Which::Name("no-such-device")).unwrap(), None);
        let query = Query { to: [127, 0, 0, 1].into(), mark: 0, input: by_name.index };
        assert_eq!(routes.next_hop(&query).unwrap(), None);
    }
}
