//! The rules that `lb` makes itself, and the table mirrored into the kernel.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::table::marks_follow_table;
use super::verbs::{connect_all_kinds, trace_flows, trace_packets};
use super::{Case, LIMIT, STANDARD, check, is_soak};
use crate::address::{CLUSTER_NET, FAMILIES, Family, NodeId};
use crate::cluster::Layout;
use crate::flow::{self, Flow, Transport};
use crate::lab::{Lab, PATIENCE, QUEUE};
use crate::mconnect::{Answers, PORT};
use crate::node::Node;
use crate::packet::{Extras, cut_packet, encapsulated, first_packet};
use crate::random::Random;
use crate::trace::{Trace, tally};
use crate::wait;

/// Packets must reach the router with the sizes that they were sent with.
const LAYOUT: Layout = Layout { offload: false, ..STANDARD };

pub const CASES: &[Case] = &[
    Case {
        name: "rules-by-lb",
        about: "lb --vip makes its rules for several queues, and takes none but them away",
        layout: STANDARD,
        limit: LIMIT,
        run: rules_come_and_go,
    },
    Case {
        name: "rules-local",
        about: "lb --vip --local balances what the router itself sends, in both planes",
        layout: STANDARD,
        limit: LIMIT,
        run: the_router_is_served_too,
    },
    Case {
        name: "fast-agrees",
        about: "both planes give random flows the mark that the table says",
        layout: LAYOUT,
        limit: Duration::from_secs(180),
        run: planes_agree,
    },
    Case {
        name: "fast-leaves-to-queue",
        about: "fragments, echo, extension headers, SCTP in UDP and foreign marks go to the queue",
        layout: LAYOUT,
        limit: LIMIT,
        run: the_rest_goes_to_the_queue,
    },
    Case {
        name: "fast-follows",
        about: "the kernel's map follows targets, weights and a table made anew",
        layout: STANDARD,
        limit: LIMIT,
        run: the_map_follows,
    },
    Case {
        name: "fast-storm",
        about: "1,000 random changes under traffic leave no packet without a valid mark",
        layout: STANDARD,
        limit: Duration::from_secs(180),
        run: a_storm_loses_nothing,
    },
    Case {
        name: "fast-kill",
        about: "lb killed 100 times under traffic: the kernel goes on, the next lb takes over",
        layout: STANDARD,
        limit: Duration::from_secs(180),
        run: kills_lose_nothing,
    },
    Case {
        name: "fast-mended",
        about: "rules or slots that somebody else took away are mended, counted and told",
        layout: STANDARD,
        limit: LIMIT,
        run: foreign_changes_are_mended,
    },
    Case {
        name: "fast-two-instances",
        about: "two lb with a table and a virtual address each, side by side",
        layout: STANDARD,
        limit: LIMIT,
        run: two_instances_do_not_meet,
    },
    Case {
        name: "fast-beside-conntrack",
        about: "conntrack and NAT of others are active; fragments still come as such",
        layout: LAYOUT,
        limit: LIMIT,
        run: conntrack_does_no_harm,
    },
    Case {
        name: "fast-user",
        about: "lb --fast --user follows the table and mends rules without other rights",
        layout: STANDARD,
        limit: LIMIT,
        run: few_rights_suffice,
    },
];

const VIPS: [&str; 3] = ["--vip", "10.0.0.0/32", "1000::/128"];

/// Room for what arrives while `lb` has no processor for a second.
const ROOM: [&str; 4] = ["--queue-length", "65535", "--receive-buffer", "256M"];

/// A table with all servers in it, and `lb` with rules of its own and these options.
fn start(lab: &mut Lab, init: &[&str], options: &[&str]) -> Result<()> {
    lab.table(&[&["init"], init].concat())?;
    lab.activate_all()?;
    lab.start_lb(&[&["--queue", QUEUE], &VIPS[..], &ROOM[..], options].concat())
}

/// What `lb --status` says.
fn status(lab: &Lab) -> Result<Value> {
    let report = lab.cluster.router()?.run(&["lb", "--status", "--json"])?.success()?;
    serde_json::from_str(&report).context("read lb --status")
}

