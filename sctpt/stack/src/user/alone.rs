//! Whether there are other stacks in user space on this host.

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the number of raw sockets is believed.
const COUNT_LIFE: Duration = Duration::from_millis(20);

/// Whether no other process in this network namespace has a raw socket of SCTP.
pub(super) fn is_alone() -> bool {
    static LAST: Mutex<Option<(Instant, bool)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    if let Some((at, alone)) = *last
        && now.duration_since(at) < COUNT_LIFE
    {
        return alone;
    }
    // Whoever cannot tell keeps silent.
    let alone = fs::read_to_string("/proc/thread-self/net/raw")
        .is_ok_and(|sockets| count_of_sctp(&sockets) <= 1);
    *last = Some((now, alone));
    alone
}

/// Sockets of SCTP in the kernel's list of raw ones, where the protocol stands for the port.
fn count_of_sctp(sockets: &str) -> usize {
    let local = |line: &str| line.split_whitespace().nth(1).map(|word| word.ends_with(":0084"));
    sockets.lines().filter_map(local).filter(|sctp| *sctp).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_sockets_of_sctp_are_counted() {
        let list = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n\
            132: 00000000:0084 00000000:0000 07 00000000:00000000 00:00000000 00000000\n\
            1: 00000000:0001 00000000:0000 07 00000000:00000000 00:00000000 00000000\n";
        assert_eq!(count_of_sctp(list), 1);
        assert_eq!(count_of_sctp(""), 0);
    }
}
