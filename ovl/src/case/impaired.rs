//! Links of machines that the machines' own kernel impairs.

use anyhow::{Context, Result};
use serde_json::Value;

use super::machines::ON_MACHINES;
use super::{Case, check};
use crate::address::{EXTERNAL_NET, FAMILIES, Family, NodeId};
use crate::impair::{Link, Means, Wish};
use crate::lab::Lab;
use crate::node::Node;

pub const CASES: &[Case] = &[Case {
    name: "link-netem",
    about: "netem delays, loses, doubles, reorders and slows what passes a link, and no longer",
    run: |lab| {
        let seen = netem_does_it(lab);
        // Others have the same machines.
        tester_link(lab)?.mend()?;
        seen
    },
    ..ON_MACHINES
}];

const DEVICE: &str = "eth1";

/// In milliseconds: more than an answer takes on a busy machine, and less than what is asked for.
const SOON: f64 = 60.0;

/// What pings have come to.
#[derive(Debug, PartialEq)]
struct Pings {
    sent: u64,
    received: u64,
    duplicates: u64,
    /// How long all of them took to be sent, in milliseconds.
    sending: f64,
    /// Of each answer, in the order in which they came: its number, and how long it took.
    answers: Vec<(u64, f64)>,
}

/// What a queue has done.
#[derive(Debug, PartialEq)]
struct Queue {
    passed: u64,
    lost: u64,
}

fn netem_does_it(lab: &Lab) -> Result<()> {
    let tester = lab.cluster.tester()?;
    is_as_it_should_be(tester)?;

    impair(lab, "delay 50ms")?;
    for family in FAMILIES {
        let pings = pings(tester, family, &["-c", "10", "-i", "0.1"])?;
        let delayed = pings.received == 10 && pings.fastest() >= 100.0;
        check(delayed, format!("{family}: 10 answers, each after 100 ms"), format!("{pings:?}"))?;
    }
    let (there, back) = queues(tester)?;
    let passed = |queue: &Option<Queue>| queue.as_ref().is_some_and(|queue| queue.passed >= 20);
    check(
        passed(&there) && passed(&back),
        "20 packets through netem each way",
        format!("{there:?} {back:?}"),
    )?;
    mend(lab)?;

    for lane in ["there", "back"] {
        impair(lab, &format!("{lane} loss 25%"))?;
        let pings = pings(tester, Family::V4, &["-c", "200", "-i", "0.02"])?;
        // One in four, and five times its standard deviation to either side.
        let missing = pings.sent - pings.received;
        let some = (20..=80).contains(&missing);
        check(some, "50 of 200 lost, more or less", format!("{lane}: {pings:?}"))?;
        let queue = only_queue(tester, lane)?;
        // ARP and neighbour discovery suffer, too.
        let lost = queue.lost >= missing && queue.lost <= missing + 20;
        check(lost, format!("{missing} packets that netem lost"), format!("{queue:?}"))?;
        mend(lab)?;
    }

    impair(lab, "there duplicate 100%")?;
    let twice = pings(tester, Family::V6, &["-c", "10", "-i", "0.05"])?;
    check(twice.duplicates >= 9, "9 answers that came twice", format!("{twice:?}"))?;
    let queue = only_queue(tester, "there")?;
    check(queue.passed >= 20, "20 packets that left netem", format!("{queue:?}"))?;
    mend(lab)?;

    impair(lab, "there delay 100ms reorder 25%")?;
    let mixed = pings(tester, Family::V4, &["-c", "60", "-i", "0.02"])?;
    let overtaken = mixed.answers.windows(2).filter(|pair| pair[1].0 < pair[0].0).count();
    check(
        overtaken >= 3 && mixed.fastest() < SOON && mixed.slowest() >= 100.0,
        "answers that came before earlier ones, and some after 100 ms",
        format!("{overtaken} of {mixed:?}"),
    )?;
    only_queue(tester, "there")?;
    mend(lab)?;

    // 40 frames of 1,250 bytes at once: the last one has gone after 0.4 s.
    impair(lab, "there rate 1mbit")?;
    let slow = pings(tester, Family::V4, &["-c", "40", "-l", "40", "-s", "1208"])?;
    let last = slow.sending + slow.slowest();
    check(
        slow.received == 40 && last >= 390.0,
        "40 answers, the last one after 0.4 s",
        format!("{slow:?}"),
    )?;
    only_queue(tester, "there")?;
    mend(lab)
}

fn tester_link(lab: &Lab) -> Result<Link<'_>> {
    lab.cluster.link(NodeId::TESTER, DEVICE)
}

fn impair(lab: &Lab, words: &str) -> Result<()> {
    let means = Some(Means::Kernel);
    tester_link(lab)?
        .impair(&Wish { words: vec![words.to_owned()], means, seed: None })
        .map(drop)
        .with_context(|| format!("impair by {words}"))
}

fn mend(lab: &Lab) -> Result<()> {
    let was_impaired = tester_link(lab)?.mend()?;
    check(was_impaired, "a link that was impaired", "it was not")?;
    is_as_it_should_be(lab.cluster.tester()?)
}

