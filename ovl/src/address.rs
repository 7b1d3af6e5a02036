//! Numbers of nodes and networks, and the addresses that follow from them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The number of a node: 1 to 200 cluster nodes, 201 to 220 routers, 221 to 240 testers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(u8);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Server,
    Router,
    Tester,
}

impl Role {
    /// The word for it in files and variables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "vm",
            Self::Router => "router",
            Self::Tester => "tester",
        }
    }

    /// How many nodes of this role there can be.
    pub fn limit(self) -> u8 {
        match self {
            Self::Server => 200,
            Self::Router | Self::Tester => 20,
        }
    }

    /// The number before that of its first node.
    fn base(self) -> u8 {
        match self {
            Self::Server => 0,
            Self::Router => 200,
            Self::Tester => 220,
        }
    }

    /// Its first `count` nodes.
    pub fn nodes(self, count: u8) -> impl Iterator<Item = NodeId> + use<> {
        (1..=count.min(self.limit())).map(move |index| NodeId(self.base() + index))
    }
}

/// The number of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetId(pub u8);

pub const CLUSTER_NET: NetId = NetId(1);
pub const EXTERNAL_NET: NetId = NetId(2);

/// What IPv6 addresses begin with; the IPv4 address follows.
pub const PREFIX: &str = "1000::1";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl NodeId {
    /// The server that scenarios pick when they need one.
    pub const VM_003: Self = Self(3);
    pub const ROUTER: Self = Self(201);
    /// The second one, where there is one.
    pub const ROUTER_2: Self = Self(202);
    pub const TESTER: Self = Self(221);
    /// The tester that stands between routers and tester, where there is one.
    pub const BETWEEN: Self = Self(222);

    /// None when no role has this number.
    pub fn new(number: u8) -> Option<Self> {
        (1..=240).contains(&number).then_some(Self(number))
    }

    pub fn number(self) -> u8 {
        self.0
    }

    pub fn role(self) -> Role {
        match self.0 {
            ..=200 => Role::Server,
            201..=220 => Role::Router,
            _ => Role::Tester,
        }
    }

    /// Its place among the nodes of its role, from 0.
    pub fn index(self) -> u8 {
        self.0 - self.role().base() - 1
    }

    /// The hardware address of this node's device on a network.
    pub fn mac(self, net: NetId) -> String {
        format!("00:00:00:01:{:02x}:{:02x}", net.0, self.0)
    }
}

/// The host name.
impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vm-{:03}", self.0)
    }
}

impl Family {
    /// The address of a node on a network.
    pub fn address(self, net: NetId, node: NodeId) -> IpAddr {
        let low = [192, 168, net.0, node.0];
        match self {
            Self::V4 => Ipv4Addr::from(low).into(),
            Self::V6 => under_prefix(low).into(),
        }
    }

    /// The prefix length of every network.
    pub fn net_length(self) -> u8 {
        match self {
            Self::V4 => 24,
            Self::V6 => 120,
        }
    }

    /// The virtual address that every server owns.
    pub fn vip(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 0, 0, 0).into(),
            Self::V6 => Ipv6Addr::new(0x1000, 0, 0, 0, 0, 0, 0, 0).into(),
        }
    }

    /// The virtual address as a prefix of one address.
    pub fn vip_prefix(self) -> String {
        match self {
            Self::V4 => format!("{}/32", self.vip()),
            Self::V6 => format!("{}/128", self.vip()),
        }
    }

    /// A network as a prefix.
    pub fn net_prefix(self, net: NetId) -> String {
        let low = [192, 168, net.0, 0];
        match self {
            Self::V4 => format!("{}/24", Ipv4Addr::from(low)),
            Self::V6 => format!("{}/120", under_prefix(low)),
        }
    }

    /// Where virtual addresses may be.
    pub fn vip_ranges(self) -> Vec<String> {
        match self {
            Self::V4 => vec!["10.0.0.0/24".to_owned()],
            Self::V6 => {
                vec!["1000::/120".to_owned(), format!("{}/120", under_prefix([10, 0, 0, 0]))]
            }
        }
    }

    /// Where testers may send from.
    pub fn source_ranges(self) -> Vec<String> {
        let other = match self {
            Self::V4 => "50.0.0.0/16",
            Self::V6 => "2000::/112",
        };
        vec![self.source_prefix(), other.to_owned()]
    }

    /// Number `index` of the 65,536 addresses that a tester sends from.
    pub fn source(self, index: u16) -> IpAddr {
        let [high, low] = index.to_be_bytes();
        match self {
            Self::V4 => Ipv4Addr::new(20, 0, high, low).into(),
            Self::V6 => under_prefix([20, 0, high, low]).into(),
        }
    }

    /// The range of all those addresses.
    pub fn source_prefix(self) -> String {
        let length = match self {
            Self::V4 => 16,
            Self::V6 => 112,
        };
        format!("{}/{length}", self.source(0))
    }

    /// The ICMP type of an echo request.
    pub fn echo_request(self) -> u8 {
        match self {
            Self::V4 => 8,
            Self::V6 => 128,
        }
    }

    /// The ICMP type of an echo reply.
    pub fn echo_reply(self) -> u8 {
        match self {
            Self::V4 => 0,
            Self::V6 => 129,
        }
    }

    /// The program that holds this family's rules.
    pub fn iptables(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }

    /// The command that sets up this family's routes.
    pub fn ip(self) -> &'static str {
        match self {
            Self::V4 => "ip -4",
            Self::V6 => "ip -6",
        }
    }

    /// The family's name in nftables rules.
    pub fn nft(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// `1000::1:a.b.c.d`
pub fn under_prefix([a, b, c, d]: [u8; 4]) -> Ipv6Addr {
    let high = u16::from_be_bytes([a, b]);
    let low = u16::from_be_bytes([c, d]);
    Ipv6Addr::new(0x1000, 0, 0, 0, 0, 1, high, low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn numbers_tell_the_role() {
        let role = |number| NodeId::new(number).map(NodeId::role);
        assert_eq!(role(0), None);
        assert_eq!(role(1), Some(Role::Server));
        assert_eq!(role(200), Some(Role::Server));
        assert_eq!(role(201), Some(Role::Router));
        assert_eq!(role(220), Some(Role::Router));
        assert_eq!(role(221), Some(Role::Tester));
        assert_eq!(role(240), Some(Role::Tester));
        assert_eq!(role(241), None);
    }

    #[test]
    fn addresses_hold_network_and_node() {
        let node = NodeId::new(4).unwrap();
        assert_eq!(Family::V4.address(CLUSTER_NET, node), parsed("192.168.1.4"));
        assert_eq!(Family::V6.address(CLUSTER_NET, node), parsed("1000::1:192.168.1.4"));
        assert_eq!(
            Family::V6.address(EXTERNAL_NET, NodeId::TESTER),
            parsed("1000::1:192.168.2.221")
        );
        assert_eq!(NodeId::ROUTER.mac(EXTERNAL_NET), "00:00:00:01:02:c9");
        assert_eq!(node.to_string(), "vm-004");
    }

    #[test]
    fn sources_fill_the_range() {
        assert_eq!(Family::V4.source(0), parsed("20.0.0.0"));
        assert_eq!(Family::V4.source(0x0102), parsed("20.0.1.2"));
        assert_eq!(Family::V6.source(0xffff), parsed("1000::1:20.0.255.255"));
        assert_eq!(Family::V4.source_prefix(), "20.0.0.0/16");
        assert_eq!(Family::V6.source_prefix(), "1000::1:1400:0/112");
    }
}
