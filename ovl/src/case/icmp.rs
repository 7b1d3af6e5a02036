//! ICMP errors: they go to the server that sent what they are about.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::verbs::{arrivals, count_arrivals, trace_packets};
use super::{Case, On, PLAIN, check};
use crate::address::{FAMILIES, Family};
use crate::flow::{self, Flow, Transport};
use crate::lab::{Lab, PATIENCE, QUEUE};
use crate::packet::{Extras, encapsulated, encapsulated_reply, first_packet, icmp_error, reply};
use crate::trace::{Trace, tally};
use crate::wait;

pub const CASES: &[Case] = &[Case {
    name: "icmp-errors",
    about: "ICMP errors about TCP, UDP, SCTP and echo reach the server that they are for",
    on: On::Any,
    run: errors_reach_their_server,
    ..PLAIN
}];

/// Of each kind and family.
const FLOWS: u16 = 8;

const ENCAP_PORT: u16 = 9899;
const CLIENT_UDP_PORT: u16 = 7000;

/// Type and code of errors.
fn errors(family: Family) -> &'static [[u8; 2]] {
    match family {
        // Unreachable port, too large, quench, redirect, time exceeded, parameter problem.
        Family::V4 => &[[3, 3], [3, 4], [4, 0], [5, 1], [11, 0], [12, 0]],
        // Unreachable port, too large, time exceeded, parameter problem.
        Family::V6 => &[[1, 4], [2, 0], [3, 0], [4, 1]],
    }
}

/// What an error is about.
struct Subject {
    flow: Flow,
    encapsulated: bool,
}

impl Subject {
    fn list(family: Family) -> Vec<Self> {
        let plain = |flow| Self { flow, encapsulated: false };
        let encapsulated = |flow| Self { flow, encapsulated: true };
        let list = |transport| flow::list(family, transport, FLOWS);
        let mut subjects: Vec<_> = list(Transport::Tcp).into_iter().map(plain).collect();
        subjects.extend(list(Transport::Udp).into_iter().map(plain));
        subjects.extend(list(Transport::Sctp).into_iter().map(plain));
        subjects.extend(list(Transport::Sctp).into_iter().map(encapsulated));
        subjects.extend(flow::list_echo(family, FLOWS).into_iter().map(plain));
        subjects
    }

    fn first_packet(&self) -> Vec<u8> {
        match self.encapsulated {
            true => encapsulated(&self.flow, CLIENT_UDP_PORT, ENCAP_PORT),
            false => first_packet(&self.flow, Extras::None),
        }
    }

    /// The flow that the router sees.
    fn outside(&self) -> Flow {
        if !self.encapsulated {
            return self.flow;
        }
        let source = SocketAddr::new(self.flow.source.ip(), CLIENT_UDP_PORT);
        Flow { transport: Transport::Udp, source }
    }

    fn reply(&self, extras: Extras) -> Vec<u8> {
        match self.encapsulated {
            true => encapsulated_reply(&self.flow, CLIENT_UDP_PORT, ENCAP_PORT, extras),
            false => reply(&self.flow, extras),
        }
    }

    /// Quotations of what the server sent: as it was, as little as must be quoted, with options or
    /// extension headers, and its first fragment.
    fn quotations(&self) -> [Vec<u8>; 4] {
        let whole = self.reply(Extras::None);
        let header = match self.flow.family() {
            Family::V4 => 20,
            Family::V6 => 40,
        };
        // RFC 792 asks for 8 bytes of the transport; the ports inside UDP are beyond them.
        let least = header + if self.encapsulated { 8 + 4 } else { 8 };
        let shortest = whole[..least].to_vec();
        [whole, shortest, self.reply(Extras::Some), self.reply(Extras::FirstFragment)]
    }
}

/// An error, and the mark that it must get.
struct Expected {
    message: Flow,
    mark: u32,
    packet: Vec<u8>,
    what: String,
}

