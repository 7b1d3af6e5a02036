//! From the lines of a file to what each node of a cluster has: devices, addresses, routes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::file::{
    Addressing, Destination, Gateway, Hop, Line, Prefix, Route, Statement, Table, Topology,
};
use super::parse;
use super::plan::{Device, Variables};
use super::template::Template;
use crate::address::{FAMILIES, NetId, NodeId, Role};

/// A cluster as a topology makes it.
#[derive(Debug)]
pub struct Layout {
    pub nets: BTreeSet<NetId>,
    /// In ascending order.
    pub nodes: Vec<NodeLayout>,
}

#[derive(Debug)]
pub struct NodeLayout {
    pub id: NodeId,
    pub devices: Vec<Device>,
    /// Devices that are no part of a bridge, and bridges.
    pub interfaces: Vec<Interface>,
    pub forward: bool,
    pub routes: Vec<Path>,
}

/// What can have addresses.
#[derive(Clone, Debug)]
pub struct Interface {
    pub name: String,
    /// The networks that it is on: several when it is a bridge.
    pub nets: Vec<NetId>,
    /// The network that it is addressed as being on.
    pub subnet: Option<NetId>,
    pub addresses: Vec<Prefix>,
}

/// A route of a node.
#[derive(Clone, Debug)]
pub struct Path {
    pub to: Target,
    pub ways: Vec<Way>,
    pub table: Option<Table>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Range(Destination),
    /// A node's own address on a network.
    Node(NodeId, NetId),
}

/// One of the ways of a route.
#[derive(Clone, Debug)]
pub struct Way {
    pub gateway: Option<NodeId>,
    /// The network that the device is addressed on, and so the gateway.
    pub subnet: Option<NetId>,
    /// The network that the file names.
    pub net: NetId,
    pub interface: String,
}

/// Which lines with a condition are in force.
#[derive(Clone, Copy)]
pub enum Given<'a> {
    Variables(&'a Variables),
    /// All or none, for a look at whether the lines fit.
    Always(bool),
}

impl Interface {
    pub fn is_bridge(&self) -> bool {
        self.nets.len() > 1
    }
}

impl NodeLayout {
    fn interface_on(&self, net: NetId) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.nets.contains(&net))
    }

    fn addressed_on(&self, subnet: NetId) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.subnet == Some(subnet))
    }

    /// The address that names the node: that of its first device after eth0.
    pub fn main_interface(&self) -> Option<&Interface> {
        let addressed = |interface: &&Interface| interface.subnet.is_some();
        let mut interfaces = self.interfaces.iter().filter(addressed);
        let first = interfaces.next();
        interfaces.next().or(first)
    }
}

impl Layout {
    pub fn node(&self, id: NodeId) -> Option<&NodeLayout> {
        self.nodes.iter().find(|node| node.id == id)
    }
}

impl Topology {
    /// What these nodes have.
    pub fn layout(&self, ids: &BTreeSet<NodeId>, given: Given) -> Result<Layout> {
        let mut nodes = Vec::new();
        for id in ids {
            ensure!(self.size.allows(*id), "topology {}: {}", self.name, self.too_many(*id));
            nodes.push(self.node(*id, given)?);
        }
        let mut layout = Layout { nets: BTreeSet::new(), nodes };
        // Routes need all the nodes that they may lead to.
        let routes = layout.nodes.iter().map(|node| self.routes(node, &layout, given));
        let routes: Vec<_> = routes.collect::<Result<_>>()?;
        for (node, routes) in layout.nodes.iter_mut().zip(routes) {
            node.routes = routes;
            layout.nets.extend(node.devices.iter().map(|device| device.net));
        }
        Ok(layout)
    }

    pub(super) fn too_many(&self, id: NodeId) -> String {
        let max = self.size.of(id.role()).max;
        format!("no {id}: {max} is the most of its role")
    }

    fn node(&self, id: NodeId, given: Given) -> Result<NodeLayout> {
        let lines = self.lines_about(id, given);
        let mut devices = self.devices(id, &lines)?;
        for device in &mut devices {
            device.mtu = mtu(device.net, &lines, given)?;
        }
        Ok(NodeLayout {
            id,
            interfaces: self.interfaces(id, &devices, &lines, given)?,
            devices,
            forward: id.role() == Role::Router
                || lines.iter().any(|line| line.what == Statement::Forward),
            routes: Vec::new(),
        })
    }

