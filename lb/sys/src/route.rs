//! What the kernel's routing would do with a packet, and whether that may have changed.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

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

/// Why there is not one neighbour to whom the kernel would send a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoHop {
    /// It refuses.
    #[error("{0}")]
    Refused(Refusal),
    /// The route is of another kind: to this machine, to all, or to nobody.
    #[error("the route is not one to a neighbour (its type is {0})")]
    Kind(u8),
    /// It would choose.
    #[error("the route has several next hops")]
    Several,
    /// There is more to do than to send it.
    #[error("the route leads into a tunnel")]
    Tunnel,
    /// It would look for the packet's own destination on a link.
    #[error("the route has no gateway")]
    NoGateway,
    /// The neighbour's address is of the other version of IP.
    #[error("the gateway is of the other version of IP")]
    OtherFamily,
    /// The kernel said something else.
    #[error("the kernel's answer makes no sense")]
    Odd,
}

/// The number of an error with which the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal(i32);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", io::Error::from_raw_os_error(self.0))?;
        match self.usual_cause() {
            Some(cause) => write!(f, ", usually {cause}"),
            None => Ok(()),
        }
    }
}

impl Refusal {
    fn usual_cause(self) -> Option<&'static str> {
        match self.0 {
            libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ESRCH => {
                Some("because no route is there, or forwarding is off")
            }
            // Kernels of different age say either.
            libc::EINVAL | libc::EXDEV => Some(
                "because rp_filter is not 0 and there is no route to 192.0.2.1, which stands for all clients, or \
                 because of a route of type blackhole",
            ),
            libc::EACCES => Some("because of a route or rule of type prohibit"),
            libc::ENODEV => Some("because the device is gone"),
            _ => None,
        }
    }
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
/// What comes before the attributes of a route.
const ROUTE_INFO_LEN: usize = 12;
const BUFFER: usize = 32 * 1024;

/// Messages (linux/netlink.h, linux/rtnetlink.h).
const ERROR: u16 = 2;
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
/// Groups of events: devices, routes, rules, settings such as rp_filter, and next hops.
const GROUPS: [libc::c_int; 8] = [1, 7, 8, 11, 19, 24, 25, 32];

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

    /// The one neighbour to whom the kernel would send such a packet, whoever it is from.
    pub fn next_hop(&mut self, query: &Query) -> io::Result<Result<NextHop, NoHop>> {
        // Sources for documentation (RFC 5737, RFC 3849): the kernel takes none that is not given.
        const SOURCE4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
        const SOURCE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        let source = match query.to {
            IpAddr::V4(_) => IpAddr::from(SOURCE4),
            IpAddr::V6(_) => IpAddr::from(SOURCE6),
        };
        self.route(query.to, Some(source), |attributes| {
            attributes.bytes(3, &query.input.to_ne_bytes());
            attributes.bytes(16, &query.mark.to_ne_bytes());
        })
        .map(|route| next_hop(route?))
    }

    /// Whether packets of this machine without a mark have a route, whatever it is.
    pub fn has_route(&mut self, to: IpAddr) -> io::Result<Result<(), NoHop>> {
        Ok(self.route(to, None, |_| {})?.map(drop))
    }

    /// The kernel's route for a packet, as it tells it.
    fn route(
        &mut self,
        to: IpAddr,
        source: Option<IpAddr>,
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) -> io::Result<Result<&[u8], NoHop>> {
        const WHOLE_ROUTE: u32 = 0x2000;
        let (family, to) = family_and_octets(to);
        let bits = u8::try_from(8 * to.len()).unwrap_or_default();
        let source_bits = if source.is_some() { bits } else { 0 };
        let mut info = [0; ROUTE_INFO_LEN];
        info[..3].copy_from_slice(&[family, bits, source_bits]);
        if source.is_some() {
            // Not only what one packet would meet of it.
            info[8..].copy_from_slice(&WHOLE_ROUTE.to_ne_bytes());
        }
        let answer = self.ask(GET_ROUTE, &info, |all| {
            all.bytes(1, &to);
            if let Some(source) = source {
                all.bytes(2, &family_and_octets(source).1);
            }
            attributes(all);
        })?;
        Ok(match answer {
            Some((NEW_ROUTE, body)) => Ok(body),
            Some((ERROR, body)) => Err(refused(body)),
            _ => Err(NoHop::Odd),
        })
    }

    /// One question with one answer, which may be an error.
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

/// Kind of address and its bytes.
fn family_and_octets(address: IpAddr) -> (u8, Vec<u8>) {
    let (family, octets) = match address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    (u8::try_from(family).unwrap_or_default(), octets)
}

/// What an error message says: a negative number.
fn refused(body: &[u8]) -> NoHop {
    let number = body.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
    number.map_or(NoHop::Odd, |number| NoHop::Refused(Refusal(number.wrapping_neg())))
}

