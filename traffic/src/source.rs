//! Source addresses: one of a subnet for each connection, so that a load
//! balancer sees many clients.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use thiserror::Error;

use crate::flags::FlagValue;

/// A subnet: an address of which only the first `prefix` bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// Why a text is not a [`Cidr`].
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CidrError {
    #[error("no prefix length (as in 10.0.0.0/24)")]
    NoPrefix,
    #[error("{0:?} is not an IP address")]
    BadAddress(String),
    #[error("{0:?} is not a prefix length from 0 to {1}")]
    BadPrefix(String, u8),
}

/// The source address of every connection of a run: a pure function of a
/// subnet, a seed and the connection's number, so any number of threads may
/// ask without a word to each other.
#[derive(Clone, Copy, Debug)]
pub struct SourceAddresses {
    subnet: Cidr,
    seed: u64,
}

impl Cidr {
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                network.to_bits() == address.to_bits() & !self.host_bits_v4()
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                network.to_bits() == address.to_bits() & !self.host_bits_v6()
            }
            _ => false,
        }
    }

    pub fn is_ipv4(&self) -> bool {
        self.network.is_ipv4()
    }

    /// The address with the network bits of the subnet and the host bits of
    /// `random`. The first and the last address are as good as any.
    fn address_at(&self, random: u128) -> IpAddr {
        match self.network {
            IpAddr::V4(network) => {
                let [.., a, b, c, d] = random.to_be_bytes();
                let host = u32::from_be_bytes([a, b, c, d]) & self.host_bits_v4();
                Ipv4Addr::from_bits(network.to_bits() | host).into()
            }
            IpAddr::V6(network) => {
                Ipv6Addr::from_bits(network.to_bits() | (random & self.host_bits_v6())).into()
            }
        }
    }

    fn host_bits_v4(&self) -> u32 {
        u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0)
    }

    fn host_bits_v6(&self) -> u128 {
        u128::MAX.checked_shr(self.prefix.into()).unwrap_or(0)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = text.split_once('/').ok_or(CidrError::NoPrefix)?;
        let address: IpAddr =
            address.parse().map_err(|_| CidrError::BadAddress(address.to_owned()))?;
        let longest = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        let prefix = match prefix.parse() {
            Ok(length) if length <= longest && !prefix.starts_with('+') => length,
            _ => return Err(CidrError::BadPrefix(prefix.to_owned(), longest)),
        };
        let whole = Self { network: address, prefix };
        let network = match address {
            IpAddr::V4(a) => Ipv4Addr::from_bits(a.to_bits() & !whole.host_bits_v4()).into(),
            IpAddr::V6(a) => Ipv6Addr::from_bits(a.to_bits() & !whole.host_bits_v6()).into(),
        };
        Ok(Self { network, prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// A flag that may be left out; an empty value means the same.
impl FlagValue for Option<Cidr> {
    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = match text {
            "" => None,
            text => Some(text.parse().map_err(|error: CidrError| error.to_string())?),
        };
        Ok(())
    }

    fn shown(&self) -> String {
        self.map_or_else(String::new, |cidr| cidr.to_string())
    }
}

impl SourceAddresses {
    /// The same seed gives the same addresses.
    pub fn new(subnet: Cidr, seed: u64) -> Self {
        Self { subnet, seed }
    }

    /// The address of connection number `connection`.
    pub fn address(&self, connection: u64) -> IpAddr {
        let first = connection.wrapping_mul(2);
        let high = splitmix64(self.seed, first);
        let low = splitmix64(self.seed, first.wrapping_add(1));
        self.subnet.address_at(u128::from(high) << 64 | u128::from(low))
    }

    /// The same as a socket address to bind to on the way to `target`: the
    /// port is the kernel's choice, a link-local source needs the scope of its
    /// target.
    pub fn socket_address(&self, connection: u64, target: SocketAddr) -> SocketAddr {
        match (self.address(connection), target) {
            (IpAddr::V6(address), SocketAddr::V6(target)) => {
                SocketAddrV6::new(address, 0, 0, target.scope_id()).into()
            }
            (address, _) => SocketAddr::new(address, 0),
        }
    }
}

/// Number `index` of the SplitMix64 sequence of a seed, which is made for
/// being entered anywhere.
pub fn splitmix64(seed: u64, index: u64) -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(STEP));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn sources(cidr: &str, seed: u64) -> SourceAddresses {
        SourceAddresses::new(cidr.parse().unwrap(), seed)
    }

    fn distinct(cidr: &str, connections: u64) -> BTreeSet<String> {
        let sources = sources(cidr, 1);
        (0..connections).map(|connection| sources.address(connection).to_string()).collect()
    }

    #[test]
    fn splitmix64_gives_its_published_sequence() {
        // The first outputs for seed 1234567 as the generator's authors' code
        // and its ports to other languages print them.
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        for (index, expected) in (0..).zip(expected) {
            assert_eq!(splitmix64(1_234_567, index), expected);
        }
    }

    #[test]
    fn a_host_prefix_gives_exactly_that_address() {
        assert_eq!(distinct("10.0.0.7/32", 100), ["10.0.0.7".to_owned()].into());
        assert_eq!(distinct("1000::7/128", 100), ["1000::7".to_owned()].into());
    }

    #[test]
    fn every_address_comes_network_and_broadcast_included() {
        assert_eq!(
            distinct("10.0.0.4/30", 200),
            ["10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7"].map(str::to_owned).into()
        );
        assert_eq!(distinct("222.222.222.0/24", 10_000).len(), 256);
        assert_eq!(distinct("1000::/120", 10_000).len(), 256);
    }

    #[test]
    fn a_wide_prefix_hardly_repeats_itself() {
        assert_eq!(distinct("::/0", 10_000).len(), 10_000);
        // Birthdays: about 0.01 collisions are to be expected of 10,000.
        assert!(distinct("0.0.0.0/0", 10_000).len() > 9_950);
    }

    #[test]
    fn threads_agree() {
        let sources = sources("10.0.0.0/8", 42);
        let list = || (0..1_000).map(|i| sources.address(i)).collect::<Vec<_>>();
        let expected = list();
        thread::scope(|scope| {
            for thread in [(); 4].map(|()| scope.spawn(list)) {
                assert_eq!(thread.join().unwrap(), expected);
            }
        });
    }

    #[test]
    fn a_link_local_source_takes_the_scope_of_its_target() {
        let target = SocketAddrV6::new("fe80::1".parse().unwrap(), 5001, 0, 3).into();
        let SocketAddr::V6(source) = sources("fe80::2/128", 1).socket_address(0, target) else {
            panic!("another family");
        };
        assert_eq!(source.scope_id(), 3);
        assert_eq!(source.port(), 0);
    }

    #[test]
    fn a_text_is_read_and_its_host_bits_are_dropped() {
        for (text, shown) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3/32", "10.1.2.3/32"),
            ("10.1.2.3/0", "0.0.0.0/0"),
            ("1000::1:2/112", "1000::1:0/112"),
            ("1000::1/128", "1000::1/128"),
            ("1000::1/0", "::/0"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn a_bad_text_is_named() {
        for (text, message) in [
            ("10.0.0.0", "no prefix length (as in 10.0.0.0/24)"),
            ("10.0.0/24", "\"10.0.0\" is not an IP address"),
            ("10.0.0.0/33", "\"33\" is not a prefix length from 0 to 32"),
            ("10.0.0.0/+8", "\"+8\" is not a prefix length from 0 to 32"),
            ("10.0.0.0/", "\"\" is not a prefix length from 0 to 32"),
            ("::/129", "\"129\" is not a prefix length from 0 to 128"),
            ("[::]/64", "\"[::]\" is not an IP address"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap_err().to_string(), message);
        }
    }

    fn any_cidr() -> impl Strategy<Value = Cidr> {
        let v4 = (any::<Ipv4Addr>(), 0..=32u8).prop_map(|(a, p)| format!("{a}/{p}"));
        let v6 = (any::<Ipv6Addr>(), 0..=128u8).prop_map(|(a, p)| format!("{a}/{p}"));
        prop_oneof![v4, v6].prop_map(|text| text.parse().unwrap())
    }

    proptest! {
        #[test]
        fn an_address_stays_inside(cidr in any_cidr(), seed: u64, connection: u64) {
            let address = SourceAddresses::new(cidr, seed).address(connection);
            prop_assert!(cidr.contains(address), "{address} in {cidr}");
            prop_assert_eq!(address.is_ipv4(), cidr.is_ipv4());
        }

        #[test]
        fn a_cidr_prints_what_it_reads(cidr in any_cidr()) {
            prop_assert_eq!(cidr.to_string().parse(), Ok(cidr));
        }

        #[test]
        fn any_text_is_answered(text in "[0-9a-f:./]{0,50}") {
            let _ = text.parse::<Cidr>();
        }
    }
}
