//! A cluster: nodes in their roles on two networks, with the addresses and routes that make direct
//! server return work.

use std::fmt::Write;

use anyhow::{Context, Result};

use crate::address::{
    CLUSTER_NET, EXTERNAL_NET, FAMILIES, Family, NARROW_NET, NetId, NodeId, Role,
};
use crate::bins::Bins;
use crate::net::{Attachment, Switch};
use crate::node::Node;

/// What a cluster is to look like.
#[derive(Clone, Copy)]
pub struct Layout {
    pub servers: u8,
    /// Whether devices may pass large segments and unfinished checksums on, as real ones do.
    pub offload: bool,
    /// Whether a link between router and tester takes less than the others: a node in front of it,
    /// beyond the router, tells senders so.
    pub squeezed: bool,
}

/// The MTU of the narrow link; 1,280 is the least that IPv6 allows.
const NARROW_MTU: u16 = 1300;

impl Default for Layout {
    fn default() -> Self {
        Self { servers: 4, offload: true, squeezed: false }
    }
}

/// Ends with all its nodes when it is dropped.
pub struct Cluster {
    layout: Layout,
    nodes: Vec<(NodeId, Node)>,
    _switch: Switch,
}

impl Cluster {
    pub fn start(layout: Layout, bins: &Bins) -> Result<Self> {
        let search_path = bins.search_path();
        let mut switch = Switch::start(&search_path)?;
        let squeeze = layout.squeezed.then_some(NodeId::SQUEEZE);
        let routers = [NodeId::ROUTER].into_iter().chain(squeeze);
        let ids = servers(layout.servers).chain(routers).chain([NodeId::TESTER]);
        let mut nodes = ids
            .map(|id| Ok((id, Node::start(&id.to_string(), &search_path)?)))
            .collect::<Result<Vec<_>>>()?;
        switch.wait_ready()?;
        for (_, node) in &mut nodes {
            node.wait_ready()?;
            // Before the devices come: they inherit the defaults.
            node.script(SYSCTL)?;
        }
        let narrow = layout.squeezed.then_some(NARROW_NET);
        let nets: Vec<_> = [CLUSTER_NET, EXTERNAL_NET].into_iter().chain(narrow).collect();
        switch.add_networks(&nets)?;
        switch.attach(&attachments(&nodes, layout))?;
        for (id, node) in &nodes {
            let script = node_script(*id, layout);
            node.script(&script).with_context(|| format!("set up {id}"))?;
        }
        Ok(Self { layout, nodes, _switch: switch })
    }

    pub fn servers(&self) -> impl Iterator<Item = NodeId> + use<> {
        servers(self.layout.servers)
    }

    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    pub fn node(&self, id: NodeId) -> Result<&Node> {
        let found = self.nodes().find(|(other, _)| *other == id);
        found.map(|(_, node)| node).with_context(|| format!("find node {id}: not in this cluster"))
    }

    pub fn router(&self) -> Result<&Node> {
        self.node(NodeId::ROUTER)
    }

    pub fn tester(&self) -> Result<&Node> {
        self.node(NodeId::TESTER)
    }
}

fn servers(count: u8) -> impl Iterator<Item = NodeId> + use<> {
    (1..=count).filter_map(NodeId::new)
}

/// The networks of a node in the order of its devices, eth1 first.
fn nets(id: NodeId, layout: Layout) -> &'static [NetId] {
    match id.role() {
        Role::Server => &[CLUSTER_NET],
        Role::Router if id == NodeId::SQUEEZE => &[EXTERNAL_NET, NARROW_NET],
        Role::Router => &[CLUSTER_NET, EXTERNAL_NET],
        Role::Tester if layout.squeezed => &[NARROW_NET],
        Role::Tester => &[EXTERNAL_NET],
    }
}

/// The node's devices, each with the network that it is on.
fn devices(id: NodeId, layout: Layout) -> impl Iterator<Item = (String, NetId)> {
    nets(id, layout).iter().enumerate().map(|(index, net)| (format!("eth{}", index + 1), *net))
}

fn attachments(nodes: &[(NodeId, Node)], layout: Layout) -> Vec<Attachment<'_>> {
    nodes
        .iter()
        .flat_map(|(id, node)| {
            devices(*id, layout).map(move |(device, net)| Attachment { id: *id, node, device, net })
        })
        .collect()
}

/// No duplicate address detection (it delays every address by a second), no addresses from
/// routers, and no check of a packet's way back: replies of the servers do not pass the router
/// that the request would expect.
const SYSCTL: &str = "\
for name in all default; do
    echo 0 >/proc/sys/net/ipv6/conf/$name/accept_dad
    echo 0 >/proc/sys/net/ipv6/conf/$name/accept_ra
    echo 0 >/proc/sys/net/ipv4/conf/$name/rp_filter
done
";

