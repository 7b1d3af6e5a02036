//! Datagrams in fragments: all of them must meet the server of their datagram.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::json;

use super::verbs::ping;
use super::{Case, On, PLAIN, check};
use crate::address::{FAMILIES, Family};
use crate::flow::{self, Flow, Transport};
use crate::lab::{Lab, PATIENCE, QUEUE, Shape};
use crate::packet::{Extras, first_packet};
use crate::wait;

/// Packets must reach the queue with the sizes that they were sent with.
pub(super) const SHAPE: Shape = Shape { offload: false, ..Shape::STANDARD };

pub const CASES: &[Case] = &[
    Case {
        name: "large-pings",
        about: "pings of 20,000 bytes from many sources are answered, over one queue and over four",
        shape: SHAPE,
        run: large_pings,
        ..PLAIN
    },
    Case {
        name: "reversed-fragments",
        about: "fragments that come last first are held, and meet the server of their datagram",
        shape: SHAPE,
        on: On::Any,
        run: |lab| {
            start(lab, &["--tun", TUN])?;
            reversed_fragments_are_held(lab)
        },
        ..PLAIN
    },
    Case {
        name: "reversed-as-user",
        about: "so they are when lb has become another user",
        shape: SHAPE,
        run: |lab| {
            start(lab, &["--tun", TUN, "--user", "nobody"])?;
            reversed_fragments_are_held(lab)
        },
        ..PLAIN
    },
    Case {
        name: "reversed-own-rules",
        about: "so they are by rules of lb's own for one device, beside the fast plane",
        shape: SHAPE,
        run: |lab| {
            lab.table(&["init"])?;
            lab.activate_all()?;
            let rules = ["--vip", "10.0.0.0/32", "1000::/128", "--device", "eth2", "--fast"];
            lab.start_lb(&[&["--queue", QUEUES, "--tun", TUN], &rules[..]].concat())?;
            reversed_fragments_are_held(lab)
        },
        ..PLAIN
    },
    Case {
        name: "fragments-restart",
        about: "a new lb takes over from one that was killed while it held fragments",
        shape: SHAPE,
        run: held_when_killed,
        ..PLAIN
    },
    Case {
        name: "reversed-without-tun",
        about: "without a tun device only what comes before the first fragment is dropped",
        shape: SHAPE,
        run: reversed_fragments_are_dropped,
        ..PLAIN
    },
];

/// The kernel spreads over them by addresses, so that the fragments of a datagram stay together.
const QUEUES: &str = "4:7";
pub(super) const TUN: &str = "frag0";
const PING_SOURCES: u16 = 10;
const FLOWS: u16 = 40;
pub(super) const PARTS: u16 = 5;

fn large_pings(lab: &mut Lab) -> Result<()> {
    lab.table(&["init"])?;
    lab.activate_all()?;
    for (number, target) in [(QUEUE, "--queue-num"), (QUEUES, "--queue-balance")] {
        for family in FAMILIES {
            let flush = [family.iptables(), "-t", "mangle", "-F", "PREROUTING"];
            lab.cluster.router()?.run(&flush)?.success()?;
        }
        lab.queue(&[target, number])?;
        lab.start_lb(&["--queue", number])?;
        for family in FAMILIES {
            for index in 1..=PING_SOURCES {
                let source = family.source(index).to_string();
                let large = ["-s", "20000", "-M", "dont", "-I", &source];
                ping(
                    lab.cluster.tester()?,
                    2,
                    &[&large[..], &[&family.vip().to_string()]].concat(),
                )?;
            }
        }
        // 20,008 bytes are 14 fragments, of 1,480 or 1,448 bytes.
        let count = 2 * 2 * 14 * u64::from(PING_SOURCES);
        let stats = lab.stats()?.sum;
        check(
            stats.marked == count && stats.classes.get("fragment") == Some(&count),
            format!("{count} fragments marked"),
            format!("{stats:?}"),
        )?;
    }
    Ok(())
}