/// Packets that one of the planes had, as the rules count them.
fn packets(status: &Value, plane: &str) -> Result<u64> {
    status[plane]["packets"].as_u64().with_context(|| format!("read lb --status: no {plane}"))
}

fn check_plane(lab: &Lab, expected: &str) -> Result<()> {
    let status = status(lab)?;
    check(status["plane"] == expected, format!("the {expected} plane"), status)
}

/// A table of somebody else, with all that could be disturbed.
const FOREIGN: &str = "table inet foreign {
    set seen { type ipv4_addr; elements = { 192.0.2.1 } }
    chain early { type filter hook prerouting priority -500; ip saddr 192.0.2.9 drop; }
    chain late { type filter hook prerouting priority 10; }
}
table ip markway {
    chain own { ip saddr 192.0.2.8 drop; }
}
table inet markway-others {
    chain own { ip saddr 192.0.2.7 drop; }
}
";

fn install(router: &Node, rules: &str) -> Result<()> {
    router.entry().run_with_input(&["nft", "-f", "-"], rules)?.success().map(drop)
}

/// All that is in nftables, without counts and without what `lb` made.
fn foreign_rules(router: &Node) -> Result<String> {
    let tables = router.run(&["nft", "-s", "list", "tables"])?.success()?;
    let others = tables.lines().filter(|table| !table.contains("markway-markway"));
    others
        .map(|table| {
            let words =
                [&["nft", "-s", "list"], &table.split(' ').collect::<Vec<_>>()[..]].concat();
            router.run(&words)?.success()
        })
        .collect()
}

fn rules_come_and_go(lab: &mut Lab) -> Result<()> {
    lab.start_servers()?;
    lab.table(&["init"])?;
    lab.activate_all()?;
    install(lab.cluster.router()?, FOREIGN)?;
    let before = foreign_rules(lab.cluster.router()?)?;
    check(before.contains("192.0.2.9"), "rules of somebody else", &before)?;

    lab.start_lb(&[&["--queue", "0:3", "--device", "eth2"], &VIPS[..]].concat())?;
    check_plane(lab, "slow")?;
    connect_all_kinds(lab, 4)?;
    let stats = lab.stats()?;
    check(
        stats.queues.len() == 4 && stats.queues.iter().all(|queue| queue.marked > 0),
        "packets through all 4 queues",
        format!("{stats:?}"),
    )?;
    let refused = lab.cluster.router()?.run(&["lb", "--down"])?;
    check(
        refused.code() == Some(1) && refused.stderr().contains("is running"),
        "lb --down refused while lb is running",
        refused.stderr(),
    )?;

    // Another device, another queue, the other plane: the rules are changed under way.
    lab.start_lb(&[&["--queue", QUEUE, "--device", "eth1", "--fast"], &VIPS[..]].concat())?;
    check_plane(lab, "fast")?;
    let flows = flow::list_of_each(5);
    lab.send_flows(&flows, Extras::None)?;
    let status_of = status(lab)?;
    check(
        packets(&status_of, "fast")? == 0 && lab.stats()?.sum.received == 0,
        "nothing from a device that was not given",
        status_of,
    )?;
    lab.start_lb(&[&["--queue", QUEUE, "--fast", "--notrack"], &VIPS[..]].concat())?;
    connect_all_kinds(lab, 4)?;
    check(
        lab.stats()?.sum.received == 0,
        "no packet for the queue",
        format!("{:?}", lab.stats()?),
    )?;

    end(lab)?;
    let down = || lab.cluster.router()?.run(&["lb", "--down"])?.success();
    check(down()?.contains("removed"), "lb --down that removes", "something else")?;
    check(down()?.contains("none"), "nothing left for lb --down", "something")?;
    check_plane(lab, "none")?;
    let after = foreign_rules(lab.cluster.router()?)?;
    check(after == before, before, after)?;

    lab.cluster.router()?.script("nft add table inet markway-markway")?;
    for words in [&["lb", "--down"][..], &[&["lb"], &VIPS[..]].concat()] {
        let ran = lab.cluster.router()?.run(words)?;
        let told = ran.stderr().contains("was not made by lb");
        check(ran.code() == Some(1) && told, "a table of others left alone", ran.stderr())?;
    }
    Ok(())
}

