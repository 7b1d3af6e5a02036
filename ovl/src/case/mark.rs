//! Marks that are shared with others.

use std::collections::BTreeSet;

use anyhow::Result;

use super::verbs::{connect_all_kinds, trace_flows};
use super::{Case, On, PLAIN, check};
use crate::address::FAMILIES;
use crate::flow;
use crate::lab::{Lab, QUEUE};
use crate::trace::Trace;

pub const CASES: &[Case] = &[Case {
    name: "mark-mask",
    about: "bits of the mark outside the mask are left as they were",
    on: On::Any,
    run: other_bits_stay,
    ..PLAIN
}];

fn other_bits_stay(lab: &mut Lab) -> Result<()> {
    let router = lab.cluster.router()?;
    for family in FAMILIES {
        let (iptables, vip) = (family.iptables(), family.vip_prefix());
        let set = "MARK --set-mark 0x100";
        router.script(&format!("{iptables} -t mangle -A PREROUTING -d {vip} -j {set}"))?;
        let ip = family.ip();
        for server in lab.cluster.servers() {
            let mark = server.number();
            router.script(&format!("{ip} rule add fwmark {mark}/0xff lookup {mark}"))?;
        }
    }
    lab.start_servers()?;
    lab.queue(&["--queue-num", QUEUE])?;
    lab.table(&["init"])?;
    lab.activate_all()?;
    lab.start_lb(&["--queue", QUEUE, "--mark-mask", "0xff"])?;
    let trace = Trace::of_marks(lab.cluster.router()?)?;
    let marks = trace_flows(lab, &trace, &flow::list_of_each(50))?;
    let marks: BTreeSet<u32> = marks.into_values().collect();
    check(marks == (0x101..=0x104).collect(), "marks 0x101 to 0x104", format!("{marks:#x?}"))?;
    connect_all_kinds(lab, 4)
}
