//! Packets that are sent to their next hop before the IP stack sees them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::super::check;
use super::super::verbs::connect_all_kinds;
use super::agree::explained;
use super::{VIPS, check_plane, end, install, packets, start, status};
use crate::address::{CLUSTER_NET, FAMILIES, Family, NodeId};
use crate::flow::{self, Flow, Transport};
use crate::lab::{Lab, PATIENCE, QUEUE};
use crate::node::Node;
use crate::packet::{Extras, cut_packet, first_packet};
use crate::random::Random;
use crate::trace::Trace;
use crate::wait;

/// Where packets of the tester come in.
const EXPRESS: [&str; 4] = ["--fast", "--express", "--device", "eth2"];
const SPOKEN: [Transport; 3] = [Transport::Tcp, Transport::Udp, Transport::Sctp];

/// At which server each flow arrived.
struct Arrivals<'a>(Vec<(u32, Trace<'a>)>);

impl<'a> Arrivals<'a> {
    fn note(lab: &'a Lab) -> Result<Self> {
        let servers = lab.cluster.servers();
        let traces = servers
            .map(|id| Ok((u32::from(id.number()), Trace::of_arrivals(lab.cluster.node(id)?)?)));
        Ok(Arrivals(traces.collect::<Result<_>>()?))
    }

    /// Sends packets, each of another flow, and says where they arrived.
    fn of(&self, lab: &Lab, packets: Vec<Vec<u8>>) -> Result<BTreeMap<Flow, u32>> {
        let count = packets.len();
        for (_, trace) in &self.0 {
            trace.clear()?;
        }
        lab.send_packets(packets.into_iter())?;
        let mut arrived = BTreeMap::new();
        wait::until(&format!("{count} flows at the servers"), PATIENCE, || {
            arrived.clear();
            for (server, trace) in &self.0 {
                arrived.extend(trace.seen()?.into_keys().map(|flow| (flow, *server)));
            }
            Ok((arrived.len() >= count).then_some(()))
        })
        .with_context(|| format!("{} arrived", arrived.len()))?;
        Ok(arrived)
    }
}

/// The packets that each way had of those that `work` sent: at once, marked by the kernel, queued.
fn ways_of(lab: &Lab, work: impl FnOnce() -> Result<()>) -> Result<[u64; 3]> {
    let count = || -> Result<[u64; 3]> {
        let status = status(lab)?;
        Ok([packets(&status, "express")?, packets(&status, "fast")?, packets(&status, "queued")?])
    };
    let before = count()?;
    work()?;
    let after = count()?;
    Ok([0, 1, 2].map(|way| after[way] - before[way]))
}

pub(super) fn all_planes_agree(lab: &mut Lab) -> Result<()> {
    let mut random = Random::seeded();
    let seed = random.seed();
    for init in [&[][..], &["--sctp-hash", "tuple"], &["--affinity", "client"]] {
        start(lab, &[&["--m", "10007", "--force"], init].concat(), &EXPRESS)?;
        check_plane(lab, "express")?;
        let arrivals = Arrivals::note(lab)?;
        for (family, transport) in FAMILIES.into_iter().flat_map(|f| SPOKEN.map(|t| (f, t))) {
            let flows = random.flows(family, transport, 300);
            // The modes change what is hashed, which is the same however a packet goes on.
            let oddities = if init.is_empty() { &Oddity::ALL[..] } else { &[Oddity::Nothing] };
            for oddity in oddities {
                let sent: Vec<_> = flows.iter().map(|flow| oddity.packet(flow)).collect();
                let expected = explained(lab, &sent)?;
                let mut arrived = BTreeMap::new();
                let ways = ways_of(lab, || {
                    arrived = arrivals.of(lab, sent)?;
                    Ok(())
                })?;
                let what = format!("{family} {transport} {oddity:?}, {init:?}, seed {seed}");
                check(ways == oddity.ways(family, 300), &what, format!("{ways:?}"))?;
                for (flow, mark) in flows.iter().zip(expected) {
                    let server = arrived.get(flow).copied();
                    let agrees = server.is_some() && server == mark;
                    check(agrees, format!("{what}: {flow:?} at {mark:?}"), json!(server))?;
                }
            }
            let ways = ways_of(lab, || lab.send_flows(&flows, Extras::FirstFragment))?;
            check(ways == [0, 0, 300], "300 first fragments for the queue", format!("{ways:?}"))?;
        }
        for (_, trace) in arrivals.0 {
            trace.remove()?;
        }
    }
    Ok(())
}