fn end(lab: &mut Lab) -> Result<()> {
    let lb = lab.lb_mut()?;
    lb.signal("TERM")?;
    let status = lb.wait(PATIENCE)?;
    check(status.success(), "exit code 0", status)
}

fn the_router_is_served_too(lab: &mut Lab) -> Result<()> {
    lab.start_servers()?;
    for family in FAMILIES {
        // Any route does: the mark chooses another one.
        let (ip, vip) = (family.ip(), family.vip());
        let server = family.address(CLUSTER_NET, NodeId::VM_003);
        lab.cluster.router()?.script(&format!("{ip} route add {vip} via {server}"))?;
    }
    for plane in ["slow", "fast"] {
        lab.table(&["init", "--force"])?;
        lab.activate_all()?;
        let fast: &[&str] = if plane == "fast" { &["--fast"] } else { &[] };
        lab.start_lb(&[&["--queue", QUEUE, "--local"], &VIPS[..], fast].concat())?;
        check_plane(lab, plane)?;
        for family in FAMILIES {
            let router = lab.cluster.router()?;
            let target = SocketAddr::new(family.vip(), PORT).to_string();
            let words = ["mconnect", "-address", &target, "-nconn", "100", "-output", "json"];
            let answers = Answers::parse(&router.run(&words)?.stdout())?;
            check(
                answers.failed == 0 && answers.unevenness(4, 75).is_none(),
                format!("100 connections of the router over 4 servers, {family}, {plane} plane"),
                format!("{answers:?}"),
            )?;
        }
    }
    Ok(())
}

const SPOKEN: [Transport; 3] = [Transport::Tcp, Transport::Udp, Transport::Sctp];

/// Flows whose marks are traced together; the trace has room for 65,535.
const AT_ONCE: usize = 20_000;

