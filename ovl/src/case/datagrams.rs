//! Datagrams in fragments where something is beside them: whole ones, queues that split them, an `lb` that is killed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::fragments::{
    PARTS, SHAPE, TUN, expected_datagrams, flows, fragment, numbered, reassembled_datagrams,
};
use super::verbs::{ping, trace_flows};
use super::{Case, PLAIN, check};
use crate::address::FAMILIES;
use crate::lab::{Lab, PATIENCE, QUEUE};
use crate::trace::Trace;
use crate::wait;

pub const CASES: &[Case] = &[
    Case {
        name: "fragmented-and-whole",
        about: "a fragmented and a whole datagram of one flow meet the same server, in both planes",
        shape: SHAPE,
        run: |lab| {
            for plane in [&[][..], &["--fast"]] {
                fragmented_as_whole(lab, plane).with_context(|| format!("lb {plane:?}"))?;
            }
            Ok(())
        },
        ..PLAIN
    },
    Case {
        name: "fragments-split",
        about: "rules that send first and later fragments to different queues: lb notices and adapts",
        shape: SHAPE,
        run: queues_share_what_they_know,
        ..PLAIN
    },
    Case {
        name: "fragments-kill",
        about: "lb killed and started again under fragmented traffic: it recovers within the ttl",
        shape: SHAPE,
        alone: true,
        run: traffic_recovers,
        ..PLAIN
    },
];

/// Sends all parts of every datagram, the first one first.
fn send_in_order(lab: &Lab, first: u16) -> Result<()> {
    let parts = |(id, flow)| (0..PARTS).map(move |part| fragment(&flow, id, part));
    lab.send_packets(numbered(first).flat_map(parts))
}

/// Waits until the servers have put so many datagrams together, by server.
pub(super) fn wait_for_datagrams(
    lab: &Lab,
    before: &BTreeMap<u32, u64>,
    mut expected: BTreeMap<u32, u64>,
) -> Result<()> {
    for (mark, count) in before {
        *expected.entry(*mark).or_default() += count;
    }
    let all = expected.values().sum::<u64>();
    let seen = wait::until("servers to reassemble the datagrams", PATIENCE, || {
        let seen = reassembled_datagrams(lab)?;
        Ok((seen.values().sum::<u64>() >= all).then_some(seen))
    })?;
    check(seen == expected, format!("datagrams by server: {expected:?}"), format!("{seen:?}"))
}

fn fragmented_as_whole(lab: &mut Lab, plane: &[&str]) -> Result<()> {
    lab.table(&["init", "--force"])?;
    lab.activate_all()?;
    let rules = ["--queue", QUEUE, "--vip", "10.0.0.0/32", "1000::/128"];
    lab.start_lb(&[&rules, plane].concat())?;
    let flows = flows();
    let trace = Trace::of_marks(lab.cluster.router()?)?;
    let marks = trace_flows(lab, &trace, &flows)?;
    let mut expected: BTreeMap<u32, u64> =
        lab.cluster.servers().map(|server| (server.number().into(), 0)).collect();
    for flow in &flows {
        let mark = marks.get(flow).with_context(|| format!("{flow:?} was not seen"))?;
        *expected.entry(*mark).or_default() += 1;
    }
    let before = reassembled_datagrams(lab)?;
    send_in_order(lab, 1)?;
    wait_for_datagrams(lab, &before, expected)?;
    let stats = lab.stats()?.sum;
    let fragments = u64::from(PARTS) * flows.len() as u64;
    let whole = if plane.is_empty() { flows.len() as u64 } else { 0 };
    check(
        stats.class("fragment") == fragments && stats.received == fragments + whole,
        format!("{fragments} fragments and {whole} whole packets at the queue"),
        format!("{stats:?}"),
    )
}

