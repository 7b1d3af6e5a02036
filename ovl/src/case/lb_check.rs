//! `lb --check`: something is made wrong, is told, and is not told any more once it is right.

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Case, PLAIN, check};
use crate::lab::{Lab, PATIENCE, QUEUE, Shape};

/// Packets must reach the queue with the sizes that they were sent with.
const SHAPE: Shape = Shape { offload: false, ..Shape::STANDARD };

pub const CASES: &[Case] = &[
    Case {
        name: "check-good",
        about: "lb --check finds nothing wrong where lb works, before and while it runs",
        shape: SHAPE,
        run: nothing_is_wrong,
        ..PLAIN
    },
    Case {
        name: "check-findings",
        about: "lb --check tells what spoils fragments or keeps lb from starting, and what to do",
        shape: SHAPE,
        run: what_is_wrong_is_told,
        ..PLAIN
    },
    Case {
        name: "check-at-start",
        about: "what lb has to live with is logged when it starts",
        shape: SHAPE,
        run: warnings_at_start,
        ..PLAIN
    },
];

const FAST: [&str; 6] = ["--vip", "10.0.0.0/32", "1000::/128", "--fast", "--tun", "frag0"];

/// What `lb --check` says with these options, and its exit code.
fn report(lab: &Lab, options: &[&str]) -> Result<(Value, Option<i32>)> {
    let words = [&["lb", "--check", "--json"], options].concat();
    let ran = lab.cluster.router()?.run(&words)?;
    let report = serde_json::from_str(&ran.stdout());
    Ok((report.with_context(|| format!("read lb --check: {}", ran.stderr()))?, ran.code()))
}

/// The findings of a check that are not fine.
fn troubles<'a>(report: &'a Value, name: &str) -> Vec<&'a Value> {
    let findings = report["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_trouble = |finding: &&Value| {
        finding["check"] == name && (finding["level"] == "warning" || finding["level"] == "error")
    };
    findings.iter().filter(is_trouble).collect()
}

fn all_is_well(lab: &Lab, options: &[&str]) -> Result<()> {
    let (report, code) = report(lab, options)?;
    check(report["ok"] == true && code == Some(0), "ok, exit code 0", format!("{code:?}, {report}"))
}

fn nothing_is_wrong(lab: &mut Lab) -> Result<()> {
    lab.table(&["init"])?;
    lab.activate_all()?;
    all_is_well(lab, &FAST)?;
    let rules = lab.cluster.router()?.script("nft list ruleset")?;
    check(!rules.contains("markway"), "no rules left of a check", &rules)?;
    lab.start_lb(&FAST)?;
    all_is_well(lab, &FAST)?;
    let ran = lab.cluster.router()?.run(&["lb", "--check"])?;
    check(
        ran.succeeded() && ran.stdout().ends_with("all is well\n"),
        "a text that ends with: all is well",
        ran.stdout(),
    )?;
    let (told, _) = report(lab, &[&FAST[..], &["--queue", "0:3", "--frag-held", "100"]].concat())?;
    let fragments = told["memory"][0]["bytes"].as_u64().unwrap_or(0);
    check(fragments > 5 * 2_400_000, "the memory of five tables of fragments", &told["memory"])
}

/// Something that can be wrong on a router.
struct Trouble {
    /// The check that finds it.
    name: &'static str,
    options: &'static [&'static str],
    wrong: &'static str,
    right: &'static str,
    /// What of it is told.
    told: &'static str,
    advice: &'static str,
}

const PLAIN_QUEUE: &[&str] = &["--queue", QUEUE];

