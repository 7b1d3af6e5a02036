//! The cluster itself, without a load balancer.

use anyhow::Result;

use super::verbs::{arrivals, count_arrivals, ping};
use super::{Case, On, PLAIN, check};
use crate::address::{CLUSTER_NET, EXTERNAL_NET, FAMILIES, Family, NodeId};
use crate::cluster::Cluster;
use crate::flow;
use crate::lab::Lab;
use crate::packet::Extras;
use crate::trace::Trace;

pub const CASES: &[Case] = &[
    Case {
        name: "connectivity",
        about: "every node reaches every other, through the router as well",
        on: On::Any,
        run: every_node_reaches_every_other,
        ..PLAIN
    },
    Case {
        name: "static-mark",
        about: "a fixed mark leads packets for the VIP to its server and back directly",
        on: On::Any,
        run: a_mark_leads_to_its_server,
        ..PLAIN
    },
    Case {
        name: "raw-packets",
        about: "packets with IP options and extension headers reach the server, each one traced",
        on: On::Any,
        run: raw_packets_arrive,
        ..PLAIN
    },
];

pub(super) fn every_node_reaches_every_other(lab: &mut Lab) -> Result<()> {
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
    for family in FAMILIES {
        mark_all(cluster, family)?;
        count_arrivals(cluster.node(NodeId::VM_003)?, family)?;
        let source = family.source(0x0102).to_string();
        ping(cluster.tester()?, 3, &["-I", &source, &family.vip().to_string()])?;
        check_arrivals(cluster, family, 3)?;
    }
    Ok(())
}

fn raw_packets_arrive(lab: &mut Lab) -> Result<()> {
    let cluster = &lab.cluster;
    for family in FAMILIES {
        mark_all(cluster, family)?;
        count_arrivals(cluster.node(NodeId::VM_003)?, family)?;
    }
    let trace = Trace::of_marks(cluster.router()?)?;
    let flows = flow::list_of_each(250);
    for extras in [Extras::None, Extras::Some] {
        trace.clear()?;
        lab.send_flows(&flows, extras)?;
        let marks = trace.wait_for(flows.len())?;
        let wrong = marks.iter().find(|(flow, mark)| **mark != 3 || !flows.contains(flow));
        check(wrong.is_none(), "mark 3 on every flow that was sent", format!("{wrong:?}"))?;
    }
    for family in FAMILIES {
        check_arrivals(cluster, family, 1000)?;
    }
    Ok(())
}

/// Gives mark 3 to every packet for the VIP.
fn mark_all(cluster: &Cluster, family: Family) -> Result<()> {
    let (iptables, vip) = (family.iptables(), family.vip_prefix());
    let rule = format!("{iptables} -t mangle -A PREROUTING -d {vip} -j MARK --set-mark 3");
    cluster.router()?.script(&rule).map(drop)
}

fn check_arrivals(cluster: &Cluster, family: Family, count: u64) -> Result<()> {
    let seen = arrivals(cluster.node(NodeId::VM_003)?, family)?;
    check(seen == count, format!("{count} {family} packets for the VIP on vm-003"), seen)
}
