//! The kernel's SCTP, on machines: beside the other stack, other programs, and routers without power.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::super::{check, fast_plane};
use super::IN_UDP;
use super::report::Report;
use super::stage::{Stage, VIPS, WAYS, kernel_in_udp};
use crate::address::{EXTERNAL_NET, FAMILIES, Family, NodeId, PREFIX, Role};
use crate::lab::{Lab, PATIENCE, QUEUE};
use crate::process::Process;
use crate::progress;
use crate::wait;

/// Addresses of a server and of its client, in pairs that belong to one way.
struct Ends {
    what: &'static str,
    server: &'static [&'static str],
    /// Below the network of each way.
    client: &'static [&'static str],
}

const ENDS: [Ends; 4] = [
    Ends { what: "IPv4", server: &["10.0.0.1"], client: &["192.168.2.221"] },
    Ends { what: "IPv6", server: &["1000::81"], client: &["1000::1:192.168.6.221"] },
    Ends {
        what: "two of IPv4",
        server: &["10.0.0.1", "10.0.0.129"],
        client: &["192.168.2.221", "192.168.6.221"],
    },
    Ends {
        what: "two of each family",
        server: &["10.0.0.1", "10.0.0.129", "1000::1", "1000::81"],
        client: &[
            "192.168.2.221",
            "192.168.6.221",
            "1000::1:192.168.2.221",
            "1000::1:192.168.6.221",
        ],
    },
];

/// Each stack with the other and the kernel's with itself, over all kinds of addresses, plain and in UDP.
pub fn stacks_talk(lab: &Lab) -> Result<()> {
    for id in lab.cluster.servers() {
        lab.cluster.node(id)?.script(
            "ip address add 10.0.0.129/32 dev vip0
             ip address add 1000::1/128 dev vip0 nodad",
        )?;
    }
    for stacks in [("user", "kernel"), ("kernel", "user"), ("kernel", "kernel")] {
        if stacks.1 == "user" {
            // A kernel aborts associations of the other stack once it has the module, which stays.
            let tester = BTreeSet::from([NodeId::TESTER]);
            lab.cluster.power_off(&tester)?;
            lab.cluster.power_on(&tester)?;
        }
        for in_udp in [false, true] {
            for (id, node) in lab.cluster.nodes() {
                let stack = match id.role() {
                    Role::Server => stacks.0,
                    Role::Tester => stacks.1,
                    Role::Router => continue,
                };
                if stack == "kernel" {
                    kernel_in_udp(node, in_udp).with_context(|| format!("prepare {id}"))?;
                }
            }
            let options = if in_udp { IN_UDP } else { &[] };
            for ends in &ENDS {
                let (server, client) = stacks;
                let what = format!("{} in UDP {in_udp}, {client} to {server}", ends.what);
                progress::tell("sctp", &what);
                talk(lab, ends, stacks, options).context(what)?;
            }
        }
    }
    Ok(())
}

fn talk(lab: &Lab, ends: &Ends, stacks: (&str, &str), options: &[&str]) -> Result<()> {
    let _servers = start_servers(lab, ends.server, &[&["--stack", stacks.0], options].concat())?;
    let local: Vec<String> =
        ends.client.iter().map(|address| address.replace("1000::1", PREFIX)).collect();
    let report =
        few_clients(lab, ends.server, &local, &[&["--stack", stacks.1], options].concat())?;
    check(report.stack() == Some(stacks.1), format!("the stack {}", stacks.1), report.short())
}

/// Lets four clients send for longer than a path takes that leads nowhere: all paths must be active
/// then, and nothing may be lost.
fn few_clients(lab: &Lab, vips: &[&str], local: &[String], options: &[&str]) -> Result<Report> {
    const CLIENTS: u64 = 4;
    let (remote, local) = (vips.join(","), local.join(","));
    let words = ["sctpt", "ctraffic", "--addr", &remote, "--laddr", &local, "--clients", "4"];
    let load = ["--rate", "40", "--duration", "5", "--connect-timeout", "5"];
    let timers = ["--rto", "500ms,500ms,500ms", "--heartbeat", "200ms", "--path-max-retrans", "2"];
    let words = [&words, &load[..], &timers, &["--shm", "few", "--init"], options].concat();
    let ran = lab.cluster.tester()?.run_within(3 * PATIENCE, &words)?.success()?;
    let report = Report::parse(&ran)?;
    report.check_whole(CLIENTS)?;
    report.check_paths(vips)?;
    Ok(report)
}

