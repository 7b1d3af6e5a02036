//! Which mark each flow has at a point of the router, noted by the kernel itself: an nft rule puts
//! source and mark of every packet to a virtual address into a set.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::address::{FAMILIES, Family};
use crate::flow::{Flow, Transport};
use crate::lab::SLOWNESS_OF_MACHINES;
use crate::node::Node;
use crate::wait;

/// How long packets may be on their way.
const ARRIVAL: Duration = Duration::from_secs(5);

/// The rules of one trace in the router.
pub struct Trace<'a> {
    router: &'a Node,
    table: &'static str,
}

impl<'a> Trace<'a> {
    /// Notes the mark that packets leave the router with.
    pub fn of_marks(router: &'a Node) -> Result<Self> {
        let table = "trace-marks";
        install(router, table, "hook postrouting priority 0", |_| String::new())?;
        Ok(Self { router, table })
    }

    /// Notes the slot that the kernel's own hash chooses, before the packet meets any other rule.
    pub fn of_kernel_slots(router: &'a Node, slots: u64, seed: u64) -> Result<Self> {
        let table = "trace-slots";
        install(router, table, "hook prerouting priority -450", |family| {
            let ip = family.nft();
            format!(
                "meta mark set jhash {ip} saddr . {ip} daddr . meta l4proto . @th,0,32 \
                 mod {slots} seed {seed}"
            )
        })?;
        Ok(Self { router, table })
    }

    /// Notes which flows come to a node, whatever becomes of them there.
    pub fn of_arrivals(node: &'a Node) -> Result<Self> {
        let table = "trace-arrivals";
        install(node, table, "hook prerouting priority -450", |_| String::new())?;
        Ok(Self { router: node, table })
    }

    /// The mark of every flow, once there are `count` flows.
    pub fn wait_for(&self, count: usize) -> Result<BTreeMap<Flow, u32>> {
        let mut seen = BTreeMap::new();
        let slowness = if self.router.is_machine() { SLOWNESS_OF_MACHINES } else { 1 };
        wait::until(&format!("{count} flows in {}", self.table), ARRIVAL * slowness, || {
            seen = self.seen()?;
            Ok((seen.len() >= count).then_some(()))
        })
        .with_context(|| format!("{} flows were seen", seen.len()))?;
        Ok(seen)
    }

    /// Takes the rules out of the router.
    pub fn remove(self) -> Result<()> {
        self.router.run(&["nft", "delete", "table", "inet", self.table])?.success().map(drop)
    }

    pub fn clear(&self) -> Result<()> {
        for family in FAMILIES {
            let set = set_name(family);
            self.router.run(&["nft", "flush", "set", "inet", self.table, &set])?.success()?;
        }
        Ok(())
    }

    /// The mark of every flow so far.
    pub fn seen(&self) -> Result<BTreeMap<Flow, u32>> {
        let mut seen = BTreeMap::new();
        for family in FAMILIES {
            let set = set_name(family);
            let listing = self
                .router
                .run(&["nft", "-j", "list", "set", "inet", self.table, &set])?
                .success()?;
            for (flow, mark) in parse_set(&listing).with_context(|| format!("read set {set}"))? {
                if let Some(other) = seen.insert(flow, mark)
                    && other != mark
                {
                    bail!("trace {flow:?}: marks {other} and {mark} at the same time");
                }
            }
        }
        Ok(seen)
    }
}

/// How far two traces of the same flows differ when one target is gone in the second.
#[derive(Debug, PartialEq, Eq)]
pub struct Moves {
    pub flows: usize,
    /// Flows of the target that is gone.
    pub of_removed: usize,
    /// Flows that moved although their target is still there.
    pub of_others: usize,
    /// Flows still on the target that is gone.
    pub stale: usize,
}

impl Moves {
    pub fn between(
        before: &BTreeMap<Flow, u32>,
        after: &BTreeMap<Flow, u32>,
        removed: u32,
    ) -> Self {
        let moved = |(flow, mark): &(&Flow, &u32)| after.get(flow) != Some(mark);
        let (of_removed, others): (Vec<_>, Vec<_>) =
            before.iter().partition(|(_, mark)| **mark == removed);
        Self {
            flows: before.len(),
            of_removed: of_removed.len(),
            of_others: others.iter().filter(|pair| moved(pair)).count(),
            stale: after.values().filter(|mark| **mark == removed).count(),
        }
    }
}

/// How many flows have each mark.
pub fn tally(marks: &BTreeMap<Flow, u32>) -> BTreeMap<u32, u32> {
    let mut tally = BTreeMap::new();
    for mark in marks.values() {
        *tally.entry(*mark).or_default() += 1;
    }
    tally
}

