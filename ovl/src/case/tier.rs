//! Routers as a tier: the fragments of a datagram come to two of them and meet one server.

use anyhow::{Context, Result};
use serde_json::Value;

use super::datagrams::wait_for_datagrams;
use super::fragments::{
    PARTS, SHAPE, TUN, expected_datagrams, flows, fragment, numbered, reassembled_datagrams,
};
use super::{Case, PLAIN, check};
use crate::address::{EXTERNAL_NET, FAMILIES, Family, NodeId};
use crate::flow::Flow;
use crate::lab::{Lab, PATIENCE, QUEUE, Shape};
use crate::node::Node;
use crate::process::Process;
use crate::sender::to_hex;
use crate::wait;

const TIER: Shape = Shape { routers: 2, ..SHAPE };

pub const CASES: &[Case] = &[
    Case {
        name: "tier",
        about: "fragments of a datagram that come to two routers in turn meet its server",
        shape: TIER,
        run: |lab| {
            let _tier = Tier::start(lab, &["--queue", QUEUE], Table::There)?;
            fragments_meet_their_server(lab)
        },
        ..PLAIN
    },
    Case {
        name: "tier-fast",
        about: "so they do beside the fast plane, by rules of lb's own",
        shape: TIER,
        run: |lab| {
            let rules = ["--vip", "10.0.0.0/32", "1000::/128", "--fast"];
            let options = [&["--queue", QUEUE], &rules[..]].concat();
            let _tier = Tier::start(lab, &options, Table::There)?;
            fragments_meet_their_server(lab)
        },
        ..PLAIN
    },
    Case {
        name: "tier-changes",
        about: "routers leave a tier and come back, and its table is made anew: lb follows",
        shape: TIER,
        run: routers_come_and_go,
        ..PLAIN
    },
    Case {
        name: "tier-missing",
        about: "without the table of the tier fragments are handled where they come, until it is there",
        shape: TIER,
        run: |lab| {
            let tier = Tier::start(lab, &["--queue", QUEUE], Table::Missing)?;
            the_table_comes_later(lab, &tier)
        },
        ..PLAIN
    },
];

const ROUTERS: [NodeId; 2] = [NodeId::ROUTER, NodeId::ROUTER_2];
const TABLE: &str = "routers";

/// The `lb` of the second router; that of the first is the lab's.
struct Tier {
    second: Process,
}

/// The table of the tier when `lb` starts.
#[derive(PartialEq)]
enum Table {
    There,
    Missing,
}

impl Tier {
    fn start(lab: &mut Lab, options: &[&str], table: Table) -> Result<Self> {
        for id in ROUTERS {
            let node = lab.cluster.node(id)?;
            let marks = lab.cluster.servers().map(|server| server.number().to_string());
            let marks = marks.collect::<Vec<_>>().join(" ");
            node.script(&format!("shm-tool init\nshm-tool activate {marks}"))?;
            if table == Table::There {
                init_tier(node, id, "")?;
            }
            node.script(&ways_to_routers(id))?;
            if !options.contains(&"--vip") {
                node.script(&queue_rules())?;
            }
        }
        let options = [options, &["--tun", TUN, "--tier-shm", TABLE]].concat();
        lab.start_lb(&options)?;
        let words = [&["lb"], options.as_slice()].concat();
        let mut second = lab.cluster.node(NodeId::ROUTER_2)?.spawn("lb", &words)?;
        second.wait_for_log("ready", PATIENCE)?;
        Ok(Self { second })
    }
}

/// The table of the tier as one of its routers has it.
fn init_tier(node: &Node, own: NodeId, options: &str) -> Result<()> {
    let (own, all) = (own.number(), ROUTERS.map(|id| id.number().to_string()).join(" "));
    node.script(&format!(
        "shm-tool init --shm {TABLE} --own-mark {own} {options}\nshm-tool activate --shm {TABLE} {all}"
    ))
    .map(drop)
}

/// A mark of another router leads to it, over the net by which packets come in.
fn ways_to_routers(own: NodeId) -> String {
    let others = || ROUTERS.into_iter().filter(move |id| *id != own);
    let way = |family: Family, id: NodeId| {
        let (ip, mark) = (family.ip(), id.number());
        let address = family.address(EXTERNAL_NET, id);
        format!(
            "{ip} rule add fwmark {mark} lookup {mark}\n{ip} route add default via {address} table {mark}\n"
        )
    };
    FAMILIES.iter().flat_map(|family| others().map(|id| way(*family, id))).collect()
}