fn queues_share_what_they_know(lab: &mut Lab) -> Result<()> {
    lab.table(&["init"])?;
    lab.activate_all()?;
    // First fragments and whole packets to queue 4, later ones to queue 5.
    let later = "table inet later {
        chain late {
            type filter hook prerouting priority -460;
            ip frag-off & 0x1fff != 0 meta mark set 0x10000
            frag frag-off != 0 meta mark set 0x10000
        }
    }
    ";
    let router = lab.cluster.router()?;
    router.entry().run_with_input(&["nft", "-f", "-"], later)?.success()?;
    for family in FAMILIES {
        let rule = format!(
            "{} -t mangle -A PREROUTING -d {} -m mark",
            family.iptables(),
            family.vip_prefix()
        );
        router.script(&format!(
            "{rule} --mark 0x10000 -j NFQUEUE --queue-num 5\n\
             {rule} ! --mark 0x10000 -j NFQUEUE --queue-num 4"
        ))?;
    }
    lab.start_lb(&["--queue", "4:5", "--tun", TUN])?;
    // What was under way when it was noticed may be lost.
    send_in_order(lab, 1)?;
    lab.lb_mut()?.wait_for_log("all queues share one table of fragments", PATIENCE)?;
    let all = u64::from(PARTS) * flows().len() as u64;
    wait::until("all fragments to be received", PATIENCE, || {
        Ok((lab.stats()?.sum.received >= all).then_some(()))
    })?;
    let before = settled(lab)?;
    send_in_order(lab, 1001)?;
    wait_for_datagrams(lab, &before, expected_datagrams(lab)?)?;
    let stats = lab.table_json("stats")?;
    let split = stats["sum"]["fragments_split"].as_u64().unwrap_or(0);
    check(split >= flows().len() as u64, "fragments counted as split", &stats["sum"])
}

/// The datagrams that the servers have, once nothing is held any more.
fn settled(lab: &Lab) -> Result<BTreeMap<u32, u64>> {
    wait::until("nothing to be held", PATIENCE, || {
        let stats = lab.table_json("stats")?;
        Ok((stats["sum"]["held_now"] == 0).then_some(()))
    })?;
    reassembled_datagrams(lab)
}

fn traffic_recovers(lab: &mut Lab) -> Result<()> {
    const INTERVAL: Duration = Duration::from_millis(10);
    // Twice as long as it may be disturbed, and more.
    const COUNT: u32 = 400;
    const TTL: Duration = Duration::from_secs(1);
    lab.queue(&["--queue-num", QUEUE])?;
    lab.table(&["init"])?;
    lab.activate_all()?;
    let options = ["--queue", QUEUE, "--tun", TUN];
    lab.start_lb(&options)?;
    for family in FAMILIES {
        let vip = family.vip().to_string();
        let (count, interval) = (COUNT.to_string(), INTERVAL.as_secs_f64().to_string());
        let words = ["ping", "-n", "-q", "-i", &interval, "-c", &count, "-W", "1"];
        let large = ["-s", "4000", "-M", "dont", &vip];
        let received = lab.stats()?.sum.received;
        let mut traffic =
            lab.cluster.tester()?.spawn("ping", &[&words[..], &large[..]].concat())?;
        wait::until("a hundred fragments", PATIENCE, || {
            Ok((lab.stats()?.sum.received >= received + 100).then_some(()))
        })?;
        let lb = lab.lb_mut()?;
        let killed = Instant::now();
        lb.signal("KILL")?;
        lb.wait(PATIENCE)?;
        lab.start_lb(&options)?;
        let gone = killed.elapsed();
        // Nothing of a new datagram is missing from now on.
        ping(lab.cluster.tester()?, 20, &[&["-s", "20000"], &large[2..]].concat())?;
        traffic.wait(Duration::from_secs(30))?;
        let log = traffic.log();
        let answered = answered(&log).with_context(|| format!("read report of ping: {log}"))?;
        let most = (gone + TTL).as_secs_f64() / INTERVAL.as_secs_f64();
        let lost = COUNT - answered;
        check(
            f64::from(lost) <= most,
            format!(
                "at most {most:.0} of {COUNT} {family} datagrams lost, as lb was gone for {gone:.2?}"
            ),
            lost,
        )?;
    }
    Ok(())
}

/// How many replies ping's last lines tell.
fn answered(log: &str) -> Option<u32> {
    let line = log.lines().find(|line| line.contains("packets transmitted"))?;
    line.split(", ").nth(1)?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn ping_tells_what_was_answered() {
        let log = "PING\n\n--- 10.0.0.0 ping statistics ---\n600 packets transmitted, 587 received, 2% packet loss\n";
        assert_eq!(super::answered(log), Some(587));
        assert_eq!(super::answered("ping: unknown host"), None);
    }
}