fn planes_agree(lab: &mut Lab) -> Result<()> {
    let count = if is_soak() { 100_000 } else { 3_000 };
    let mut random = Random::seeded();
    let seed = random.seed();
    for (init, own) in [(&[][..], "ports"), (&["--sctp-hash", "tuple"][..], "tuple")] {
        for plane in ["fast", "slow"] {
            let fast: &[&str] = if plane == "fast" { &["--fast"] } else { &[] };
            start(lab, &[&["--m", "10007", "--force"], init].concat(), fast)?;
            check_plane(lab, plane)?;
            let trace = Trace::of_marks(lab.cluster.router()?)?;
            for family in FAMILIES {
                for transport in SPOKEN {
                    for extras in [Extras::None, Extras::Some] {
                        let kind = Kind { family, transport, extras };
                        random_flows_agree(lab, &trace, &mut random, kind, count, plane)
                            .with_context(|| format!("{kind:?}, {plane}, {own}, seed {seed}"))?;
                    }
                }
            }
            trace.remove()?;
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug)]
struct Kind {
    family: Family,
    transport: Transport,
    extras: Extras,
}

fn random_flows_agree(
    lab: &Lab,
    trace: &Trace,
    random: &mut Random,
    kind: Kind,
    count: usize,
    plane: &str,
) -> Result<()> {
    let flows = random.flows(kind.family, kind.transport, count);
    // Behind IPv4 options the ports are where the kernel looks for them, too.
    let for_kernel = plane == "fast" && (kind.family == Family::V4 || kind.extras == Extras::None);
    for flows in flows.chunks(AT_ONCE) {
        let before = status(lab)?;
        let sent: Vec<Vec<u8>> = flows.iter().map(|flow| first_packet(flow, kind.extras)).collect();
        let expected = explained(lab, &sent)?;
        let marks = trace_packets(lab, trace, sent.into_iter())?;
        for (flow, expected) in flows.iter().zip(expected) {
            let mark = marks.get(flow).copied();
            let agrees = mark.is_some() && mark == expected;
            check(agrees, format!("{flow:?} with mark {expected:?}"), format!("{mark:?}"))?;
        }
        let after = status(lab)?;
        let more =
            |plane| Ok::<_, anyhow::Error>(packets(&after, plane)? - packets(&before, plane)?);
        let had = (more("fast")?, more("queued")?);
        let all = u64::try_from(flows.len())?;
        let right = if for_kernel { had == (all, 0) } else { had == (0, all) };
        let by = if for_kernel { "by the kernel" } else { "by the queue" };
        check(
            right,
            format!("{all} packets {by}"),
            format!("{had:?} by the kernel and the queue"),
        )?;
    }
    Ok(())
}

/// The marks that `shm-tool` tells for packets.
fn explained(lab: &Lab, packets: &[Vec<u8>]) -> Result<Vec<Option<u32>>> {
    const FILE: &str = "/run/flows.pcap";
    let router = lab.cluster.router()?;
    fs::write(router.entry().machine_path(FILE), pcap(packets)).context("write a capture")?;
    let reports = router.run(&["shm-tool", "explain", "--json", "--pcap", FILE])?.success()?;
    let reports = serde_json::Deserializer::from_str(&reports).into_iter::<Value>();
    let mark = |report: Value| u32::try_from(report["mark"].as_u64()?).ok();
    let marks: Vec<Option<u32>> =
        reports.map(|report| Ok(mark(report?))).collect::<Result<_>>().context("read explain")?;
    if marks.len() != packets.len() {
        bail!("read explain: {} reports for {} packets", marks.len(), packets.len());
    }
    Ok(marks)
}

/// A capture of raw IP packets.
fn pcap(packets: &[Vec<u8>]) -> Vec<u8> {
    const MAGIC: u32 = 0xa1b2_c3d4;
    const RAW_IP: u32 = 101;
    let mut bytes: Vec<u8> = MAGIC.to_ne_bytes().to_vec();
    bytes.extend([2u16, 4].iter().flat_map(|version| version.to_ne_bytes()));
    bytes.extend([0u32, 0, 65_535, RAW_IP].iter().flat_map(|word| word.to_ne_bytes()));
    for packet in packets {
        let len = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        bytes.extend([0, 0, len, len].iter().flat_map(|word: &u32| word.to_ne_bytes()));
        let start = bytes.len();
        bytes.extend(packet);
        if packet[0] >> 4 == 4 {
            // The kernel fills it in when the packet is sent.
            let len = u16::try_from(len).unwrap_or(u16::MAX);
            bytes[start + 2..start + 4].copy_from_slice(&len.to_be_bytes());
        }
    }
    bytes
}

fn the_rest_goes_to_the_queue(lab: &mut Lab) -> Result<()> {
    start(lab, &["--sctp-encap", "9899"], &["--fast", "--mark-mask", "0xff"])?;
    // For one half of the sources somebody else has marked the packets before.
    let theirs = "table inet theirs {
        chain others {
            type filter hook prerouting priority -460;
            ip daddr 10.0.0.0 ip saddr 20.0.128.0/17 meta mark set 0x1200
            ip6 daddr 1000:: ip6 saddr 1000::1:1400:8000/113 meta mark set 0x1200
        }
    }
    ";
    let router = lab.cluster.router()?;
    install(router, theirs)?;
    for family in FAMILIES {
        for server in lab.cluster.servers() {
            let (ip, mark) = (family.ip(), server.number());
            router.script(&format!("{ip} rule add fwmark {mark}/0xff lookup {mark}"))?;
        }
    }
    let trace = Trace::of_marks(router)?;
    let counts = || -> Result<(u64, u64)> {
        let status = status(lab)?;
        Ok((packets(&status, "fast")?, packets(&status, "queued")?))
    };
    let mut before = (0, 0);
    let mut grew_by = |fast: u64, queued: u64, what: &str| {
        let expected = (before.0 + fast, before.1 + queued);
        let seen = wait::until(&format!("{what} to be counted"), PATIENCE, || {
            let now = counts()?;
            Ok((now.0 + now.1 >= expected.0 + expected.1).then_some(now))
        })?;
        before = seen;
        check(
            seen == expected,
            format!("{what}: {expected:?} by kernel and queue"),
            format!("{seen:?}"),
        )
    };

    for family in FAMILIES {
        for transport in SPOKEN {
            let flows = flow::list(family, transport, 60);
            let lookups = lab.lookup(&flows)?;
            let foreign = |flow: &Flow| is_in_upper_half(flow);
            let marked = flows.iter().filter(|flow| foreign(flow)).count();
            let what = format!("{family} {transport}");
            let marks = trace_flows(lab, &trace, &flows)?;
            for flow in &flows {
                let theirs = if foreign(flow) { 0x1200 } else { 0 };
                let expected = lookups[flow].mark.map(|mark| mark | theirs);
                let mark = marks.get(flow).copied();
                check(mark == expected, format!("{flow:?}: {expected:x?}"), format!("{mark:x?}"))?;
            }
            grew_by(60 - marked as u64, marked as u64, &what)?;
            lab.send_packets(flows.iter().map(cut_packet))?;
            grew_by(0, 60, &format!("{what}, cut within the ports"))?;
            for part in [Extras::FirstFragment, Extras::LastFragment] {
                lab.send_flows(&flows, part)?;
                grew_by(0, 60, &format!("{what}, {part:?}"))?;
            }
            if family == Family::V6 {
                trace.clear()?;
                lab.send_flows(&flows, Extras::Some)?;
                grew_by(0, 60, &format!("{what} with extension headers"))?;
            }
        }
        let flows = flow::list(family, Transport::Sctp, 60);
        lab.send_packets(flows.iter().map(|flow| encapsulated(flow, 7000, 9899)))?;
        grew_by(0, 60, &format!("{family} SCTP in UDP"))?;
        lab.send_flows(&flow::list_echo(family, 60), Extras::None)?;
        grew_by(0, 60, &format!("{family} echo"))?;
    }
    let stats = lab.stats()?.sum;
    check(
        stats.dropped_for("fragment") == 2 * 3 * 2 * 60
            && stats.dropped_for("truncated") == 2 * 3 * 60
            && stats.class("sctp_in_udp") == 120,
        "720 fragments and 360 cut packets dropped as such, 120 packets of SCTP in UDP",
        format!("{stats:?}"),
    )
}

