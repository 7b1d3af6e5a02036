//! Tables that key packets in other ways than by their flow.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};

use super::verbs::{trace_flows, trace_packets};
use super::{Case, PLAIN, check};
use crate::address::FAMILIES;
use crate::flow::{self, Flow, TRANSPORTS, Transport};
use crate::lab::{Lab, QUEUE};
use crate::packet::encapsulated;
use crate::trace::{Trace, tally};

pub const CASES: &[Case] = &[
    Case {
        name: "sctp-encap",
        about: "SCTP in UDP goes where its own ports lead, on every path of an association",
        run: ports_inside_decide,
        ..PLAIN
    },
    Case {
        name: "client-affinity",
        about: "with --affinity client all flows of a source address meet one server",
        run: a_client_meets_one_server,
        ..PLAIN
    },
];

const ENCAP_PORTS: [u16; 2] = [9899, 9900];

fn start(lab: &mut Lab, options: &[&str]) -> Result<()> {
    lab.queue(&["--queue-num", QUEUE])?;
    lab.table(&[&["init"], options].concat())?;
    lab.activate_all()?;
    lab.start_lb(&["--queue", QUEUE])
}

fn ports_inside_decide(lab: &mut Lab) -> Result<()> {
    start(lab, &["--sctp-encap", "9899,9900"])?;
    let trace = Trace::of_marks(lab.cluster.router()?)?;
    let mut count = 0;
    for family in FAMILIES {
        let associations = flow::list(family, Transport::Sctp, 50);
        let lookups = lab.lookup(&associations)?;
        for (path, to) in (1..).zip(ENCAP_PORTS) {
            // Another address and another UDP port of the client, but its ports of SCTP.
            let paths: Vec<(Flow, u16)> = associations
                .iter()
                .zip(0..)
                .map(|(association, index): (_, u16)| {
                    let address = family.source(path * 1000 + index);
                    let source = SocketAddr::new(address, association.source.port());
                    (Flow { source, ..*association }, 7000 + path * 100 + index)
                })
                .collect();
            let packets = paths.iter().map(|(flow, from)| encapsulated(flow, *from, to));
            let marks = trace_packets(lab, &trace, packets)?;
            for ((flow, from), association) in paths.iter().zip(&associations) {
                let source = SocketAddr::new(flow.source.ip(), *from);
                let outside = Flow { transport: Transport::Udp, source };
                let (mark, lookup) = (marks.get(&outside).copied(), lookups[association].mark);
                check(
                    mark.is_some() && mark == lookup,
                    format!("{flow:?} in UDP {from} to {to} as shm-tool says: {lookup:?}"),
                    format!("mark {mark:?}"),
                )?;
            }
            check(tally(&marks).len() == 4, "marks 1 to 4", format!("{:?}", tally(&marks)))?;
            count += 50;
        }
        // To another port it is UDP like any other.
        let flows = flow::list(family, Transport::Udp, 50);
        check_lookups(lab, &trace, &flows)?;
    }
    let counted = lab.stats()?.sum;
    check(
        counted.class("sctp_in_udp") == count && counted.class("udp") == 100,
        format!("{count} packets of class sctp_in_udp, 100 of class udp"),
        format!("{counted:?}"),
    )
}

fn a_client_meets_one_server(lab: &mut Lab) -> Result<()> {
    start(lab, &["--affinity", "client"])?;
    let trace = Trace::of_marks(lab.cluster.router()?)?;
    let flows: Vec<Flow> = FAMILIES
        .into_iter()
        .flat_map(|family| (0..40).map(move |client| family.source(client * 11)))
        .flat_map(|client| (0..4).map(move |port| SocketAddr::new(client, 5000 + port)))
        .flat_map(|source| TRANSPORTS.map(|transport| Flow { transport, source }))
        .collect();
    let marks = check_lookups(lab, &trace, &flows)?;
    let mut by_client: BTreeMap<IpAddr, BTreeSet<u32>> = BTreeMap::new();
    for (flow, mark) in &marks {
        by_client.entry(flow.source.ip()).or_default().insert(*mark);
    }
    let torn = by_client.iter().find(|(_, marks)| marks.len() != 1);
    check(torn.is_none(), "all flows of a client with one mark", format!("{torn:?}"))?;
    check(tally(&marks).len() == 4, "clients at all servers", format!("{:?}", tally(&marks)))
}

/// Every flow must get the mark that `shm-tool` tells for it.
fn check_lookups(lab: &Lab, trace: &Trace, flows: &[Flow]) -> Result<BTreeMap<Flow, u32>> {
    let lookups = lab.lookup(flows)?;
    let marks = trace_flows(lab, trace, flows)?;
    for flow in flows {
        let mark = *marks.get(flow).with_context(|| format!("trace {flow:?}: not seen"))?;
        let lookup = lookups[flow].mark;
        check(
            lookup == Some(mark),
            format!("{flow:?} as shm-tool says: {lookup:?}"),
            format!("mark {mark}"),
        )?;
    }
    Ok(marks)
}
