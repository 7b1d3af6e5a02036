//! A cluster: nodes on numbered networks, made as a plan says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::address::{NetId, NodeId, Role};
use crate::backend::Backend;
use crate::impair::Link;
use crate::net::{Attachment, End, Switch};
use crate::node::{Entry, Node};
use crate::order::Order;
use crate::rootfs;
use crate::starting::{Site, Starting};
use crate::state::{Folder, ProcessId};
use crate::topology::plan::{Device, NodePlan, Plan};
use crate::vm::Machines;
use crate::wait;

/// How long nodes may take to come up, and their start-up scripts to run.
const UP: Duration = Duration::from_secs(60);
const BOOT: Duration = Duration::from_secs(250);
const SCRIPTS: Duration = Duration::from_secs(120);

/// A machine that has gone down answers nobody some time before its process has ended.
const END: Duration = Duration::from_secs(2);

/// What a running cluster consists of, for those who come later.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub topology: String,
    /// Seconds since 1970.
    pub started: u64,
    pub nets: Vec<u8>,
    pub nodes: Vec<NodeRecord>,
    /// What it was asked to be, for nodes that come later.
    pub order: Order,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeRecord {
    pub number: u8,
    pub name: String,
    pub role: String,
    /// The node's process 1, as the holder sees it.
    pub init: ProcessId,
    pub devices: Vec<DeviceRecord>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceRecord {
    pub name: String,
    pub net: u8,
}

/// Ends with all the nodes that it has started when it is dropped.
pub struct Cluster {
    nodes: BTreeMap<NodeId, Node>,
    switch: Switch,
    folder: Folder,
    record: Record,
}

impl Cluster {
    /// Starts a cluster; only in a holder, whose folder it is. It tells how far it is.
    pub fn start(folder: &Folder, order: &Order, say: impl FnMut(&str)) -> Result<Self> {
        Self::start_plan(folder, order, &order.plan()?, say)
    }

    /// Starts a cluster that looks otherwise than its topology would say.
    pub fn start_plan(
        folder: &Folder,
        order: &Order,
        plan: &Plan,
        mut say: impl FnMut(&str),
    ) -> Result<Self> {
        let work = folder.work();
        for name in [rootfs::LAYER, rootfs::OWN] {
            let path = work.join(name);
            fs::create_dir_all(&path)
                .with_context(|| format!("create folder {}", path.display()))?;
        }
        let layer = work.join(rootfs::LAYER);
        order.lay(&layer)?;
        if let Backend::Machines(hardware) = &order.backend {
            let machines = Machines::prepare(hardware, &order.bin_dir, &work, &layer)?;
            say(&machines.about());
        }
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            switch: Switch::start(&work, &plan.nets)?,
            folder: folder.clone(),
            record: Record {
                topology: plan.topology.clone(),
                started: now(),
                nets: plan.nets.iter().map(|net| net.0).collect(),
                nodes: Vec::new(),
                order: order.clone(),
            },
        };
        cluster.add(&plan.nodes, &mut say)?;
        Ok(cluster)
    }

    /// A cluster that runs already; only where its holder is, see [`crate::holder::enter`].
    pub fn attach(folder: &Folder) -> Result<Self> {
        let record = Record::read(folder)?;
        let nodes = record.nodes.iter().map(|node| {
            let id = NodeId::new(node.number).context("read cluster: odd number of a node")?;
            Ok((id, Node::of_running(record.entry(node, id, folder))))
        });
        Ok(Self {
            nodes: nodes.collect::<Result<_>>()?,
            switch: Switch::of_running(&folder.work()),
            folder: folder.clone(),
            record,
        })
    }

    fn add(&mut self, plans: &[NodePlan], say: &mut dyn FnMut(&str)) -> Result<()> {
        let nodes = self.start_nodes(plans, say)?;
        let records = plans.iter().zip(&nodes).map(|(plan, (_, node))| NodeRecord::new(plan, node));
        self.record.nodes.extend(records.collect::<Result<Vec<_>>>()?);
        self.record.nodes.sort_by_key(|node| node.number);
        self.nodes.extend(nodes);
        Ok(())
    }

    fn start_nodes(
        &self,
        plans: &[NodePlan],
        say: &mut dyn FnMut(&str),
    ) -> Result<Vec<(NodeId, Node)>> {
        let work = self.folder.work();
        let machines = match self.record.order.backend {
            Backend::Namespaces => None,
            Backend::Machines(_) => Some(Machines::of_running(&work)?),
        };
        let are_machines = machines.is_some();
        let site = Site { work, bin_dir: self.record.order.bin_dir.clone(), machines };
        if are_machines {
            self.attach_devices(plans.iter().map(|plan| (plan, End::Machine)))?;
        }
        let mut starting = Starting::launch(plans, &site)?;
        let up = if are_machines { BOOT } else { UP };
        starting.wait_there(up, &mut |there| {
            // Those of namespaces come all at once.
            if are_machines || there == plans.len() {
                say(&format!("{there} of {} nodes", plans.len()));
            }
        })?;
        let nodes = || plans.iter().zip(starting.nodes().iter().map(|(_, node)| node));
        if !are_machines {
            self.attach_devices(
                nodes().map(|(plan, node)| (plan, End::Namespace(node.entry().init()))),
            )?;
        }
        for (plan, node) in nodes() {
            for file in &plan.files {
                node.write(&file.path, &file.content)?;
            }
        }
        say("start-up scripts");
        starting.go(SCRIPTS)
    }

    fn attach_devices<'a>(&self, nodes: impl Iterator<Item = (&'a NodePlan, End)>) -> Result<()> {
        self.switch.attach(nodes.flat_map(|(plan, end)| {
            plan.devices.iter().map(move |device| Attachment {
                id: plan.id,
                end,
                device: &device.name,
                net: device.net,
                mtu: device.mtu,
            })
        }))
    }

    fn detach_devices(&self, plans: &[NodePlan]) -> Result<()> {
        let devices = |plan: &'_ NodePlan| {
            let id = plan.id;
            plan.devices.iter().map(|device| (id, device.net)).collect::<Vec<_>>()
        };
        self.switch.detach(plans.iter().flat_map(devices))
    }

    /// Takes the power of nodes away: they end as they are, and can be started again.
    pub fn power_off(&self, ids: &BTreeSet<NodeId>) -> Result<()> {
        ids.iter().try_for_each(|id| self.node(*id).map(drop))?;
        for id in ids {
            if !self.node(*id)?.kill()? {
                self.record.node(*id)?.init.kill()?;
            }
        }
        // Otherwise the kernel of namespaces goes on with their packets until it has tidied up.
        for id in ids {
            let devices = &self.record.node(*id)?.devices;
            self.switch.detach(devices.iter().map(|device| (*id, NetId(device.net))))?;
        }
        Ok(())
    }

    /// Starts nodes again that have ended, with nothing of what they knew. Their links are as bad as
    /// they were.
    pub fn power_on(&self, ids: &BTreeSet<NodeId>) -> Result<()> {
        for id in ids {
            let (node, init) = (self.node(*id)?, self.record.node(*id)?.init);
            let has_ended = || Ok((!node.is_running() && !init.is_alive()).then_some(()));
            if wait::for_up_to(END, has_ended)?.is_none() {
                bail!("start {id}: it runs already");
            }
        }
        let mut plans = self.record.order.plan_of(&self.nodes.keys().copied().collect())?.nodes;
        plans.retain(|plan| ids.contains(&plan.id));
        self.detach_devices(&plans)?;
        for (id, node) in self.start_nodes(&plans, &mut |_| {})? {
            self.node(id)?.replace_by(node);
            for device in &self.record.node(id)?.devices {
                self.link(id, &device.name)?.renew()?;
            }
        }
        Ok(())
    }

    /// Takes note of processes that stand for nodes that were started again.
    pub fn note_processes(&mut self) {
        for record in &mut self.record.nodes {
            let node = NodeId::new(record.number).and_then(|id| self.nodes.get(&id));
            if let Some(process) = node.and_then(|node| node.entry().process()) {
                record.init = process;
            }
        }
    }

    /// Adds nodes to a running cluster. The others do not notice.
    pub fn scale_out(&mut self, ids: &BTreeSet<NodeId>) -> Result<()> {
        if let Some(id) = ids.iter().find(|id| self.nodes.contains_key(id)) {
            bail!("add {id}: it is there already");
        }
        let all = self.nodes.keys().chain(ids).copied().collect();
        let mut plans = self.record.order.plan_of(&all)?.nodes;
        plans.retain(|plan| ids.contains(&plan.id));
        self.add_networks(&plans)?;
        // An earlier attempt may have been killed.
        self.detach_devices(&plans)?;
        self.add(&plans, &mut |_| {})
    }

    /// Networks that no node was on before.
    fn add_networks(&mut self, plans: &[NodePlan]) -> Result<()> {
        let nets: BTreeSet<u8> =
            plans.iter().flat_map(|plan| &plan.devices).map(|device| device.net.0).collect();
        let new: Vec<NetId> =
            nets.into_iter().filter(|net| !self.record.nets.contains(net)).map(NetId).collect();
        self.switch.add_networks(&new)?;
        self.record.nets.extend(new.iter().map(|net| net.0));
        self.record.nets.sort_unstable();
        Ok(())
    }

    /// Takes nodes out of a running cluster.
    pub fn scale_in(&mut self, ids: &BTreeSet<NodeId>) -> Result<()> {
        for id in ids {
            self.node(*id)?;
            // A process of a link would stay.
            for device in &self.record.node(*id)?.devices {
                self.link(*id, &device.name)?.mend()?;
            }
        }
        for id in ids {
            drop(self.nodes.remove(id));
            let gone = |node: &NodeRecord| node.number == id.number();
            let devices =
                self.record.nodes.iter().filter(|node| gone(node)).flat_map(|node| &node.devices);
            self.switch.detach(devices.map(|device| (*id, NetId(device.net))))?;
            for node in self.record.nodes.iter().filter(|node| gone(node)) {
                node.init.kill()?;
            }
            self.record.nodes.retain(|node| !gone(node));
        }
        Ok(())
    }

    /// Lets all nodes be there when this value is gone, and tells those who come later.
    pub fn leave(&mut self) -> Result<()> {
        self.publish()?;
        self.nodes.values().for_each(Node::leave);
        Ok(())
    }

    /// Tells others what the cluster consists of.
    pub fn publish(&self) -> Result<()> {
        self.folder.set_cluster(&self.record)
    }

    pub fn record(&self) -> &Record {
        &self.record
    }

    /// All nodes, in ascending order.
    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub fn servers(&self) -> impl Iterator<Item = NodeId> + use<> {
        self.ids().into_iter().filter(|id| id.role() == Role::Server)
    }

    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    pub fn node(&self, id: NodeId) -> Result<&Node> {
        self.nodes.get(&id).with_context(|| format!("find node {id}: not in this cluster"))
    }

    /// The link by which a device of a node is on its network.
    pub fn link<'a>(&'a self, id: NodeId, device: &'a str) -> Result<Link<'a>> {
        let devices = &self.record.node(id)?.devices;
        let found = devices.iter().find(|one| one.name == device);
        let found = found.with_context(|| {
            let names: Vec<&str> = devices.iter().map(|one| one.name.as_str()).collect();
            format!("find device {device} of {id}: it has {}", names.join(" "))
        })?;
        Ok(Link {
            switch: &self.switch,
            node: self.node(id)?,
            id,
            device,
            net: NetId(found.net),
            work: self.folder.work(),
            bin_dir: &self.record.order.bin_dir,
        })
    }

    pub fn router(&self) -> Result<&Node> {
        self.node(NodeId::ROUTER)
    }

    pub fn tester(&self) -> Result<&Node> {
        self.node(NodeId::TESTER)
    }
}

