//! Several queues.

use anyhow::Result;

use super::verbs::connect_all_kinds;
use super::{Case, STANDARD, check};
use crate::lab::Lab;

pub const CASES: &[Case] = &[Case {
    name: "two-queues",
    about: "the kernel balances over two queues and lb serves both",
    layout: STANDARD,
    needs: &[],
    run: both_queues_serve,
}];

fn both_queues_serve(lab: &mut Lab) -> Result<()> {
    lab.start_servers()?;
    lab.queue(&["--queue-balance", "0:1"])?;
    lab.table(&["init"])?;
    lab.activate_all()?;
    lab.start_lb(&["--queue", "0:1"])?;

    let kernel = lab
        .cluster
        .router()?
        .proc_net("netfilter/nfnetlink_queue")?;
    check(
        queue_numbers(&kernel) == ["0", "1"],
        "queues 0 and 1 in the kernel's list",
        &kernel,
    )?;

    connect_all_kinds(lab, 4)?;
    let stats = lab.stats()?;
    check(
        stats.queues.len() == 2 && stats.queues.iter().all(|queue| queue.marked > 0),
        "packets through both queues",
        format!("{stats:?}"),
    )
}

/// The first column of /proc/net/netfilter/nfnetlink_queue.
fn queue_numbers(list: &str) -> Vec<&str> {
    list.lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_a_line() {
        let list = "    0  12345     0 2   512     0     0       17  1\n    1  -4211     0 2   512     0     0        3  1\n";
        assert_eq!(queue_numbers(list), ["0", "1"]);
    }
}
