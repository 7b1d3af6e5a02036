//! The files that tell a node of a cluster what it has: see [`plan`](super::plan) for each.

use std::fmt::Write;

use anyhow::{Result, ensure};

use super::file::{Destination, Prefix, Table};
use super::layout::{Interface, Layout, NodeLayout, Path, Target, Way};
use super::parse::check_variable;
use super::plan::{self, NodePlan, Plan, PlanFile, Variables};
use crate::address::{FAMILIES, Family, NetId, NodeId, PREFIX, Role};

/// The names that a node's own assignments have.
const TAKEN: [&str; 8] =
    ["NODE", "NODE_NAME", "ROLE", "NODES", "ROUTERS", "TESTERS", "TOPOLOGY", "PREFIX"];

pub fn plan(topology: &str, layout: &Layout, variables: &Variables) -> Result<Plan> {
    check(layout, variables)?;
    let hosts = hosts(layout);
    let nodes = layout.nodes.iter().map(|node| NodePlan {
        id: node.id,
        devices: node.devices.clone(),
        files: files(topology, layout, node, variables, &hosts),
    });
    Ok(Plan {
        topology: topology.to_owned(),
        nets: layout.nets.iter().copied().collect(),
        nodes: nodes.collect(),
    })
}

fn check(layout: &Layout, variables: &Variables) -> Result<()> {
    for name in variables.keys() {
        check_variable(name)?;
        ensure!(!TAKEN.contains(&name.as_str()), "variable {name}: nodes have it already");
        let net = name.strip_prefix("MTU").filter(|number| !number.is_empty());
        if let Some(net) = net.and_then(|number| number.parse().ok()) {
            let known = net != 0 && layout.nets.contains(&NetId(net));
            ensure!(known, "variable {name}: net {net} is not one of the test's nets");
        }
    }
    Ok(())
}

fn files(
    topology: &str,
    layout: &Layout,
    node: &NodeLayout,
    variables: &Variables,
    hosts: &str,
) -> Vec<PlanFile> {
    let [v4, v6] = FAMILIES;
    let mut files = vec![
        (plan::NODE, identity(topology, layout, node, variables)),
        (plan::LINKS, links(node)),
        (plan::IP4, addresses(node, v4)),
        (plan::IP6, addresses(node, v6)),
        (plan::ROUTES4, routes(node, v4)),
        (plan::ROUTES6, routes(node, v6)),
        (plan::HOSTS, hosts.to_owned()),
    ];
    if node.forward {
        files.push((plan::FORWARD, String::new()));
    }
    let file = |(path, content): (&str, String)| PlanFile { path: path.to_owned(), content };
    files.into_iter().map(file).collect()
}

fn identity(topology: &str, layout: &Layout, node: &NodeLayout, variables: &Variables) -> String {
    let numbers = |role: Role| {
        let ids = layout.nodes.iter().map(|node| node.id).filter(|id| id.role() == role);
        ids.map(|id| id.number().to_string()).collect::<Vec<_>>().join(" ")
    };
    let id = node.id;
    let mut text = format!(
        "NODE={}\nNODE_NAME={id}\nROLE={}\nNODES=\"{}\"\nROUTERS=\"{}\"\nTESTERS=\"{}\"\n\
         TOPOLOGY={}\nPREFIX={PREFIX}\n",
        id.number(),
        id.role().name(),
        numbers(Role::Server),
        numbers(Role::Router),
        numbers(Role::Tester),
        // The name of a user's file may be anything.
        quoted_unless_plain(topology),
    );
    for (name, value) in variables {
        let _ = writeln!(text, "{name}={}", quoted(value));
    }
    text
}

fn quoted_unless_plain(word: &str) -> String {
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if plain { word.to_owned() } else { quoted(word) }
}

/// One word for a shell, whatever is in it.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

fn links(node: &NodeLayout) -> String {
    let mut batch = String::new();
    let bridge_of = |net| {
        node.interfaces
            .iter()
            .find(|interface| interface.is_bridge() && interface.nets.contains(&net))
    };
    for bridge in node.interfaces.iter().filter(|interface| interface.is_bridge()) {
        let (name, mac) = (&bridge.name, bridge_mac(node.id, bridge));
        let _ = writeln!(batch, "link add {name} address {mac} type bridge mcast_snooping 0");
    }
    for device in &node.devices {
        let mtu = device.mtu.map(|mtu| format!(" mtu {mtu}")).unwrap_or_default();
        let master = bridge_of(device.net).map(|bridge| format!(" master {}", bridge.name));
        let master = master.unwrap_or_default();
        let _ = writeln!(batch, "link set {}{mtu}{master} up", device.name);
    }
    for bridge in node.interfaces.iter().filter(|interface| interface.is_bridge()) {
        let _ = writeln!(batch, "link set {} up", bridge.name);
    }
    format!("ip -batch - <<END\n{batch}END\n")
}

