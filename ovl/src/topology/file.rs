//! What a topology file says.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};

use super::plan::Variables;
use crate::address::{NetId, NodeId, Role};

/// A file as it was read; its lines fit together.
#[derive(Debug)]
pub struct Topology {
    pub name: String,
    pub about: String,
    pub size: SizeRange,
    pub net_names: BTreeMap<NetId, String>,
    pub(super) lines: Vec<Line>,
    /// Where it came from, for messages.
    pub(super) file: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeRange {
    pub nodes: Count,
    pub routers: Count,
    pub testers: Count,
}

/// How many nodes of a role there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub default: u8,
    pub min: u8,
    pub max: u8,
}

/// A statement about nodes.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub number: usize,
    pub who: Who,
    pub what: Statement,
    pub condition: Option<Condition>,
}

/// In the order of precedence: what is said about numbers wins over what is said about a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    All,
    Role(Role),
    Numbers(Vec<RangeInclusive<u8>>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub variable: String,
    /// None: any value but the empty one.
    pub value: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    Nets(Vec<NetId>),
    Addressing { nets: Vec<NetId>, how: Addressing },
    Bridge { name: String, of: Vec<NetId>, address: NetId },
    Mtu { net: NetId, mtu: u16 },
    Forward,
    Route(Route),
}

/// What addresses a device gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Addressing {
    /// As if it were on that network.
    As(NetId),
    None,
    /// None either, unless this variable holds a template.
    Template(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub to: Vec<Destination>,
    pub hops: Vec<Hop>,
    pub table: Option<Table>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    Default,
    Net(NetId),
    /// The virtual addresses.
    Vips,
    /// The ranges that testers send from.
    Sources,
    Prefix(Prefix),
}

/// `via GATEWAY on NET`, or `on NET` alone: whatever it is, it is on that network itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    pub gateway: Option<Gateway>,
    pub net: NetId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Gateway {
    Nodes(Vec<NodeId>),
    /// All of a role that have an address there.
    Role(Role),
    /// All of a role, each for its own address only.
    Each(Role),
}

/// A table of its own, and for which packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    pub number: u16,
    /// Those of sockets bound to the device.
    pub oif: bool,
    /// Those with the device's address as source.
    pub from: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    pub address: IpAddr,
    pub length: u8,
}

impl Count {
    pub const fn new(default: u8, min: u8, max: u8) -> Self {
        Self { default, min, max }
    }

    pub fn includes(self, number: u8) -> bool {
        (self.min..=self.max).contains(&number)
    }
}

impl SizeRange {
    pub fn of(&self, role: Role) -> Count {
        match role {
            Role::Server => self.nodes,
            Role::Router => self.routers,
            Role::Tester => self.testers,
        }
    }

    /// Whether a cluster can ever have this node.
    pub fn allows(&self, id: NodeId) -> bool {
        id.index() < self.of(id.role()).max
    }
}

impl Who {
    pub fn includes(&self, id: NodeId) -> bool {
        match self {
            Self::All => true,
            Self::Role(role) => id.role() == *role,
            Self::Numbers(ranges) => ranges.iter().any(|range| range.contains(&id.number())),
        }
    }

    pub fn is_numbers(&self) -> bool {
        matches!(self, Self::Numbers(_))
    }

    /// The higher one wins.
    pub fn rank(&self) -> u8 {
        match self {
            Self::All => 0,
            Self::Role(_) => 1,
            Self::Numbers(_) => 2,
        }
    }
}

impl Condition {
    pub fn holds(&self, variables: &Variables) -> bool {
        let given = variables.get(&self.variable).map_or("", String::as_str);
        match &self.value {
            Some(value) => given == value,
            None => !given.is_empty(),
        }
    }
}

impl Statement {
    /// What it is about. Of two statements about the same thing only one can be in force.
    pub fn subjects(&self) -> Vec<String> {
        match self {
            Self::Nets(_) => vec!["nets".to_owned()],
            Self::Addressing { nets, .. } => {
                nets.iter().map(|net| format!("the address on net {}", net.0)).collect()
            }
            Self::Bridge { name, .. } => vec![format!("bridge {name}")],
            Self::Mtu { net, .. } => vec![format!("the MTU on net {}", net.0)],
            Self::Forward => vec!["forward".to_owned()],
            Self::Route(route) => route.to.iter().map(|to| route.subject(*to)).collect(),
        }
    }

