//! Networks: numbered bridges in a namespace of their own, the switch.

use std::ffi::OsStr;
use std::fmt::Write;

use anyhow::Result;

use crate::address::{NetId, NodeId};
use crate::node::Node;

/// Holds the bridges of a cluster, so that the machine itself gets none.
pub struct Switch(Node);

/// A device of a node that is to be put on a network.
pub struct Attachment<'a> {
    pub id: NodeId,
    pub node: &'a Node,
    pub device: String,
    pub net: NetId,
}

impl Switch {
    pub fn start(search_path: &OsStr) -> Result<Self> {
        Node::start("switch", search_path).map(Self)
    }

    pub fn wait_ready(&mut self) -> Result<()> {
        self.0.wait_ready()?;
        // Bridges have no addresses, so they need no neighbours either.
        self.0.script("echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6")?;
        Ok(())
    }

    pub fn add_networks(&self, nets: &[NetId]) -> Result<()> {
        self.ip_batch(&networks_batch(nets))
    }

    pub fn attach(&self, attachments: &[Attachment]) -> Result<()> {
        let mut batch = String::new();
        for Attachment { id, node, device, net } in attachments {
            attachment_batch(&mut batch, *id, node.entry().holder(), device, *net);
        }
        self.ip_batch(&batch)
    }

    fn ip_batch(&self, batch: &str) -> Result<()> {
        // The batch names nodes by the numbers of processes outside.
        self.0.entry().ip_batch_outside(batch)
    }
}

fn networks_batch(nets: &[NetId]) -> String {
    // No multicast snooping: it would need a querier to let neighbour discovery through.
    nets.iter().fold(String::new(), |mut batch, NetId(net)| {
        let _ = writeln!(batch, "link add net{net} type bridge mcast_snooping 0");
        let _ = writeln!(batch, "link set net{net} up");
        batch
    })
}

fn attachment_batch(batch: &mut String, id: NodeId, holder: u32, device: &str, net: NetId) {
    let port = format!("net{}-{id}", net.0);
    let mac = id.mac(net);
    let _ = writeln!(
        batch,
        "link add {port} type veth peer name {device} address {mac} netns {holder}"
    );
    let _ = writeln!(batch, "link set {port} master net{} up", net.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_a_bridge() {
        assert_eq!(
            networks_batch(&[NetId(1), NetId(2)]),
            "link add net1 type bridge mcast_snooping 0\nlink set net1 up\n\
             link add net2 type bridge mcast_snooping 0\nlink set net2 up\n"
        );
    }

    #[test]
    fn an_attachment_is_a_pair_with_one_end_on_the_bridge() {
        let mut batch = String::new();
        attachment_batch(&mut batch, NodeId::ROUTER, 77, "eth2", NetId(2));
        assert_eq!(
            batch,
            "link add net2-vm-201 type veth peer name eth2 address 00:00:00:01:02:c9 netns 77\n\
             link set net2-vm-201 master net2 up\n"
        );
    }
}