fn is_in_upper_half(flow: &Flow) -> bool {
    let octets = match flow.source.ip() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    octets[octets.len() - 2] >= 128
}

fn the_map_follows(lab: &mut Lab) -> Result<()> {
    lab.start_servers()?;
    start(lab, &[], &["--fast"])?;
    let trace = Trace::of_marks(lab.cluster.router()?)?;
    marks_follow_table(lab, &trace, 997)?;
    lab.table(&["deactivate", "2"])?;
    marks_follow_table(lab, &trace, 997)?;
    lab.table(&["activate", "3", "--weight", "5"])?;
    marks_follow_table(lab, &trace, 997)?;
    lab.table(&["init", "--keep", "--m", "10007"])?;
    marks_follow_table(lab, &trace, 10007)?;
    lab.table(&["init", "--keep", "--seed", "7"])?;
    marks_follow_table(lab, &trace, 10007)?;
    lab.table(&["init", "--force", "--m", "499"])?;
    lab.activate_all()?;
    marks_follow_table(lab, &trace, 499)?;
    connect_all_kinds(lab, 4)?;

    // Without a target nothing is marked, by nobody.
    lab.table(&["deactivate", "1", "2", "3", "4"])?;
    wait::until("an empty map", PATIENCE, || {
        Ok((status(lab)?["maps"][0]["filled"] == 0).then_some(()))
    })?;
    let before = lab.stats()?.sum.dropped_for("no_target");
    lab.send_flows(&flow::list_of_each(10), Extras::None)?;
    wait::until("40 packets without a target", PATIENCE, || {
        Ok((lab.stats()?.sum.dropped_for("no_target") == before + 40).then_some(()))
    })?;
    trace.remove()?;
    lab.start_lb(&[&["--queue", QUEUE, "--fast", "--no-targets-mark", "3"], &VIPS[..]].concat())?;
    let trace = Trace::of_marks(lab.cluster.router()?)?;
    let marks = trace_flows(lab, &trace, &flow::list_of_each(10))?;
    check(tally(&marks) == BTreeMap::from([(3, 40)]), "mark 3 for all", format!("{marks:?}"))?;
    check(lab.stats()?.sum.received == 0, "all marked by the kernel", format!("{:?}", lab.stats()?))
}