    /// What is in force for a node: later ones win.
    fn lines_about(&self, id: NodeId, given: Given) -> Vec<&Line> {
        let holds = |line: &&Line| match (&line.condition, given) {
            (None, _) => true,
            (Some(condition), Given::Variables(variables)) => condition.holds(variables),
            (Some(_), Given::Always(holds)) => holds,
        };
        let mut lines: Vec<&Line> =
            self.lines.iter().filter(|line| line.who.includes(id)).filter(holds).collect();
        lines.sort_by_key(|line| line.who.rank());
        lines
    }

    fn devices(&self, id: NodeId, lines: &[&Line]) -> Result<Vec<Device>> {
        let nets = lines.iter().rev().find_map(|line| match &line.what {
            Statement::Nets(nets) => Some(nets),
            _ => None,
        });
        let nets = nets.with_context(|| format!("{}: no `nets` line for {id}", self.file))?;
        let device = |(index, net): (usize, &NetId)| Device {
            name: format!("eth{index}"),
            net: *net,
            mtu: None,
        };
        Ok(nets.iter().enumerate().map(device).collect())
    }

    fn interfaces(
        &self,
        id: NodeId,
        devices: &[Device],
        lines: &[&Line],
        given: Given,
    ) -> Result<Vec<Interface>> {
        let mut interfaces = Vec::new();
        for device in devices {
            let (subnet, addresses) = self.addressing(id, device.net, lines, given)?;
            let (name, nets) = (device.name.clone(), vec![device.net]);
            interfaces.push(Interface { name, nets, subnet, addresses });
        }
        for line in lines {
            self.about_present_devices(line, id, devices)?;
            if let Statement::Bridge { name, of, address } = &line.what {
                for net in of {
                    let bridged = |interface: &Interface| interface.nets == [*net];
                    let Some(index) = interfaces.iter().position(bridged) else {
                        let error = anyhow!("net {} of {id} is in another bridge", net.0);
                        return Err(self.error(line, &error));
                    };
                    interfaces.remove(index);
                }
                interfaces.push(Interface {
                    name: name.clone(),
                    nets: of.clone(),
                    subnet: Some(*address),
                    addresses: net_addresses(*address, id),
                });
            }
        }
        let mut seen = BTreeMap::new();
        for interface in &interfaces {
            let Some(subnet) = interface.subnet else { continue };
            if let Some(other) = seen.insert(subnet, &interface.name) {
                let (file, name) = (&self.file, &interface.name);
                bail!("{file}: {id} has the address of net {} twice: {other}, {name}", subnet.0);
            }
        }
        Ok(interfaces)
    }

    fn addressing(
        &self,
        id: NodeId,
        net: NetId,
        lines: &[&Line],
        given: Given,
    ) -> Result<(Option<NetId>, Vec<Prefix>)> {
        let how = lines.iter().rev().find_map(|line| match &line.what {
            Statement::Addressing { nets, how } if nets.contains(&net) => Some((line, how)),
            _ => None,
        });
        let subnet = match how {
            None => net,
            Some((_, Addressing::As(subnet))) => *subnet,
            Some((_, Addressing::None)) => return Ok((None, Vec::new())),
            Some((line, Addressing::Template(variable))) => {
                let template = match given {
                    Given::Variables(variables) => variables.get(variable),
                    Given::Always(_) => None,
                };
                let Some(template) = template else { return Ok((None, Vec::new())) };
                let addresses = template
                    .parse()
                    .and_then(|template: Template| template.addresses(net, id))
                    .with_context(|| format!("variable {variable}"))
                    .map_err(|error| self.error(line, &error))?;
                return Ok((None, addresses));
            }
        };
        Ok((Some(subnet), net_addresses(subnet, id)))
    }

    /// What is said about a node by its number must fit its devices. What is said about a role
    /// need not fit all its nodes.
    fn about_present_devices(&self, line: &Line, id: NodeId, devices: &[Device]) -> Result<()> {
        let needed = match &line.what {
            Statement::Bridge { of, .. } => of.as_slice(),
            Statement::Addressing { nets, .. } if line.who.is_numbers() => nets.as_slice(),
            Statement::Mtu { net, .. } if line.who.is_numbers() => std::slice::from_ref(net),
            _ => return Ok(()),
        };
        match needed.iter().find(|net| !devices.iter().any(|device| device.net == **net)) {
            Some(net) => Err(self.error(line, &no_device(id, *net))),
            None => Ok(()),
        }
    }