/// What a packet has that the IP stack must see to.
#[derive(Clone, Copy, Debug)]
enum Oddity {
    Nothing,
    /// Options, or extension headers.
    MoreHeaders,
    /// More than the link to the servers takes.
    Long,
}

impl Oddity {
    const ALL: [Self; 3] = [Oddity::Nothing, Oddity::MoreHeaders, Oddity::Long];

    fn packet(self, flow: &Flow) -> Vec<u8> {
        match self {
            Oddity::Nothing => first_packet(flow, Extras::None),
            Oddity::MoreHeaders => first_packet(flow, Extras::Some),
            Oddity::Long => lengthened(first_packet(flow, Extras::None), 1500),
        }
    }

    /// How many of them take each way: at once, marked by the kernel, queued.
    fn ways(self, family: Family, count: u64) -> [u64; 3] {
        match (self, family) {
            (Oddity::Nothing | Oddity::Long, _) => [count, 0, 0],
            (Oddity::MoreHeaders, Family::V4) => [0, count, 0],
            (Oddity::MoreHeaders, Family::V6) => [0, 0, count],
        }
    }
}

/// The packet with bytes behind it, up to this length.
fn lengthened(mut packet: Vec<u8>, len: u16) -> Vec<u8> {
    packet.resize(usize::from(len), 0);
    // That of IPv4 is the kernel's to fill in.
    if packet[0] >> 4 == 6 {
        packet[4..6].copy_from_slice(&(len - 40).to_be_bytes());
    }
    packet
}

/// The packet with one hop to live.
fn dying(mut packet: Vec<u8>) -> Vec<u8> {
    let place = if packet[0] >> 4 == 6 { 7 } else { 8 };
    packet[place] = 1;
    packet
}

pub(super) fn the_stack_keeps_its_work(lab: &mut Lab) -> Result<()> {
    start(lab, &[], &EXPRESS)?;
    for family in FAMILIES {
        let flows = flow::list(family, Transport::Udp, 40);
        let first = |flow: &Flow| first_packet(flow, Extras::None);
        let ways = ways_of(lab, || lab.send_packets(flows.iter().map(|flow| dying(first(flow)))))?;
        check(ways == [0, 40, 0], "40 packets that die marked by the kernel", format!("{ways:?}"))?;

        // Bytes behind the length that the header tells are no ports. That of IPv4 the kernel fills in.
        if family == Family::V6 {
            let padded = |flow: &Flow| {
                let mut packet = cut_packet(flow);
                packet.resize(60, 0);
                packet
            };
            let ways = ways_of(lab, || lab.send_packets(flows.iter().map(padded)))?;
            check(ways == [0, 0, 40], "40 cut packets with padding queued", format!("{ways:?}"))?;
        }

        // A narrow route: what it does not take is the stack's to answer.
        let (ip, server) = (family.ip(), address_of(family, 1)?);
        let narrow = format!("{ip} route replace default via {server} table 1 mtu 1300");
        lab.cluster.router()?.script(&narrow)?;
        let lengths = [1300, 1301]
            .map(|len| flows.iter().map(|flow| lengthened(first(flow), len)).collect::<Vec<_>>());
        let [fits, too_long] = lengths;
        wait::until("the narrow route to count", PATIENCE, || {
            let ways = ways_of(lab, || lab.send_packets(too_long.iter().cloned()))?;
            Ok((ways == [0, 40, 0]).then_some(()))
        })?;
        let ways = ways_of(lab, || lab.send_packets(fits.into_iter()))?;
        check(ways == [40, 0, 0], "40 packets that fit sent at once", format!("{ways:?}"))?;
    }
    Ok(())
}

fn address_of(family: Family, server: u8) -> Result<IpAddr> {
    let id = NodeId::new(server).context("no such server")?;
    Ok(family.address(CLUSTER_NET, id))
}