/// Counts what leaves the router for the virtual addresses, by mark.
const COUNT_MARKS: &str = "table inet marks {
    counter valid { packets 0 bytes 0; }
    counter other { packets 0 bytes 0; }
    chain count {
        type filter hook postrouting priority 0;
        ip daddr 10.0.0.0 meta mark 1-4 counter name valid return
        ip6 daddr 1000:: meta mark 1-4 counter name valid return
        ip daddr 10.0.0.0 counter name other
        ip6 daddr 1000:: counter name other
    }
}
";

fn counted(lab: &Lab, name: &str) -> Result<u64> {
    let words = ["nft", "-j", "list", "counter", "inet", "marks", name];
    let listing: Value = serde_json::from_str(&lab.cluster.router()?.run(&words)?.success()?)?;
    let counters = listing["nftables"].as_array().into_iter().flatten();
    let mut packets = counters.filter_map(|object| object["counter"]["packets"].as_u64());
    packets.next().with_context(|| format!("read counter {name}"))
}

/// Every packet of the flood must have left the router with the mark of a server.
fn check_all_marked(lab: &Lab, sent: u64) -> Result<()> {
    let valid = wait::until("all packets to leave the router", PATIENCE, || {
        let valid = counted(lab, "valid")?;
        Ok((valid >= sent).then_some(valid))
    });
    let other = counted(lab, "other")?;
    let stats = lab.stats()?.sum;
    check(
        valid.is_ok() && other == 0,
        format!("{sent} packets with marks 1 to 4"),
        format!("{}, and {other} with others; {stats:?}", counted(lab, "valid")?),
    )
}

fn a_storm_loses_nothing(lab: &mut Lab) -> Result<()> {
    install(lab.cluster.router()?, COUNT_MARKS)?;
    start(lab, &["--m", "65537"], &["--fast"])?;
    let mut random = Random::seeded();
    let flood = lab.start_flood(40_000, 1000, Duration::from_secs(150))?;
    wait::until("the flood to reach the router", PATIENCE, || {
        Ok((counted(lab, "valid")? > 0).then_some(()))
    })?;
    for _ in 0..20 {
        // Server 1 stays, so there is a target always.
        let changes: String = (0..50)
            .map(|_| {
                let mark = 2 + random.below(3);
                match random.below(3) {
                    0 => format!("shm-tool deactivate {mark} 2>/dev/null || true\n"),
                    1 => format!("shm-tool activate {mark}\n"),
                    _ => format!("shm-tool activate {mark} --weight {}\n", 1 + random.below(9)),
                }
            })
            .collect();
        lab.cluster.router()?.script(&format!("exec >/dev/null\n{changes}"))?;
    }
    let flood = lab.stop_flood(flood)?;
    check_all_marked(lab, flood.sent).with_context(|| format!("seed {}", random.seed()))?;
    check(flood.has_rate(5_000), "at least 5,000 packets/s", format!("{flood:?}"))?;
    let trace = Trace::of_marks(lab.cluster.router()?)?;
    marks_follow_table(lab, &trace, 65537)?;
    let sum = &lab.table_json("stats")?["sum"];
    check(
        sum["map_repairs"] == 0 && sum["rules_mended"] == 0 && sum["map_changes"] != 0,
        "changes of the map, and nothing to mend",
        sum,
    )
}