fn held_when_killed(lab: &mut Lab) -> Result<()> {
    start(lab, &["--tun", TUN])?;
    let later = numbered(1).flat_map(|(id, flow)| [fragment(&flow, id, 1), fragment(&flow, id, 2)]);
    lab.send_packets(later)?;
    wait::until("fragments to be held", PATIENCE, || {
        Ok((lab.table_json("stats")?["sum"]["held_now"] == json!(2 * flows().len())).then_some(()))
    })?;
    let lb = lab.lb_mut()?;
    lb.signal("KILL")?;
    lb.wait(PATIENCE)?;
    lab.start_lb(&["--queue", QUEUES, "--tun", TUN])?;
    reversed_fragments_are_held(lab)
}

fn reversed_fragments_are_held(lab: &mut Lab) -> Result<()> {
    let early = u64::from(PARTS - 1) * flows().len() as u64;
    let whole = u64::from(PARTS) * flows().len() as u64;
    let expected = expected_datagrams(lab)?;
    send_reversed(lab)?;
    // Those that were held come in twice.
    let received = whole + early;
    wait::until(&format!("{received} packets to be received"), PATIENCE, || {
        Ok((lab.stats()?.sum.received >= received).then_some(()))
    })?;
    let reassembled = wait::until("servers to reassemble the datagrams", PATIENCE, || {
        let reassembled = reassembled_datagrams(lab)?;
        Ok((reassembled.values().sum::<u64>() >= flows().len() as u64).then_some(reassembled))
    })?;
    check(
        reassembled == expected,
        format!("datagrams by server as the lookup says: {expected:?}"),
        format!("{reassembled:?}"),
    )?;
    let stats = lab.table_json("stats")?;
    let counted = |name: &str| stats["sum"][name].as_u64();
    check(
        counted("received") == Some(received)
            && counted("marked") == Some(whole)
            && counted("held") == Some(early)
            && counted("held_injected") == Some(early)
            && counted("datagrams_completed") == Some(flows().len() as u64)
            && counted("fragments_split") == Some(0),
        format!(
            "{early} fragments held and sent round, all datagrams completed, each in one queue"
        ),
        &stats["sum"],
    )
}

fn reversed_fragments_are_dropped(lab: &mut Lab) -> Result<()> {
    start(lab, &[])?;
    send_reversed(lab)?;
    let (all, firsts) = (u64::from(PARTS) * flows().len() as u64, flows().len() as u64);
    let stats = wait::until(&format!("{all} packets to be received"), PATIENCE, || {
        let stats = lab.stats()?.sum;
        Ok((stats.received >= all).then_some(stats))
    })?;
    check(
        stats.marked == firsts && stats.dropped_for("early_fragment") == all - firsts,
        format!("{firsts} first fragments marked, {} early ones dropped", all - firsts),
        format!("{stats:?}"),
    )
}

fn start(lab: &mut Lab, options: &[&str]) -> Result<()> {
    lab.queue(&["--queue-balance", QUEUES])?;
    lab.table(&["init"])?;
    lab.activate_all()?;
    lab.start_lb(&[&["--queue", QUEUES], options].concat())
}

pub(super) fn flows() -> Vec<Flow> {
    FAMILIES.iter().flat_map(|family| flow::list(*family, Transport::Udp, FLOWS)).collect()
}

/// Each with the identification of its datagram, which begin at `first`.
pub(super) fn numbered(first: u16) -> impl Iterator<Item = (u16, Flow)> {
    (first..).zip(flows())
}

fn send_reversed(lab: &Lab) -> Result<()> {
    let parts = |(id, flow)| (0..PARTS).rev().map(move |part| fragment(&flow, id, part));
    lab.send_packets(numbered(1).flat_map(parts))
}