pub(super) fn routes_are_followed(lab: &mut Lab) -> Result<()> {
    start(lab, &[], &EXPRESS)?;
    let arrivals = Arrivals::note(lab)?;
    let router = lab.cluster.router()?;
    let hops = || -> Result<Vec<Value>> {
        let hops = status(lab)?["next_hops"].as_array().cloned();
        Ok(hops.into_iter().flatten().collect())
    };
    let wait_for_hops = |what: &str, count: usize| {
        wait::until(what, PATIENCE, || Ok((hops()?.len() == count).then_some(())))
    };
    for family in FAMILIES {
        let flows = flow::list(family, Transport::Udp, 200);
        let packets =
            || flows.iter().map(|flow| first_packet(flow, Extras::None)).collect::<Vec<_>>();
        let marks = lab.lookup(&flows)?;
        let of_first = |server: u32| {
            move |lookup: Option<u32>| lookup.map(|m| if m == 1 { server } else { m })
        };
        let (ip, [one, two]) = (family.ip(), [address_of(family, 1)?, address_of(family, 2)?]);

        // Another next hop.
        router.script(&format!("{ip} route replace default via {two} table 1"))?;
        wait::until("the other next hop", PATIENCE, || {
            let two = two.to_string();
            let there =
                hops()?.iter().filter(|hop| hop["mark"] == 1 && hop["address"] == two).count();
            Ok((there == 1).then_some(()))
        })?;
        let arrived = arrivals.of(lab, packets())?;
        for (flow, lookup) in &marks {
            let (expected, server) = (of_first(2)(lookup.mark), arrived.get(flow).copied());
            check(server == expected, format!("{flow:?} at {expected:?}"), json!(server))?;
        }

        // Two next hops: routing chooses, after the fast plane has marked.
        router.script(&format!(
            "{ip} route replace default table 1 nexthop via {one} nexthop via {two}"
        ))?;
        wait_for_hops("no single next hop of one target", 7)?;
        let first = marks.values().filter(|lookup| lookup.mark == Some(1)).count() as u64;
        let ways = ways_of(lab, || arrivals.of(lab, packets()).map(drop))?;
        check(
            ways == [200 - first, first, 0],
            format!("{first} by the fast plane"),
            format!("{ways:?}"),
        )?;
        let told = |cause: &str| {
            let log = lab.lb()?.log();
            let told = format!(
                "1 of 4 targets have no single next hop: the fast plane takes their packets; of mark 1: to {} by eth2: ",
                family.vip()
            );
            let mut lines = log.lines();
            check(lines.any(|line| line.contains(&told) && line.contains(cause)), cause, &log)
        };
        told("the route has several next hops")?;

        // None at all: the kernel refuses.
        let lacks =
            || lab.lb().map(|lb| lb.log().matches("usually because no route is there").count());
        let before = lacks()?;
        router.script(&format!("{ip} route del default table 1"))?;
        wait::until("a warning with the usual cause", PATIENCE, || {
            Ok((lacks()? > before).then_some(()))
        })?;
        router.script(&format!("{ip} route add default via {one} table 1"))?;
        wait_for_hops("all next hops", 8)?;
    }

    // The kernel knows no way back to whom it is asked for.
    let strictness = "/proc/sys/net/ipv4/conf/eth2/rp_filter";
    router.script(&format!("echo 2 >{strictness}"))?;
    wait_for_hops("no next hop of IPv4", 4)?;
    let log = lab.lb()?.log();
    check(log.contains("usually because rp_filter is not 0"), "a warning with the cause", log)?;
    router.script(&format!("echo 0 >{strictness}"))?;
    wait_for_hops("all next hops again", 8)?;

    // A device that goes and comes back.
    let ingress = || -> Result<bool> {
        let status = status(lab)?;
        let chains = status["chains"].as_array().into_iter().flatten();
        Ok(chains.into_iter().any(|chain| chain["name"] == "ingress-eth2"))
    };
    check(ingress()?, "a chain for eth2", "none")?;
    router.script("ip link set eth2 down; ip link set eth2 name other; ip link set other up")?;
    wait::until("no chain for eth2", PATIENCE, || Ok((!ingress()?).then_some(())))?;
    router.script("ip link set other down; ip link set other name eth2; ip link set eth2 up")?;
    wait::until("a chain for eth2", PATIENCE, || Ok(ingress()?.then_some(())))?;
    let log = lab.lb()?.log();
    check(log.contains("none of the devices is there"), "a warning", log)
}

/// How many packets came to a server with one hop less to live, and with two.
struct Hops<'a>(&'a Node);

