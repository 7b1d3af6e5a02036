//! The express plane: what the fast plane would mark is sent to the mark's next hop as soon as it comes in,
//! before the kernel's IP stack sees it.
//!
//! ```text
//! ingress of a device ─(to this machine, VIP)─▶ ip4/ip6 ─(plain)─▶ slot ▶ mark ▶ next hop
//!                                                  └─▶ on into the IP stack: fast plane, queue
//! ```
//!
//! What a slot means is its mark, as in the other planes; where a mark leads is what the kernel's routing
//! says. A packet goes on into the IP stack if there is anything to it that the stack would have to do: options,
//! a hop limit that ends, a length that the next link does not take.

mod follow;

use std::collections::BTreeMap;
use std::net::IpAddr;

use lb_core::fast::{Content, Family, Lane, lanes};
use lb_core::table::Config;
use lb_sys::nft::{Base, Comparison, Expression, Hook, MapValue, Meta, Rule, TableFamily};
use lb_sys::route::NextHop;

use crate::cidr::Cidr;
use crate::rules::guards::{guards, inits};
use crate::rules::steps::{
    FIRST, NFPROTO_IPV4, NFPROTO_IPV6, equal, find_mark, is_protocol, is_vip, network,
    protocol_name,
};
use crate::rules::{Map, Table, Wanted, chain, name_of, rule};
pub use follow::Express;

/// The counter of packets that were forwarded.
pub const EXPRESS: &str = "express";

/// Ways in, each a device and a prefix of virtual addresses, of a version of IP. Routing is asked for each of
/// them and each mark.
pub const MOST_WAYS_IN: usize = 16;
/// Of the header of IPv6.
const HEADER6_LEN: u32 = 40;
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Where packets can be sent at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// Those of the wanted devices that are there.
    pub devices: Vec<String>,
    /// The next hop of each mark, by version of IP.
    pub hops: [BTreeMap<u32, NextHop>; 2],
    /// The longest packet that all of them take.
    mtu: u32,
}

impl Ways {
    /// The next hops as maps of the kernel have them, by the maps' names.
    pub fn elements(&self) -> BTreeMap<&'static str, BTreeMap<u32, Vec<u8>>> {
        let elements = |family: Family| {
            let hops = self.hops[family as usize].iter();
            (map_of(family).0, hops.map(|(mark, hop)| (*mark, element(hop))).collect())
        };
        FAMILIES.map(elements).into()
    }

    /// The rules.
    pub fn table(&self, wanted: &Wanted, config: &Config) -> Table {
        let map = Map::of(config, wanted.mark_mask);
        let mut chains: Vec<_> = FAMILIES
            .into_iter()
            .map(|family| {
                let lanes = lanes(family, &config.modes).into_iter();
                let rules = lanes.map(|lane| self.lane_rule(wanted, &lane, config, &map)).collect();
                chain(name_of(family), None, rules)
            })
            .collect();
        chains.extend(self.devices.iter().map(|device| {
            let rules = wanted.vips.iter().map(vip_rule).collect();
            chain(format!("ingress-{device}"), Some(Hook::Ingress(device.clone())), rules)
        }));
        let hops = FAMILIES.map(|family| {
            let (name, value) = map_of(family);
            (Map { name: name.into(), size: crate::rules::MOST_COUNTED }, value)
        });
        Table {
            family: TableFamily::Netdev,
            counters: &[EXPRESS],
            chains,
            map: Some(map),
            targets: wanted.count_targets.then(Map::counters_of_targets),
            hops: hops.into(),
        }
    }

    fn lane_rule(&self, wanted: &Wanted, lane: &Lane, config: &Config, map: &Map) -> Rule {
        let mut expressions = is_protocol(lane).to_vec();
        expressions.extend(self.is_plain(lane));
        let guards = guards(wanted, lane.family, &config.modes).into_iter().chain(inits(wanted));
        let guards = guards.filter(|guard| guard.concerns(lane));
        expressions.extend(guards.flat_map(|guard| guard.no_such()));
        let (find, mark) = find_mark(lane, config, map);
        expressions.extend(find);
        // The addresses are hashed: their registers are free.
        let address = lb_sys::nft::Register(FIRST.0 + 1);
        let hops = map_of(lane.family).0.to_string();
        expressions.extend([
            // The register has the mark already, but nft 1.0.6 dies of a rule that looks up what it looked
            // up. So queues of the outgoing device can have it, too.
            Expression::SetMark { from: mark },
            Expression::Meta { key: Meta::Mark, to: mark },
            Expression::Lookup { map: hops, key: mark, to: FIRST },
        ]);
        if let Some(set) = wanted.count_targets.then(Map::counters_of_targets) {
            expressions.push(Expression::CountIn { set: set.name, key: mark });
        }
        let family = match lane.family {
            Family::V4 => NFPROTO_IPV4,
            Family::V6 => NFPROTO_IPV6,
        };
        expressions.extend([
            Expression::Count { counter: EXPRESS.into() },
            Expression::Forward { family, device: FIRST, address },
        ]);
        let version = if lane.family == Family::V4 { "IPv4" } else { "IPv6" };
        rule(format!("{version} {} to its next hop", protocol_name(lane)), expressions)
    }

    /// Whether there is nothing for the IP stack to do. It would also cut off what lies behind the length that
    /// the header tells, such as the padding of a short frame: that must not be taken for ports. A length of 0
    /// has what is longer than the field can tell; it was put together from segments.
    fn is_plain(&self, lane: &Lane) -> Vec<Expression> {
        const NO_OPTIONS: u8 = 0x45;
        const HEADER4_LEN: u16 = 20;
        let key_len: u16 = match lane.content {
            Content::Ports(_) => 4,
            Content::Echo(_) => 8,
        };
        let above = |header_len: u16| (header_len + key_len - 1).to_be_bytes();
        let compare = |comparison, value: &[u8]| Expression::Compare {
            register: FIRST,
            comparison,
            value: value.to_vec(),
        };
        let below =
            |mtu: u32| u16::try_from(mtu.saturating_add(1)).unwrap_or(u16::MAX).to_be_bytes();
        match lane.family {
            Family::V4 => vec![
                network(0, 1, FIRST),
                equal(FIRST, &[NO_OPTIONS]),
                network(8, 1, FIRST),
                compare(Comparison::Greater, &[1]),
                network(2, 2, FIRST),
                compare(Comparison::Greater, &above(HEADER4_LEN)),
                compare(Comparison::Less, &below(self.mtu)),
            ],
            Family::V6 => vec![
                network(7, 1, FIRST),
                compare(Comparison::Greater, &[1]),
                network(4, 2, FIRST),
                compare(Comparison::Greater, &above(0)),
                compare(Comparison::Less, &below(self.mtu.saturating_sub(HEADER6_LEN))),
            ],
        }
    }
}