fn set_name(family: Family) -> String {
    format!("seen-{}", family.nft())
}

fn install(
    router: &Node,
    table: &str,
    hook: &str,
    action: impl Fn(Family) -> String,
) -> Result<()> {
    let ruleset = ruleset(table, hook, action);
    let ran = router.entry().run_with_input(&["nft", "-f", "-"], &ruleset)?;
    ran.success().map(drop)
}

fn ruleset(table: &str, hook: &str, action: impl Fn(Family) -> String) -> String {
    let mut sets = String::new();
    let mut rules = String::new();
    for family in FAMILIES {
        let (set, ip, vip) = (set_name(family), family.nft(), family.vip());
        let key = format!("{ip} saddr . meta l4proto . th sport . meta mark");
        let action = action(family);
        sets += &format!("set {set} {{ typeof {key}; flags dynamic; size 65535; }}\n");
        rules += &format!(
            "{ip} daddr {vip} meta l4proto {{ tcp, udp, sctp, icmp, icmpv6 }} {action} update @{set} {{ {key} }}\n"
        );
    }
    format!("table inet {table} {{\n{sets}chain trace {{ type filter {hook};\n{rules}}}\n}}\n")
}

fn parse_set(listing: &str) -> Result<Vec<(Flow, u32)>> {
    let elements = elements(listing)?;
    elements
        .iter()
        .map(|element| parse_element(element).with_context(|| format!("odd element {element}")))
        .collect()
}

/// The elements of a set, each of several parts, as `nft -j` lists them.
pub fn elements(listing: &str) -> Result<Vec<Value>> {
    let listing: Value = serde_json::from_str(listing)?;
    let objects = listing["nftables"].as_array().context("no list of objects")?;
    let set = objects.iter().find_map(|object| object.get("set")).context("no set")?;
    // An empty set has no list of elements at all.
    let elements = set["elem"].as_array().map(Vec::as_slice).unwrap_or_default();
    // Wrapped when there is more to say about the element than its value.
    let value = |element: &Value| element.pointer("/elem/val").unwrap_or(element)["concat"].clone();
    Ok(elements.iter().map(value).collect())
}

fn parse_element(concat: &Value) -> Option<(Flow, u32)> {
    let address: IpAddr = concat[0].as_str()?.parse().ok()?;
    let transport = match concat[1].as_str()? {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        "sctp" => Transport::Sctp,
        "icmp" | "icmpv6" | "ipv6-icmp" => Transport::Icmp,
        _ => return None,
    };
    let port = u16::try_from(concat[2].as_u64()?).ok()?;
    let mark = u32::try_from(concat[3].as_u64()?).ok()?;
    Some((Flow { transport, source: SocketAddr::new(address, port) }, mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_listing() {
        let listing = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"set": {"family": "inet",
            "name": "seen-ip", "elem": [{"concat": ["20.0.0.1", "tcp", 1024, 3]},
            {"elem": {"val": {"concat": ["20.0.0.2", "udp", 9, 4]}, "expires": 5}}]}}]}"#;
        let flow = |transport, source: &str| Flow { transport, source: source.parse().unwrap() };
        assert_eq!(
            parse_set(listing).unwrap(),
            [(flow(Transport::Tcp, "20.0.0.1:1024"), 3), (flow(Transport::Udp, "20.0.0.2:9"), 4),]
        );
    }

    #[test]
    fn moves_are_told_apart() {
        let flows = crate::flow::list(Family::V4, Transport::Tcp, 5);
        let trace = |marks: [u32; 5]| flows.iter().copied().zip(marks).collect::<BTreeMap<_, _>>();
        let before = trace([1, 2, 3, 3, 1]);
        assert_eq!(
            Moves::between(&before, &trace([1, 1, 1, 2, 1]), 3),
            Moves { flows: 5, of_removed: 2, of_others: 1, stale: 0 }
        );
        assert_eq!(
            Moves::between(&before, &before, 3),
            Moves { flows: 5, of_removed: 2, of_others: 0, stale: 2 }
        );
    }

    #[test]
    fn an_empty_set_is_empty_and_rubbish_an_error() {
        assert_eq!(parse_set(r#"{"nftables": [{"set": {"name": "x"}}]}"#).unwrap(), []);
        assert!(parse_set(r#"{"nftables": [{"set": {"elem": [{"concat": [1]}]}}]}"#).is_err());
        assert!(parse_set("{}").is_err());
    }
}