/// The shell script that gives a node its addresses and routes.
fn node_script(id: NodeId, layout: Layout) -> String {
    let mut script = String::new();
    match id.role() {
        Role::Server => {}
        Role::Router => script.push_str(
            "echo 1 >/proc/sys/net/ipv4/ip_forward\n\
             echo 1 >/proc/sys/net/ipv6/conf/all/forwarding\n",
        ),
        Role::Tester => script.push_str(
            "echo 1 >/proc/sys/net/ipv4/ip_nonlocal_bind\n\
             echo 1 >/proc/sys/net/ipv6/ip_nonlocal_bind\n",
        ),
    }
    for (device, net) in devices(id, layout) {
        if !layout.offload {
            let _ = writeln!(script, "ethtool -K {device} tx off tso off gso off gro off");
        }
        // The tester's end stays wide, so that its connections ask for large segments.
        if net == NARROW_NET && id == NodeId::SQUEEZE {
            let _ = writeln!(script, "ip link set {device} mtu {NARROW_MTU}");
        }
        let _ = writeln!(script, "ip link set {device} up");
    }
    for family in FAMILIES {
        let batch = ip_batch(id, family, layout);
        let _ = write!(script, "{} -batch - <<END\n{batch}END\n", family.ip());
    }
    script
}

fn ip_batch(id: NodeId, family: Family, layout: Layout) -> String {
    let mut batch = String::new();
    let nodad = match family {
        Family::V4 => "",
        Family::V6 => " nodad",
    };
    for (device, net) in devices(id, layout) {
        let address = family.address(net, id);
        let length = family.net_length();
        let _ = writeln!(batch, "addr add {address}/{length} dev {device}{nodad}");
    }
    match id.role() {
        Role::Server => {
            let gateway = family.address(CLUSTER_NET, NodeId::ROUTER);
            let _ = writeln!(batch, "addr add {} dev lo{nodad}", family.vip_prefix());
            let _ = writeln!(batch, "route add default via {gateway}");
        }
        Role::Router if id == NodeId::SQUEEZE => {
            let tester = family.address(NARROW_NET, NodeId::TESTER);
            let router = family.address(EXTERNAL_NET, NodeId::ROUTER);
            let _ = writeln!(batch, "route add {} via {tester}", family.source_prefix());
            let _ = writeln!(batch, "route add default via {router}");
        }
        Role::Router => {
            let outside = if layout.squeezed { NodeId::SQUEEZE } else { NodeId::TESTER };
            let outside = family.address(EXTERNAL_NET, outside);
            let _ = writeln!(batch, "route add {} via {outside}", family.source_prefix());
            for server in servers(layout.servers) {
                let mark = server.number();
                let address = family.address(CLUSTER_NET, server);
                let _ = writeln!(batch, "rule add fwmark {mark} lookup {mark}");
                let _ = writeln!(batch, "route add default via {address} table {mark}");
            }
        }
        Role::Tester => {
            let gateway = match layout.squeezed {
                true => family.address(NARROW_NET, NodeId::SQUEEZE),
                false => family.address(EXTERNAL_NET, NodeId::ROUTER),
            };
            let _ = writeln!(batch, "route add local {} dev lo", family.source_prefix());
            let _ = writeln!(batch, "route add default via {gateway}");
        }
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_own_the_vip_and_return_directly() {
        let server = NodeId::new(2).unwrap();
        assert_eq!(
            ip_batch(server, Family::V4, Layout::default()),
            "addr add 192.168.1.2/24 dev eth1\n\
             addr add 10.0.0.0/32 dev lo\n\
             route add default via 192.168.1.201\n"
        );
        assert_eq!(
            ip_batch(server, Family::V6, Layout::default()),
            "addr add 1000::1:c0a8:102/120 dev eth1 nodad\n\
             addr add 1000::/128 dev lo nodad\n\
             route add default via 1000::1:c0a8:1c9\n"
        );
    }

    #[test]
    fn the_router_has_a_table_for_each_mark() {
        assert_eq!(
            ip_batch(NodeId::ROUTER, Family::V4, Layout { servers: 2, ..Layout::default() }),
            "addr add 192.168.1.201/24 dev eth1\n\
             addr add 192.168.2.201/24 dev eth2\n\
             route add 20.0.0.0/16 via 192.168.2.221\n\
             rule add fwmark 1 lookup 1\n\
             route add default via 192.168.1.1 table 1\n\
             rule add fwmark 2 lookup 2\n\
             route add default via 192.168.1.2 table 2\n"
        );
    }

    #[test]
    fn a_squeeze_is_between_router_and_tester() {
        let layout = Layout { servers: 1, squeezed: true, ..Layout::default() };
        let batch = |id| ip_batch(id, Family::V4, layout);
        assert!(batch(NodeId::ROUTER).contains("route add 20.0.0.0/16 via 192.168.2.202\n"));
        assert_eq!(
            batch(NodeId::SQUEEZE),
            "addr add 192.168.2.202/24 dev eth1\n\
             addr add 192.168.3.202/24 dev eth2\n\
             route add 20.0.0.0/16 via 192.168.3.221\n\
             route add default via 192.168.2.201\n"
        );
        assert!(batch(NodeId::TESTER).contains("route add default via 192.168.3.202\n"));
        assert!(node_script(NodeId::SQUEEZE, layout).contains("ip link set eth2 mtu 1300\n"));
        assert!(!node_script(NodeId::TESTER, layout).contains("mtu"));
    }

    #[test]
    fn offload_is_left_alone_unless_unwanted() {
        let layout = Layout::default();
        assert!(!node_script(NodeId::ROUTER, layout).contains("ethtool"));
        let script = node_script(NodeId::ROUTER, Layout { offload: false, ..layout });
        assert!(script.contains("ethtool -K eth2 tx off"));
    }
}
