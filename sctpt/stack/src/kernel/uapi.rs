//! What of the kernel's SCTP interface (`linux/sctp.h`) is used: numbers, and structures as bytes.
//!
//! Several structures of the kernel are packed, so they are written field by field.

use std::net::SocketAddr;
use std::time::Duration;

use crate::{Path, PathState, Rto, address};

pub const SOL_SCTP: i32 = 132;
pub const MSG_NOTIFICATION: i32 = 0x8000;

pub const RTOINFO: i32 = 0;
pub const ASSOCINFO: i32 = 1;
pub const INITMSG: i32 = 2;
pub const NODELAY: i32 = 3;
pub const PRIMARY_ADDR: i32 = 6;
pub const PEER_ADDR_PARAMS: i32 = 9;
pub const EVENTS: i32 = 11;
pub const GET_PEER_ADDR_INFO: i32 = 15;
pub const RECVRCVINFO: i32 = 32;
pub const BINDX_ADD: i32 = 100;
pub const GET_PEER_ADDRS: i32 = 108;
pub const GET_LOCAL_ADDRS: i32 = 109;
pub const CONNECTX: i32 = 110;
pub const REMOTE_UDP_ENCAPS_PORT: i32 = 132;

/// Control data with `sctp_sndinfo`, and with `sctp_rcvinfo`.
pub const CMSG_SNDINFO: i32 = 2;
pub const CMSG_RCVINFO: i32 = 3;

const SPP_HB_ENABLE: u32 = 1;
/// Of `sockaddr_storage`.
const STORAGE: usize = 128;
/// Of `sctp_getaddrs` before the addresses.
pub const GETADDRS_HEADER: usize = 8;
pub const PRIMARY_LENGTH: usize = 4 + STORAGE;
pub const PATH_LENGTH: usize = 4 + STORAGE + 20;

/// `sctp_event_subscribe`: receive information, associations, paths. The kernel takes a shorter one than its own.
pub const SUBSCRIPTION: [u8; 3] = [0, 1, 1];

/// Numbers in the machine's order, one behind the other.
#[derive(Debug, Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn storage(mut self, address: SocketAddr) -> Self {
        let end = self.0.len() + STORAGE;
        self.0.extend(mapped(std::iter::once(address)));
        self.0.resize(end, 0);
        self
    }

    fn pad(mut self, length: usize) -> Self {
        self.0.resize(length, 0);
        self
    }
}

/// Addresses one behind the other, IPv4 ones inside IPv6: the sockets are of the IPv6 family.
pub fn mapped(addresses: impl Iterator<Item = SocketAddr>) -> Vec<u8> {
    address::packed(addresses.map(|address| match address {
        SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
        v6 => v6,
    }))
}

/// `sctp_rtoinfo`.
pub fn rto_info(rto: Rto) -> Vec<u8> {
    let bytes = Bytes::default().u32(0).u32(millis(rto.initial));
    bytes.u32(millis(rto.max)).u32(millis(rto.min)).0
}

/// `sctp_assocparams`.
pub fn association_params(max_retransmits: u16) -> Vec<u8> {
    Bytes::default().u32(0).u16(max_retransmits).pad(20).0
}

/// `sctp_initmsg`; 0 leaves the number of attempts and their time as they are.
pub fn init_message(streams: u16) -> Vec<u8> {
    Bytes::default().u16(streams).u16(streams).u16(0).u16(0).0
}

/// `sctp_paddrparams`, packed, for all paths.
pub fn path_params(heartbeat: Option<Duration>, max_retransmits: Option<u16>) -> Vec<u8> {
    let flags = if heartbeat.is_some() { SPP_HB_ENABLE } else { 0 };
    Bytes::default()
        .u32(0)
        .storage(address::ANY)
        .u32(heartbeat.map_or(0, millis))
        .u16(max_retransmits.unwrap_or(0))
        // Path MTU and delay of acknowledgements stay.
        .u32(0)
        .u32(0)
        .u32(flags)
        // Flow label and class.
        .u32(0)
        .u8(0)
        .pad(156)
        .0
}

/// `sctp_udpencaps`, not packed, for all paths.
pub fn udp_encapsulation(port: u16) -> Vec<u8> {
    Bytes::default().u32(0).pad(8).storage(address::ANY).u16(port.to_be()).pad(144).0
}

/// `sctp_prim`, packed.
pub fn primary(address: SocketAddr) -> Vec<u8> {
    Bytes::default().u32(0).storage(address).0
}

/// The address of `sctp_prim`.
pub fn read_primary(bytes: &[u8]) -> Option<SocketAddr> {
    address::unpack(bytes.get(4..)?).map(|(address, _)| address)
}

/// `sctp_paddrinfo`, packed, as a question.
pub fn path_question(address: SocketAddr) -> Vec<u8> {
    Bytes::default().u32(0).storage(address).pad(PATH_LENGTH).0
}