/// Frames for this machine to a virtual address. A frame with a VLAN tag is one of another device.
fn vip_rule(vip: &Cidr) -> Rule {
    const TO_THIS_MACHINE: u8 = 0;
    let (family, ether_type) =
        if vip.is_v6() { (Family::V6, [0x86, 0xdd]) } else { (Family::V4, [0x08, 0x00]) };
    let mut expressions = vec![
        Expression::Payload { base: Base::Link, offset: 12, len: 2, to: FIRST },
        equal(FIRST, &ether_type),
    ];
    expressions.extend(is_vip(vip, family));
    expressions.extend([
        Expression::Meta { key: Meta::Addressee, to: FIRST },
        equal(FIRST, &[TO_THIS_MACHINE]),
        Expression::Goto(name_of(family).into()),
    ]);
    rule(format!("to {vip}"), expressions)
}

fn map_of(family: Family) -> (&'static str, MapValue) {
    match family {
        Family::V4 => ("hops4", MapValue::NextHop4),
        Family::V6 => ("hops6", MapValue::NextHop6),
    }
}

/// Whether a map of this name has next hops.
pub fn is_hops(map: &str) -> bool {
    FAMILIES.into_iter().any(|family| map_of(family).0 == map)
}

fn element(hop: &NextHop) -> Vec<u8> {
    let mut bytes = hop.device.to_ne_bytes().to_vec();
    match hop.address {
        IpAddr::V4(address) => bytes.extend(address.octets()),
        IpAddr::V6(address) => bytes.extend(address.octets()),
    }
    bytes
}

/// A next hop that [`element`] wrote.
pub fn next_hop_of(element: &[u8]) -> Option<(u32, IpAddr)> {
    let (device, address) = element.split_first_chunk::<4>()?;
    let address = match address.len() {
        4 => IpAddr::from(*address.first_chunk::<4>()?),
        _ => IpAddr::from(*address.first_chunk::<16>()?),
    };
    Some((u32::from_ne_bytes(*device), address))
}

/// Whether there are no more ways in than are asked about.
pub fn are_few(devices: usize, vips: &[Cidr]) -> bool {
    let of_v6 = vips.iter().filter(|vip| vip.is_v6()).count();
    of_v6.max(vips.len() - of_v6) * devices <= MOST_WAYS_IN
}
