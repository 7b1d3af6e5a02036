//! SCTP as the load balancer sees it: chunks, and new associations that do not spread.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::Value;

use super::fast_plane::{end, packets, start, status};
use super::{Case, PLAIN, check};
use crate::address::FAMILIES;
use crate::flow::{self, Flow, Transport};
use crate::lab::{Lab, PATIENCE, Shape};
use crate::packet::{chunk, in_udp_port};
use crate::trace::Trace;
use crate::wait;

/// Packets must reach the router with the sizes that they were sent with.
const UNTOUCHED: Shape = Shape { offload: false, ..Shape::STANDARD };

pub const CASES: &[Case] = &[
    Case {
        name: "sctp-chunks",
        about: "SCTP packets are counted by their first chunk, plain and in UDP, in both planes",
        shape: UNTOUCHED,
        run: chunks_are_counted,
        ..PLAIN
    },
    Case {
        name: "sctp-inits",
        about: "in the fast plane INITs meet lb with their mark, and keep it where there is no lb",
        shape: UNTOUCHED,
        run: inits_keep_their_mark,
        ..PLAIN
    },
    Case {
        name: "sctp-skew",
        about: "lb warns of a port pair with too many new associations, and of nothing else",
        shape: UNTOUCHED,
        run: skew_is_told,
        ..PLAIN
    },
];

const DATA: u8 = 0;
const INIT: u8 = 1;
const HEARTBEAT: u8 = 4;
const COOKIE_ECHO: u8 = 10;
const UNKNOWN: u8 = 99;

const ENCAP_PORT: u16 = 9899;

/// Flows of both families.
fn flows(count: u16) -> Vec<Flow> {
    FAMILIES.iter().flat_map(|family| flow::list(*family, Transport::Sctp, count)).collect()
}

fn chunks_are_counted(lab: &mut Lab) -> Result<()> {
    let flows = flows(10);
    let sent = [(DATA, 1), (INIT, 2), (HEARTBEAT, 1), (COOKIE_ECHO, 1), (UNKNOWN, 1)];
    for plane in ["slow", "fast"] {
        let options: &[&str] = if plane == "fast" { &["--fast"] } else { &[] };
        start(lab, &["--sctp-encap", "9899", "--force"], options)?;
        for (kind, times) in sent {
            for _ in 0..times {
                lab.send_packets(flows.iter().map(|flow| chunk(flow, kind)))?;
                let inside = flows.iter().map(|flow| in_udp_port(flow, kind, ENCAP_PORT));
                lab.send_packets(inside)?;
            }
        }
        // The kernel keeps all but INITs, plain ones.
        let plain = |kind: u8| if plane == "slow" || kind == INIT { 20 } else { 0 };
        let expected: BTreeMap<&str, u64> = sent
            .into_iter()
            .zip(["data", "init", "heartbeat", "cookie_echo", "other_chunk"])
            .map(|((kind, times), name)| (name, times * (plain(kind) + 20)))
            .collect();
        let all: u64 = expected.values().sum();
        wait::until("all packets to be counted", PATIENCE, || {
            Ok((lab.stats()?.sum.received >= all).then_some(()))
        })?;
        let counted = chunks(lab)?;
        let nonzero = counted.iter().filter(|(_, number)| **number > 0);
        let seen: BTreeMap<&str, u64> = nonzero.map(|(name, n)| (name.as_str(), *n)).collect();
        check(seen == expected, format!("{plane} plane: {expected:?}"), format!("{seen:?}"))?;
        let stats = lab.stats()?.sum;
        let sctp = stats.class("sctp") + stats.class("sctp_in_udp");
        check(sctp == all, format!("{all} packets of SCTP"), format!("{stats:?}"))?;
    }
    Ok(())
}

/// The counters by first chunk.
fn chunks(lab: &Lab) -> Result<BTreeMap<String, u64>> {
    let stats = lab.table_json("stats")?;
    let chunks = stats["sum"]["sctp_chunks"].as_object();
    let chunks = chunks.context("read shm-tool stats: no sctp_chunks")?;
    chunks
        .iter()
        .map(|(name, number)| Ok((name.clone(), number.as_u64().context("read stats: no number")?)))
        .collect()
}

