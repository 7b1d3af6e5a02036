//! What a topology makes for a cluster: the nodes with their devices, and the files that tell each
//! node who it is. The runner creates the nodes and devices and writes the files; start-up scripts
//! in the node do the rest. Nothing else passes between them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::address::{NetId, NodeId};

/// The user's variables: conditions of a topology file ask for them, and every node knows them.
pub type Variables = BTreeMap<String, String>;

/// How many nodes of each role are asked for; None stands for the topology's own number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub nodes: Option<u8>,
    pub routers: Option<u8>,
    pub testers: Option<u8>,
}

/// A whole cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub topology: String,
    /// Every network that a device is on, in ascending order; 0 among them.
    pub nets: Vec<NetId>,
    /// In ascending order.
    pub nodes: Vec<NodePlan>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    pub id: NodeId,
    /// In order of their names; eth0 is on network 0.
    pub devices: Vec<Device>,
    /// To be written before the node's start-up scripts run. See the constants of this module.
    pub files: Vec<PlanFile>,
}

/// A device that the runner creates, with the hardware address [`NodeId::mac`], and leaves down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// `eth0`, `eth1`…
    pub name: String,
    pub net: NetId,
    /// None: 1,500. [`LINKS`] sets it on the node's side; the network's side must take as much.
    pub mtu: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanFile {
    /// Absolute, as the node sees it.
    pub path: String,
    pub content: String,
}

/// Who the node is: assignments that any POSIX shell can read, one a line.
///
/// ```sh
/// NODE=3
/// NODE_NAME=vm-003
/// ROLE=vm                 # or router, tester
/// NODES="1 2 3 4"         # all cluster nodes, routers and testers of the cluster
/// ROUTERS="201 202"
/// TESTERS="221"
/// TOPOLOGY=xnet
/// PREFIX=1000::1
/// CROSSROUTE='yes'        # the user's variables, in single quotes
/// ```
///
/// They are not exported: `set -a` before reading the file does that.
pub const NODE: &str = "/etc/ovl/node";

/// A shell script that makes bridges, sets MTUs and brings all devices up, eth0 included. It needs
/// the devices to be there and must run before all the others, once.
pub const LINKS: &str = "/etc/ovl/links";

/// Addresses: input of `ip -4 -batch`. May be empty. Without lo and virtual addresses.
pub const IP4: &str = "/etc/ovl/ip4";

/// Addresses: input of `ip -6 -batch`. They are added with `nodad`.
pub const IP6: &str = "/etc/ovl/ip6";

/// Routes and policy rules: input of `ip -4 -batch`, after [`IP4`]. May be empty.
///
/// Several gateways are one route with a `nexthop` for each. Rules come before the routes of the
/// table they lead to.
pub const ROUTES4: &str = "/etc/ovl/routes4";

/// The same for `ip -6 -batch`, after [`IP6`].
pub const ROUTES6: &str = "/etc/ovl/routes6";

/// Lines for /etc/hosts, both families: every node of the cluster by the address of its first
/// addressed device after eth0.
pub const HOSTS: &str = "/etc/ovl/hosts";

/// There on nodes that forward packets, in both families and with a hash of addresses and ports
/// over the gateways of a route (`fib_multipath_hash_policy` 1). Empty.
pub const FORWARD: &str = "/etc/ovl/forward";

impl Plan {
    pub fn node(&self, id: NodeId) -> Option<&NodePlan> {
        self.nodes.iter().find(|node| node.id == id)
    }

    pub fn to_json(&self) -> Value {
        let nets: Vec<u8> = self.nets.iter().map(|net| net.0).collect();
        let nodes: Vec<Value> = self.nodes.iter().map(NodePlan::to_json).collect();
        json!({ "topology": self.topology, "nets": nets, "nodes": nodes })
    }
}

impl NodePlan {
    fn to_json(&self) -> Value {
        let devices: Vec<Value> = self
            .devices
            .iter()
            .map(|device| json!({ "name": device.name, "net": device.net.0, "mtu": device.mtu }))
            .collect();
        let files: serde_json::Map<String, Value> = self
            .files
            .iter()
            .map(|file| (file.path.clone(), file.content.clone().into()))
            .collect();
        json!({
            "number": self.id.number(),
            "name": self.id.to_string(),
            "role": self.id.role().name(),
            "devices": devices,
            "files": files,
        })
    }
}

#[cfg(test)]
impl NodePlan {
    /// The content of a file.
    pub fn file(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|file| file.path == path).map(|file| file.content.as_str())
    }
}