/// The answer to it.
pub fn read_path(peer: SocketAddr, bytes: &[u8]) -> Option<Path> {
    let number = |at: usize| -> Option<u32> {
        let number = bytes.get(4 + STORAGE + at..)?.first_chunk()?;
        Some(u32::from_ne_bytes(*number))
    };
    Some(Path {
        address: peer,
        state: match number(0)? {
            // Potentially failed (1): something was lost, but less than makes a path inactive and an
            // event. The other stack calls it active, too.
            1 | 2 => PathState::Active,
            3 => PathState::Unconfirmed,
            _ => PathState::Inactive,
        },
        primary: false,
        cwnd: number(4)?,
        srtt: Duration::from_millis(number(8)?.into()),
        rto: Duration::from_millis(number(12)?.into()),
        mtu: number(16)?,
        // It counts control chunks of an association (`SCTP_GET_ASSOC_STATS`), not heartbeats of a path.
        heartbeats: None,
    })
}

/// The addresses of `sctp_getaddrs`.
pub fn read_addresses(bytes: &[u8]) -> Option<Vec<SocketAddr>> {
    let count = u32::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let mut rest = &bytes[GETADDRS_HEADER..];
    let mut addresses = Vec::new();
    for _ in 0..count {
        let (address, length) = address::unpack(rest)?;
        addresses.push(address);
        rest = &rest[length..];
    }
    Some(addresses)
}

/// `sctp_sndinfo`.
pub fn send_info(stream: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&stream.to_ne_bytes());
    bytes
}

/// The kernel counts in milliseconds, and takes 0 for "as it is".
fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> SocketAddr {
        "10.0.0.1:6000".parse().unwrap()
    }

    /// `sockaddr_in6` of `peer`, as the kernel's SCTP takes it: family 10, port in network order, flow, address.
    const PEER: [u8; 24] =
        [10, 0, 0x17, 0x70, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1];

    #[test]
    fn settings_are_the_kernel_s_structures() {
        let ms = Duration::from_millis;
        let rto = Rto { initial: ms(258), min: ms(2), max: ms(3) };
        assert_eq!(rto_info(rto), [0, 0, 0, 0, 2, 1, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0]);
        let params = association_params(7);
        assert_eq!((params[4], params.len()), (7, 20));
        assert_eq!(init_message(10), [10, 0, 10, 0, 0, 0, 0, 0]);
        let params = path_params(Some(ms(500)), Some(2));
        assert_eq!(params.len(), 156);
        assert_eq!(params[4..8], [10, 0, 0, 0]);
        // Interval, retransmits, then MTU and delay, then flags, label and class.
        assert_eq!(params[132..138], [0xf4, 1, 0, 0, 2, 0]);
        assert_eq!(params[138..], [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(path_params(None, None)[132..], [0; 24]);
        let encapsulation = udp_encapsulation(9899);
        assert_eq!(encapsulation.len(), 144);
        assert_eq!(encapsulation[8..10], [10, 0]);
        assert_eq!(encapsulation[136..], [0x26, 0xab, 0, 0, 0, 0, 0, 0]);
        assert_eq!(send_info(3), [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn addresses_are_of_the_ipv6_family() {
        assert_eq!(mapped(std::iter::once(peer()))[..24], PEER);
        let bytes = primary(peer());
        assert_eq!((bytes.len(), &bytes[4..28]), (PRIMARY_LENGTH, &PEER[..]));
        assert_eq!(read_primary(&bytes), Some(peer()));
        // Association, count, then one of each family.
        let mut list = vec![0, 0, 0, 0, 2, 0, 0, 0];
        list.extend([2, 0, 0x17, 0x70, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        list.extend(PEER);
        list.extend([0; 4]);
        assert_eq!(read_addresses(&list), Some(vec![peer(), peer()]));
        assert_eq!(read_addresses(&list[..50]), None);
        assert_eq!(read_addresses(&[]), None);
    }

    #[test]
    fn a_path_is_read() {
        let mut bytes = path_question(peer());
        assert_eq!((bytes.len(), &bytes[4..28]), (152, &PEER[..]));
        bytes[132..].copy_from_slice(&[
            2, 0, 0, 0, 0x10, 0x11, 0, 0, 7, 0, 0, 0, 0xe8, 3, 0, 0, 0xdc, 5, 0, 0,
        ]);
        let expected = Path {
            address: peer(),
            state: PathState::Active,
            primary: false,
            srtt: Duration::from_millis(7),
            rto: Duration::from_secs(1),
            mtu: 1500,
            cwnd: 0x1110,
            heartbeats: None,
        };
        assert_eq!(read_path(peer(), &bytes), Some(expected));
        assert_eq!(read_path(peer(), &bytes[..151]), None);
        let states = [0, 1, 2, 3].map(|state: u32| {
            let mut bytes = bytes.clone();
            bytes[132..136].copy_from_slice(&state.to_ne_bytes());
            read_path(peer(), &bytes).map(|path| path.state)
        });
        let (active, inactive) = (PathState::Active, PathState::Inactive);
        assert_eq!(states, [inactive, active, active, PathState::Unconfirmed].map(Some));
    }
}
