//! Both planes give the same marks, and each packet takes the right one.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::super::verbs::{trace_flows, trace_packets};
use super::super::{check, is_soak};
use super::{check_plane, install, packets, start, status};
use crate::address::{FAMILIES, Family};
use crate::flow::{self, Flow, Transport};
use crate::lab::{Lab, PATIENCE};
use crate::packet::{Extras, cut_packet, encapsulated, first_packet};
use crate::random::Random;
use crate::trace::Trace;
use crate::wait;

const SPOKEN: [Transport; 3] = [Transport::Tcp, Transport::Udp, Transport::Sctp];

/// The most echo requests of each family, from a source each.
const ECHOES: u16 = 1_000;

/// Flows whose marks are traced together; the trace has room for 65,535.
const AT_ONCE: usize = 20_000;

/// On machines a burst must fit into the rings of their devices, which nobody empties for a while.
const AT_ONCE_ON_MACHINES: usize = 100;

pub(super) fn planes_agree(lab: &mut Lab) -> Result<()> {
    let count = if is_soak() { 100_000 } else { 1_000 };
    let inits = [&[][..], &["--sctp-hash", "tuple"], &["--affinity", "client"]];
    planes_agree_about(lab, &inits, count)
}

/// The same for tables of these kinds, with so many flows of every kind.
pub fn planes_agree_about(lab: &mut Lab, inits: &[&[&str]], count: usize) -> Result<()> {
    let echoes = ECHOES.min(u16::try_from(count).unwrap_or(u16::MAX));
    let mut random = Random::seeded();
    let seed = random.seed();
    for init in inits {
        for plane in ["fast", "slow"] {
            let fast: &[&str] = if plane == "fast" { &["--fast"] } else { &[] };
            start(lab, &[&["--m", "10007", "--force"], *init].concat(), fast)?;
            check_plane(lab, plane)?;
            let trace = Trace::of_marks(lab.cluster.router()?)?;
            for family in FAMILIES {
                for extras in [Extras::None, Extras::Some] {
                    // Of all kinds together: on slow machines each command costs more than its packets.
                    let mut flows = flow::list_echo(family, echoes);
                    for transport in SPOKEN {
                        flows.extend(random.flows(family, transport, count));
                    }
                    // Behind IPv4 options the kernel finds what it looks for, too.
                    let plain = family == Family::V4 || extras == Extras::None;
                    let for_kernel = plane == "fast" && plain;
                    flows_agree(lab, &trace, &flows, extras, for_kernel).with_context(|| {
                        format!("{family}, {extras:?}, {plane} plane, {init:?}, seed {seed}")
                    })?;
                }
            }
            trace.remove()?;
        }
    }
    Ok(())
}

/// Each flow gets the mark that is told for it, by the kernel or by the queue.
fn flows_agree(
    lab: &Lab,
    trace: &Trace,
    flows: &[Flow],
    extras: Extras,
    for_kernel: bool,
) -> Result<()> {
    let at_once = if lab.is_on_machines() { AT_ONCE_ON_MACHINES } else { AT_ONCE };
    for flows in flows.chunks(at_once) {
        let before = status(lab)?;
        let sent: Vec<Vec<u8>> = flows.iter().map(|flow| first_packet(flow, extras)).collect();
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

/// The marks that `shm-tool` tells for packets, by one command.
pub fn explained(lab: &Lab, packets: &[Vec<u8>]) -> Result<Vec<Option<u32>>> {
    const FILE: &str = "/run/flows.pcap";
    let router = lab.cluster.router()?;
    router.entry().write_file(FILE, &pcap(packets))?;
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

pub(super) fn the_rest_goes_to_the_queue(lab: &mut Lab) -> Result<()> {
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
        let flows = flow::list_echo(family, 60);
        let marked = flows.iter().filter(|flow| is_in_upper_half(flow)).count() as u64;
        lab.send_flows(&flows, Extras::None)?;
        grew_by(60 - marked, marked, &format!("{family} echo"))?;
        lab.send_packets(flows.iter().map(cut_packet))?;
        grew_by(0, 60, &format!("{family} echo, cut within its header"))?;
    }
    let stats = lab.stats()?.sum;
    // First fragments are decided like whole packets, and those of IPv6 are followed by the last one; to
    // packets of IPv4 the kernel gives identifications of their own.
    check(
        stats.class("fragment") == 2 * 3 * 2 * 60
            && stats.dropped_for("early_fragment") == 3 * 60
            && stats.dropped_for("truncated") == 2 * 4 * 60
            && stats.class("sctp_in_udp") == 120,
        "720 fragments, 180 of them early, 480 cut packets, 120 packets of SCTP in UDP",
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