/// Servers on all cluster nodes, which end with what is returned.
fn start_servers(lab: &Lab, addresses: &[&str], options: &[&str]) -> Result<Vec<Process>> {
    let addresses = addresses.join(",");
    let words = ["sctpt", "server", "--addr", &addresses, "--log", "6"];
    let words = [&words[..], options].concat();
    let mut servers = Vec::new();
    for id in lab.cluster.servers() {
        servers.push(lab.cluster.node(id)?.spawn("sctpt", &words)?);
    }
    for server in &mut servers {
        server.wait_for_log("Accepting connections", PATIENCE)?;
    }
    Ok(servers)
}

/// Debian's own programs on either side.
pub fn others_talk(lab: &Lab) -> Result<()> {
    const PORT: &str = "6001";
    let tester = lab.cluster.tester()?;
    let echoes = start_servers(lab, &VIPS, &["--stack", "kernel"])?;
    tester.run(&["modprobe", "sctp"])?.success()?;
    let send = ["sctp_test", "-H", "192.168.2.221", "-P", "7001", "-h", VIPS[0], "-p", "6000"];
    let send = [&send[..], &["-s", "-c", "2", "-x", "2"]].concat();
    tester.run_within(3 * PATIENCE, &send)?.success()?;
    is_told_by_one(&echoes, &["192.168.2.221,7001"])?;

    // It ends when its input does, without a look at what came back.
    let send = "echo hello | timeout 10 sctp_darn -H 0::0 -P 7002 -c $1 -c $2 -p 6000 -s";
    let ran = tester.run_within(3 * PATIENCE, &["sh", "-c", send, "sh", VIPS[0], VIPS[1]])?;
    check(ran.stdout().contains("SCTP_COMM_UP"), "an association", ran.stdout())?;
    is_told_by_one(&echoes, &["192.168.2.221,7002", "1000::1:c0a8:6dd,7002"])?;

    let mut sinks = Vec::new();
    for id in lab.cluster.servers() {
        let words = ["sctp_test", "-H", VIPS[0], "-P", PORT, "-l"];
        let mut sink = lab.cluster.node(id)?.spawn("sctp_test", &words)?;
        sink.wait_for_log("Receiving packets", PATIENCE)?;
        sinks.push(sink);
    }
    let words =
        ["sctpt", "ctraffic", "--addr", VIPS[0], "--laddr", "192.168.2.221", "--port", PORT];
    let load =
        ["--clients", "4", "--rate", "40", "--duration", "2", "--wait", "1", "--shm", "sink"];
    let ran = tester.run_within(3 * PATIENCE, &[&words, &load[..], &["--init"]].concat())?;
    let report = Report::parse(&ran.success()?)?;
    let (connects, sent) = (report.number("connects")?, report.number("sent")?);
    let came = || -> usize {
        sinks.iter().map(|sink| sink.log().matches(") Data 1024 bytes").count()).sum()
    };
    wait::until("all messages at sctp_test", PATIENCE, || {
        Ok((came() as u64 >= sent).then_some(()))
    })?;
    check(
        connects == 4 && sent > 0 && came() as u64 == sent,
        format!("{sent} messages at sctp_test, on 4 associations"),
        format!("{} on {connects}", came()),
    )?;

    // What a program says over TCP withsctp makes SCTP.
    let echo = "mkfifo /run/echo; cat /run/echo | withsctp nc -l 6002 >/run/echo";
    let mut netcats = Vec::new();
    for id in lab.cluster.servers() {
        let node = lab.cluster.node(id)?;
        netcats.push(node.spawn("nc", &["sh", "-c", echo])?);
        wait::until("nc to listen", PATIENCE, || {
            let listens = node.proc_net("sctp/eps")?.split_whitespace().any(|word| word == "6002");
            Ok(listens.then_some(()))
        })?;
    }
    let ask = "echo hello | sctpt client --addr $1 --port 6002 --laddr 192.168.2.221";
    let ran = tester.run_within(PATIENCE, &["sh", "-c", ask, "sh", VIPS[0]])?;
    check(ran.stdout().contains("recv> hello"), "the answer of nc", ran.stdout() + &ran.stderr())
}

