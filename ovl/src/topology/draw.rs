//! A topology for people: a drawing, a table of devices, the routes in words.

use std::fmt::Write;

use super::file::{Destination, Topology};
use super::layout::{Interface, Layout, NodeLayout, Path, Target};
use crate::address::{NetId, NodeId, Role};

const MAINTENANCE: NetId = NetId(0);

/// Nodes that differ in their numbers only.
struct Group<'a> {
    nodes: Vec<&'a NodeLayout>,
    cells: Vec<String>,
    routes: Vec<(String, String)>,
}

pub fn text(topology: &Topology, layout: &Layout) -> String {
    let order = Order::new(layout);
    let groups = groups(&order.nodes);
    let (name, about) = (&topology.name, &topology.about);
    format!(
        "{name}: {about}\n\n{}\n{}\n{}",
        drawing(topology, &order.nets, &groups),
        table(&groups),
        routes(&groups)
    )
}

/// The order in which a packet would see things on its way from the cluster nodes to the testers.
struct Order<'a> {
    nets: Vec<NetId>,
    nodes: Vec<&'a NodeLayout>,
}

impl<'a> Order<'a> {
    fn new(layout: &'a Layout) -> Self {
        let mut order = Self { nets: Vec::new(), nodes: Vec::new() };
        let (first, mut rest): (Vec<_>, Vec<_>) =
            layout.nodes.iter().partition(|node| node.id.role() == Role::Server);
        order.reach(first);
        while !rest.is_empty() {
            let (mut near, mut far): (Vec<_>, Vec<_>) =
                rest.into_iter().partition(|node| nets(node).any(|net| order.nets.contains(&net)));
            if near.is_empty() {
                near.extend(far.pop());
            }
            order.reach(near);
            rest = far;
        }
        order.nodes.sort_by_key(|node| node.id.role() == Role::Tester);
        order
    }

    fn reach(&mut self, nodes: Vec<&'a NodeLayout>) {
        for net in nodes.iter().flat_map(|node| nets(node)) {
            if !self.nets.contains(&net) {
                self.nets.push(net);
            }
        }
        self.nodes.extend(nodes);
    }
}

/// All networks of a node that are drawn.
fn nets(node: &NodeLayout) -> impl Iterator<Item = NetId> + '_ {
    node.devices.iter().map(|device| device.net).filter(|net| *net != MAINTENANCE)
}

fn groups<'a>(nodes: &[&'a NodeLayout]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group> = Vec::new();
    for node in nodes {
        let (cells, routes) = (cells(node), route_words(node));
        match groups.last_mut() {
            Some(group)
                if group.role() == node.id.role()
                    && group.cells == cells
                    && group.routes == routes =>
            {
                group.nodes.push(node);
            }
            _ => groups.push(Group { nodes: vec![node], cells, routes }),
        }
    }
    groups
}

impl Group<'_> {
    fn first(&self) -> &NodeLayout {
        self.nodes[0]
    }

    fn role(&self) -> Role {
        self.first().id.role()
    }

    fn label(&self) -> String {
        node_list(&self.nodes.iter().map(|node| node.id).collect::<Vec<_>>(), ", ")
    }
}

/// Names of nodes; a run of more than two numbers as `first .. last`.
fn node_list(ids: &[NodeId], separator: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    let follows = |pair: &[NodeId]| pair[1].number() == pair[0].number() + 1;
    for run in ids.chunk_by(|first, second| follows(&[*first, *second])) {
        match run {
            [first, _, .., last] => parts.push(format!("{first} .. {last}")),
            few => parts.extend(few.iter().map(ToString::to_string)),
        }
    }
    parts.join(separator)
}