impl Record {
    /// The record of a cluster that must be running and ready.
    pub fn of(folder: &Folder) -> Result<Self> {
        let name = folder.name();
        if folder.holder()?.is_none() {
            bail!("find cluster {name}: it is not running");
        }
        Self::read(folder)
    }

    fn read(folder: &Folder) -> Result<Self> {
        let name = folder.name();
        folder.cluster()?.with_context(|| format!("find cluster {name}: it is not ready yet"))
    }

    /// The way into a node.
    pub fn entry(&self, node: &NodeRecord, id: NodeId, folder: &Folder) -> Entry {
        let is_machine = self.order.backend != Backend::Namespaces;
        Entry::new(id, node.init.pid, &folder.work(), is_machine)
    }

    pub fn node(&self, id: NodeId) -> Result<&NodeRecord> {
        let found = self.nodes.iter().find(|node| node.number == id.number());
        found.with_context(|| {
            let names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
            format!("find node {id}: not in this cluster, which has {}", names.join(" "))
        })
    }

    /// Process 1 of a node, for one who sees the /proc of the holder.
    pub fn running(&self, id: NodeId) -> Result<u32> {
        let init = self.node(id)?.init;
        if !init.is_alive() {
            bail!("find node {id}: it has ended (ovl power on {0})", id.number());
        }
        Ok(init.pid)
    }
}

impl NodeRecord {
    fn new(plan: &NodePlan, node: &Node) -> Result<Self> {
        let device =
            |device: &Device| DeviceRecord { name: device.name.clone(), net: device.net.0 };
        let init = node.entry().process();
        Ok(Self {
            number: plan.id.number(),
            name: plan.id.to_string(),
            role: plan.id.role().name().to_owned(),
            init: init.with_context(|| format!("start {}: it has ended already", plan.id))?,
            devices: plan.devices.iter().map(device).collect(),
        })
    }
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}