/// One server, and no other, was reached from these addresses, in whatever order it tells them.
fn is_told_by_one(servers: &[Process], addresses: &[&str]) -> Result<()> {
    wait::until(&format!("a connection from {addresses:?}"), PATIENCE, || {
        let tells = |server: &&Process| addresses.iter().all(|from| server.log().contains(from));
        Ok((servers.iter().filter(tells).count() == 1).then_some(()))
    })
}

/// The power of each load balancer is cut under traffic.
pub fn power_is_cut(lab: &Lab) -> Result<()> {
    const ASSOCIATIONS: u64 = 32;
    let stage = Stage::start(lab, &[])?;
    let rate = stage.rate(500);
    let mut clients =
        stage.start_clients(&["--clients", "32", "--lport", "20000", "--rate", &rate])?;
    clients.wait_for("active", ASSOCIATIONS)?;
    clients.wait_for_more(200)?;
    for way in WAYS {
        let router = BTreeSet::from([NodeId::new(way.balancer).context("no such node")?]);
        let downs = clients.now("pathsDown")?;
        lab.cluster.power_off(&router)?;
        clients.wait_for("pathsDown", downs + ASSOCIATIONS)?;
        clients.wait_for_more(200)?;
        lab.cluster.power_on(&router)?;
        let downs = clients.now("pathsDown")?;
        clients.wait_for("pathsUp", downs)?;
        clients.wait_for_more(200)?;
    }
    let report = clients.end()?;
    report.check_whole(ASSOCIATIONS)?;
    report.check_paths(&VIPS)
}

/// A router for each family, and all that is for an association comes to one server.
pub fn through_two_routers(lab: &mut Lab) -> Result<()> {
    let (first, second) = (NodeId::ROUTER, NodeId::ROUTER_2);
    let vips = FAMILIES.map(|family| family.vip().to_string());
    let vips = vips.each_ref().map(String::as_str);
    let local = FAMILIES.map(|family| family.address(EXTERNAL_NET, NodeId::TESTER).to_string());
    let over_second = format!(
        "ip -6 route replace {} via {}",
        Family::V6.vip_prefix(),
        Family::V6.address(EXTERNAL_NET, second)
    );
    let cluster = Arc::clone(&lab.cluster);
    cluster.tester()?.script(&over_second)?;
    let _servers = start_servers(lab, &vips, &["--stack", "kernel"])?;
    for (plane, options) in [("slow", &[][..]), ("fast", &["--fast"])] {
        let words = [&["lb", "--queue", QUEUE], &fast_plane::VIPS[..], options].concat();
        let mut balancers = Vec::new();
        for id in [first, second] {
            let router = cluster.node(id)?;
            router.script("shm-tool init --force\nshm-tool activate 1 2")?;
            let mut balancer = router.spawn("lb", &words)?;
            balancer.wait_for_log("ready", PATIENCE)?;
            balancers.push(balancer);
        }
        few_clients(lab, &vips, &local, &["--stack", "kernel"])
            .with_context(|| format!("{plane} plane"))?;
        for id in [first, second] {
            let status = cluster.node(id)?.run(&["lb", "--status", "--json"])?.success()?;
            let status = serde_json::from_str(&status).context("read lb --status")?;
            let plane_of_data = if plane == "fast" { "fast" } else { "queued" };
            let packets = fast_plane::packets(&status, plane_of_data)?;
            check(
                packets >= 4,
                format!("packets of 4 paths in the {plane} plane on {id}"),
                status,
            )?;
        }
        drop(balancers);
    }
    for id in [first, second] {
        cluster.node(id)?.run(&["lb", "--down"])?.success()?;
    }
    cluster.tester()?.script(&over_second.replace("replace", "delete")).map(drop)
}