/// Nothing of netem is there, and answers come soon.
fn is_as_it_should_be(tester: &Node) -> Result<()> {
    let queues = queues(tester)?;
    check(queues == (None, None), "no netem", format!("{queues:?}"))?;
    let pings = pings(tester, Family::V4, &["-c", "5", "-i", "0.02"])?;
    let plain = pings.received == 5 && pings.duplicates == 0 && pings.fastest() < SOON;
    check(plain, format!("5 answers, the first within {SOON} ms"), format!("{pings:?}"))
}

/// Pings the router.
fn pings(tester: &Node, family: Family, words: &[&str]) -> Result<Pings> {
    let address = family.address(EXTERNAL_NET, NodeId::ROUTER).to_string();
    let ran = tester.run(&[&["ping", "-n", "-W", "3"], words, &[&address]].concat())?;
    // Its exit code tells whether there was any answer.
    let said = ran.stdout();
    Pings::parse(&said).with_context(|| format!("read what ping says: {said}{}", ran.stderr()))
}

/// The queues that netem has there and back, if any.
fn queues(tester: &Node) -> Result<(Option<Queue>, Option<Queue>)> {
    let there = queue(tester, DEVICE)?;
    let links = tester.run(&["ip", "-o", "link", "show", "type", "ifb"])?.success()?;
    let back = format!("back-{DEVICE}");
    let back = if links.contains(&back) { queue(tester, &back)? } else { None };
    Ok((there, back))
}

/// That of one direction, when the other has none.
fn only_queue(tester: &Node, lane: &str) -> Result<Queue> {
    let queues = queues(tester)?;
    let seen = format!("{queues:?}");
    let found = match (lane, queues) {
        ("there", (Some(queue), None)) | ("back", (None, Some(queue))) => Some(queue),
        _ => None,
    };
    check(found.is_some(), format!("netem {lane} only"), seen)?;
    found.context("find the queue")
}

fn queue(tester: &Node, device: &str) -> Result<Option<Queue>> {
    let said = tester.run(&["tc", "-s", "-j", "qdisc", "show", "dev", device])?.success()?;
    Queue::of_netem(&said).with_context(|| format!("read what tc says: {said}"))
}

impl Pings {
    fn parse(said: &str) -> Option<Self> {
        let summary = said.lines().find(|line| line.contains("packets transmitted"))?;
        let count = |what: &str| -> Option<u64> {
            let part = summary.split(", ").find(|part| part.contains(what))?;
            part.trim_start_matches('+').split(' ').next()?.parse().ok()
        };
        let answer = |line: &str| -> Option<(u64, f64)> {
            let number = line.split_once("icmp_seq=")?.1.split(' ').next()?.parse().ok()?;
            let took = line.split_once("time=")?.1.split(' ').next()?.parse().ok()?;
            Some((number, took))
        };
        Some(Self {
            sent: count("transmitted")?,
            received: count("received")?,
            duplicates: count("duplicates").unwrap_or(0),
            sending: summary.rsplit_once("time ")?.1.strip_suffix("ms")?.parse().ok()?,
            answers: said.lines().filter_map(answer).collect(),
        })
    }

    /// In milliseconds.
    fn fastest(&self) -> f64 {
        self.answers.iter().map(|(_, took)| *took).fold(f64::INFINITY, f64::min)
    }

    fn slowest(&self) -> f64 {
        self.answers.iter().map(|(_, took)| *took).fold(0.0, f64::max)
    }
}

impl Queue {
    /// None inside when there is no netem.
    fn of_netem(said: &str) -> Option<Option<Self>> {
        let listing: Value = serde_json::from_str(said).ok()?;
        let Some(netem) = listing.as_array()?.iter().find(|one| one["kind"] == "netem") else {
            return Some(None);
        };
        Some(Some(Self { passed: netem["packets"].as_u64()?, lost: netem["drops"].as_u64()? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_ping_says() {
        let said = "PING 1.2.3.4 (1.2.3.4) 56(84) bytes of data.\n\
            64 bytes from 1.2.3.4: icmp_seq=2 ttl=64 time=0.045 ms\n\
            64 bytes from 1.2.3.4: icmp_seq=1 ttl=64 time=101 ms\n\
            64 bytes from 1.2.3.4: icmp_seq=1 ttl=64 time=102 ms (DUP!)\n\n\
            --- 1.2.3.4 ping statistics ---\n\
            3 packets transmitted, 2 received, +1 duplicates, 33.3% packet loss, time 1011ms\n";
        let pings = Pings::parse(said).unwrap();
        let answers = vec![(2, 0.045), (1, 101.0), (1, 102.0)];
        assert_eq!(pings, Pings { sent: 3, received: 2, duplicates: 1, sending: 1011.0, answers });
        assert!(pings.fastest() < 1.0 && pings.slowest() > 101.0);
        assert_eq!(Pings::parse("ping: connect: Network is unreachable\n"), None);
    }

    #[test]
    fn reads_what_tc_says() {
        let other = r#"{"kind":"pfifo_fast","packets":7,"drops":7}"#;
        let netem = r#"{"kind":"netem","bytes":9,"packets":5,"drops":2,"qlen":0}"#;
        assert_eq!(Queue::of_netem(&format!("[{other}]")), Some(None));
        let found = Queue::of_netem(&format!("[{other},{netem}]"));
        assert_eq!(found, Some(Some(Queue { passed: 5, lost: 2 })));
        assert_eq!(Queue::of_netem("nonsense"), None);
    }
}
