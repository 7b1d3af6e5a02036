//! Others beside an `lb` of the fast plane: a second one, conntrack, a user without rights.

use anyhow::{Context, Result};

use super::super::check;
use super::super::table::marks_follow_table;
use super::super::verbs::{connect_all_kinds, trace_flows};
use super::{VIPS, check_plane, end, foreign_rules, install, start, status};
use crate::address::{FAMILIES, Family};
use crate::flow::{self, Transport};
use crate::lab::{Lab, PATIENCE, QUEUE};
use crate::trace::{Trace, tally};
use crate::wait;

pub(super) fn two_instances_do_not_meet(lab: &mut Lab) -> Result<()> {
    lab.table(&["init"])?;
    lab.table(&["activate", "1", "2"])?;
    lab.table(&["init", "--shm", "second", "--m", "499"])?;
    lab.table(&["activate", "--shm", "second", "3", "4"])?;
    lab.start_lb(&["--queue", QUEUE, "--vip", "10.0.0.0/32", "--fast"])?;
    let words = ["lb", "--shm", "second", "--queue", "7", "--vip", "1000::/128", "--fast"];
    let mut second = lab.cluster.router()?.spawn("lb2", &words)?;
    second.wait_for_log("ready", PATIENCE)?;
    let trace = Trace::of_marks(lab.cluster.router()?)?;
    let check_marks = |expected: [(Family, [u32; 2]); 2]| {
        let marks = trace_flows(lab, &trace, &flow::list_of_each(100))?;
        for (family, expected) in expected {
            let of_family = marks.iter().filter(|(flow, _)| flow.family() == family);
            let seen = tally(&of_family.map(|(flow, mark)| (*flow, *mark)).collect());
            let keys: Vec<u32> = seen.keys().copied().collect();
            check(keys == expected, format!("{family}: marks {expected:?}"), format!("{seen:?}"))?;
        }
        Ok::<_, anyhow::Error>(())
    };
    check_marks([(Family::V4, [1, 2]), (Family::V6, [3, 4])])?;
    lab.table(&["deactivate", "2"])?;
    lab.table(&["activate", "4"])?;
    wait::until("the map of the first", PATIENCE, || {
        Ok(check_marks([(Family::V4, [1, 4]), (Family::V6, [3, 4])]).ok())
    })?;
    second.signal("TERM")?;
    second.wait(PATIENCE)?;
    lab.cluster.router()?.run(&["lb", "--down", "--instance", "second"])?.success()?;
    check_plane(lab, "fast")?;
    let flows = flow::list(Family::V4, Transport::Udp, 50);
    check(trace_flows(lab, &trace, &flows)?.len() == 50, "the first goes on", "nothing")
}

pub(super) fn conntrack_does_no_harm(lab: &mut Lab) -> Result<()> {
    lab.start_servers()?;
    if lab.is_on_machines() {
        // With little memory the kernel's table has room for 1,024 connections only.
        let most = "/proc/sys/net/netfilter/nf_conntrack_max";
        lab.cluster.router()?.script(&format!("modprobe nf_conntrack\necho 16384 >{most}"))?;
    }
    let nat = "table inet nat {
        chain forward {
            type filter hook forward priority 0;
            ct state established,related accept
            ct state new counter accept
        }
        chain out {
            type nat hook postrouting priority 100;
            oifname \"eth7\" masquerade
        }
        chain in {
            type nat hook prerouting priority -100;
            tcp dport 9999 dnat ip to 192.168.1.1
        }
    }
    ";
    install(lab.cluster.router()?, nat)?;
    let before = foreign_rules(lab.cluster.router()?)?;
    for options in [&["--fast"][..], &["--fast", "--notrack"], &["--notrack"]] {
        lab.table(&["init", "--force"])?;
        lab.activate_all()?;
        lab.start_lb(&[&["--queue", QUEUE], &VIPS[..], options].concat())?;
        connect_all_kinds(lab, 4).with_context(|| format!("{options:?}"))?;
        let received = lab.stats()?.sum.received;
        let is_fast = options.contains(&"--fast");
        check((received == 0) == is_fast, "the plane that was asked for", received)?;
        // Not put together before lb: the kernel does that at -400.
        for family in FAMILIES {
            let vip = family.vip().to_string();
            let ping = ["ping", "-n", "-q", "-c", "5", "-i", "0.02", "-W", "1", "-s", "3000"];
            let unsplit = ["-M", "dont", &vip];
            lab.cluster.tester()?.run(&[&ping[..], &unsplit].concat())?;
        }
        wait::until("30 fragments at lb", PATIENCE, || {
            Ok((lab.stats()?.sum.class("fragment") == 30).then_some(()))
        })?;
    }
    let tracked = lab.cluster.router()?.proc_net("nf_conntrack").unwrap_or_default();
    end(lab)?;
    lab.cluster.router()?.run(&["lb", "--down"])?.success()?;
    let after = foreign_rules(lab.cluster.router()?)?;
    let uncounted = |rules: &str| rules.lines().filter(|line| !line.contains("counter")).count();
    check(uncounted(&after) == uncounted(&before), before, format!("{after}{tracked}"))
}

pub(super) fn few_rights_suffice(lab: &mut Lab) -> Result<()> {
    lab.start_servers()?;
    start(lab, &[], &["--fast", "--user", "nobody"])?;
    let trace = Trace::of_marks(lab.cluster.router()?)?;
    lab.table(&["deactivate", "2"])?;
    marks_follow_table(lab, &trace, 997)?;
    lab.table(&["init", "--keep", "--m", "65537"])?;
    lab.activate_all()?;
    marks_follow_table(lab, &trace, 65537)?;
    lab.cluster.router()?.script("nft delete table inet markway-markway")?;
    wait::until("the rules to be mended", PATIENCE, || {
        Ok((status(lab)?["plane"] == "fast").then_some(()))
    })?;
    connect_all_kinds(lab, 4)?;
    end(lab)
}