/// One of the fragments of a datagram with the ports of a flow.
pub(super) fn fragment(flow: &Flow, id: u16, part: u16) -> Vec<u8> {
    const LEN: u16 = 1440;
    let mut packet = first_packet(flow, Extras::FirstFragment);
    let more = u16::from(part + 1 < PARTS);
    let units = part * (LEN / 8);
    let header_len: u16 = match flow.family() {
        Family::V4 => {
            packet[4..6].copy_from_slice(&id.to_be_bytes());
            packet[6..8].copy_from_slice(&(units | (more << 13)).to_be_bytes());
            20
        }
        Family::V6 => {
            packet[4..6].copy_from_slice(&(8 + LEN).to_be_bytes());
            packet[42..44].copy_from_slice(&((units << 3) | more).to_be_bytes());
            packet[46..48].copy_from_slice(&id.to_be_bytes());
            48
        }
    };
    if part > 0 {
        // Nothing that looks like the ports.
        packet.truncate(header_len.into());
    }
    packet.resize((header_len + LEN).into(), 0xee);
    packet
}

/// How many datagrams each server is to get.
pub(super) fn expected_datagrams(lab: &Lab) -> Result<BTreeMap<u32, u64>> {
    let mut expected: BTreeMap<u32, u64> =
        lab.cluster.servers().map(|server| (server.number().into(), 0)).collect();
    for (flow, lookup) in lab.lookup(&flows())? {
        let mark = lookup.mark.with_context(|| format!("look up {flow:?}: no target"))?;
        *expected.entry(mark).or_default() += 1;
    }
    Ok(expected)
}

/// How many each got.
pub(super) fn reassembled_datagrams(lab: &Lab) -> Result<BTreeMap<u32, u64>> {
    lab.cluster
        .servers()
        .map(|id| {
            let node = lab.cluster.node(id)?;
            let v4 = column(&node.proc_net("snmp")?, "Ip:", "ReasmOKs");
            let v6 = line(&node.proc_net("snmp6")?, "Ip6ReasmOKs");
            let counts = v4.zip(v6).with_context(|| format!("read counters of {id}"))?;
            Ok((id.number().into(), counts.0 + counts.1))
        })
        .collect()
}

/// A number of /proc/net/snmp: a line of names and one of values begin with the same word.
fn column(table: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = table.lines().filter(|line| line.starts_with(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let place = names.split_whitespace().position(|one| one == name)?;
    values.split_whitespace().nth(place)?.parse().ok()
}

/// A number of /proc/net/snmp6: each has a line.
fn line(table: &str, name: &str) -> Option<u64> {
    let mut fields = table.lines().map(str::split_whitespace);
    let mut fields = fields.find(|fields| fields.clone().next() == Some(name))?;
    fields.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let snmp = "Ip: Forwarding ReasmOKs\nIp: 1 17\nIcmp: InMsgs\nIcmp: 3\n";
        assert_eq!(column(snmp, "Ip:", "ReasmOKs"), Some(17));
        assert_eq!(column(snmp, "Ip:", "Other"), None);
        assert_eq!(line("Ip6InReceives \t 9\nIp6ReasmOKs  \t 4\n", "Ip6ReasmOKs"), Some(4));
    }

    #[test]
    fn fragments_say_which_part_they_are() {
        for flow in flows() {
            let first = fragment(&flow, 0x1234, 0);
            let last = fragment(&flow, 0x1234, PARTS - 1);
            assert_eq!(first.len(), last.len());
            match flow.family() {
                Family::V4 => {
                    assert_eq!(
                        (&first[4..8], &last[4..8]),
                        (&[0x12, 0x34, 0x20, 0][..], &[0x12, 0x34, 0x02, 0xd0][..])
                    );
                }
                Family::V6 => {
                    assert_eq!(
                        (&first[42..48], &last[42..48]),
                        (&[0, 1, 0, 0, 0x12, 0x34][..], &[0x16, 0x80, 0, 0, 0x12, 0x34][..])
                    );
                }
            }
        }
    }
}
