//! Follows packets through a plan, as written in the files of its nodes, to see that they arrive.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::file::{Prefix, Topology};
use super::plan::{FORWARD, IP4, IP6, LINKS, NodePlan, Plan, ROUTES4, ROUTES6, Size, Variables};
use super::{BUILT_IN, ROLES};
use crate::address::{FAMILIES, Family, NetId, NodeId, Role};

/// The nodes of one family, with their main tables.
struct Cluster {
    nodes: BTreeMap<NodeId, Node>,
    /// Networks joined by a bridge are one: the smallest number stands for all of them.
    joined: BTreeMap<NetId, NetId>,
}

struct Node {
    forwards: bool,
    /// The network of each device and bridge.
    nets: BTreeMap<String, NetId>,
    addresses: Vec<(Prefix, String)>,
    routes: Vec<(Prefix, Vec<Hop>)>,
}

#[derive(Clone)]
struct Hop {
    gateway: Option<IpAddr>,
    device: String,
}

/// Where a packet's journey ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Arrived(NodeId),
    NoRoute(NodeId),
}

impl Cluster {
    fn new(plan: &Plan, family: Family) -> Self {
        let mut joined: BTreeMap<NetId, NetId> = plan.nets.iter().map(|net| (*net, *net)).collect();
        let mut nodes = BTreeMap::new();
        for node in &plan.nodes {
            let mut nets: BTreeMap<String, NetId> =
                node.devices.iter().map(|device| (device.name.clone(), device.net)).collect();
            for (device, bridge) in masters(node) {
                let net = nets[&device];
                let first = *nets.entry(bridge).or_insert(net);
                let first = joined[&first];
                joined.insert(net, first);
            }
            nodes.insert(node.id, Node::new(node, nets, family));
        }
        Self { nodes, joined }
    }

    /// Where a packet can end, over all members of routes with several ways.
    fn follow(&self, from: NodeId, to: IpAddr) -> BTreeSet<End> {
        let mut ends = BTreeSet::new();
        self.step(from, to, &mut Vec::new(), &mut ends);
        ends
    }

    fn step(&self, at: NodeId, to: IpAddr, seen: &mut Vec<NodeId>, ends: &mut BTreeSet<End>) {
        assert!(!seen.contains(&at), "a packet for {to} goes in a circle: {seen:?} {at}");
        let node = &self.nodes[&at];
        if node.addresses.iter().any(|(own, _)| own.address == to) {
            ends.insert(End::Arrived(at));
            return;
        }
        assert!(seen.is_empty() || node.forwards, "{at} gets a packet for {to}: {seen:?}");
        let Some(hops) = node.hops(to) else {
            ends.insert(End::NoRoute(at));
            return;
        };
        seen.push(at);
        for Hop { gateway, device } in hops {
            let next = gateway.unwrap_or(to);
            let net = self.joined[&node.nets[&device]];
            let next = self.owner(next, net);
            let next = next.unwrap_or_else(|| panic!("{at}: nobody is {gateway:?} for {to}"));
            self.step(next, to, seen, ends);
        }
        seen.pop();
    }

    fn owner(&self, address: IpAddr, net: NetId) -> Option<NodeId> {
        let owns = |node: &Node| {
            node.addresses.iter().any(|(own, device)| {
                own.address == address && self.joined[&node.nets[device]] == net
            })
        };
        self.nodes.iter().find(|(_, node)| owns(node)).map(|(id, _)| *id)
    }

    fn of_role(&self, role: Role) -> Vec<NodeId> {
        self.nodes.keys().copied().filter(|id| id.role() == role).collect()
    }

    /// The addresses of a node on networks of the test.
    fn addresses(&self, id: NodeId, but: &[u8]) -> Vec<IpAddr> {
        let node = &self.nodes[&id];
        let tested = |(_, device): &&(Prefix, String)| {
            let net = node.nets[device].0;
            net != 0 && !but.contains(&net)
        };
        node.addresses.iter().filter(tested).map(|(own, _)| own.address).collect()
    }
}