fn kills_lose_nothing(lab: &mut Lab) -> Result<()> {
    let kills = if is_soak() { 500 } else { 100 };
    install(lab.cluster.router()?, COUNT_MARKS)?;
    start(lab, &[], &["--fast"])?;
    let rules = status(lab)?["chains"].clone();
    let mut random = Random::seeded();
    let flood = lab.start_flood(20_000, 1000, Duration::from_secs(170))?;
    for kill in 0..kills {
        // Sometimes at work on a change, sometimes while it starts.
        let server = (2 + random.below(3)).to_string();
        lab.table(&["deactivate", &server])?;
        let lb = lab.lb_mut()?;
        lb.signal("KILL")?;
        lb.wait(PATIENCE)?;
        lab.table(&["activate", &server])?;
        if kill % 10 == 0 {
            let now = status(lab)?;
            check(now["chains"] == rules && now["plane"] == "fast", "the same rules", now)?;
        }
        lab.start_lb(&[&["--queue", QUEUE, "--fast"], &VIPS[..]].concat())?;
        let log = lab.lb()?.log();
        check(log.contains("taken over"), "rules taken over", log)?;
    }
    let flood = lab.stop_flood(flood)?;
    check_all_marked(lab, flood.sent)?;
    // In control: what is changed now is followed.
    let trace = Trace::of_marks(lab.cluster.router()?)?;
    lab.table(&["deactivate", "3"])?;
    marks_follow_table(lab, &trace, 997)
}

fn foreign_changes_are_mended(lab: &mut Lab) -> Result<()> {
    lab.start_servers()?;
    start(lab, &[], &["--fast"])?;
    let rules = status(lab)?["chains"].clone();
    let map = status(lab)?["maps"][0]["name"].as_str().context("no map")?.to_owned();
    let table = "inet markway-markway";
    let number = |key: &str| Ok::<_, anyhow::Error>(lab.table_json("stats")?["sum"][key].as_u64());
    let harms = [
        format!("delete table {table}"),
        format!("flush chain {table} prerouting"),
        format!("flush chain {table} ip4"),
        format!("insert rule {table} ip4 drop"),
        format!("add table {table} {{ flags dormant; }}"),
        "flush ruleset".to_owned(),
    ];
    for (harm, mended) in harms.iter().zip(1..) {
        lab.cluster
            .router()?
            .run(&[&["nft"], &harm.split(' ').collect::<Vec<_>>()[..]].concat())?
            .success()?;
        wait::until(&format!("the rules after '{harm}'"), PATIENCE, || {
            let now = status(lab)?["chains"].clone();
            Ok((now == rules && number("rules_mended")? == Some(mended)).then_some(()))
        })?;
    }
    let told = lab.lb()?.log().matches("somebody else changed the rules").count();
    check(told == harms.len(), format!("{} warnings", harms.len()), told)?;
    lab.cluster.router()?.script(&format!(
        "nft delete element {table} {map} '{{ 5 }}'
         nft delete element {table} {map} '{{ 6 }}'; nft add element {table} {map} '{{ 6 : 77 }}'"
    ))?;
    wait::until("two slots to be mended", PATIENCE, || {
        Ok((number("map_repairs")? == Some(2)).then_some(()))
    })?;
    check(status(lab)?["maps"][0]["filled"] == 997, "997 slots with a mark", status(lab)?)?;
    let trace = Trace::of_marks(lab.cluster.router()?)?;
    marks_follow_table(lab, &trace, 997)?;
    connect_all_kinds(lab, 4)
}

