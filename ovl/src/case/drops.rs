//! Packets that are dropped, each under its reason.

use anyhow::Result;

use super::{Case, PLAIN, check};
use crate::flow;
use crate::lab::{Lab, PATIENCE, Shape};
use crate::packet::cut_packet;
use crate::wait;

/// Packets must reach the queue with the sizes that they were sent with.
const SHAPE: Shape = Shape { offload: false, ..Shape::STANDARD };

pub const CASES: &[Case] = &[Case {
    name: "cut-packets",
    about: "packets that end within the ports are dropped and counted",
    shape: SHAPE,
    run: cut_packets_are_counted,
    ..PLAIN
}];

fn cut_packets_are_counted(lab: &mut Lab) -> Result<()> {
    lab.start_service()?;
    let flows = flow::list_of_each(10);
    lab.send_packets(flows.iter().map(cut_packet))?;
    wait_for_drops(lab, "truncated", 40)
}

fn wait_for_drops(lab: &Lab, reason: &str, count: u64) -> Result<()> {
    let stats = wait::until(&format!("{count} packets to be dropped"), PATIENCE, || {
        let stats = lab.stats()?;
        Ok((stats.sum.received >= count).then_some(stats))
    })?;
    check(
        stats.sum.dropped_for(reason) == count && stats.sum.marked == 0,
        format!("{count} packets dropped for {reason}, none marked"),
        format!("{:?}", stats.sum),
    )
}
