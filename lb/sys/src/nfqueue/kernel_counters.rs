//! What the kernel counts about queues: /proc/net/netfilter/nfnetlink_queue.

use std::fs::File;
use std::io::{self, Read, Seek};

/// One line of the kernel's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelCounters {
    /// Number of the queue.
    pub queue: u16,
    /// Netlink port of its owner, mostly the number of the process.
    pub port: u32,
    /// Packets that wait for a verdict.
    pub waiting: u32,
    /// Packets dropped because the queue was full.
    pub queue_drops: u64,
    /// Packets dropped because the socket's buffer was full.
    pub socket_drops: u64,
}

/// The kernel's list of queues of this network namespace. Only root may open it, so it stays open.
#[derive(Debug)]
pub struct KernelQueues(File);

impl KernelQueues {
    /// Opens the list.
    pub fn open() -> io::Result<Self> {
        File::open("/proc/self/net/netfilter/nfnetlink_queue").map(KernelQueues)
    }

    /// Reads the list as it is now.
    pub fn read(&mut self) -> io::Result<Vec<KernelCounters>> {
        let mut text = String::new();
        self.0.rewind()?;
        self.0.read_to_string(&mut text)?;
        Ok(text.lines().filter_map(parse).collect())
    }
}

fn parse(line: &str) -> Option<KernelCounters> {
    let mut fields = line.split_ascii_whitespace();
    let mut next = || fields.next()?.parse::<u64>().ok();
    let (queue, port, waiting) = (next()?, next()?, next()?);
    let (_copy_mode, _copy_range) = (next()?, next()?);
    let (queue_drops, socket_drops) = (next()?, next()?);
    Some(KernelCounters {
        queue: queue.try_into().ok()?,
        port: port.try_into().ok()?,
        waiting: waiting.try_into().ok()?,
        queue_drops,
        socket_drops,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel() {
        let line = "    2   4711     3 2   512    17     5    98765  1";
        let expected =
            KernelCounters { queue: 2, port: 4711, waiting: 3, queue_drops: 17, socket_drops: 5 };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse(""), None);
        assert_eq!(parse("2 4711"), None);
        assert_eq!(parse("70000 1 1 2 512 1 1 1 1"), None);
    }
}
