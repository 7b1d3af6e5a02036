//! Several queues.

use anyhow::{Context, Result};

use super::verbs::connect_all_kinds;
use super::{Case, PLAIN, check};
use crate::lab::Lab;
use crate::node::Node;

pub const CASES: &[Case] = &[
    Case {
        name: "two-queues",
        about: "the kernel balances over two queues and lb serves both",
        run: |lab| all_queues_serve(lab, 2),
        ..PLAIN
    },
    Case {
        name: "four-queues",
        about: "the kernel balances over four queues, lb serves and counts all",
        run: |lab| all_queues_serve(lab, 4),
        ..PLAIN
    },
];

fn all_queues_serve(lab: &mut Lab, count: u16) -> Result<()> {
    let range = format!("0:{}", count - 1);
    lab.start_servers()?;
    lab.queue(&["--queue-balance", &range])?;
    lab.table(&["init"])?;
    lab.activate_all()?;
    lab.start_lb(&["--queue", &range])?;

    let queues = kernel_queues(lab.cluster.router()?)?;
    let numbers: Vec<u64> = queues.iter().map(|queue| queue.number).collect();
    let expected: Vec<u64> = (0..u64::from(count)).collect();
    check(
        numbers == expected,
        format!("queues {expected:?} in the kernel's list"),
        format!("{numbers:?}"),
    )?;

    connect_all_kinds(lab, 4)?;
    let stats = lab.stats()?;
    check(
        stats.queues.len() == usize::from(count)
            && stats.queues.iter().all(|queue| queue.marked > 0),
        format!("packets through all {count} queues"),
        format!("{stats:?}"),
    )
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelQueue {
    pub number: u64,
    pub waiting: u64,
}

/// The queues that the kernel lists.
pub fn kernel_queues(router: &Node) -> Result<Vec<KernelQueue>> {
    router.proc_net("netfilter/nfnetlink_queue")?.lines().map(parse_queue).collect()
}

fn parse_queue(line: &str) -> Result<KernelQueue> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|field| field.parse().ok());
    // Number, port id, waiting, copy mode, copy range and more.
    let queue = || Some(KernelQueue { number: number(0)?, waiting: number(2)? });
    queue().with_context(|| format!("read nfnetlink_queue: odd line {line:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_a_line() {
        let line = "    2  -4211     7 2   512     9     0       17  1";
        let queue = KernelQueue { number: 2, waiting: 7 };
        assert_eq!(parse_queue(line).unwrap(), queue);
        assert!(parse_queue("    2  -4211").is_err());
    }
}
