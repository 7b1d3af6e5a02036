//! Random choices that can be repeated.

use std::collections::BTreeSet;
use std::env;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::address::Family;
use crate::flow::{Flow, Transport};

/// Numbers that follow from a seed (xorshift).
pub struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// From the seed in `MARKWAY_TEST_SEED`, else from another one each time.
    pub fn seeded() -> Self {
        let given = env::var("MARKWAY_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_secs());
        Self::new(given.unwrap_or_else(clock))
    }

    fn new(seed: u64) -> Self {
        Self { seed, state: seed | 1 << 63 }
    }

    /// What it takes to get the same numbers once more.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    /// A number below a limit that is far from the largest number.
    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }

    /// A number of 16 bits.
    pub fn u16(&mut self) -> u16 {
        let [.., high, low] = (self.next() >> 16).to_be_bytes();
        u16::from_be_bytes([high, low])
    }

    /// Different flows of the tester's sources.
    pub fn flows(&mut self, family: Family, transport: Transport, count: usize) -> Vec<Flow> {
        let mut flows = BTreeSet::new();
        while flows.len() < count {
            let (host, port) = (self.u16(), self.u16());
            let source = SocketAddr::new(family.source(host), port);
            flows.insert(Flow { transport, source });
        }
        flows.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_flows_and_flows_differ() {
        let flows = |seed| Random::new(seed).flows(Family::V6, Transport::Udp, 1000);
        assert_eq!(flows(7), flows(7));
        assert_ne!(flows(7), flows(8));
        assert_eq!(flows(7).iter().collect::<BTreeSet<_>>().len(), 1000);
        assert!((0..100).all(|seed| Random::new(seed).below(3) < 3));
    }
}