    /// The networks that it names.
    pub fn nets(&self) -> Vec<NetId> {
        match self {
            Self::Nets(nets) | Self::Bridge { of: nets, .. } => nets.clone(),
            Self::Addressing { nets, .. } => nets.clone(),
            Self::Mtu { net, .. } => vec![*net],
            Self::Forward => Vec::new(),
            Self::Route(route) => {
                let to = route.to.iter().filter_map(|to| match to {
                    Destination::Net(net) => Some(*net),
                    _ => None,
                });
                to.chain(route.hops.iter().map(|hop| hop.net)).collect()
            }
        }
    }
}

impl Route {
    pub fn subject(&self, to: Destination) -> String {
        let table = self.table.map(|table| format!(" in table {}", table.number));
        let each = if self.each().is_some() { "each address on " } else { "" };
        format!("the route to {each}{to}{}", table.unwrap_or_default())
    }

    /// The role whose nodes it leads to by their own addresses, and the network.
    pub fn each(&self) -> Option<(Role, NetId)> {
        self.hops.iter().find_map(|hop| match hop.gateway {
            Some(Gateway::Each(role)) => Some((role, hop.net)),
            _ => None,
        })
    }
}

impl FromStr for Prefix {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let whole = || format!("`{text}` is not a prefix such as 10.1.0.0/16 or 2000::/112");
        let (address, length) = text.split_once('/').with_context(whole)?;
        let address: IpAddr = address.parse().ok().with_context(whole)?;
        let length: u8 = length.parse().ok().with_context(whole)?;
        let (bits, width) = match address {
            IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
            IpAddr::V6(address) => (address.to_bits(), 128),
        };
        ensure!(length <= width, "`{text}`: the length is {width} at most");
        let below = 1_u128.checked_shl(u32::from(width - length)).map_or(u128::MAX, |bit| bit - 1);
        ensure!(bits & below == 0, "`{text}` has bits set beyond its length");
        Ok(Self { address, length })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Net(net) => write!(f, "net {}", net.0),
            Self::Vips => f.write_str("vips"),
            Self::Sources => f.write_str("sources"),
            Self::Prefix(prefix) => write!(f, "{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_whole() {
        let refused = |text: &str| text.parse::<Prefix>().unwrap_err().to_string();
        for good in ["0.0.0.0/0", "::/0", "10.1.0.0/16", "1.2.3.4/32", "2000::/112", "::1/128"] {
            assert_eq!(good.parse::<Prefix>().unwrap().to_string(), good);
        }
        let odd = "is not a prefix such as 10.1.0.0/16 or 2000::/112";
        assert_eq!(refused("10.1.0.0"), format!("`10.1.0.0` {odd}"));
        assert_eq!(refused("here/16"), format!("`here/16` {odd}"));
        assert_eq!(refused("10.0.0.0/-1"), format!("`10.0.0.0/-1` {odd}"));
        assert_eq!(refused("10.0.0.0/33"), "`10.0.0.0/33`: the length is 32 at most");
        assert_eq!(refused("10.1.0.0/8"), "`10.1.0.0/8` has bits set beyond its length");
        assert_eq!(refused("::1/0"), "`::1/0` has bits set beyond its length");
    }

    #[test]
    fn a_condition_asks_for_a_variable() {
        let variables = Variables::from([
            ("SET".to_owned(), "yes".to_owned()),
            ("EMPTY".to_owned(), String::new()),
        ]);
        let holds = |variable: &str, value: Option<&str>| {
            Condition { variable: variable.to_owned(), value: value.map(str::to_owned) }
                .holds(&variables)
        };
        assert!(holds("SET", None));
        assert!(holds("SET", Some("yes")));
        assert!(!holds("SET", Some("no")));
        assert!(!holds("EMPTY", None));
        assert!(!holds("ABSENT", None));
        assert!(!holds("ABSENT", Some("yes")));
    }
}
