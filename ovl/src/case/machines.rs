//! Nodes with a kernel of their own: what it has and this machine's may lack, and `lb` on it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::connectivity::every_node_reaches_every_other;
use super::fast_plane::agree::planes_agree_about;
use super::fast_plane::changes::{Storm, storm};
use super::fast_plane::{VIPS, check_plane, end, packets, status};
use super::sctp_paths::through_two_routers;
use super::sctp_stack::{kernel_stack, user_stack};
use super::verbs::{connect_all_kinds, ping};
use super::{Case, On, PLAIN, check};
use crate::address::{CLUSTER_NET, FAMILIES, Family, NetId, NodeId};
use crate::impair::{Means, Wish};
use crate::lab::{Lab, PATIENCE, QUEUE, Shape};
use crate::node::Ran;
use crate::wait;

/// One cluster for all of them, and no larger than needed. Packets must reach the router with the
/// sizes that they were sent with. The second router is for one of them.
const SMALL: Shape =
    Shape { servers: 2, routers: 2, by_first: true, offload: false, ..Shape::STANDARD };

pub(super) const ON_MACHINES: Case = Case { shape: SMALL, on: On::Machines, ..PLAIN };

pub const CASES: &[Case] = &[
    Case {
        name: "vm-connectivity",
        about: "every machine reaches every other, through the router as well",
        run: every_node_reaches_every_other,
        ..ON_MACHINES
    },
    Case {
        name: "vm-sctp-stack",
        about: "the tests of the kernel's SCTP stack, and of both stacks with each other",
        limit: Duration::from_secs(300),
        run: kernel_stack,
        ..ON_MACHINES
    },
    Case {
        name: "vm-kernel",
        about: "the kernel of machines has SCTP, netem, devices of all kinds, nft's own queue",
        run: the_kernel_has_what_is_needed,
        ..ON_MACHINES
    },
    Case {
        name: "vm-commands",
        about: "commands in machines: output, exit codes, signals, several at once, files",
        run: commands_are_what_they_are_elsewhere,
        ..ON_MACHINES
    },
    Case {
        name: "vm-agrees",
        about: "both planes give random flows the mark that the table says, on this kernel, too",
        run: |lab| planes_agree_about(lab, &[&[], &["--sctp-hash", "tuple"]], 50),
        ..ON_MACHINES
    },
    Case {
        name: "vm-queue",
        about: "lb uses the kernel's own queue expression, and serves in both planes",
        run: the_own_queue_serves,
        ..ON_MACHINES
    },
    Case {
        name: "vm-storm",
        about: "a change storm: on this kernel lookups miss at times, the queue gets those, none is lost",
        run: |lab| storm(lab, &Storm { slots: 10_007, rate: 5_000, least_rate: 200, turns: 2 }),
        ..ON_MACHINES
    },
    Case {
        name: "vm-power",
        about: "a router that crashes or loses its power is told of, and can be started again",
        run: a_router_loses_its_power,
        ..ON_MACHINES
    },
    Case {
        name: "vm-lacks",
        about: "lb gives up what the kernel has no module for, and no more; lb --check tells the same",
        run: what_the_kernel_lacks_is_given_up,
        ..ON_MACHINES
    },
    Case {
        name: "vm-sctp",
        about: "the kernel's SCTP over two routers with lb, one for each family, in both planes",
        run: |lab| through_two_routers(lab),
        ..ON_MACHINES
    },
    Case {
        name: "sctp-stack-user",
        about: "the tests of the user stack on this kernel",
        limit: Duration::from_secs(400),
        run: user_stack,
        ..ON_MACHINES
    },
];

fn the_kernel_has_what_is_needed(lab: &mut Lab) -> Result<()> {
    let router = lab.cluster.router()?;
    let ovl = lab.ovl()?;
    router.script(&format!("modprobe sctp\n{ovl} open-sctp"))?;
    for kind in [
        "dummy",
        "bridge",
        "veth",
        "bond",
        "macvlan link eth1 mode bridge",
        "ipvlan link eth2 mode l2",
        "vlan link eth1 id 7",
        "vrf table 77",
        "vxlan id 7 remote 192.168.1.1 dstport 4789",
    ] {
        let (kind, link) = kind.split_once(' ').unwrap_or((kind, ""));
        let (link, options) = match link.strip_prefix("link ") {
            Some(rest) => rest.split_once(' ').map_or((rest, ""), |(link, rest)| (link, rest)),
            None => ("", link),
        };
        let link = if link.is_empty() { String::new() } else { format!("link {link} ") };
        let add = format!("ip link add {link}name trial type {kind} {options}");
        router.script(&format!("{add}\nip link set trial up\nip link del trial"))?;
    }
    router.script(
        "ip tuntap add trial mode tun\nip link del trial\n\
         tc qdisc add dev eth0 root netem delay 30ms\n",
    )?;
    let start = Instant::now();
    let address = Family::V4.address(NetId(0), NodeId::TESTER);
    ping(router, 1, &[&address.to_string()])?;
    let took = start.elapsed();
    check(
        took >= Duration::from_millis(30),
        "a ping that netem delays by 30 ms",
        format!("{took:?}"),
    )?;
    router.script("tc qdisc del dev eth0 root")?;
    router.script(
        "nft 'add table inet trial'
         nft 'add chain inet trial c { type filter hook prerouting priority -450; }'
         nft 'add rule inet trial c ip daddr 192.0.2.1 queue num 9'
         nft 'add table netdev trial'
         nft 'delete table inet trial'; nft 'delete table netdev trial'
         iptables -t mangle -A PREROUTING -d 192.0.2.1 -j NFQUEUE --queue-num 9
         iptables -t mangle -F",
    )?;
    Ok(())
}