fn two_instances_do_not_meet(lab: &mut Lab) -> Result<()> {
    lab.table(&["init"])?;
    lab.table(&["activate", "1", "2"])?;
    lab.table(&["init", "--shm", "second", "--m", "499"])?;
    lab.table(&["activate", "--shm", "second", "3", "4"])?;
    lab.start_lb(&["--queue", QUEUE, "--vip", "10.0.0.0/32", "--fast"])?;
    let words = ["lb", "--shm", "second", "--queue", "7", "--vip", "1000::/128", "--fast"];
    let mut second = lab.cluster.router()?.spawn("lb2", &words)?;
    second.wait_for_log("ready", PATIENCE)?;
    let trace = Trace::of_marks(lab.cluster.router()?)?;
    let check_marks = |expected: [(Family, [u32; 2]); 2]| {
        let marks = trace_flows(lab, &trace, &flow::list_of_each(100))?;
        for (family, expected) in expected {
            let of_family = marks.iter().filter(|(flow, _)| flow.family() == family);
            let seen = tally(&of_family.map(|(flow, mark)| (*flow, *mark)).collect());
            let keys: Vec<u32> = seen.keys().copied().collect();
            check(keys == expected, format!("{family}: marks {expected:?}"), format!("{seen:?}"))?;
        }
        Ok::<_, anyhow::Error>(())
    };
    check_marks([(Family::V4, [1, 2]), (Family::V6, [3, 4])])?;
    lab.table(&["deactivate", "2"])?;
    lab.table(&["activate", "4"])?;
    wait::until("the map of the first", PATIENCE, || {
        Ok(check_marks([(Family::V4, [1, 4]), (Family::V6, [3, 4])]).ok())
    })?;
    second.signal("TERM")?;
    second.wait(PATIENCE)?;
    lab.cluster.router()?.run(&["lb", "--down", "--instance", "second"])?.success()?;
    check_plane(lab, "fast")?;
    let flows = flow::list(Family::V4, Transport::Udp, 50);
    check(trace_flows(lab, &trace, &flows)?.len() == 50, "the first goes on", "nothing")
}

fn conntrack_does_no_harm(lab: &mut Lab) -> Result<()> {
    lab.start_servers()?;
    let nat = "table inet nat {
        chain forward {
            type filter hook forward priority 0;
            ct state established,related accept
            ct state new counter accept
        }
        chain out {
            type nat hook postrouting priority 100;
            oifname \"eth7\" masquerade
        }
        chain in {
            type nat hook prerouting priority -100;
            tcp dport 9999 dnat ip to 192.168.1.1
        }
    }
    ";
    install(lab.cluster.router()?, nat)?;
    let before = foreign_rules(lab.cluster.router()?)?;
    for options in [&["--fast"][..], &["--fast", "--notrack"], &["--notrack"]] {
        lab.table(&["init", "--force"])?;
        lab.activate_all()?;
        lab.start_lb(&[&["--queue", QUEUE], &VIPS[..], options].concat())?;
        connect_all_kinds(lab, 4).with_context(|| format!("{options:?}"))?;
        let received = lab.stats()?.sum.received;
        let is_fast = options.contains(&"--fast");
        check((received == 0) == is_fast, "the plane that was asked for", received)?;
        // Not put together before lb: the kernel does that at -400.
        for family in FAMILIES {
            let vip = family.vip().to_string();
            let ping = ["ping", "-n", "-q", "-c", "5", "-i", "0.02", "-W", "1", "-s", "3000"];
            let unsplit = ["-M", "dont", &vip];
            lab.cluster.tester()?.run(&[&ping[..], &unsplit].concat())?;
        }
        wait::until("30 fragments at lb", PATIENCE, || {
            Ok((lab.stats()?.sum.class("fragment") == 30).then_some(()))
        })?;
    }
    let tracked = lab.cluster.router()?.proc_net("nf_conntrack").unwrap_or_default();
    end(lab)?;
    lab.cluster.router()?.run(&["lb", "--down"])?.success()?;
    let after = foreign_rules(lab.cluster.router()?)?;
    let uncounted = |rules: &str| rules.lines().filter(|line| !line.contains("counter")).count();
    check(uncounted(&after) == uncounted(&before), before, format!("{after}{tracked}"))
}

fn few_rights_suffice(lab: &mut Lab) -> Result<()> {
    lab.start_servers()?;
    start(lab, &[], &["--fast", "--user", "nobody"])?;
    let trace = Trace::of_marks(lab.cluster.router()?)?;
    lab.table(&["deactivate", "2"])?;
    marks_follow_table(lab, &trace, 997)?;
    lab.table(&["init", "--keep", "--m", "65537"])?;
    lab.activate_all()?;
    marks_follow_table(lab, &trace, 65537)?;
    lab.cluster.router()?.script("nft delete table inet markway-markway")?;
    wait::until("the rules to be mended", PATIENCE, || {
        Ok((status(lab)?["plane"] == "fast").then_some(()))
    })?;
    connect_all_kinds(lab, 4)?;
    end(lab)
}