impl Node {
    fn new(plan: &NodePlan, nets: BTreeMap<String, NetId>, family: Family) -> Self {
        let (addresses, routes) = match family {
            Family::V4 => (IP4, ROUTES4),
            Family::V6 => (IP6, ROUTES6),
        };
        let address = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let [["addr", "add"], [address, "dev"]] = [[words[0], words[1]], [words[2], words[3]]]
            else {
                panic!("odd address: {line}")
            };
            let (address, length) = address.split_once('/').unwrap();
            let address = address.parse().unwrap();
            (Prefix { address, length: length.parse().unwrap() }, words[4].to_owned())
        };
        Self {
            forwards: plan.file(FORWARD).is_some(),
            nets,
            addresses: plan.file(addresses).unwrap().lines().map(address).collect(),
            routes: plan
                .file(routes)
                .unwrap()
                .lines()
                .filter(|line| !line.starts_with("rule ") && !line.contains(" table "))
                .map(|line| route(line, family))
                .collect(),
        }
    }

    /// The ways of the longest prefix; networks of its own count as routes.
    fn hops(&self, to: IpAddr) -> Option<Vec<Hop>> {
        let own = self
            .addresses
            .iter()
            .map(|(prefix, device)| (*prefix, vec![Hop { gateway: None, device: device.clone() }]));
        own.chain(self.routes.iter().cloned())
            .filter(|(prefix, _)| contains(prefix, to))
            .max_by_key(|(prefix, _)| prefix.length)
            .map(|(_, hops)| hops)
    }
}

fn masters(node: &NodePlan) -> Vec<(String, String)> {
    let lines = node.file(LINKS).unwrap().lines();
    let words = lines.map(|line| line.split(' ').collect::<Vec<_>>());
    words
        .filter_map(|words| {
            let master = words.iter().position(|word| *word == "master")?;
            Some((words[2].to_owned(), words[master + 1].to_owned()))
        })
        .collect()
}

fn route(line: &str, family: Family) -> (Prefix, Vec<Hop>) {
    let whole = match family {
        Family::V4 => 32,
        Family::V6 => 128,
    };
    let rest = line.strip_prefix("route add ").unwrap_or_else(|| panic!("odd route: {line}"));
    let (to, ways) = rest.split_once(' ').unwrap();
    let to = match (to, family) {
        ("default", Family::V4) => "0.0.0.0/0".parse().unwrap(),
        ("default", Family::V6) => "::/0".parse().unwrap(),
        (range, _) if range.contains('/') => range.parse().unwrap(),
        (address, _) => Prefix { address: address.parse().unwrap(), length: whole },
    };
    let hop = |way: &str| {
        let words: Vec<&str> = way.split_whitespace().collect();
        match words[..] {
            ["via", gateway, "dev", device] => {
                Hop { gateway: Some(gateway.parse().unwrap()), device: device.to_owned() }
            }
            ["dev", device] => Hop { gateway: None, device: device.to_owned() },
            _ => panic!("odd way: {way}"),
        }
    };
    let ways: Vec<Hop> =
        ways.split("nexthop").filter(|way| !way.trim().is_empty()).map(hop).collect();
    assert!(ways.iter().all(|way| way.gateway.is_none_or(|at| at.is_ipv4() == (whole == 32))));
    (to, ways)
}

fn contains(prefix: &Prefix, address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    };
    prefix.length == 0 || (bits(prefix.address) ^ bits(address)) >> (128 - prefix.length) == 0
}

/// Networks on which cluster nodes are for themselves.
fn private_nets(topology: &str) -> &'static [u8] {
    match topology {
        "backend" => &[1],
        "multilan-router" => &[3, 4, 5],
        _ => &[],
    }
}

fn everybody_is_reached(plan: &Plan) {
    let name = &plan.topology;
    let private = private_nets(name);
    for family in FAMILIES {
        let cluster = Cluster::new(plan, family);
        let (vms, testers) = (cluster.of_role(Role::Server), cluster.of_role(Role::Tester));
        for (from, to) in pairs(&vms, &testers).chain(pairs(&testers, &vms)) {
            let addresses = cluster.addresses(to, private);
            assert!(!addresses.is_empty());
            for address in addresses {
                let ends = cluster.follow(from, address);
                assert_eq!(ends, [End::Arrived(to)].into(), "{name}: {from} to {address}");
            }
        }
        // Whoever answers testers finds the way to all their sources.
        if testers.contains(&NodeId::TESTER) {
            for from in vms.iter().chain(&cluster.of_role(Role::Router)) {
                for range in family.source_ranges() {
                    assert!(sources_arrive(&cluster, *from, &range), "{name}: {from} to {range}");
                }
            }
        }
        // There is a single network, so nobody stands before the cluster nodes.
        if name != "bridge" {
            for from in testers.iter().chain(&cluster.of_role(Role::Router)) {
                for range in family.vip_ranges() {
                    vips_meet_routers(&cluster, *from, &range);
                }
            }
        }
    }
}

fn pairs(from: &[NodeId], to: &[NodeId]) -> impl Iterator<Item = (NodeId, NodeId)> {
    from.iter().flat_map(|from| to.iter().map(|to| (*from, *to)))
}