fn errors_reach_their_server(lab: &mut Lab) -> Result<()> {
    lab.queue(&["--queue-num", QUEUE])?;
    lab.table(&["init", "--sctp-encap", &ENCAP_PORT.to_string()])?;
    lab.activate_all()?;
    lab.start_lb(&["--queue", QUEUE])?;
    for family in FAMILIES {
        for server in lab.cluster.servers() {
            count_arrivals(lab.cluster.node(server)?, family)?;
        }
    }
    let trace = Trace::of_marks(lab.cluster.router()?)?;
    let mut errors = 0;
    for family in FAMILIES {
        errors += errors_of(lab, &trace, family).with_context(|| format!("{family}"))?;
        let counted = lab.stats()?.sum;
        check(
            counted.class("icmp_error") == errors && counted.received == counted.marked,
            format!("{errors} packets of class icmp_error, nothing dropped"),
            format!("{counted:?}"),
        )?;
    }
    later_fragments_are_dropped(lab)
}

/// Returns how many errors were sent.
fn errors_of(lab: &Lab, trace: &Trace, family: Family) -> Result<u64> {
    let subjects = Subject::list(family);
    let forward = trace_packets(lab, trace, subjects.iter().map(Subject::first_packet))?;
    let expected = expected_errors(family, &subjects, &forward)?;
    let seen = trace_packets(lab, trace, expected.iter().map(|error| error.packet.clone()))?;
    for error in &expected {
        let mark = seen.get(&error.message).copied();
        check(
            mark == Some(error.mark),
            format!("mark {}, that of the flow, on {}", error.mark, error.what),
            format!("{mark:?}"),
        )?;
    }
    // Marks are one thing, what comes to servers another.
    let (flows, errors) = (tally(&forward), tally(&seen));
    check(flows.len() == 4, "flows to all four servers", format!("{flows:?}"))?;
    for server in lab.cluster.servers() {
        let mark = u32::from(server.number());
        let sent = u64::from(flows[&mark] + errors[&mark]);
        let arrived = wait::until(&format!("packets to come to {server}"), PATIENCE, || {
            let arrived = arrivals(lab.cluster.node(server)?, family)?;
            Ok((arrived >= sent).then_some(arrived))
        })?;
        check(arrived == sent, format!("{sent} packets to {server}"), arrived)?;
    }
    Ok(u64::try_from(expected.len())?)
}

fn expected_errors(
    family: Family,
    subjects: &[Subject],
    forward: &BTreeMap<Flow, u32>,
) -> Result<Vec<Expected>> {
    // Every error comes from a router of its own, so that it can be told from the others.
    let mut routers = 40_000..;
    let mut expected = Vec::new();
    for subject in subjects {
        let mark = *forward.get(&subject.outside()).context("trace flows: one is missing")?;
        for quoted in subject.quotations() {
            for kind in errors(family) {
                let address = family.source(routers.next().context("too many errors")?);
                let source = SocketAddr::new(address, u16::from_be_bytes(*kind));
                let message = Flow { transport: Transport::Icmp, source };
                expected.push(Expected {
                    message,
                    mark,
                    packet: icmp_error(&message, &quoted),
                    what: format!("{message:?} about {:?} quoting {quoted:02x?}", subject.flow),
                });
            }
        }
    }
    Ok(expected)
}

/// They have no ports: what stands in their place must not be taken for ports.
fn later_fragments_are_dropped(lab: &Lab) -> Result<()> {
    let before = lab.stats()?.sum;
    let packets: Vec<Vec<u8>> = FAMILIES
        .into_iter()
        .flat_map(|family| {
            let source =
                SocketAddr::new(family.source(39_999), u16::from_be_bytes(errors(family)[0]));
            let message = Flow { transport: Transport::Icmp, source };
            let subjects = Subject::list(family);
            let quoted = subjects.into_iter().map(|subject| subject.reply(Extras::LastFragment));
            quoted.map(move |quoted| icmp_error(&message, &quoted)).collect::<Vec<_>>()
        })
        .collect();
    let count = u64::try_from(packets.len())?;
    lab.send_packets(packets.into_iter())?;
    let counted = wait::until(&format!("{count} errors to be decided"), PATIENCE, || {
        let counted = lab.stats()?.sum;
        Ok((counted.received >= before.received + count).then_some(counted))
    })?;
    check(
        counted.dropped_for("quoted_fragment") == count && counted.marked == before.marked,
        format!("{count} packets dropped for quoted_fragment, none marked"),
        format!("{counted:?}"),
    )
}