/// Unlike the address of any device.
fn bridge_mac(id: NodeId, bridge: &Interface) -> String {
    let net = bridge.subnet.map_or(0, |net| net.0);
    format!("00:00:01:01:{net:02x}:{:02x}", id.number())
}

fn addresses(node: &NodeLayout, family: Family) -> String {
    let mut batch = String::new();
    let nodad = match family {
        Family::V4 => "",
        Family::V6 => " nodad",
    };
    for interface in &node.interfaces {
        for address in interface.addresses.iter().filter(|address| is(family, address)) {
            let _ = writeln!(batch, "addr add {address} dev {}{nodad}", interface.name);
        }
    }
    batch
}

fn routes(node: &NodeLayout, family: Family) -> String {
    let mut lines: Vec<String> = Vec::new();
    for path in &node.routes {
        let mut table_word = String::new();
        if let (Some(table), Some(way)) = (path.table, path.ways.first()) {
            table_word = format!(" table {}", table.number);
            // Several routes may share a table.
            for line in table_lines(node, way, table, family) {
                if !lines.contains(&line) {
                    lines.push(line);
                }
            }
        }
        for to in destinations(path, family) {
            lines.push(format!("route add {to}{table_word}{}", ways(path, family)));
        }
    }
    lines.iter().fold(String::new(), |batch, line| batch + line + "\n")
}

/// What leads to a table, and the network that its gateways are on.
fn table_lines(node: &NodeLayout, way: &Way, table: Table, family: Family) -> Vec<String> {
    let (name, number) = (&way.interface, table.number);
    let mut lines = Vec::new();
    if table.oif {
        lines.push(format!("rule add oif {name} lookup {number}"));
    }
    if let Some(subnet) = way.subnet {
        if table.from {
            let own = family.address(subnet, node.id);
            lines.push(format!("rule add from {own} lookup {number}"));
        }
        lines.push(format!("route add {} table {number} dev {name}", family.net_prefix(subnet)));
    }
    lines
}

fn ways(path: &Path, family: Family) -> String {
    let hop = |way: &Way| {
        let gateway = way.gateway.zip(way.subnet);
        let gateway = gateway.map(|(id, subnet)| format!(" via {}", family.address(subnet, id)));
        format!("{} dev {}", gateway.unwrap_or_default(), way.interface)
    };
    match path.ways.as_slice() {
        [only] => hop(only),
        ways => ways.iter().fold(String::new(), |text, way| format!("{text} nexthop{}", hop(way))),
    }
}

/// As `ip route` wants them.
fn destinations(path: &Path, family: Family) -> Vec<String> {
    match path.to {
        Target::Node(id, net) => vec![family.address(net, id).to_string()],
        Target::Range(Destination::Default) => vec!["default".to_owned()],
        Target::Range(Destination::Net(net)) => vec![family.net_prefix(net)],
        Target::Range(Destination::Vips) => family.vip_ranges(),
        Target::Range(Destination::Sources) => family.source_ranges(),
        Target::Range(Destination::Prefix(prefix)) => {
            is(family, &prefix).then(|| prefix.to_string()).into_iter().collect()
        }
    }
}

fn is(family: Family, prefix: &Prefix) -> bool {
    prefix.address.is_ipv4() == (family == Family::V4)
}