    fn routes(&self, node: &NodeLayout, layout: &Layout, given: Given) -> Result<Vec<Path>> {
        let mut chosen: Vec<(String, &Line, &Route, Destination)> = Vec::new();
        for line in self.lines_about(node.id, given) {
            let Statement::Route(route) = &line.what else { continue };
            for to in &route.to {
                let subject = route.subject(*to);
                chosen.retain(|(other, ..)| *other != subject);
                chosen.push((subject, line, route, *to));
            }
        }
        let mut paths = Vec::new();
        for (_, line, route, to) in chosen {
            let found = self.paths(node, layout, route, to);
            paths.extend(found.map_err(|error| self.error(line, &error))?);
        }
        Ok(paths)
    }

    fn paths(
        &self,
        node: &NodeLayout,
        layout: &Layout,
        route: &Route,
        to: Destination,
    ) -> Result<Vec<Path>> {
        let mut ways = Vec::new();
        for hop in &route.hops {
            ways.extend(self.ways(node, layout, hop)?);
        }
        let path = |to, ways| Path { to, ways, table: route.table };
        let (Some(_), Destination::Net(net)) = (route.each(), to) else {
            // Without a way the nodes that it would lead to are not in the cluster.
            let any = !ways.is_empty();
            return Ok(any.then(|| path(Target::Range(to), ways)).into_iter().collect());
        };
        let each = ways.into_iter().filter_map(|way| {
            let gateway = way.gateway?;
            layout.node(gateway)?.addressed_on(net)?;
            Some(path(Target::Node(gateway, net), vec![way]))
        });
        Ok(each.collect())
    }

    fn ways(&self, node: &NodeLayout, layout: &Layout, hop: &Hop) -> Result<Vec<Way>> {
        let interface = node.interface_on(hop.net);
        let interface = interface.ok_or_else(|| no_device(node.id, hop.net))?;
        let way = |gateway| Way {
            gateway,
            subnet: interface.subnet,
            net: hop.net,
            interface: interface.name.clone(),
        };
        let Some(gateway) = &hop.gateway else { return Ok(vec![way(None)]) };
        let subnet = interface.subnet.with_context(|| {
            format!("{} of {} has no address, so it reaches no gateway", interface.name, node.id)
        })?;
        match gateway {
            Gateway::Nodes(ids) => {
                let mut ways = Vec::new();
                for id in ids {
                    ensure!(*id != node.id, "{id} is its own gateway");
                    // Only nodes that are there: the file is checked for those that must be.
                    let Some(gateway) = layout.node(*id) else { continue };
                    let addressed = gateway.addressed_on(subnet).is_some();
                    ensure!(addressed, "gateway {id} has no address on net {}", subnet.0);
                    ways.push(way(Some(*id)));
                }
                Ok(ways)
            }
            Gateway::Role(role) | Gateway::Each(role) => {
                let of_role = |other: &&NodeLayout| other.id.role() == *role && other.id != node.id;
                let others: Vec<_> = layout.nodes.iter().filter(of_role).collect();
                let on_net = others.iter().filter(|other| other.addressed_on(subnet).is_some());
                let ways: Vec<Way> = on_net.map(|other| way(Some(other.id))).collect();
                let none = ways.is_empty() && !others.is_empty();
                ensure!(!none, "no {} has an address on net {}", role.name(), subnet.0);
                Ok(ways)
            }
        }
    }

    pub(super) fn error(&self, line: &Line, error: &anyhow::Error) -> anyhow::Error {
        anyhow!("{}:{}: {error:#}", self.file, line.number)
    }
}

fn no_device(id: NodeId, net: NetId) -> anyhow::Error {
    anyhow!("{id} has no device on net {}", net.0)
}

/// The variable MTU is for all networks but 0, MTU3 for network 3. The first loses against the
/// file, the second wins.
fn mtu(net: NetId, lines: &[&Line], given: Given) -> Result<Option<u16>> {
    if net == NetId(0) {
        return Ok(None);
    }
    let variable = |name: &str| {
        let Given::Variables(variables) = given else { return Ok(None) };
        let mtu = variables.get(name).map(|value| parse::mtu(value));
        mtu.transpose().with_context(|| format!("variable {name}"))
    };
    let said = lines.iter().rev().find_map(|line| match line.what {
        Statement::Mtu { net: on, mtu } if on == net => Some(mtu),
        _ => None,
    });
    match (variable(&format!("MTU{}", net.0))?, said) {
        (Some(mtu), _) | (None, Some(mtu)) => Ok(Some(mtu)),
        (None, None) => variable("MTU"),
    }
}

fn net_addresses(net: NetId, id: NodeId) -> Vec<Prefix> {
    let address = |family: crate::address::Family| Prefix {
        address: family.address(net, id),
        length: family.net_length(),
    };
    FAMILIES.into_iter().map(address).collect()
}
