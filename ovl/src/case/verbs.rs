//! Steps that several cases share.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::check;
use crate::address::{FAMILIES, Family};
use crate::flow::{Flow, TRANSPORTS, Transport};
use crate::lab::Lab;
use crate::mconnect::Connections;
use crate::node::Node;
use crate::packet::{Extras, first_packet};
use crate::trace::Trace;

/// Every one of `count` pings must be answered.
pub fn ping(from: &Node, count: u32, words: &[&str]) -> Result<()> {
    let count = count.to_string();
    let ping = ["ping", "-n", "-q", "-i", "0.02", "-W", "2", "-c", &count];
    let ran = from.run(&[&ping, words].concat())?;
    check(
        ran.succeeded(),
        format!("{} reaches {}", from.name(), words.join(" ")),
        format!("{}{}", ran.stdout(), ran.stderr()),
    )
}

/// Lets the tester connect; all must be answered, by exactly `hosts` servers, each within 50 % of
/// the mean.
pub fn connect_all(lab: &Lab, family: Family, transport: Transport, hosts: usize) -> Result<()> {
    let connections = Connections { family, transport, count: 400, seconds: 10 };
    let answers = lab.connect(connections)?;
    check(
        answers.failed == 0 && answers.unevenness(hosts, 50).is_none(),
        format!(
            "400 {family} {transport} connections over {hosts} servers, each within 50 % of the mean"
        ),
        format!("{answers:?}"),
    )
}

/// [`connect_all`] for both families and both transports.
pub fn connect_all_kinds(lab: &Lab, hosts: usize) -> Result<()> {
    for family in FAMILIES {
        for transport in TRANSPORTS {
            connect_all(lab, family, transport, hosts)?;
        }
    }
    Ok(())
}

/// Sends every flow once; returns the marks that they left the router with.
pub fn trace_flows(lab: &Lab, trace: &Trace, flows: &[Flow]) -> Result<BTreeMap<Flow, u32>> {
    trace_packets(lab, trace, flows.iter().map(|flow| first_packet(flow, Extras::None)))
}

/// Sends packets, each of another flow; returns the marks that they left the router with.
pub fn trace_packets(
    lab: &Lab,
    trace: &Trace,
    packets: impl ExactSizeIterator<Item = Vec<u8>>,
) -> Result<BTreeMap<Flow, u32>> {
    let count = packets.len();
    trace.clear()?;
    lab.send_packets(packets)?;
    trace.wait_for(count)
}

/// Lets a node count the packets that come to it for the VIP.
pub fn count_arrivals(node: &Node, family: Family) -> Result<()> {
    let (iptables, vip) = (family.iptables(), family.vip_prefix());
    node.script(&format!("{iptables} -t mangle -A PREROUTING -d {vip}")).map(drop)
}

/// How many came since then.
pub fn arrivals(node: &Node, family: Family) -> Result<u64> {
    let listing = node.script(&format!("{} -t mangle -vnxL PREROUTING", family.iptables()))?;
    first_rule_packets(&listing).with_context(|| format!("read rules: odd listing {listing}"))
}

/// The packet count of the first rule that `iptables -vnxL CHAIN` lists.
fn first_rule_packets(listing: &str) -> Option<u64> {
    listing.lines().nth(2)?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_is_on_the_third_line() {
        let listing = "Chain PREROUTING (policy ACCEPT 5 packets, 300 bytes)\n    pkts      bytes\n       3      180\n";
        assert_eq!(first_rule_packets(listing), Some(3));
        assert_eq!(first_rule_packets("Chain X\n pkts\n"), None);
    }
}