impl<'a> Hops<'a> {
    fn count(server: &'a Node) -> Result<Self> {
        let mut rules = String::new();
        for family in FAMILIES {
            let (ip, vip) = (family.nft(), family.vip());
            let field = if family == Family::V4 { "ttl" } else { "hoplimit" };
            for (left, counter) in [(63, "one"), (62, "two")] {
                let rule = format!("{ip} daddr {vip} {ip} {field} {left} counter name {counter}\n");
                rules.push_str(&rule);
            }
        }
        let chain = format!("chain c {{ type filter hook prerouting priority -450;\n{rules}}}");
        install(
            server,
            &format!("table inet hops {{\ncounter one {{ }}\ncounter two {{ }}\n{chain}\n}}\n"),
        )?;
        Ok(Hops(server))
    }

    fn taken(&self) -> Result<[u64; 2]> {
        let mut counts = [0; 2];
        for (count, name) in counts.iter_mut().zip(["one", "two"]) {
            let listing =
                self.0.run(&["nft", "-j", "list", "counter", "inet", "hops", name])?.success()?;
            let listing: Value = serde_json::from_str(&listing).context("read a counter")?;
            let counter = listing["nftables"].as_array().into_iter().flatten();
            let packets = counter.filter_map(|object| object["counter"]["packets"].as_u64()).next();
            *count =
                packets.with_context(|| format!("read counter {name}: odd listing {listing}"))?;
        }
        Ok(counts)
    }

    /// Waits until so many have come since, and says with how many hops less.
    fn wait_for(&self, before: [u64; 2], count: u64) -> Result<[u64; 2]> {
        wait::until(&format!("{count} packets"), PATIENCE, || {
            let now = self.taken()?;
            let taken = [now[0] - before[0], now[1] - before[1]];
            Ok((taken[0] + taken[1] >= count).then_some(taken))
        })
    }
}

pub(super) fn a_device_goes_while_lb_is_away(lab: &mut Lab) -> Result<()> {
    const NEIGHBOURS: [(Family, &str, &str); 2] =
        [(Family::V4, "172.17.0.1/24", "172.17.0.2"), (Family::V6, "fd00:17::1/64", "fd00:17::2")];
    let mut script = "ip link add out0 type veth peer name out1\nip link set out1 up\n\
                      ip link set out0 up\n"
        .to_owned();
    for (family, own, neighbour) in NEIGHBOURS {
        let nodad = if family == Family::V6 { "nodad" } else { "" };
        script.push_str(&format!("ip address add {own} dev out0 {nodad}\n"));
        let ip = family.ip();
        script.push_str(&format!("{ip} route replace default via {neighbour} dev out0 table 1\n"));
    }
    lab.cluster.router()?.script(&script)?;
    start(lab, &[], &EXPRESS)?;
    let of_first = |lab: &Lab| -> Result<Vec<String>> {
        let hops = status(lab)?["next_hops"].as_array().cloned().into_iter().flatten();
        let of_first = hops.filter(|hop| hop["mark"] == 1);
        Ok(of_first.filter_map(|hop| hop["address"].as_str().map(String::from)).collect())
    };
    let addresses = of_first(lab)?;
    check(
        addresses == NEIGHBOURS.map(|(_, _, neighbour)| neighbour),
        "mark 1 leads out of the new device",
        format!("{addresses:?}"),
    )?;

    end(lab)?;
    let mut script = "ip link del out0\n".to_owned();
    for family in FAMILIES {
        let (ip, server) = (family.ip(), address_of(family, 1)?);
        script.push_str(&format!("{ip} route replace default via {server} table 1\n"));
    }
    lab.cluster.router()?.script(&script)?;
    let words = [&["lb", "--check", "--queue", QUEUE], &VIPS[..], &EXPRESS].concat();
    let told = |lab: &Lab, what: &str| {
        let report = lab.cluster.router()?.run(&words)?.stdout();
        check(report.contains(what), what, report)
    };
    told(lab, "2 of 8 lead to devices that are gone, such as that of mark 1")?;
    let text = lab.cluster.router()?.run(&["lb", "--status"])?.success()?;
    check(text.matches("which is gone").count() == 2, "two devices that are gone", text)?;

    let mut flows = Vec::new();
    for family in FAMILIES {
        flows.extend(flow::list(family, Transport::Udp, 100));
    }
    let marks = lab.lookup(&flows)?;
    flows.retain(|flow| marks[flow].mark == Some(1));
    let count = u64::try_from(flows.len())?;
    {
        let hops = Hops::count(lab.cluster.node(NodeId::new(1).context("no such server")?)?)?;
        let before = hops.taken()?;
        lab.send_flows(&flows, Extras::None)?;
        let taken = hops.wait_for(before, count)?;
        check(
            taken == [0, count],
            "two hops for each packet while lb is away",
            format!("{taken:?}"),
        )?;
    }

    lab.start_lb(&[&["--queue", QUEUE], &VIPS[..], &EXPRESS].concat())?;
    let log = lab.lb()?.log();
    check(log.contains("taken over, the maps brought up to date"), "maps brought up to date", log)?;
    let expected: Vec<String> = FAMILIES
        .into_iter()
        .map(|family| Ok(address_of(family, 1)?.to_string()))
        .collect::<Result<_>>()?;
    let addresses = of_first(lab)?;
    check(addresses == expected, format!("{expected:?}"), format!("{addresses:?}"))?;
    let hops = Hops(lab.cluster.node(NodeId::new(1).context("no such server")?)?);
    let before = hops.taken()?;
    lab.send_flows(&flows, Extras::None)?;
    let taken = hops.wait_for(before, count)?;
    check(taken == [count, 0], "one hop for each packet", format!("{taken:?}"))?;
    told(lab, "the devices of all 8 are there")
}