fn hosts(layout: &Layout) -> String {
    let mut lines = String::new();
    for node in &layout.nodes {
        let addresses = node.main_interface().into_iter().flat_map(|main| &main.addresses);
        for Prefix { address, .. } in addresses {
            let _ = writeln!(lines, "{address} {}", node.id);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::file::Topology;
    use super::super::plan::{Device, Size};
    use super::*;

    /// The plan of two cluster nodes, and what else the topology has.
    fn planned(name: &str, variables: &[(&str, &str)]) -> Plan {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables = variables.iter().map(pair).collect();
        let size = Size { nodes: Some(2), ..Size::default() };
        Topology::find_in(name, &[]).unwrap().plan(&size, &[], &variables).unwrap()
    }

    fn file<'a>(plan: &'a Plan, node: u8, path: &str) -> &'a str {
        plan.node(NodeId::new(node).unwrap()).unwrap().file(path).unwrap()
    }

    #[test]
    fn a_node_knows_who_it_is() {
        let plan = planned("xnet", &[("GREETING", "it's $HOME"), ("MTU2", "1400")]);
        assert_eq!(
            file(&plan, 221, plan::NODE),
            "NODE=221\nNODE_NAME=vm-221\nROLE=tester\nNODES=\"1 2\"\nROUTERS=\"201 202\"\n\
             TESTERS=\"221\"\nTOPOLOGY=xnet\nPREFIX=1000::1\n\
             GREETING='it'\\''s $HOME'\nMTU2='1400'\n"
        );
        assert_eq!(quoted_unless_plain("my net"), "'my net'");
        let tester = plan.node(NodeId::TESTER).unwrap();
        let device = |name: &str, net, mtu| Device { name: name.to_owned(), net: NetId(net), mtu };
        assert_eq!(tester.devices, [device("eth0", 0, None), device("eth1", 2, Some(1400))]);
        assert_eq!(plan.nets, [NetId(0), NetId(1), NetId(2)]);
        assert_eq!(
            file(&plan, 221, plan::LINKS),
            "ip -batch - <<END\nlink set eth0 up\nlink set eth1 mtu 1400 up\nEND\n"
        );
        let hosts = file(&plan, 1, plan::HOSTS);
        assert!(hosts.starts_with("192.168.1.1 vm-001\n1000::1:c0a8:101 vm-001\n"), "{hosts}");
        assert!(hosts.ends_with("192.168.2.221 vm-221\n1000::1:c0a8:2dd vm-221\n"), "{hosts}");
    }

    #[test]
    fn routers_forward_and_an_evil_tester_too() {
        let plan = planned("evil-tester", &[]);
        let forwards = |node: &&NodePlan| node.file(plan::FORWARD).is_some();
        let numbers: Vec<u8> =
            plan.nodes.iter().filter(forwards).map(|node| node.id.number()).collect();
        assert_eq!(numbers, [201, 202, 222]);
        assert_eq!(
            file(&plan, 222, plan::ROUTES4),
            "route add default nexthop via 192.168.3.201 dev eth1 nexthop via 192.168.3.202 dev eth1\n\
             route add 20.0.0.0/16 via 192.168.2.221 dev eth2\n\
             route add 50.0.0.0/16 via 192.168.2.221 dev eth2\n"
        );
    }

    #[test]
    fn the_special_mtu_wins_over_the_file_and_the_file_over_the_general_one() {
        let text = "about x\nsize nodes 1 routers 1 testers 1\nall nets 0 1 2 3\nall mtu 1 1400\n\
                    all mtu 2 1500\n";
        let topology = Topology::parse("x", "x.topo", text).unwrap();
        let variables =
            [("MTU".to_owned(), "9000".to_owned()), ("MTU2".to_owned(), "2000".to_owned())];
        let plan = topology.plan(&Size::default(), &[], &variables.into()).unwrap();
        let mtu: Vec<_> = plan.nodes[0].devices.iter().map(|device| device.mtu).collect();
        assert_eq!(mtu, [None, Some(1400), Some(2000), Some(9000)]);
    }

    #[test]
    fn dual_path_has_a_table_for_its_second_way() {
        let plan = planned("dual-path", &[("CROSSROUTE", "yes")]);
        assert_eq!(
            file(&plan, 1, plan::ROUTES4),
            "route add default via 192.168.1.201 dev eth1\n\
             route add 192.168.6.0/24 via 192.168.4.202 dev eth2\n\
             rule add oif eth2 lookup 300\n\
             route add 192.168.4.0/24 table 300 dev eth2\n\
             route add default table 300 via 192.168.4.202 dev eth2\n"
        );
        assert_eq!(
            file(&plan, 221, plan::ROUTES6),
            "route add default via 1000::1:c0a8:2cb dev eth1\n\
             route add 1000::1:c0a8:400/120 via 1000::1:c0a8:6cc dev eth2\n\
             rule add oif eth2 lookup 300\n\
             route add 1000::1:c0a8:600/120 table 300 dev eth2\n\
             route add default table 300 via 1000::1:c0a8:6cc dev eth2\n"
        );
        assert_eq!(
            file(&plan, 202, plan::ROUTES4),
            "route add 192.168.6.0/24 via 192.168.5.204 dev eth2\n\
             route add 192.168.2.0/24 via 192.168.5.204 dev eth2\n\
             route add 20.0.0.0/16 via 192.168.5.204 dev eth2\n\
             route add 50.0.0.0/16 via 192.168.5.204 dev eth2\n\
             route add 192.168.1.1 via 192.168.4.1 dev eth1\n\
             route add 192.168.1.2 via 192.168.4.2 dev eth1\n"
        );
        assert_eq!(
            file(&plan, 203, plan::ROUTES6),
            "route add 1000::1:c0a8:100/120 via 1000::1:c0a8:3c9 dev eth1\n\
             route add 1000::1:c0a8:400/120 via 1000::1:c0a8:3c9 dev eth1\n\
             route add 1000::/120 via 1000::1:c0a8:3c9 dev eth1\n\
             route add 1000::1:a00:0/120 via 1000::1:c0a8:3c9 dev eth1\n\
             route add 1000::1:1400:0/112 via 1000::1:c0a8:2dd dev eth2\n\
             route add 2000::/112 via 1000::1:c0a8:2dd dev eth2\n\
             route add 1000::1:c0a8:6dd via 1000::1:c0a8:2dd dev eth2\n"
        );
    }

    #[test]
    fn a_diamond_has_two_ways() {
        let plan = planned("diamond", &[]);
        let ways4 = "nexthop via 192.168.3.203 dev eth2 nexthop via 192.168.4.204 dev eth3\n";
        assert_eq!(
            file(&plan, 201, plan::ROUTES4),
            format!(
                "route add 192.168.2.0/24 {ways4}route add 20.0.0.0/16 {ways4}\
                 route add 50.0.0.0/16 {ways4}"
            )
        );
        let ways6 = "nexthop via 1000::1:c0a8:5cb dev eth2 nexthop via 1000::1:c0a8:6cc dev eth3\n";
        let routes = file(&plan, 202, plan::ROUTES6);
        assert!(
            routes.starts_with(&format!(
                "route add 1000::1:c0a8:100/120 {ways6}route add 1000::/120 {ways6}"
            )),
            "{routes}"
        );
    }

    #[test]
    fn a_bridge_has_the_address_of_its_devices() {
        let plan = planned("bridge", &[]);
        assert_eq!(
            file(&plan, 201, plan::LINKS),
            "ip -batch - <<END\n\
             link add br1 address 00:00:01:01:01:c9 type bridge mcast_snooping 0\n\
             link set eth0 up\nlink set eth1 master br1 up\nlink set eth2 master br1 up\n\
             link set br1 up\nEND\n"
        );
        assert_eq!(
            file(&plan, 201, plan::IP4),
            "addr add 192.168.0.201/24 dev eth0\naddr add 192.168.1.201/24 dev br1\n"
        );
        assert_eq!(
            file(&plan, 221, plan::IP6),
            "addr add 1000::1:c0a8:dd/120 dev eth0 nodad\n\
             addr add 1000::1:c0a8:1dd/120 dev eth1 nodad\n"
        );
        assert_eq!(file(&plan, 221, plan::ROUTES4), "route add default dev eth1\n");
        assert_eq!(file(&plan, 221, plan::ROUTES6), "route add default dev eth1\n");
    }

    #[test]
    fn more_lans_have_addresses_by_template() {
        let addresses = |plan: &Plan, node, path| {
            let lines = file(plan, node, path).lines().skip(2).map(str::to_owned);
            lines.collect::<Vec<_>>()
        };
        let plain = planned("multilan-router", &[]);
        assert_eq!(addresses(&plain, 2, plan::IP4), Vec::<String>::new());
        assert_eq!(
            addresses(&plain, 202, plan::IP6),
            ["addr add 1000::1:c0a8:2ca/120 dev eth2 nodad"]
        );
        let made = planned("multilan-router", &[("XLAN_TEMPLATE", "169.254.0.0/20/24")]);
        assert_eq!(
            addresses(&made, 2, plan::IP4),
            [
                "addr add 169.254.3.2/24 dev eth2",
                "addr add 169.254.4.2/24 dev eth3",
                "addr add 169.254.5.2/24 dev eth4"
            ]
        );
        assert_eq!(
            addresses(&made, 202, plan::IP6),
            [
                "addr add 1000::1:c0a8:2ca/120 dev eth2 nodad",
                "addr add 1000::1:a9fe:3ca/120 dev eth3 nodad",
                "addr add 1000::1:a9fe:4ca/120 dev eth4 nodad",
                "addr add 1000::1:a9fe:5ca/120 dev eth5 nodad"
            ]
        );
        assert_eq!(addresses(&made, 201, plan::IP4), ["addr add 192.168.2.201/24 dev eth2"]);
    }
}