/// Networks are columns, nodes are rows; a dot is a device.
fn drawing(topology: &Topology, nets: &[NetId], groups: &[Group]) -> String {
    let name = |net: &NetId| topology.net_names.get(net).map_or("", String::as_str);
    let labels: Vec<[String; 2]> =
        nets.iter().map(|net| [format!("net {}", net.0), name(net).to_owned()]).collect();
    let margin = margin(groups);
    let mut text = String::new();
    for line in 0..2 {
        let mut heads = " ".repeat(margin);
        for label in &labels {
            let width = column_width(label);
            let _ = write!(heads, "{:width$}", label[line]);
        }
        push_line(&mut text, &heads);
    }
    let on = |group: &Group, net: NetId| nets_of(group).any(|other| other == net);
    let mut seen = String::new();
    for (row, group) in groups.iter().enumerate() {
        let mut line = format!("  {:width$}", group.label(), width = margin - 2);
        let mut below = " ".repeat(margin);
        let columns = nets.iter().enumerate().filter(|(_, net)| on(group, **net));
        let columns: Vec<usize> = columns.map(|(column, _)| column).collect();
        let (first, last) = (columns.first().copied(), columns.last().copied());
        for (column, net) in nets.iter().enumerate() {
            let above = groups[..row].iter().any(|group| on(group, *net));
            let under = groups[row + 1..].iter().any(|group| on(group, *net));
            let here = on(group, *net);
            let within =
                first.is_some_and(|first| first < column) && last.is_some_and(|last| column < last);
            let mark = match (here, above && under, within) {
                (true, ..) => device_mark(group.first(), *net),
                (false, true, true) => '┼',
                (false, true, false) => '│',
                (false, false, true) => '─',
                (false, false, false) => ' ',
            };
            seen.push(mark);
            let goes_on = within || (here && first == Some(column));
            let filler = if goes_on && last != Some(column) { "─" } else { " " };
            line.push(mark);
            line.push_str(&filler.repeat(column_width(&labels[column]) - 1));
            let _ = write!(
                below,
                "{:1$}",
                if under && (above || here) { "│" } else { " " },
                column_width(&labels[column])
            );
        }
        push_line(&mut text, &line);
        if row + 1 < groups.len() {
            push_line(&mut text, &below);
        }
    }
    text.push_str("\n  ● device");
    for (mark, meaning) in [('○', "without an address"), ('■', "part of a bridge")] {
        if seen.contains(mark) {
            let _ = write!(text, "  {mark} {meaning}");
        }
    }
    if seen.contains('┼') {
        text.push_str("  ┼ lines that only cross");
    }
    text.push_str("; eth0 of every node is on net 0\n");
    text
}

fn nets_of<'a>(group: &'a Group) -> impl Iterator<Item = NetId> + 'a {
    nets(group.first())
}

fn margin(groups: &[Group]) -> usize {
    let longest = groups.iter().map(|group| group.label().chars().count()).max();
    longest.unwrap_or(0) + 5
}

fn column_width(label: &[String; 2]) -> usize {
    label.iter().map(|line| line.chars().count()).max().unwrap_or(0) + 3
}

fn push_line(text: &mut String, line: &str) {
    let _ = writeln!(text, "{}", line.trim_end());
}

fn interface_on(node: &NodeLayout, net: NetId) -> Option<&Interface> {
    node.interfaces.iter().find(|interface| interface.nets.contains(&net))
}

fn device_mark(node: &NodeLayout, net: NetId) -> char {
    match interface_on(node, net) {
        Some(interface) if interface.is_bridge() => '■',
        Some(interface) if interface.addresses.is_empty() => '○',
        _ => '●',
    }
}

/// What each device is on, in a few words.
fn cells(node: &NodeLayout) -> Vec<String> {
    let cell = |device: &super::plan::Device| {
        let net = device.net;
        let mut cell = net.0.to_string();
        if let Some(interface) = interface_on(node, net) {
            let _ = match interface.subnet {
                _ if interface.is_bridge() => write!(cell, " in {}", interface.name),
                Some(subnet) if subnet != net => write!(cell, " as {}", subnet.0),
                None if interface.addresses.is_empty() => write!(cell, " plain"),
                None => write!(cell, " template"),
                Some(_) => Ok(()),
            };
        }
        if let Some(mtu) = device.mtu {
            let _ = write!(cell, " mtu {mtu}");
        }
        cell
    };
    node.devices.iter().map(cell).collect()
}

