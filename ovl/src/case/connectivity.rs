//! The cluster itself, without a load balancer.

use anyhow::Result;

use super::verbs::{first_rule_packets, ping};
use super::{Case, STANDARD, check};
use crate::address::{CLUSTER_NET, EXTERNAL_NET, FAMILIES, NodeId};
use crate::lab::Lab;

pub const CASES: &[Case] = &[
    Case {
        name: "connectivity",
        about: "every node reaches every other, through the router as well",
        layout: STANDARD,
        run: every_node_reaches_every_other,
    },
    Case {
        name: "static-mark",
        about: "a fixed mark leads packets for the VIP to its server and back directly",
        layout: STANDARD,
        run: a_mark_leads_to_its_server,
    },
];

fn every_node_reaches_every_other(lab: &mut Lab) -> Result<()> {
    let cluster = &lab.cluster;
    for family in FAMILIES {
        for server in cluster.servers() {
            let tester = family.address(EXTERNAL_NET, NodeId::TESTER);
            ping(cluster.node(server)?, 1, &[&tester.to_string()])?;
            let router = family.address(CLUSTER_NET, NodeId::ROUTER);
            ping(cluster.node(server)?, 1, &[&router.to_string()])?;
            let server = family.address(CLUSTER_NET, server);
            ping(cluster.tester()?, 1, &[&server.to_string()])?;
        }
    }
    Ok(())
}

fn a_mark_leads_to_its_server(lab: &mut Lab) -> Result<()> {
    let cluster = &lab.cluster;
    let router = cluster.router()?;
    let server = cluster.node(NodeId::VM_003)?;
    for family in FAMILIES {
        let (iptables, vip) = (family.iptables(), family.vip_prefix());
        let to_vip = format!("{iptables} -t mangle -A PREROUTING -d {vip}");
        router.script(&format!("{to_vip} -j MARK --set-mark 3"))?;
        server.script(&to_vip)?;
        let source = family.source(0x0102).to_string();
        ping(
            cluster.tester()?,
            3,
            &["-I", &source, &family.vip().to_string()],
        )?;
        let counted = server.script(&format!("{iptables} -t mangle -vnxL PREROUTING"))?;
        let packets = first_rule_packets(&counted);
        check(
            packets == Some(3),
            format!("3 {family} packets on vm-003"),
            counted,
        )?;
    }
    Ok(())
}