pub(super) fn it_comes_stays_and_goes(lab: &mut Lab) -> Result<()> {
    lab.start_servers()?;
    start(lab, &[], &EXPRESS)?;
    connect_all_kinds(lab, 4)?;
    check_only_express(lab)?;

    // Killed: the kernel goes on; the next one takes over.
    let chains = status(lab)?["chains"].clone();
    let lb = lab.lb_mut()?;
    lb.signal("KILL")?;
    lb.wait(PATIENCE)?;
    connect_all_kinds(lab, 4)?;
    let options = [&["--queue", QUEUE], &VIPS[..], &EXPRESS].concat();
    lab.start_lb(&options)?;
    check(status(lab)?["chains"] == chains, "the same rules", status(lab)?)?;
    check(lab.lb()?.log().contains("taken over"), "rules taken over", lab.lb()?.log())?;
    lab.table(&["deactivate", "4"])?;
    wait::until("a map without the target", PATIENCE, || {
        Ok((lab.table_json("stats")?["sum"]["map_changes"] != 0).then_some(()))
    })?;
    connect_all_kinds(lab, 3)?;
    check_only_express(lab)?;

    // Somebody else's harm.
    let router = lab.cluster.router()?;
    for harm in ["delete table netdev markway-markway", "flush chain netdev markway-markway ip4"] {
        router.script(&format!("nft {harm}"))?;
        wait::until("the rules to be mended", PATIENCE, || {
            Ok((status(lab)?["chains"] == chains).then_some(()))
        })?;
    }
    router.script("nft flush map netdev markway-markway hops4")?;
    wait::until("the next hops to be mended", PATIENCE, || {
        Ok((status(lab)?["next_hops"].as_array().map(Vec::len) == Some(6)).then_some(()))
    })?;

    // Without the option, and gone.
    lab.start_lb(&[&["--queue", QUEUE, "--fast"], &VIPS[..]].concat())?;
    check_plane(lab, "fast")?;
    connect_all_kinds(lab, 3)?;
    lab.start_lb(&options)?;
    check_plane(lab, "express")?;
    end(lab)?;
    let down = lab.cluster.router()?.run(&["lb", "--down"])?.success()?;
    check(down.matches("removed").count() == 2, "two tables removed", down)?;
    let tables = lab.cluster.router()?.script("nft list tables")?;
    check(!tables.contains("markway"), "no table of ours", tables)
}

/// Nothing but ordinary packets was sent.
fn check_only_express(lab: &Lab) -> Result<()> {
    let status = status(lab)?;
    let others = (packets(&status, "fast")?, packets(&status, "queued")?);
    check(
        packets(&status, "express")? > 0 && others == (0, 0),
        "packets of the express plane only",
        format!("{others:?}"),
    )?;
    let counts = status["targets"].as_array().into_iter().flatten();
    let counted: u64 = counts.filter_map(|target| target["packets"].as_u64()).sum();
    check(counted == packets(&status, "express")?, "every packet counted for a target", counted)
}