fn inits_keep_their_mark(lab: &mut Lab) -> Result<()> {
    for mode in ["ports", "tuple"] {
        start(lab, &["--sctp-hash", mode, "--force"], &["--fast"])?;
        let cluster = Arc::clone(&lab.cluster);
        let trace = Trace::of_marks(cluster.router()?)?;
        let flows = flows(60);
        let lookups = lab.lookup(&flows)?;
        let all = u64::try_from(flows.len())?;
        for has_lb in [true, false] {
            if !has_lb {
                end(lab)?;
            }
            for (kind, plane) in [(INIT, "queued"), (DATA, "fast")] {
                let before = packets(&status(lab)?, plane)?;
                trace.clear()?;
                lab.send_packets(flows.iter().map(|flow| chunk(flow, kind)))?;
                let marks = trace.wait_for(flows.len())?;
                for flow in &flows {
                    let (mark, expected) = (marks.get(flow).copied(), lookups[flow].mark);
                    check(
                        mark.is_some() && mark == expected,
                        format!("{flow:?}, chunk {kind}, lb {has_lb}, mark {expected:?}"),
                        format!("{mark:?}"),
                    )?;
                }
                let more = packets(&status(lab)?, plane)? - before;
                check(more == all, format!("{all} of chunk {kind} {plane}"), more)?;
            }
        }
        trace.remove()?;
    }
    Ok(())
}

/// Clients with one source port and clients with many, of which there are enough for a warning.
fn skew_is_told(lab: &mut Lab) -> Result<()> {
    const FIXED: u16 = 5060;
    let fair = flows(200);
    let skewed: Vec<Flow> = fair.iter().map(|flow| from_port(flow, FIXED)).collect();
    let one_client: Vec<Flow> = vec![skewed[0]; 200];
    for plane in [&[][..], &["--fast"]] {
        let options = ["--skew-period", "1", "--log", "debug"];
        start(lab, &["--force"], &[&options, plane].concat())?;
        let mut sent = 0;
        for (flows, warns, what) in [
            (&fair[..], false, "random ports"),
            (&skewed[..20], false, "few associations"),
            (&one_client[..], false, "one client that tries again"),
            (&skewed[..], true, "one port"),
        ] {
            let before = skew(lab, "skew_warnings")?;
            lab.send_packets(flows.iter().map(|flow| chunk(flow, INIT)))?;
            sent += flows.len();
            wait::until(&format!("{what} to be judged"), PATIENCE, || {
                Ok((judged(&lab.lb()?.log()) == sent).then_some(()))
            })?;
            // Counters are published with the next batch, or a moment later without any.
            let log = lab.lb()?.log();
            let told = log.lines().filter(|line| line.contains("Let clients use")).count();
            let told = u64::try_from(told)?;
            check((told > before) == warns, format!("a warning: {warns}, {what}"), &log)?;
            wait::until("the warning to be counted", PATIENCE, || {
                Ok((skew(lab, "skew_warnings")? == told).then_some(()))
            })?;
        }
        let mark = lab.lookup(&skewed[..1])?[&skewed[0]].mark.context("look up: no target")?;
        let log = lab.lb()?.log();
        let says =
            [format!("from port {FIXED} to port 9,"), format!("the target with mark {mark}:")];
        check(says.iter().all(|text| log.contains(text)), says.join(" "), &log)?;
        wait::until("a period without new associations", PATIENCE, || {
            Ok((skew(lab, "skew_inits")? == 0).then_some(()))
        })?;
    }
    Ok(())
}

fn from_port(flow: &Flow, port: u16) -> Flow {
    let mut source = flow.source;
    source.set_port(port);
    Flow { source, ..*flow }
}

/// How many new associations all periods had that are over.
fn judged(log: &str) -> usize {
    let numbers = log.lines().filter_map(|line| {
        let (_, rest) = line.split_once("new SCTP associations: ")?;
        rest.split(' ').next()?.parse::<usize>().ok()
    });
    numbers.sum()
}

/// A counter of skew, which stands with the first queue.
fn skew(lab: &Lab, name: &str) -> Result<u64> {
    let stats: Value = lab.table_json("stats")?;
    stats["sum"][name].as_u64().with_context(|| format!("read shm-tool stats: no {name}"))
}