fn queue_rules() -> String {
    let rule = |family: &Family| {
        let (iptables, vip) = (family.iptables(), family.vip_prefix());
        format!("{iptables} -t mangle -A PREROUTING -d {vip} -j NFQUEUE --queue-num {QUEUE}\n")
    };
    FAMILIES.iter().map(rule).collect()
}

/// Lets the tester reach the virtual addresses by one router alone.
fn lead_through(lab: &Lab, router: NodeId) -> Result<()> {
    let route = |family: &Family| {
        let (ip, vip) = (family.ip(), family.vip_prefix());
        format!("{ip} route replace {vip} via {}\n", family.address(EXTERNAL_NET, router))
    };
    lab.cluster.tester()?.script(&FAMILIES.iter().map(route).collect::<String>()).map(drop)
}

/// Sends these parts of every datagram through a router; identifications begin at `first`.
fn send_parts(lab: &Lab, router: NodeId, first: u16, parts: &[u16]) -> Result<()> {
    lead_through(lab, router)?;
    let parts_of = |(id, flow)| parts.iter().map(move |part| fragment(&flow, id, *part));
    lab.send_packets(numbered(first).flat_map(parts_of))
}

fn stats(node: &Node) -> Result<Value> {
    let report = node.run(&["shm-tool", "stats", "--json"])?.success()?;
    let report: Value = serde_json::from_str(&report).context("read shm-tool stats")?;
    Ok(report["sum"].clone())
}

fn counted(lab: &Lab, id: NodeId, counter: &str) -> Result<u64> {
    let stats = stats(lab.cluster.node(id)?)?;
    stats[counter].as_u64().with_context(|| format!("read stats: no {counter}"))
}

fn sum(lab: &Lab, counter: &str) -> Result<u64> {
    ROUTERS.iter().map(|id| counted(lab, *id, counter)).sum()
}

/// The first, third and fifth fragment of each datagram come to one router, the others to the other one:
/// once in order, once those first that lack the first.
fn fragments_meet_their_server(lab: &mut Lab) -> Result<()> {
    let [one, other] = ROUTERS;
    let numbers = |lab: &Lab| -> Result<[u64; 4]> {
        Ok([
            counted(lab, one, "tier_relayed")?,
            counted(lab, other, "tier_relayed")?,
            sum(lab, "held_injected")?,
            sum(lab, "received")?,
        ])
    };
    let at_first = numbers(lab)?;
    let count = flows().len() as u64;
    for (first, rounds) in [
        (1, [(one, &[0, 2, 4][..]), (other, &[1, 3][..])]),
        (1001, [(other, &[3, 1]), (one, &[4, 2, 0])]),
    ] {
        let before = reassembled_datagrams(lab)?;
        for (router, parts) in rounds {
            send_parts(lab, router, first, parts)?;
        }
        wait_for_datagrams(lab, &before, expected_datagrams(lab)?)?;
    }
    let now = numbers(lab)?;
    let [relayed, relayed_back, held, received] = std::array::from_fn(|i| now[i] - at_first[i]);
    // Each fragment is received once, and once more if it was relayed or held.
    let sent = 2 * u64::from(PARTS) * count;
    check(
        relayed > 0
            && relayed_back > 0
            && held > 0
            && received == sent + held + relayed + relayed_back,
        format!("{sent} fragments, of which both routers relayed some, and some were held"),
        format!("received {received}, relayed {relayed} and {relayed_back}, held {held}"),
    )?;
    explain_agrees(lab)
}

/// What `explain` says about fragments is what the routers did: each is handled at one of them.
fn explain_agrees(lab: &Lab) -> Result<()> {
    let here = |id: NodeId, hex: &str| -> Result<bool> {
        let words = ["shm-tool", "explain", "--json", "--tier-shm", TABLE, "--hex", hex];
        let report = lab.cluster.node(id)?.run(&words)?.success()?;
        let report: Value = serde_json::from_str(&report).context("read shm-tool explain")?;
        let tier = &report["tier"];
        let handled = tier["handled"].as_str().context("read shm-tool explain: no tier")?;
        Ok(handled == "here" && tier["slot_mark"] == id.number())
    };
    for (id, flow) in numbered(1).step_by(13) {
        let packet = to_hex(&later_fragment(&flow, id));
        let handled = ROUTERS.map(|router| here(router, &packet));
        let [one, other] = handled;
        check(one? != other?, "one of the routers to handle it", format!("{flow:?}"))?;
    }
    Ok(())
}

