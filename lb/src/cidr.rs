//! Prefixes of addresses: what the virtual addresses are.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address with the number of bits that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    address: IpAddr,
    length: u8,
}

impl Cidr {
    /// The bytes that packets must have where the mask has bits.
    pub fn octets(&self) -> Vec<u8> {
        match self.address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        }
    }

    /// The bits that count.
    pub fn mask(&self) -> Vec<u8> {
        let bits = self.octets().len() * 8;
        let mask = u128::MAX.checked_shl(128 - u32::from(self.length)).unwrap_or(0);
        mask.to_be_bytes().into_iter().take(bits / 8).collect()
    }

    /// The bytes that its addresses begin with, if that is all they have in common.
    pub fn whole_bytes(&self) -> Option<Vec<u8>> {
        let len = usize::from(self.length / 8);
        let is_whole = len > 0 && self.length.is_multiple_of(8);
        is_whole.then(|| self.octets().into_iter().take(len).collect())
    }

    /// Its first address.
    pub fn first(&self) -> IpAddr {
        self.address
    }

    /// Whether its addresses are of IPv6.
    pub fn is_v6(&self) -> bool {
        self.address.is_ipv6()
    }

    fn contains(&self, other: &Cidr) -> bool {
        self.is_v6() == other.is_v6()
            && self.length <= other.length
            && masked(other.address, self.length) == self.address
    }
}

/// The same addresses by the fewest prefixes, in one order however they were given.
pub fn distinct(mut cidrs: Vec<Cidr>) -> Vec<Cidr> {
    cidrs.sort();
    cidrs.dedup();
    let all = cidrs.clone();
    cidrs.retain(|one| !all.iter().any(|other| other != one && other.contains(one)));
    cidrs
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr =
            address.parse().map_err(|_| "not an address, or ADDRESS/LENGTH".to_string())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = match length.map(str::parse) {
            None => most,
            Some(Ok(length)) if length <= most => length,
            Some(_) => return Err(format!("the length is a number from 0 to {most}")),
        };
        let first = masked(address, length);
        if first != address {
            return Err(format!("it has bits beyond its length; did you mean {first}/{length}?"));
        }
        Ok(Cidr { address, length })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn prefixes_and_single_addresses() {
        for (text, shown, mask) in [
            ("10.0.0.0/24", "10.0.0.0/24", vec![255, 255, 255, 0]),
            ("10.0.0.1", "10.0.0.1/32", vec![255; 4]),
            ("0.0.0.0/0", "0.0.0.0/0", vec![0; 4]),
            ("10.128.0.0/9", "10.128.0.0/9", vec![255, 128, 0, 0]),
            ("1000::", "1000::/128", vec![255; 16]),
            ("1000::/120", "1000::/120", [vec![255; 15], vec![0]].concat()),
            ("::/0", "::/0", vec![0; 16]),
        ] {
            let cidr = cidr(text);
            assert_eq!((cidr.to_string().as_str(), cidr.mask()), (shown, mask));
        }
        assert_eq!(cidr("10.0.0.1").whole_bytes().unwrap(), [10, 0, 0, 1]);
        assert_eq!(cidr("1000::/16").whole_bytes().unwrap(), [0x10, 0]);
        for odd in ["10.0.0.0/31", "0.0.0.0/0", "::/0", "1000::/12"] {
            assert_eq!(cidr(odd).whole_bytes(), None, "{odd}");
        }
    }

    #[test]
    fn what_is_no_prefix_is_named() {
        for (text, complaint) in [
            ("", "not an address"),
            ("10.0.0.0/33", "0 to 32"),
            ("1000::/129", "0 to 128"),
            ("10.0.0.0/", "0 to 32"),
            ("10.0.0.0/-1", "0 to 32"),
            ("10.0.0.1/24", "did you mean 10.0.0.0/24?"),
            ("1000::1/64", "did you mean 1000::/64?"),
            ("host/24", "not an address"),
        ] {
            let error = text.parse::<Cidr>().unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }

    #[test]
    fn the_fewest_prefixes_in_one_order() {
        let cidrs = ["10.0.0.128/25", "1000::1", "10.0.0.0/24", "1000::/64", "10.0.0.0/24"];
        let texts: Vec<String> =
            distinct(cidrs.map(cidr).to_vec()).iter().map(Cidr::to_string).collect();
        assert_eq!(texts, ["10.0.0.0/24", "1000::/64"]);
        // A prefix of IPv6 that is all zeros holds no address of IPv4.
        assert_eq!(distinct(vec![cidr("::/0"), cidr("0.0.0.0/32")]).len(), 2);
    }
}