fn table(groups: &[Group]) -> String {
    let count = groups.iter().map(|group| group.cells.len()).max().unwrap_or(0);
    let cells = |column: usize| groups.iter().filter_map(move |group| group.cells.get(column));
    let width = |column| cells(column).map(String::len).chain([4]).max().unwrap_or(0) + 2;
    let mut text = String::new();
    let mut heads = format!("{:width$}", "Net of each device", width = margin(groups));
    for column in 0..count {
        let _ = write!(heads, "{:1$}", format!("eth{column}"), width(column));
    }
    push_line(&mut text, &heads);
    for group in groups {
        let mut line = format!("  {:width$}", group.label(), width = margin(groups) - 2);
        for (column, cell) in group.cells.iter().enumerate() {
            let _ = write!(line, "{cell:0$}", width(column));
        }
        push_line(&mut text, &line);
    }
    let bridges = groups.iter().flat_map(|group| {
        let bridges = group.first().interfaces.iter().filter(|interface| interface.is_bridge());
        bridges.map(|bridge| (group.label(), bridge))
    });
    for (nodes, bridge) in bridges {
        let subnet = bridge.subnet.map_or(0, |subnet| subnet.0);
        let _ = writeln!(text, "  {} of {nodes} has the address of net {subnet}", bridge.name);
    }
    text.push_str("  On net K node N has 192.168.K.N/24 and 1000::1:192.168.K.N/120.\n");
    text
}

fn routes(groups: &[Group]) -> String {
    let mut text = "Routes\n".to_owned();
    let targets = groups.iter().flat_map(|group| &group.routes);
    let longest = targets.map(|(to, _)| to.chars().count()).max().unwrap_or(0);
    for group in groups {
        let width = margin(groups) - 2;
        let mut label = group.label();
        if group.routes.is_empty() {
            let _ = writeln!(text, "  {label:width$}none");
        }
        for (to, ways) in &group.routes {
            let _ = writeln!(text, "  {label:width$}{to:longest$}  {ways}");
            label.clear();
        }
    }
    text
}

/// Where to, and which way; destinations that go the same way together.
fn route_words(node: &NodeLayout) -> Vec<(String, String)> {
    let mut words: Vec<(String, String)> = Vec::new();
    let mut own: Vec<(String, Vec<NodeId>, String)> = Vec::new();
    for path in &node.routes {
        if let Target::Node(id, net) = path.to {
            let subnet = path.ways.first().map_or(0, |way| way.net.0);
            let (on, ways) = (format!(" on net {}", net.0), format!("themselves on net {subnet}"));
            match own.iter_mut().find(|(to, _, other)| *to == on && *other == ways) {
                Some((_, ids, _)) => ids.push(id),
                None => own.push((on, vec![id], ways)),
            }
            continue;
        }
        let to = target_words(node, path);
        let ways = way_words(path);
        match words.iter_mut().find(|(_, other)| path.table.is_none() && *other == ways) {
            Some((known, _)) => {
                let _ = write!(known, ", {to}");
            }
            None => words.push((to, ways)),
        }
    }
    words.extend(own.into_iter().map(|(on, ids, ways)| (node_list(&ids, ", ") + &on, ways)));
    words
}

fn target_words(node: &NodeLayout, path: &Path) -> String {
    let Target::Range(to) = path.to else { return String::new() };
    let to = match to {
        Destination::Vips => "virtual addresses".to_owned(),
        Destination::Sources => "source ranges".to_owned(),
        to => to.to_string(),
    };
    let Some((table, way)) = path.table.zip(path.ways.first()) else { return to };
    let mut when = Vec::new();
    if table.oif {
        when.push(format!("bound to {}", way.interface));
    }
    if table.from {
        let subnet = node.interfaces.iter().find(|interface| interface.name == way.interface);
        let subnet = subnet.and_then(|interface| interface.subnet).map_or(0, |subnet| subnet.0);
        when.push(format!("from its address on net {subnet}"));
    }
    format!("{to} when {}", when.join(" or "))
}

