//! Whether the fragments of a datagram come to one queue.
//!
//! Each queue remembers its own datagrams, without a lock. That is right as long as whoever spreads packets over
//! the queues does it by what all fragments of a datagram have in common. Whether it does cannot be
//! known beforehand for every rule that somebody may have made, but it can be seen: here each queue notes which datagram it
//! saw a fragment of, where all queues see it.

use alloc::boxed::Box;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use super::key::{DatagramKey, Secret};

/// What the queues saw last: 48 bits of a hash of the datagram, and the queue. Nothing in it is relied
/// on, so one word after the other may be overwritten at any time.
#[derive(Debug)]
pub struct Witness {
    secret: Secret,
    seen: Box<[AtomicU64]>,
}

/// A power of two: two fragments of a datagram follow each other more closely than so many datagrams.
const PLACES: usize = 4096;
/// The bits of a word that tell the queue.
const QUEUE: u64 = 0xffff;

impl Witness {
    /// Bytes that it takes.
    pub const MEMORY: usize = PLACES * size_of::<AtomicU64>();

    /// It has seen nothing yet.
    pub fn new(secret: Secret) -> Self {
        Witness { secret, seen: (0..PLACES).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Notes that a queue has a fragment of a datagram. Whether another queue had the one before.
    pub fn saw(&self, key: DatagramKey, queue: u16) -> bool {
        let hash = key.long_hash(self.secret);
        let [.., high, low] = hash.to_be_bytes();
        let place = &self.seen[usize::from(u16::from_be_bytes([high, low])) % PLACES];
        let now = hash & !QUEUE | u64::from(queue);
        let before = place.load(Relaxed);
        if before != now {
            place.store(now, Relaxed);
        }
        before & !QUEUE == now & !QUEUE && before != now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ip::{Addresses, Fragment};

    fn key(id: u32) -> DatagramKey {
        let addresses = [10, 0, 0, 1, 10, 0, 0, 2];
        let fragment = Fragment { id, offset: 0, more: true };
        DatagramKey::new(Addresses::V4(&addresses), 17, fragment)
    }

    #[test]
    fn datagrams_that_stay_in_a_queue_are_not_told() {
        let witness = Witness::new(Secret([1, 2]));
        for id in 0..100_000 {
            let queue = u16::try_from(id % 4).unwrap();
            for _ in 0..3 {
                assert!(!witness.saw(key(id), queue), "{id}");
            }
        }
    }

    #[test]
    fn a_datagram_in_two_queues_is_told_each_time() {
        let witness = Witness::new(Secret([1, 2]));
        let told = [0, 0, 3, 3, 0].map(|queue| witness.saw(key(9), queue));
        assert_eq!(told, [false, false, true, false, true]);
    }
}
