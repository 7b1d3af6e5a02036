//! Ordinary traffic through the balancer.

use std::time::Duration;

use anyhow::Result;

use super::fast_plane::{ROOM, VIPS};
use super::verbs::{connect_all, ping};
use super::{Case, On, PLAIN, check};
use crate::address::{FAMILIES, Family};
use crate::flow::Transport;
use crate::lab::{Lab, QUEUE};
use crate::mconnect::Connections;

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
        name: "connects-slow",
        about: "100,000 TCP connections by the queue, all answered, by every server",
        limit: Duration::from_secs(90),
        alone: true,
        run: |lab| many_connects(lab, &[]),
        ..PLAIN
    },
    Case {
        name: "connects-fast",
        about: "the same with lb --fast",
        limit: Duration::from_secs(90),
        alone: true,
        run: |lab| many_connects(lab, &["--fast"]),
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

fn many_connects(lab: &mut Lab, plane: &[&str]) -> Result<()> {
    lab.start_servers()?;
    lab.table(&["init"])?;
    lab.activate_all()?;
    lab.start_lb(&[&["--queue", QUEUE], &VIPS[..], &ROOM[..], plane].concat())?;
    let (family, transport) = (Family::V4, Transport::Tcp);
    let answers = lab.connect(Connections { family, transport, count: 100_000, seconds: 60 })?;
    check(
        answers.failed == 0 && answers.total() == 100_000 && answers.unevenness(4, 10).is_none(),
        "100,000 answers of 4 servers, each within 10 % of the mean",
        format!("{answers:?}"),
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