fn way_words(path: &Path) -> String {
    let mut parts: Vec<(NetId, Vec<NodeId>)> = Vec::new();
    for way in &path.ways {
        let gateway = way.gateway;
        match parts.iter_mut().find(|(net, _)| *net == way.net) {
            Some((_, ids)) => ids.extend(gateway),
            None => parts.push((way.net, gateway.into_iter().collect())),
        }
    }
    let part = |(net, ids): &(NetId, Vec<NodeId>)| match ids.as_slice() {
        [] => format!("on net {} itself", net.0),
        ids => format!("{} on net {}", node_list(ids, " or "), net.0),
    };
    let words = parts.iter().map(part).collect::<Vec<_>>().join(" or ");
    match path.table {
        Some(table) => format!("{words} (table {})", table.number),
        None => words,
    }
}

#[cfg(test)]
mod tests {
    use super::super::BUILT_IN;
    use super::super::layout::Given;
    use super::super::plan::{Size, Variables};
    use super::*;

    fn drawn(name: &str) -> String {
        let topology = Topology::find_in(name, &[]).unwrap();
        let ids = topology.nodes(&Size::default(), &[]).unwrap();
        let layout = topology.layout(&ids, Given::Variables(&Variables::new())).unwrap();
        text(&topology, &layout)
    }

    #[test]
    fn a_topology_is_drawn() {
        let expected = "\
diamond: two ways between router 201 at the cluster and router 202 at the testers, by flow

                     net 1     net 3   net 4   net 5   net 6   net 2
                     cluster                                   external
  vm-001 .. vm-004   ●
                     │
  vm-201             ●─────────●───────●
                               │       │
  vm-203                       ●───────┼───────●
                                       │       │
  vm-204                               ●───────┼───────●
                                               │       │
  vm-202                                       ●───────●───────●
                                                               │
  vm-221                                                       ●

  ● device  ┼ lines that only cross; eth0 of every node is on net 0

Net of each device   eth0  eth1  eth2  eth3
  vm-001 .. vm-004   0     1
  vm-201             0     1     3     4
  vm-203             0     3     5
  vm-204             0     4     6
  vm-202             0     2     5     6
  vm-221             0     2
  On net K node N has 192.168.K.N/24 and 1000::1:192.168.K.N/120.

Routes
  vm-001 .. vm-004   default                   vm-201 on net 1
  vm-201             net 2, source ranges      vm-203 on net 3 or vm-204 on net 4
  vm-203             net 1, virtual addresses  vm-201 on net 3
                     net 2, source ranges      vm-202 on net 5
  vm-204             net 1, virtual addresses  vm-201 on net 4
                     net 2, source ranges      vm-202 on net 6
  vm-202             net 1, virtual addresses  vm-203 on net 5 or vm-204 on net 6
                     source ranges             vm-221 on net 2
  vm-221             default                   vm-202 on net 2
";
        assert_eq!(drawn("diamond"), expected);
    }

    #[test]
    fn all_devices_of_all_nodes_are_drawn() {
        for (name, _) in BUILT_IN {
            let topology = Topology::find_in(name, &[]).unwrap();
            let ids = topology.nodes(&Size::default(), &[]).unwrap();
            let layout = topology.layout(&ids, Given::Always(false)).unwrap();
            let groups = groups(&layout.nodes.iter().collect::<Vec<_>>());
            let devices: usize = groups.iter().map(|group| nets_of(group).count()).sum();
            let drawing = drawn(name);
            let rows = drawing.split("● device").next().unwrap_or_default();
            assert_eq!(rows.matches(['●', '○', '■']).count(), devices, "{name}");
        }
    }

    #[test]
    fn runs_of_numbers_are_short() {
        let list = |numbers: &[u8]| {
            let ids: Vec<_> = numbers.iter().filter_map(|number| NodeId::new(*number)).collect();
            node_list(&ids, ", ")
        };
        assert_eq!(list(&[1]), "vm-001");
        assert_eq!(list(&[1, 2]), "vm-001, vm-002");
        assert_eq!(list(&[1, 2, 3, 10]), "vm-001 .. vm-003, vm-010");
    }
}