fn commands_are_what_they_are_elsewhere(lab: &mut Lab) -> Result<()> {
    let router = lab.cluster.router()?;
    let ran = router.run(&["sh", "-c", "echo out; echo err >&2; exit 7"])?;
    let seen = (ran.code(), ran.stdout(), ran.stderr());
    let expected = (Some(7), "out\n".to_owned(), "err\n".to_owned());
    check(seen == expected, format!("{expected:?}"), format!("{seen:?}"))?;
    let missing = router.entry().command("no-such-program").output().context("run it")?;
    check(missing.status.code() == Some(127), "exit code 127", missing.status)?;

    let large: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    let back = router.entry().run_with_input(&["cat"], &large)?.success()?;
    check(back == large, format!("{} bytes there and back", large.len()), back.len())?;
    router.write("/tmp/new/folder/file", &large)?;
    let read = router.entry().read_file("/tmp/new/folder/file")?;
    check(read.as_ref() == Some(&large), "the file as it was written", "something else")?;
    check(router.entry().read_file("/tmp/absent")?.is_none(), "no such file", "one")?;

    let limit = Duration::from_secs(1);
    let ran = router.run_within(limit, &["sleep", "1000"])?;
    check(matches!(ran.code(), Some(124 | 137)), "an end after 1 s", format!("{:?}", ran.code()))?;
    let mut sleepers = (0..20)
        .map(|number| router.spawn(&format!("sleeper-{number}"), &["sleep", "1000"]))
        .collect::<Result<Vec<_>>>()?;
    let numbers: BTreeSet<u32> = sleepers.iter().map(|sleeper| sleeper.id()).collect();
    check(numbers.len() == 20, "20 programs at once", format!("{numbers:?}"))?;
    for sleeper in &mut sleepers {
        sleeper.signal("TERM")?;
        let status = sleeper.wait(PATIENCE)?;
        check(status.code() == Some(143), "exit code 143 of one that SIGTERM ended", status)?;
    }
    Ok(())
}

fn the_own_queue_serves(lab: &mut Lab) -> Result<()> {
    lab.start_servers()?;
    lab.table(&["init"])?;
    lab.activate_all()?;
    for (plane, options) in [("slow", &[][..]), ("fast", &["--fast"])] {
        lab.start_lb(&[&["--queue", QUEUE], &VIPS[..], options].concat())?;
        check_plane(lab, plane)?;
        let rules =
            lab.cluster.router()?.run(&["nft", "list", "table", "inet", "markway-markway"])?;
        let rules = rules.success()?;
        let own = rules.lines().any(|line| line.contains("queue to 2"));
        check(own && !rules.contains("xt target"), "the queue expression in the rules", &rules)?;
        connect_all_kinds(lab, 2).with_context(|| format!("{plane} plane"))?;
        let (stats, status) = (lab.stats()?.sum, status(lab)?);
        let fast = if plane == "fast" { packets(&status, "fast")? } else { 0 };
        check(
            (stats.received == 0) == (plane == "fast") && (fast > 0) == (plane == "fast"),
            format!("packets in the {plane} plane only"),
            format!("{stats:?}, {status}"),
        )?;
        // Either plane takes echoes as well.
        for family in FAMILIES {
            ping(lab.cluster.tester()?, 5, &[&family.vip().to_string()])?;
        }
        let echoes = match plane {
            "fast" => packets(&self::status(lab)?, "fast")? - fast,
            _ => lab.stats()?.sum.received - stats.received,
        };
        check(echoes >= 10, format!("10 echoes in the {plane} plane"), echoes)?;
        end(lab)?;
        lab.cluster.router()?.run(&["lb", "--down"])?.success()?;
    }
    Ok(())
}

