//! A target goes and returns under connections that last.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::stage::{ECHO_PORT, Measured, Stage, seconds};
use super::{FIRST_RETRANSMIT, Plane, Row, check, turns, unbroken};
use crate::address::{EXTERNAL_NET, FAMILIES, Family, NodeId};
use crate::flow::Transport;
use crate::lab::{Lab, PATIENCE};
use crate::process::Process;
use crate::wait;

/// How long the target is gone: longer than a client of ctraffic needs to notice.
const GONE: Duration = Duration::from_millis(700);

/// Connections of each family, besides those of break-test.
const CONNECTIONS: usize = 50;

pub fn goes_and_returns(lab: &mut Lab, plane: Plane) -> Result<()> {
    let mut stage = Stage::new(lab, plane)?;
    let clients = FAMILIES
        .iter()
        .map(|family| start_client(stage.lab, *family))
        .collect::<Result<Vec<_>>>()?;
    let measured = stage.measure("target-removed-and-added", |stage| {
        let streams = FAMILIES
            .iter()
            .map(|family| find_stream(stage.lab, *family))
            .collect::<Result<Vec<_>>>()?;
        // That of the IPv4 stream, so that there is one that must break.
        let target = streams[0].server;
        stage.each_turn(|stage| {
            stage.lab.deactivate(target)?;
            // This is what is done, and nothing is waited for.
            thread::sleep(GONE);
            stage.lab.activate(target)
        })?;
        Ok((target, streams))
    })?;
    let Measured { report, value: (target, streams) } = measured;
    report.keep("target gone for 0.7 s", plane)?;
    let slack = report.slack();
    unbroken(report.direct(), slack)?;
    let (streams_of, trials): (Vec<&Row>, Vec<&Row>) =
        report.by_vip().partition(|row| row.interval().is_none());
    // Another server answers what is not part of a connection, from the next packet on.
    unbroken(trials.into_iter(), slack)?;

    let connections = clients.into_iter().zip(FAMILIES);
    let connections = connections
        .map(|(client, family)| read_client(client, family))
        .collect::<Result<Vec<_>>>()?
        .concat();
    let lab = stage.lab;
    let sources = streams.iter().map(|stream| stream.source);
    let sources: Vec<_> = sources.chain(connections.iter().map(|one| one.local)).collect();
    let ways = find_ways(lab, &sources, target)?;
    let (ways_of_streams, ways) = ways.split_at(streams.len());
    check(ways_of_streams[0].moves(), "a stream of the target's", "none")?;
    for (row, way) in streams_of.into_iter().zip(ways_of_streams) {
        if way.moves() {
            reconnected(row, slack)?;
        } else {
            unbroken([row].into_iter(), slack)?;
        }
    }
    for (connection, way) in connections.iter().zip(ways) {
        connection.check(*way).with_context(|| format!("{connection:?} {way:?}"))?;
    }
    let failed = connections.iter().filter(|one| one.has_failed).count();
    let most = connections.len() / 2;
    check(failed > 0 && failed <= most, format!("1 to {most} failed connections"), failed)
}

/// The stream was refused by the server that it came to, and connected again, at most at each change.
fn reconnected(row: &Row, slack: Duration) -> Result<()> {
    let most = u64::from(2 * turns());
    let longest = FIRST_RETRANSMIT + slack;
    check(
        (1..=most).contains(&row.lost) && row.longest <= longest,
        format!("1 to {most} failed connections, and no break beyond {longest:?}"),
        row,
    )
}

/// A stream of break-test by a virtual address.
struct Stream {
    source: SocketAddr,
    server: NodeId,
}

fn find_stream(lab: &Lab, family: Family) -> Result<Stream> {
    let tester = family.address(EXTERNAL_NET, NodeId::TESTER);
    let filter = format!("sport = :{ECHO_PORT}");
    wait::until(&format!("the {family} stream at a server"), PATIENCE, || {
        let mut found = Vec::new();
        for server in lab.cluster.servers() {
            let words = ["ss", "-Htn", "state", "established", &filter];
            let listing = lab.cluster.node(server)?.run(&words)?.success()?;
            let ends = listing.lines().filter_map(ends);
            let ours = ends.filter(|(local, peer)| *local == family.vip() && peer.ip() == tester);
            found.extend(ours.map(|(_, source)| Stream { source, server }));
        }
        // Connects are there for a moment, too.
        Ok(if found.len() == 1 { found.pop() } else { None })
    })
}

/// The addresses in a line of `ss`.
fn ends(line: &str) -> Option<(IpAddr, SocketAddr)> {
    let mut words = line.split_whitespace().skip(2);
    let mut end = || words.next()?.parse::<SocketAddr>().ok();
    let (local, peer) = (end()?, end()?);
    Some((local.ip().to_canonical(), SocketAddr::new(peer.ip().to_canonical(), peer.port())))
}

/// Where packets of a source go.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// The mark while all targets are there.
    with: Option<u32>,
    /// The mark while one is gone.
    without: Option<u32>,
}