fn next_hop(body: &[u8]) -> Result<NextHop, NoHop> {
    const UNICAST: u8 = 1;
    const OUTPUT: u16 = 4;
    const GATEWAY: u16 = 5;
    const METRICS: u16 = 8;
    const METRIC_MTU: u16 = 2;
    const MULTIPATH: u16 = 9;
    const VIA: u16 = 18;
    const TUNNEL: u16 = 22;
    let (info, attributes) = body.split_first_chunk::<ROUTE_INFO_LEN>().ok_or(NoHop::Odd)?;
    let (own_family, kind) = (libc::c_int::from(info[0]), info[7]);
    let has = |kind| attribute(attributes, kind).is_some();
    if kind != UNICAST {
        return Err(NoHop::Kind(kind));
    } else if has(MULTIPATH) {
        return Err(NoHop::Several);
    } else if has(TUNNEL) {
        return Err(NoHop::Tunnel);
    }
    let (family, gateway) = match attribute(attributes, GATEWAY) {
        Some(gateway) => (own_family, gateway),
        // A neighbour that may be of the other family.
        None => {
            let via = attribute(attributes, VIA).ok_or(NoHop::NoGateway)?;
            let (family, gateway) = via.split_first_chunk::<2>().ok_or(NoHop::Odd)?;
            (libc::c_int::from(u16::from_ne_bytes(*family)), gateway)
        }
    };
    if family != own_family {
        return Err(NoHop::OtherFamily);
    }
    let metrics = attribute(attributes, METRICS).unwrap_or_default();
    let device = attribute(attributes, OUTPUT).and_then(own_number);
    Ok(NextHop {
        device: device.ok_or(NoHop::Odd)?,
        address: address(gateway).ok_or(NoHop::Odd)?,
        mtu: attribute(metrics, METRIC_MTU).and_then(own_number).filter(|mtu| *mtu > 0),
    })
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => octets.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        16 => octets.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        _ => None,
    }
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
        assert_eq!(next_hop(&ROUTE), Ok(hop));
    }

    #[test]
    fn what_is_more_than_one_neighbour_is_none() {
        for (place, byte, why) in [
            (7, 6, NoHop::Kind(6)),
            (26, 9, NoHop::Several),
            (26, 22, NoHop::Tunnel),
            (26, 30, NoHop::NoGateway),
            (26, 18, NoHop::OtherFamily),
            (24, 7, NoHop::Odd),  // a gateway that is cut
            (34, 40, NoHop::Odd), // no device
        ] {
            let mut route = ROUTE;
            route[place] = byte;
            assert_eq!(next_hop(&route), Err(why));
        }
    }

    #[test]
    fn a_refusal_is_told_with_its_usual_cause() {
        for (errno, cause) in [
            (libc::ENETUNREACH, "no route is there"),
            (libc::EHOSTUNREACH, "forwarding is off"),
            (libc::EXDEV, "rp_filter is not 0"),
            (libc::EINVAL, "rp_filter is not 0"),
            (libc::EACCES, "prohibit"),
            (libc::ENODEV, "the device is gone"),
        ] {
            let NoHop::Refused(refusal) = refused(&(-errno).to_ne_bytes()) else {
                panic!("{errno} is not a refusal")
            };
            let told = refusal.to_string();
            assert!(told.contains(&format!("(os error {errno}), usually because ")), "{told}");
            assert!(told.contains(cause), "{told}");
        }
        let told = refused(&(-libc::ENOMEM).to_ne_bytes()).to_string();
        assert!(told.ends_with(&format!("(os error {})", libc::ENOMEM)), "{told}");
        assert_eq!(refused(&[1]), NoHop::Odd);
        assert!(matches!(refused(&i32::MIN.to_ne_bytes()), NoHop::Refused(_)));
    }

    #[test]
    fn any_bytes_are_survived() {
        for len in 0..ROUTE.len() {
            let _ = next_hop(&ROUTE[..len]);
            message_of(&ROUTE[..len]);
        }
        assert_eq!(message_of(&[0xff; 64]), None);
        assert_eq!(next_hop(&[0xff; 64]), Err(NoHop::Kind(0xff)));
    }

    #[test]
    fn the_loopback_device_is_found_by_name_and_number() {
        let mut routes = Routes::open().unwrap();
        let by_name = routes.device(Which::Name("lo")).unwrap().unwrap();
        assert_eq!(routes.device(Which::Index(by_name.index)).unwrap(), Some(by_name));
        assert!((1280..=by_name.mtu).contains(&by_name.mtu6), "{by_name:?}");
        assert_eq!(routes.device(Which::Name("no-such-device")).unwrap(), None);
        let to = IpAddr::from([127, 0, 0, 1]);
        let query = Query { to, mark: 0, input: by_name.index };
        assert!(routes.next_hop(&query).unwrap().is_err());
        assert_eq!(routes.has_route(to).unwrap(), Ok(()));
        let gone = routes.next_hop(&Query { input: u32::MAX >> 1, ..query }).unwrap();
        assert_eq!(gone, Err(NoHop::Refused(Refusal(libc::ENODEV))));
    }
}