/// A module, what comes of it when it is missing, how bad that is, and the plane that is left.
const LACKS: [(&str, &str, &str, &str); 4] = [
    ("nft_queue", "rules can queue, by the target NFQUEUE", "ok", "express"),
    ("nft_limit", "INITs of SCTP are not counted: this kernel refuses: ", "note", "express"),
    (
        "nft_fwd_netdev",
        "no express plane, the fast plane does its work: this kernel refuses: ",
        "warning",
        "fast",
    ),
    (
        "nft_hash",
        "no fast plane, the queue does all the work: this kernel refuses: ",
        "warning",
        "slow",
    ),
];

fn what_the_kernel_lacks_is_given_up(lab: &mut Lab) -> Result<()> {
    lab.table(&["init"])?;
    lab.activate_all()?;
    let given_up = gives_up(lab);
    // Others have the same machine.
    lab.cluster.router()?.script("rm -f /etc/modprobe.d/lack.conf")?;
    given_up
}

fn gives_up(lab: &mut Lab) -> Result<()> {
    let express = ["--queue", QUEUE, "--fast", "--express", "--device", "eth2"];
    let options = [&express[..], &VIPS[..]].concat();
    for (module, lack, level, plane) in LACKS {
        lab.cluster.router()?.script(&format!(
            "mkdir -p /etc/modprobe.d
             echo 'install {module} /bin/false' >/etc/modprobe.d/lack.conf
             if grep -q '^{module} ' /proc/modules; then rmmod {module}; fi"
        ))?;
        let words = [&["lb", "--check", "--json"], &options[..]].concat();
        let report = lab.cluster.router()?.run(&words)?.stdout();
        let report: Value = serde_json::from_str(&report).context("read lb --check")?;
        let mut findings = report["findings"].as_array().into_iter().flatten();
        let told = findings.find_map(|finding| {
            let what = finding["what"].as_str().filter(|what| what.starts_with(lack))?;
            (finding["level"] == level).then(|| what.to_owned())
        });
        let told = told.with_context(|| format!("{lack}, as {level}: {report}"))?;
        lab.start_lb(&options)?;
        check_plane(lab, plane)?;
        let log = lab.lb()?.log();
        // As far as the digest of a rule, which depends on the routes.
        let words = told.split(" [").next().unwrap_or(&told);
        let is_told = level == "ok" || log.contains(words);
        check(is_told, format!("without {module}: {told}"), &log)?;
        let target = module == "nft_queue";
        check(log.contains("target NFQUEUE") == target, format!("a target: {target}"), &log)?;
        end(lab)?;
        lab.cluster.router()?.run(&["lb", "--down"])?.success()?;
    }
    Ok(())
}

fn a_router_loses_its_power(lab: &mut Lab) -> Result<()> {
    let cluster = lab.cluster.clone();
    let (router, ids) = (cluster.router()?, BTreeSet::from([NodeId::ROUTER]));
    let address = Family::V4.address(CLUSTER_NET, NodeId::ROUTER).to_string();
    let server = cluster.node(NodeId::new(1).context("no such node")?)?;
    // A kernel that gives up ends its machine, with its last words on the console.
    let crash = router.run(&["sh", "-c", "echo c >/proc/sysrq-trigger"])?;
    is_told_of(&crash, "Kernel panic")?;
    is_told_of(&router.run(&["true"])?, "Kernel panic")?;
    cluster.power_on(&ids)?;

    router.write("/root/note", "gone with the power")?;
    let link = cluster.link(NodeId::ROUTER, "eth1")?;
    let words = vec!["delay 1ms".to_owned()];
    link.impair(&Wish { words, means: Some(Means::Kernel), seed: None })?;
    cluster.power_off(&ids)?;
    is_told_of(&router.run(&["true"])?, "its console")?;
    let silent = server.run(&["ping", "-n", "-q", "-c", "1", "-W", "1", &address])?;
    check(!silent.succeeded(), "no answer from a router without power", silent.stdout())?;
    cluster.power_on(&ids)?;
    check(router.entry().read_file("/root/note")?.is_none(), "a router that is as new", "a note")?;
    let queues = router.run(&["tc", "qdisc", "show", "dev", "eth1"])?.success()?;
    check(queues.contains("qdisc netem"), "a link that is as bad as before", queues)?;
    check(link.mend()?, "a link that was impaired", "it was not")?;
    lab.prepare(SMALL)?;
    wait::until("the router to answer", PATIENCE, || {
        Ok(server
            .run(&["ping", "-n", "-q", "-c", "1", "-W", "1", &address])?
            .succeeded()
            .then_some(()))
    })?;
    every_node_reaches_every_other(lab)
}

/// A command on a router that is gone must say so, and show what is on its console.
fn is_told_of(ran: &Ran, console: &str) -> Result<()> {
    let told = ran.stderr();
    check(
        ran.code() == Some(255) && told.contains("vm-201 has ended; ") && told.contains(console),
        format!("exit code 255, vm-201 has ended, and {console:?} on its console"),
        format!("{:?} {told}", ran.code()),
    )
}