impl Way {
    /// Whether they meet another server while the target is gone.
    fn moves(self) -> bool {
        self.with != self.without
    }
}

/// Where packets from these sources go with a target and without it.
fn find_ways(lab: &Lab, sources: &[SocketAddr], target: NodeId) -> Result<Vec<Way>> {
    let lookup = || {
        let vip = |source: &SocketAddr| match source.ip() {
            IpAddr::V4(_) => Family::V4.vip(),
            IpAddr::V6(_) => Family::V6.vip(),
        };
        let packet = |source: &SocketAddr| {
            (Transport::Tcp, *source, SocketAddr::new(vip(source), ECHO_PORT))
        };
        lab.lookup_each(sources.iter().map(packet))
    };
    let with = lookup()?;
    lab.deactivate(target)?;
    let without = lookup()?;
    lab.activate(target)?;
    let ways = with.into_iter().zip(without);
    Ok(ways.map(|(with, without)| Way { with: with.mark, without: without.mark }).collect())
}

fn start_client(lab: &Lab, family: Family) -> Result<Process> {
    let address = SocketAddr::new(family.vip(), ECHO_PORT).to_string();
    let (count, sources) = (CONNECTIONS.to_string(), family.source_prefix());
    // Longer than break-test, which starts later.
    let time = format!("{}s", seconds() + 2);
    let mut words = vec!["ctraffic", "-address", &address, "-srccidr", &sources, "-nconn", &count];
    // 16 packets a second on each connection.
    words.extend(["-rate", "100", "-psize", "128", "-retries", "100"]);
    words.extend(["-stats", "all", "-timeout", &time]);
    lab.cluster.tester()?.spawn(&format!("ctraffic-{}", family.nft()), &words)
}

/// A connection of ctraffic.
#[derive(Clone, Debug)]
struct Connection {
    local: SocketAddr,
    host: String,
    has_failed: bool,
    /// It was there from the beginning.
    is_first: bool,
}

fn read_client(mut client: Process, family: Family) -> Result<Vec<Connection>> {
    client.wait(PATIENCE)?;
    let log = client.log();
    let odd = || format!("read report of ctraffic, {family}: {log}");
    let json = log.lines().find(|line| line.starts_with('{')).with_context(odd)?;
    let report: Value = serde_json::from_str(json).with_context(odd)?;
    let connections = report["ConnStats"].as_array().with_context(odd)?;
    let connection = |(number, one): (usize, &Value)| {
        Some(Connection {
            local: one["Local"].as_str()?.parse().ok()?,
            host: one["Host"].as_str()?.to_owned(),
            has_failed: !one["Err"].as_str()?.is_empty(),
            is_first: number < CONNECTIONS,
        })
    };
    let connections = connections.iter().enumerate();
    connections.map(|one| connection(one).with_context(odd)).collect()
}

impl Connection {
    /// One whose packets meet another server while the target is gone fails when the target goes; one that came
    /// meanwhile fails when the target returns. One that came after that is where packets go now.
    fn check(&self, way: Way) -> Result<()> {
        if !way.moves() {
            return check(!self.has_failed, "a connection that lasts", "it failed");
        }
        let server = way.with.and_then(|mark| NodeId::new(mark.try_into().ok()?));
        let came_last = !self.is_first && server.is_some_and(|is| self.host == is.to_string());
        check(self.has_failed || came_last, "a connection that fails", "it lasted")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_ss_has_two_ends() {
        let line = "0      0      [::ffff:10.0.0.0]:5003 [::ffff:192.168.2.221]:44556     ";
        let (local, peer) = ends(line).unwrap();
        assert_eq!(
            (local.to_string(), peer.to_string()),
            ("10.0.0.0".into(), "192.168.2.221:44556".into())
        );
        assert_eq!(ends("0 0 [1000::]:5003 [1000::1]:7").unwrap().1.to_string(), "[1000::1]:7");
        assert_eq!(ends("Recv-Q Send-Q"), None);
    }

    #[test]
    fn connections_fail_when_their_packets_move() {
        let connection = |host: &str, has_failed, is_first| Connection {
            local: "20.0.0.1:1".parse().unwrap(),
            host: host.to_owned(),
            has_failed,
            is_first,
        };
        let way = |with, without| Way { with: Some(with), without: Some(without) };
        let holds = |one: Connection, way| one.check(way).is_ok();
        assert!(holds(connection("vm-001", false, true), way(1, 1)));
        assert!(!holds(connection("vm-001", true, true), way(1, 1)));
        assert!(holds(connection("vm-003", true, true), way(3, 1)));
        assert!(!holds(connection("vm-003", false, true), way(3, 1)));
        // It came when the target was back, or meanwhile.
        assert!(holds(connection("vm-003", false, false), way(3, 1)));
        assert!(!holds(connection("vm-001", false, false), way(3, 1)));
        // A slot of another target may move, too.
        assert!(holds(connection("vm-001", false, false), way(1, 2)));
        assert!(!holds(connection("vm-002", false, false), way(1, 2)));
    }
}
