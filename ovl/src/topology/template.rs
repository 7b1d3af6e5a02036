//! Addresses made from a template: `A/S1/S2` is a range A/S1 cut into networks of length S2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use anyhow::{Context, Result, ensure};

use super::file::Prefix;
use crate::address::{NetId, NodeId, under_prefix};

/// The number of the network stands between the bits S1 and S2, that of the node after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    address: IpAddr,
    range: u8,
    net: u8,
}

impl Template {
    /// The node's addresses on a network: an IPv4 template makes the IPv6 address below PREFIX
    /// too.
    pub fn addresses(&self, net: NetId, node: NodeId) -> Result<Vec<Prefix>> {
        let (bits, width) = match self.address {
            IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
            IpAddr::V6(address) => (address.to_bits(), 128),
        };
        let (net_bits, node_bits) = (self.net - self.range, width - self.net);
        let (net_number, node_number) = (u128::from(net.0), u128::from(node.number()));
        ensure!(
            fits(net_number, net_bits),
            "net {} does not fit the {net_bits} bits for the net in {self}",
            net.0
        );
        // The last address of an IPv4 network is for broadcasts.
        ensure!(
            fits(node_number + u128::from(width == 32), node_bits),
            "node {} does not fit the {node_bits} bits for the node in {self}",
            node.number()
        );
        let bits = bits & !low_bits(width - self.range) | net_number << node_bits | node_number;
        let length = self.net;
        match self.address {
            IpAddr::V6(_) => Ok(vec![Prefix { address: Ipv6Addr::from_bits(bits).into(), length }]),
            IpAddr::V4(_) => {
                let bits = u32::try_from(bits).context("an IPv4 address has 32 bits")?;
                let address = Ipv4Addr::from_bits(bits);
                let below = under_prefix(address.octets());
                Ok(vec![
                    Prefix { address: address.into(), length },
                    Prefix { address: below.into(), length: length + 96 },
                ])
            }
        }
    }
}

fn fits(number: u128, bits: u8) -> bool {
    number <= low_bits(bits)
}

/// That many ones.
fn low_bits(count: u8) -> u128 {
    1_u128.checked_shl(u32::from(count)).map_or(u128::MAX, |bit| bit - 1)
}

impl FromStr for Template {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let odd = || format!("template `{text}`: not of the form 169.254.0.0/20/24");
        let mut parts = text.split('/');
        let mut part = || parts.next().with_context(odd);
        let address: IpAddr = part()?.parse().ok().with_context(odd)?;
        let range: u8 = part()?.parse().ok().with_context(odd)?;
        let net: u8 = part()?.parse().ok().with_context(odd)?;
        ensure!(parts.next().is_none(), odd());
        let width = if address.is_ipv4() { 32 } else { 128 };
        ensure!(
            range <= net && net < width,
            "template `{text}`: the lengths must rise and stay below {width}"
        );
        ensure!(
            address.is_ipv4() || range > 64,
            "template `{text}`: the first length of an IPv6 template is above 64"
        );
        Ok(Self { address, range, net })
    }
}

impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.address, self.range, self.net)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(template: &str, net: u8, node: u8) -> Result<Vec<String>, String> {
        let template: Template = template.parse().map_err(|error| format!("{error:#}"))?;
        let addresses = template.addresses(NetId(net), NodeId::new(node).unwrap());
        let addresses = addresses.map_err(|error| format!("{error:#}"))?;
        Ok(addresses.iter().map(ToString::to_string).collect())
    }

    fn both(v4: &str, v6: &str) -> Result<Vec<String>, String> {
        Ok(vec![v4.to_owned(), v6.to_owned()])
    }

    #[test]
    fn net_and_node_stand_in_their_bits() {
        assert_eq!(made("169.254.0.0/20/24", 3, 1), both("169.254.3.1/24", "1000::1:a9fe:301/120"));
        assert_eq!(
            made("169.254.0.0/20/24", 15, 202),
            both("169.254.15.202/24", "1000::1:a9fe:fca/120")
        );
        assert_eq!(made("10.0.0.0/16/28", 5, 14), both("10.0.0.94/28", "1000::1:a00:5e/124"));
        // What is set beyond the range does not count.
        assert_eq!(made("10.1.2.255/16/24", 1, 1), both("10.1.1.1/24", "1000::1:a01:101/120"));
        assert_eq!(made("0.0.0.0/0/24", 255, 1), both("0.0.255.1/24", "1000::1:0:ff01/120"));
        assert_eq!(made("fd00::/96/112", 3, 1), Ok(vec!["fd00::3:1/112".to_owned()]));
        assert_eq!(made("fd00::/65/120", 3, 221), Ok(vec!["fd00::3dd/120".to_owned()]));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refused = |template, net, node| made(template, net, node).unwrap_err();
        assert_eq!(
            refused("169.254.0.0/20/24", 16, 1),
            "net 16 does not fit the 4 bits for the net in 169.254.0.0/20/24"
        );
        assert_eq!(
            refused("169.254.0.0/24/24", 1, 1),
            "net 1 does not fit the 0 bits for the net in 169.254.0.0/24/24"
        );
        assert_eq!(
            refused("10.0.0.0/16/28", 1, 15),
            "node 15 does not fit the 4 bits for the node in 10.0.0.0/16/28"
        );
        assert_eq!(
            refused("fd00::/96/124", 1, 16),
            "node 16 does not fit the 4 bits for the node in fd00::/96/124"
        );
        let odd = |text: &str| format!("template `{text}`: not of the form 169.254.0.0/20/24");
        for text in ["", "here/1/2", "1.2.3.4/20", "1.2.3.4/20/24/28", "1.2.3.4/x/24"] {
            assert_eq!(refused(text, 1, 1), odd(text));
        }
        for text in ["1.2.3.4/24/20", "1.2.3.4/20/32", "fd00::/96/128"] {
            assert!(refused(text, 1, 1).contains("must rise and stay below"), "{text}");
        }
        assert_eq!(
            refused("fd00::/64/96", 1, 1),
            "template `fd00::/64/96`: the first length of an IPv6 template is above 64"
        );
    }
}