const TROUBLES: [Trouble; 14] = [
    Trouble {
        name: "reassembly",
        options: PLAIN_QUEUE,
        wrong: "nft add table ip user\nnft 'add chain ip user c { type filter hook forward priority 0; }'\n\
                nft add rule ip user c ct state established accept",
        right: "nft delete table ip user",
        told: "'ct' in table ip user, chain c",
        advice: "--vip",
    },
    Trouble {
        name: "reassembly",
        options: PLAIN_QUEUE,
        wrong: "iptables -t nat -A POSTROUTING -o eth7 -j MASQUERADE",
        right: "iptables -t nat -F POSTROUTING",
        told: "table ip nat, chain POSTROUTING",
        advice: "--vip",
    },
    Trouble {
        name: "queues",
        options: &["--queue", "4:7"],
        wrong: "iptables -t mangle -A PREROUTING -d 10.0.0.0 -j NFQUEUE --queue-balance 4:7 --queue-cpu-fanout",
        right: "iptables -t mangle -F PREROUTING",
        told: "spreads packets over queues by processor",
        advice: "fanout",
    },
    Trouble {
        name: "queues",
        options: &["--queue", "4:5"],
        wrong: "iptables -t mangle -A PREROUTING -d 10.0.0.0 -j NFQUEUE --queue-balance 4:7",
        right: "iptables -t mangle -F PREROUTING",
        told: "sends to queues 4 to 7",
        advice: "--queue",
    },
    Trouble {
        name: "offloads",
        options: &["--vip", "10.0.0.0", "--device", "eth2"],
        wrong: "ethtool -K eth2 rx-gro-list on",
        right: "ethtool -K eth2 rx-gro-list off",
        told: "eth2: the offload rx-gro-list",
        advice: "ethtool -K eth2 rx-gro-list off",
    },
    Trouble {
        name: "source check",
        options: PLAIN_QUEUE,
        wrong: "echo 1 >/proc/sys/net/ipv4/conf/eth2/rp_filter",
        right: "echo 0 >/proc/sys/net/ipv4/conf/eth2/rp_filter",
        told: "eth2: rp_filter is strict",
        advice: "net/ipv4/conf/eth2/rp_filter=0",
    },
    Trouble {
        name: "source check",
        options: PLAIN_QUEUE,
        wrong: "echo none >/run/none\nmount --bind /run/none /proc/sys/net/ipv4/conf/eth2/rp_filter",
        right: "umount /proc/sys/net/ipv4/conf/eth2/rp_filter",
        told: "read /proc/sys/net/ipv4/conf/eth2/rp_filter: ",
        advice: "see to it that it is 0",
    },
    Trouble {
        name: "own errors",
        options: &["--vip", "10.0.0.0", "--local"],
        wrong: "! ip route get 10.0.0.0",
        right: "ip route add 10.0.0.0 via 192.168.1.1",
        told: "no route to 10.0.0.0/32 (",
        advice: "ip route add 10.0.0.0/32 via ",
    },
    Trouble {
        name: "copy range",
        options: &["--tun", "frag0"],
        wrong: "ip link set eth2 mtu 3000",
        right: "ip link set eth2 mtu 1500",
        told: "fragments of up to 3000 bytes",
        advice: "--copy-range 3000",
    },
    Trouble {
        name: "devices",
        options: &["--vip", "10.0.0.0", "--device", "vx0"],
        wrong: "! ip link show vx0",
        right: "ip link add vx0 type veth peer name vx1",
        told: "there is no device vx0",
        advice: "until there is",
    },
    Trouble {
        name: "tun",
        options: &["--tun", "frag0"],
        wrong: "ip tuntap add frag0 mode tun",
        right: "ip tuntap del frag0 mode tun",
        told: "there is a device frag0 already",
        advice: "another name",
    },
    Trouble {
        name: "table",
        options: PLAIN_QUEUE,
        wrong: "shm-tool delete --shm markway",
        right: "shm-tool init && shm-tool activate 1",
        told: "markway",
        advice: "",
    },
    Trouble {
        name: "tier",
        options: &["--tier-shm", "routers"],
        wrong: "shm-tool init --shm routers --force",
        right: "shm-tool init --shm routers --own-mark 201 --force",
        told: "--own-mark",
        advice: "",
    },
    Trouble {
        name: "tier",
        options: &["--tier-shm", "routers"],
        wrong: "shm-tool delete --shm routers",
        right: "shm-tool init --shm routers --own-mark 201",
        told: "routers",
        advice: "handled where it comes",
    },
];

fn what_is_wrong_is_told(lab: &mut Lab) -> Result<()> {
    lab.table(&["init"])?;
    lab.activate_all()?;
    lab.table(&["init", "--shm", "routers", "--own-mark", "201"])?;
    let router = lab.cluster.router()?;
    for trouble in &TROUBLES {
        let Trouble { name, options, wrong, right, told, advice } = trouble;
        router.script(wrong)?;
        let (seen, code) = report(lab, options)?;
        let found = troubles(&seen, name);
        let says = |finding: &&Value| {
            let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
            text("what").contains(told) && text("do").contains(advice)
        };
        check(
            code == Some(1) && found.len() == 1 && found.iter().all(says),
            format!("one finding of {name} after: {wrong}"),
            format!("exit code {code:?}, {seen}"),
        )?;
        router.script(right)?;
        all_is_well(lab, options).with_context(|| format!("after: {right}"))?;
    }
    // A queue of one's own before the kernel's reassembly; not every kernel has nft's own means to queue.
    router.script(TROUBLES[0].wrong)?;
    all_is_well(lab, &FAST).context("rules by lb come before connection tracking")?;

    let without = ["setpriv", "--bounding-set=-net_admin", "--", "lb", "--check"];
    let ran = router.run(&without)?;
    check(
        ran.code() == Some(1) && ran.stdout().contains("missing CAP_NET_ADMIN"),
        "CAP_NET_ADMIN is told as missing",
        ran.stdout(),
    )?;
    lab.start_lb(&["--queue", QUEUE])?;
    let (seen, _) = report(lab, &["--queue", QUEUE, "--instance", "other"])?;
    check(troubles(&seen, "nfqueue").len() == 1, "a queue that is in use", seen)
}

fn warnings_at_start(lab: &mut Lab) -> Result<()> {
    lab.table(&["init"])?;
    lab.activate_all()?;
    let router = lab.cluster.router()?;
    for trouble in &TROUBLES[..3] {
        router.script(trouble.wrong)?;
    }
    lab.start_lb(&["--queue", "4:7"])?;
    for told in ["WARN reassembly: ", "WARN queues: "] {
        lab.lb_mut()?.wait_for_log(told, PATIENCE)?;
    }
    let log = lab.lb()?.log();
    check(log.matches("WARN").count() == 2, "two warnings", log)
}