/// The way ends at the tester, which holds these addresses beside its own, or at one before it on
/// the other way.
fn sources_arrive(cluster: &Cluster, from: NodeId, range: &str) -> bool {
    let range: Prefix = range.parse().unwrap();
    let mut owned = Cluster { nodes: BTreeMap::new(), joined: cluster.joined.clone() };
    for (id, node) in &cluster.nodes {
        let mut addresses = node.addresses.clone();
        if *id == NodeId::TESTER {
            // Not on a device of a network: nobody is asked for it there.
            addresses.push((Prefix { length: 128, ..range }, "eth0".to_owned()));
        }
        let (nets, routes) = (node.nets.clone(), node.routes.clone());
        owned.nodes.insert(*id, Node { forwards: node.forwards, nets, addresses, routes });
    }
    owned.follow(from, range.address) == [End::Arrived(NodeId::TESTER)].into()
}

/// They get as far as a router beside the cluster nodes, where the load balancer is.
fn vips_meet_routers(cluster: &Cluster, from: NodeId, range: &str) {
    let range: Prefix = range.parse().unwrap();
    let vm_nets: BTreeSet<NetId> = cluster
        .of_role(Role::Server)
        .iter()
        .flat_map(|id| cluster.nodes[id].nets.values().copied())
        .filter(|net| net.0 != 0)
        .collect();
    for end in cluster.follow(from, range.address) {
        let End::NoRoute(at) = end else { panic!("{from}: {} at {end:?}", range.address) };
        assert_eq!(at.role(), Role::Router);
        let beside = cluster.nodes[&at].nets.values().any(|net| vm_nets.contains(net));
        assert!(beside, "{from}: {} ends at {at}", range.address);
    }
}

fn variables(words: &[(&str, &str)]) -> Variables {
    words.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn all_topologies_lead_everywhere() {
    let sets = [
        variables(&[]),
        variables(&[
            ("CROSSROUTE", "yes"),
            ("XLAN_TEMPLATE", "169.254.0.0/20/24"),
            ("MTU", "9000"),
        ]),
    ];
    for (name, _) in BUILT_IN {
        let topology = Topology::find_in(name, &[]).unwrap();
        for variables in &sets {
            for size in sizes(&topology) {
                everybody_is_reached(&topology.plan(&size, &[], variables).unwrap());
            }
        }
    }
}

/// The default, the smallest and a larger one.
fn sizes(topology: &Topology) -> [Size; 3] {
    let size = |count: fn(super::file::Count) -> u8| {
        let [nodes, routers, testers] = ROLES.map(|role| Some(count(topology.size.of(role))));
        Size { nodes, routers, testers }
    };
    [
        Size::default(),
        size(|count| count.min.max(1)),
        size(|count| count.max.min(count.default + 3)),
    ]
}

#[test]
fn zones_reach_each_other() {
    let topology = Topology::find_in("zones", &[]).unwrap();
    let extra = [10, 13, 20, 23].map(|number| NodeId::new(number).unwrap());
    let plan = topology.plan(&Size::default(), &extra, &Variables::new()).unwrap();
    everybody_is_reached(&plan);
    for family in FAMILIES {
        let cluster = Cluster::new(&plan, family);
        let vms = cluster.of_role(Role::Server);
        for (from, to) in pairs(&vms, &vms) {
            for address in cluster.addresses(to, &[]) {
                assert_eq!(cluster.follow(from, address), [End::Arrived(to)].into());
            }
        }
    }
}

#[test]
fn crossroutes_lead_either_way_to_both_addresses() {
    let topology = Topology::find_in("dual-path", &[]).unwrap();
    let plan = |words| topology.plan(&Size::default(), &[], &variables(words)).unwrap();
    let [vm, tester] = [NodeId::VM_003, NodeId::TESTER];
    for family in FAMILIES {
        let from = |router: u8, plan: &Plan, net: u8, to: NodeId| {
            let router = NodeId::new(router).unwrap();
            Cluster::new(plan, family).follow(router, family.address(NetId(net), to))
        };
        let crossed = plan(&[("CROSSROUTE", "yes")]);
        for (router, net, to) in [(203, 4, vm), (204, 1, vm), (201, 6, tester), (202, 2, tester)] {
            assert_eq!(from(router, &crossed, net, to), [End::Arrived(to)].into());
        }
        // They share nothing otherwise.
        let no_way = |router| [End::NoRoute(NodeId::new(router).unwrap())].into();
        let apart = plan(&[("CROSSROUTE", "no")]);
        assert_eq!(from(203, &apart, 4, vm), no_way(201));
        assert_eq!(from(204, &apart, 1, vm), no_way(202));
        assert_eq!(from(201, &apart, 6, tester), no_way(203));
        assert_eq!(from(202, &apart, 2, tester), no_way(204));
    }
}
