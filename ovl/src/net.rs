//! Networks: numbered bridges in a network namespace of their own, the switch.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;

use crate::address::{NetId, NodeId};
use crate::namespace::{in_a_thread, in_network, make};
use crate::node::{Ran, feed};

/// Holds the bridges of a cluster, so that the machine itself gets none. No process is in it: it
/// is a file in the cluster's work folder.
pub struct Switch {
    file: PathBuf,
    own: bool,
}

/// A device of a node that is to be put on a network.
pub struct Attachment<'a> {
    pub id: NodeId,
    pub end: End,
    pub device: &'a str,
    pub net: NetId,
    /// What the node's device takes; None for 1,500 bytes.
    pub mtu: Option<u16>,
}

/// What a node's device is.
#[derive(Clone, Copy)]
pub enum End {
    /// The other end of a pair, in the network of the node's process 1.
    Namespace(u32),
    /// A tap, which the machine takes when it starts.
    Machine,
}

const USUAL_MTU: u16 = 1500;

const FILE: &str = "switch";

/// The network namespace of a cluster's bridges, in its work folder.
pub fn switch_file(work: &Path) -> PathBuf {
    work.join(FILE)
}

impl Switch {
    pub fn start(work: &Path, nets: &[NetId]) -> Result<Self> {
        let file = switch_file(work);
        fs::write(&file, "").with_context(|| format!("create {}", file.display()))?;
        in_a_thread(|| {
            make(CloneFlags::CLONE_NEWNET)?;
            let own = Some("/proc/thread-self/ns/net");
            mount(own, &file, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .context("keep the network of the switch")?;
            // Bridges have no addresses, so they need no neighbours either.
            let no_addresses = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
            fs::write(no_addresses, "1").context("switch IPv6 of bridges off")
        })?;
        let switch = Self { file, own: true };
        switch.add_networks(nets)?;
        Ok(switch)
    }

    /// The switch that somebody else has started.
    pub fn of_running(work: &Path) -> Self {
        Self { file: switch_file(work), own: false }
    }

    pub fn add_networks(&self, nets: &[NetId]) -> Result<()> {
        self.ip_batch(&networks_batch(nets))
    }

    pub fn attach<'a>(&self, attachments: impl IntoIterator<Item = Attachment<'a>>) -> Result<()> {
        let mut batch = String::new();
        for attachment in attachments {
            attachment_batch(&mut batch, &attachment);
        }
        self.ip_batch(&batch)
    }

    /// Takes devices of nodes away, whether they are there still or not.
    pub fn detach(&self, ports: impl IntoIterator<Item = (NodeId, NetId)>) -> Result<()> {
        let batch: String =
            ports.into_iter().map(|(id, net)| format!("link del {}\n", port(id, net))).collect();
        // They vanish by themselves some time after the node has ended.
        self.ip(&["-force"], &batch).map(drop)
    }

    pub fn ip_batch(&self, batch: &str) -> Result<()> {
        self.ip(&[], batch)?.success().map(drop)
    }

    fn ip(&self, options: &[&str], batch: &str) -> Result<Ran> {
        let mut command = Command::new("ip");
        command.args(options).args(["-batch", "-"]);
        self.run(command, "ip -batch on the switch", batch)
    }

    /// Runs a command of iproute2 to its end where the bridges are.
    pub fn run(&self, command: Command, what: &str, input: &str) -> Result<Ran> {
        in_network(&self.file, || {
            feed(command, what, input).with_context(|| format!("run {what} (iproute2)"))
        })
    }

    /// Starts a program where the bridges are.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        in_network(&self.file, || Ok(command.spawn()?))
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        if self.own {
            // Otherwise it ends with the mount namespace of the holder.
            let _ = umount2(&self.file, MntFlags::MNT_DETACH);
        }
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

/// The bridge of a network.
pub fn network(net: NetId) -> String {
    format!("net{}", net.0)
}

/// The switch's end of the link to a node.
pub fn port(id: NodeId, net: NetId) -> String {
    format!("net{}-{id}", net.0)
}

fn attachment_batch(batch: &mut String, attachment: &Attachment) {
    let Attachment { id, end, device, net, mtu } = attachment;
    let (port, mac) = (port(*id, *net), id.mac(*net));
    // The node sets its own end, but this one must take as much.
    let wide =
        mtu.filter(|mtu| *mtu > USUAL_MTU).map(|mtu| format!("mtu {mtu} ")).unwrap_or_default();
    let _ = match end {
        End::Namespace(init) => writeln!(
            batch,
            "link add {port} {wide}type veth peer name {device} address {mac} netns {init}"
        ),
        End::Machine if wide.is_empty() => writeln!(batch, "tuntap add {port} mode tap vnet_hdr"),
        End::Machine => {
            writeln!(batch, "tuntap add {port} mode tap vnet_hdr\nlink set {port} {wide}")
        }
    };
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
        let end = End::Namespace(77);
        let attachment =
            Attachment { id: NodeId::ROUTER, end, device: "eth2", net: NetId(2), mtu: None };
        attachment_batch(&mut batch, &attachment);
        assert_eq!(
            batch,
            "link add net2-vm-201 type veth peer name eth2 address 00:00:00:01:02:c9 netns 77\n\
             link set net2-vm-201 master net2 up\n"
        );
    }
}
