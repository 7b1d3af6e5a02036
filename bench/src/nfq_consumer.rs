//! A consumer on the `nfq` crate, to compare `lb` with: the same table and the same walk, but a system
//! call for each packet and for each verdict.
//!
//! The crate gives no access to its socket, so the receive buffer is the system's default.

use anyhow::Context;
use lb_core::walk::{Decision, Policy, walk};
use lb_core::wire::Packet;
use lb_sys::shm::{Folder, MappedTable, Name};
use nfq::Verdict;

/// As `lb` has them by default.
const QUEUE_LENGTH: u32 = 1024;
const COPY_RANGE: u16 = 512;

/// Serves a queue until the process is ended.
pub fn run(number: u16, name: &Name) -> anyhow::Result<()> {
    let mapped = MappedTable::open(&Folder::from_env(), name)?;
    let table = mapped.table().with_context(|| format!("read table {name}"))?;
    let policy = Policy::default();
    let mut queue = nfq::Queue::open().context("open a netlink socket")?;
    queue.bind(number).with_context(|| format!("bind queue {number}"))?;
    queue.set_copy_range(number, COPY_RANGE).context("set the copy range")?;
    queue.set_recv_gso(number, true).context("take packets as they are")?;
    queue.set_queue_max_len(number, QUEUE_LENGTH).context("set the queue's length")?;
    loop {
        let mut message = queue.recv().context("receive a packet")?;
        let bytes = message.get_payload();
        let packet = Packet::copied(bytes, message.get_original_len());
        match walk(packet, &table, &policy).decision {
            Decision::Mark(mark) => {
                message.set_nfmark(mark.get());
                message.set_verdict(Verdict::Accept);
            }
            Decision::Drop(_) | Decision::Hold | Decision::Relay(_) => {
                message.set_verdict(Verdict::Drop)
            }
        }
        queue.verdict(message).context("send a verdict")?;
    }
}
