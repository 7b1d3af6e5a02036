//! Ordinary traffic through the balancer.

use anyhow::Result;

use super::verbs::{connect_all, ping};
use super::{Case, On, PLAIN, check};
use crate::address::FAMILIES;
use crate::flow::Transport;
use crate::lab::Lab;

pub const CASES: &[Case] = &[
    Case {
        name: "tcp",
        about: "TCP connections spread over all servers",
        on: On::Any,
        run: |lab| spread(lab, Transport::Tcp),
        ..PLAIN
    },
    Case {
        name: "udp",
        about: "UDP exchanges spread over all servers",
        on: On::Any,
        run: |lab| spread(lab, Transport::Udp),
        ..PLAIN
    },
    Case {
        name: "ping",
        about: "pings of the VIP from many sources are answered",
        on: On::Any,
        run: ping_from_many_sources,
        ..PLAIN
    },
];

fn spread(lab: &mut Lab, transport: Transport) -> Result<()> {
    lab.start_service()?;
    for family in FAMILIES {
        connect_all(lab, family, transport, 4)?;
    }
    let class = transport.to_string();
    let counted = lab.stats()?.sum;
    // A UDP exchange takes one packet to the server, a TCP connection several.
    check(
        counted.classes.get(&class).is_some_and(|count| *count >= 800),
        format!("at least 800 packets of class {class}"),
        format!("{counted:?}"),
    )
}

fn ping_from_many_sources(lab: &mut Lab) -> Result<()> {
    lab.start_service()?;
    for family in FAMILIES {
        for index in 1..=20 {
            let source = family.source(index).to_string();
            ping(lab.cluster.tester()?, 1, &["-I", &source, &family.vip().to_string()])?;
        }
    }
    let counted = lab.stats()?.sum;
    check(
        counted.classes.get("echo") == Some(&40),
        "40 packets of class echo",
        format!("{counted:?}"),
    )
}
