//! Steps that several cases share.

use anyhow::Result;

use super::check;
use crate::node::Node;

/// Every one of `count` pings must be answered.
pub fn ping(from: &Node, count: u32, words: &[&str]) -> Result<()> {
    let count = count.to_string();
    let ping = ["ping", "-n", "-q", "-i", "0.02", "-W", "2", "-c", &count];
    let ran = from.run(&[&ping, words].concat())?;
    check(
        ran.succeeded(),
        format!("{} reaches {}", from.name(), words.join(" ")),
        format!("{}{}", ran.stdout(), ran.stderr()),
    )
}

/// The packet count of the first rule that `iptables -vnxL CHAIN` lists.
pub fn first_rule_packets(listing: &str) -> Option<u64> {
    listing
        .lines()
        .nth(2)?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_is_on_the_third_line() {
        let listing = "Chain PREROUTING (policy ACCEPT 5 packets, 300 bytes)\n    pkts      bytes\n       3      180\n";
        assert_eq!(first_rule_packets(listing), Some(3));
        assert_eq!(first_rule_packets("Chain X\n pkts\n"), None);
    }
}
