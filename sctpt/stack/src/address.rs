//! Numeric addresses, and how the system spells them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Numeric addresses of one end, with their common port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Never empty.
    pub addresses: Vec<IpAddr>,
    pub port: u16,
}

/// What is wrong with a list of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("no address")]
    Empty,
    #[error("[{0}] is not a numeric address")]
    NotNumeric(String),
    #[error("{0} is there twice")]
    Twice(IpAddr),
    #[error("{0} stands for all addresses and must be the only one")]
    NotAlone(IpAddr),
    #[error("{0} is no address of one host")]
    Multicast(IpAddr),
}

impl Addresses {
    /// Reads a list like `10.0.0.1,1000::81`. Families may be mixed; names are refused.
    pub fn parse(list: &str, port: u16) -> Result<Self, AddressError> {
        if list.is_empty() {
            return Err(AddressError::Empty);
        }
        let mut addresses: Vec<IpAddr> = Vec::new();
        for word in list.split(',') {
            let word = word.trim();
            let address: IpAddr =
                word.parse().map_err(|_| AddressError::NotNumeric(word.to_string()))?;
            let address = address.to_canonical();
            let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
            if address.is_multicast() || broadcast {
                return Err(AddressError::Multicast(address));
            }
            if addresses.contains(&address) {
                return Err(AddressError::Twice(address));
            }
            addresses.push(address);
        }
        match addresses.iter().find(|address| address.is_unspecified()) {
            Some(all) if addresses.len() > 1 => Err(AddressError::NotAlone(*all)),
            _ => Ok(Addresses { addresses, port }),
        }
    }

    /// Each address with the port.
    pub fn sockets(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.addresses.iter().map(|address| SocketAddr::new(*address, self.port))
    }

    /// Whether it stands for all addresses of this host.
    pub(crate) fn is_any(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_unspecified)
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.addresses.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{address}")?;
        }
        write!(f, " port {}", self.port)
    }
}

/// `libc` has them as int, addresses as short.
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// Of the system's `sockaddr_in` and `sockaddr_in6`.
const LENGTH_V4: usize = size_of::<libc::sockaddr_in>();
const LENGTH_V6: usize = size_of::<libc::sockaddr_in6>();

/// Where a stack is to say which one, or where all are meant.
pub(crate) const ANY: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// Addresses one behind the other, as `bindx` and `connectx` want them.
pub(crate) fn packed(addresses: impl Iterator<Item = SocketAddr>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in addresses {
        match address {
            SocketAddr::V4(address) => {
                bytes.extend(AF_INET.to_ne_bytes());
                bytes.extend(address.port().to_be_bytes());
                bytes.extend(address.ip().octets());
                bytes.extend([0; 8]);
            }
            SocketAddr::V6(address) => {
                bytes.extend(AF_INET6.to_ne_bytes());
                bytes.extend(address.port().to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(address.ip().octets());
                bytes.extend(address.scope_id().to_ne_bytes());
            }
        }
    }
    bytes
}

/// The first of packed addresses, and how long it is. IPv4 in IPv6 becomes IPv4.
pub(crate) fn unpack(bytes: &[u8]) -> Option<(SocketAddr, usize)> {
    let (family, rest) = bytes.split_first_chunk::<2>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    match u16::from_ne_bytes(*family) {
        AF_INET if bytes.len() >= LENGTH_V4 => {
            let address = Ipv4Addr::from(*rest.first_chunk::<4>()?);
            Some((SocketAddr::new(address.into(), port), LENGTH_V4))
        }
        AF_INET6 if bytes.len() >= LENGTH_V6 => {
            let address = Ipv6Addr::from(*rest.get(4..)?.first_chunk::<16>()?);
            Some((SocketAddr::new(IpAddr::V6(address).to_canonical(), port), LENGTH_V6))
        }
        _ => None,
    }
}

/// An address in the form that takes every family.
pub(crate) fn storage(address: SocketAddr) -> libc::sockaddr_storage {
    // SAFETY: a structure of numbers, which may all be zero.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let bytes = packed(std::iter::once(address));
    let place = (&raw mut storage).cast::<u8>();
    // SAFETY: the structure is made to hold every address; the two do not overlap.
    unsafe { place.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    storage
}

/// The address in such a form.
pub(crate) fn from_storage(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let start: *const libc::sockaddr_storage = storage;
    // SAFETY: as many bytes as the structure has; all are initialised, by the caller or the system.
    let bytes = unsafe { std::slice::from_raw_parts(start.cast::<u8>(), size_of_val(storage)) };
    unpack(bytes).map(|(address, _)| address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_numeric() {
        let list = Addresses::parse("10.0.0.1,1000::81", 6000).unwrap();
        assert_eq!(list.addresses.len(), 2);
        assert_eq!(list.to_string(), "10.0.0.1,1000::81 port 6000");
        assert_eq!(
            Addresses::parse("::ffff:10.0.0.1", 1).unwrap().addresses,
            [IpAddr::from([10, 0, 0, 1])]
        );
        for (list, complaint) in [
            ("", "no address"),
            ("10.0.0.1,", "[] is not a numeric address"),
            ("localhost", "[localhost] is not a numeric address"),
            ("10.0.0.1,::ffff:10.0.0.1", "10.0.0.1 is there twice"),
            ("::,10.0.0.1", ":: stands for all addresses and must be the only one"),
            ("ff02::1", "ff02::1 is no address of one host"),
        ] {
            assert_eq!(Addresses::parse(list, 1).unwrap_err().to_string(), complaint);
        }
    }

    #[test]
    fn packed_addresses_are_the_system_s() {
        let list = Addresses::parse("10.0.0.1,1000::81", 0x1234).unwrap();
        let bytes = packed(list.sockets());
        assert_eq!(bytes[..16], [2, 0, 0x12, 0x34, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[16..26], [10, 0, 0x12, 0x34, 0, 0, 0, 0, 0x10, 0]);
        assert_eq!((i32::from(AF_INET), i32::from(AF_INET6)), (libc::AF_INET, libc::AF_INET6));
        assert_eq!(bytes.len(), 16 + 28);
        assert_eq!(bytes[39], 0x81);
        assert_eq!(unpack(&bytes), list.sockets().next().map(|address| (address, 16)));
        assert_eq!(unpack(&bytes[16..]), list.sockets().nth(1).map(|address| (address, 28)));
        assert_eq!(unpack(&bytes[16..43]), None);
        // IPv4 in IPv6.
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:5".parse().unwrap();
        let bytes = packed([mapped].into_iter());
        assert_eq!(unpack(&bytes), Some(("10.0.0.1:5".parse().unwrap(), 28)));
        assert_eq!(from_storage(&storage(mapped)), Some("10.0.0.1:5".parse().unwrap()));
    }
}