/// Short, and with the lengths that the kernel fills in when it sends one.
fn later_fragment(flow: &Flow, id: u16) -> Vec<u8> {
    const LEN: u8 = 16;
    let mut packet = fragment(flow, id, 1);
    match flow.family() {
        Family::V4 => {
            packet.truncate(20 + usize::from(LEN));
            packet[2..4].copy_from_slice(&[0, 20 + LEN]);
        }
        Family::V6 => {
            packet.truncate(48 + usize::from(LEN));
            packet[4..6].copy_from_slice(&[0, 8 + LEN]);
        }
    }
    packet
}

fn routers_come_and_go(lab: &mut Lab) -> Result<()> {
    let tier = Tier::start(lab, &["--queue", QUEUE], Table::There)?;
    let (first, second) = (NodeId::ROUTER, NodeId::ROUTER_2);
    let in_turn = |lab: &Lab, id| -> Result<()> {
        let before = reassembled_datagrams(lab)?;
        send_parts(lab, first, id, &[0, 2, 4])?;
        send_parts(lab, second, id, &[1, 3])?;
        wait_for_datagrams(lab, &before, expected_datagrams(lab)?)
    };
    in_turn(lab, 1)?;

    // The second one leaves: all fragments go to the first.
    for id in ROUTERS {
        lab.cluster.node(id)?.script(&format!(
            "shm-tool deactivate --shm {TABLE} {second_mark}",
            second_mark = second.number()
        ))?;
    }
    let relayed = counted(lab, second, "tier_relayed")?;
    let to_first = counted(lab, first, "tier_relayed")?;
    in_turn(lab, 1001)?;
    let count = flows().len() as u64;
    let now = (counted(lab, first, "tier_relayed")?, counted(lab, second, "tier_relayed")?);
    let expected = (to_first, relayed + 2 * count);
    check(now == expected, format!("{expected:?} relayed"), format!("{now:?}"))?;

    // It comes back in a table made anew, with other slots.
    for id in ROUTERS {
        let node = lab.cluster.node(id)?;
        init_tier(node, id, "--m 499 --force")?;
    }
    for log in [lab.lb()?, &tier.second] {
        wait::until("lb to take the new table of the tier", PATIENCE, || {
            let told = log.log().matches("tier: table").count();
            Ok((told >= 2).then_some(()))
        })?;
    }
    in_turn(lab, 2001)?;
    let back = counted(lab, first, "tier_relayed")?;
    check(back > to_first, "the first router to relay again", back)?;

    // A table that does not tell the own mark is refused, and one that goes stays in force.
    lab.table(&["init", "--shm", TABLE, "--force"])?;
    let balancer = lab.lb_mut()?;
    balancer.wait_for_log("--own-mark MARK`; going on with the table before it", PATIENCE)?;
    in_turn(lab, 3001)?;
    for id in ROUTERS {
        lab.cluster.node(id)?.script(&format!("shm-tool delete --shm {TABLE}"))?;
    }
    in_turn(lab, 4001)?;
    check(sum(lab, "tier_missing")? == 0, "no fragment without a tier", sum(lab, "tier_missing")?)
}

fn the_table_comes_later(lab: &mut Lab, tier: &Tier) -> Result<()> {
    for log in [lab.lb()?.log(), tier.second.log()] {
        let told = "every fragment is handled here until it is there";
        check(log.contains(told), format!("a warning: {told}"), log)?;
    }
    // All fragments of a datagram come to one router, which handles them.
    let count = flows().len() as u64;
    let before = reassembled_datagrams(lab)?;
    send_parts(lab, NodeId::ROUTER_2, 1, &[0, 1, 2, 3, 4])?;
    wait_for_datagrams(lab, &before, expected_datagrams(lab)?)?;
    let missing = counted(lab, NodeId::ROUTER_2, "tier_missing")?;
    check(
        missing == u64::from(PARTS) * count && sum(lab, "tier_relayed")? == 0,
        format!("{} fragments handled without a tier", u64::from(PARTS) * count),
        missing,
    )?;
    for id in ROUTERS {
        init_tier(lab.cluster.node(id)?, id, "")?;
    }
    for log in [lab.lb()?, &tier.second] {
        wait::until("lb to take the table of the tier", PATIENCE, || {
            Ok(log.log().contains("tier: table").then_some(()))
        })?;
    }
    fragments_meet_their_server(lab).context("with the table of the tier")?;
    let after = counted(lab, NodeId::ROUTER_2, "tier_missing")?;
    check(after == missing, format!("{missing} fragments without a tier still"), after)
}
