//! A router of two is taken out of the routing, is away, and returns.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::stage::{Measured, Stage};
use super::{MOMENT, Plane, check, unbroken};
use crate::address::{CLUSTER_NET, FAMILIES, Family, NetId, NodeId};
use crate::lab::{Lab, PATIENCE};
use crate::wait;

/// Nothing comes through the router any more, whatever others send to it.
const AWAY: &str = "table inet away {
    chain everything { type filter hook prerouting priority -500; iifname != { lo, eth0 } drop; }
}";

/// The network between the routers and the node before them.
const ROUTERS_NET: NetId = NetId(3);

/// When a router had nothing for so long, what was on its way is through.
const STILL: Duration = Duration::from_millis(100);

pub fn router_goes_and_returns(lab: &mut Lab, plane: Plane) -> Result<()> {
    let mut stage = Stage::new(lab, plane)?;
    let router = NodeId::ROUTER;
    let measured = stage.measure("router-removed-and-added", |stage| {
        for id in stage.routers() {
            let packets = stage.packets(id)?;
            check(packets > 100, format!("packets on both routers, {id}"), packets)?;
        }
        stage.each_turn(|stage| {
            let routes = withdraw(stage, router)?;
            wait_until_still(stage, router)?;
            stage.end(router, "TERM")?;
            let node = stage.lab.cluster.node(router)?;
            node.script(&format!("nft -f - <<END\n{AWAY}\nEND"))?;
            // Not to wait for anything: so long it is away.
            thread::sleep(MOMENT);
            node.script("nft delete table inet away")?;
            stage.start_lb(router)?;
            let before = stage.packets(router)?;
            for (id, batch) in routes {
                stage.lab.cluster.node(id)?.script(&batch)?;
            }
            wait::until("packets on the router that returned", PATIENCE, || {
                Ok((stage.packets(router)? > before).then_some(()))
            })
        })
    })?;
    let Measured { report, value: _ } = measured;
    report.keep("router of two gone", plane)?;
    unbroken(report.direct().chain(report.by_vip()), report.slack())
}

/// Leads everything to the other router. Returns the scripts that undo it.
fn withdraw(stage: &Stage, router: NodeId) -> Result<Vec<(NodeId, String)>> {
    let cluster = &stage.lab.cluster;
    let mut undo = Vec::new();
    for id in cluster.servers().chain([NodeId::BETWEEN]) {
        let node = cluster.node(id)?;
        let mut back = String::new();
        for (family, file) in FAMILIES.into_iter().zip(["routes4", "routes6"]) {
            let routes = node.run(&["cat", &format!("/etc/ovl/{file}")])?.success()?;
            let hops = default_hops(&routes);
            let others: Vec<_> = hops.iter().filter(|hop| !is_of(hop, family, router)).collect();
            let [other] = others[..] else {
                bail!("read {file} of {id}: not a default of two routers: {routes}");
            };
            let replace = |hops: &[&str]| {
                let hops: String = hops.iter().map(|hop| format!(" nexthop {hop}")).collect();
                format!("{} route replace default{hops}\n", family.ip())
            };
            node.script(&replace(&[other]))?;
            back += &replace(&hops);
        }
        undo.push((id, back));
    }
    Ok(undo)
}

/// The next hops of the default route in a batch for `ip`.
fn default_hops(batch: &str) -> Vec<&str> {
    let mut lines = batch.lines();
    let hops = lines.find_map(|line| line.strip_prefix("route add default nexthop "));
    hops.map(|hops| hops.split(" nexthop ").collect()).unwrap_or_default()
}

/// Whether a hop, `via ADDRESS dev DEVICE`, is an address of this node.
fn is_of(hop: &str, family: Family, node: NodeId) -> bool {
    let address = hop.split(' ').nth(1).and_then(|address| address.parse::<IpAddr>().ok());
    [CLUSTER_NET, ROUTERS_NET].iter().any(|net| address == Some(family.address(*net, node)))
}

fn wait_until_still(stage: &Stage, router: NodeId) -> Result<()> {
    let mut last = (0, Instant::now());
    wait::until("a router without packets", PATIENCE, || {
        let packets = stage.packets(router)?;
        if packets != last.0 {
            last = (packets, Instant::now());
        }
        Ok((last.1.elapsed() >= STILL).then_some(()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_hops_are_told_apart() {
        let batch = "route add 20.0.0.0/16 via 192.168.2.221 dev eth2\n\
            route add default nexthop via 192.168.3.201 dev eth1 nexthop via 192.168.3.202 dev eth1\n";
        let hops = default_hops(batch);
        assert_eq!(hops, ["via 192.168.3.201 dev eth1", "via 192.168.3.202 dev eth1"]);
        let of_first = |hop| is_of(hop, Family::V4, NodeId::ROUTER);
        assert!(of_first(hops[0]) && !of_first(hops[1]) && !of_first("via"));
        assert!(is_of("via 1000::1:c0a8:1c9 dev eth1", Family::V6, NodeId::ROUTER));
        assert!(default_hops("route add default via 192.168.1.201 dev eth1\n").is_empty());
    }
}
