//! Heartbeats by path, counted as packets pass the hooks: the library does not tell of them.
//!
//! A path is known by the port of this end, and the peer's address and port. Packets that are for nobody here are
//! not counted.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use super::source;
use crate::Heartbeats;

/// Paths that are counted: forged packets must not take all memory. Beyond, new ones are not.
const MOST: usize = 65_536;
const HEARTBEAT: u8 = 4;
const HEARTBEAT_ACK: u8 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Out,
    In,
}

/// By the port of this end.
#[derive(Debug, Default)]
struct Counts {
    ports: HashMap<u16, HashMap<SocketAddr, Heartbeats>>,
    /// Paths of all ports.
    paths: usize,
    /// There was a path more than is counted.
    is_cut: bool,
}

static COUNTS: LazyLock<Mutex<Counts>> = LazyLock::new(Mutex::default);

/// Counts a chunk of a packet, if it is a heartbeat or the answer to one.
pub(super) fn count(chunk: u8, direction: Direction, port: u16, peer: SocketAddr) {
    if matches!(chunk, HEARTBEAT | HEARTBEAT_ACK) && source::is_bound(port) {
        lock().count(chunk, direction, port, peer);
    }
}

/// What was counted; none if it was not.
pub(super) fn of(port: u16, peer: SocketAddr) -> Option<Heartbeats> {
    lock().of(port, peer)
}

/// The association with these addresses is over.
pub(super) fn forget(port: u16, peers: &[SocketAddr]) {
    let mut counts = lock();
    let Some(paths) = counts.ports.get_mut(&port) else { return };
    let gone = peers.iter().filter(|peer| paths.remove(peer).is_some()).count();
    counts.paths -= gone;
}

/// No socket has this port any more.
pub(super) fn forget_port(port: u16) {
    let mut counts = lock();
    if let Some(paths) = counts.ports.remove(&port) {
        counts.paths -= paths.len();
    }
}

/// Hooks must not panic, so a lock is taken also after a panic of another thread.
fn lock() -> MutexGuard<'static, Counts> {
    COUNTS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Counts {
    fn count(&mut self, chunk: u8, direction: Direction, port: u16, peer: SocketAddr) {
        let is_full = self.paths >= MOST;
        let paths = self.ports.entry(port).or_default();
        if !paths.contains_key(&peer) {
            if is_full {
                self.is_cut = true;
                return;
            }
            self.paths += 1;
        }
        let path = paths.entry(peer).or_default();
        let number = match (chunk == HEARTBEAT, direction) {
            (true, Direction::Out) => &mut path.sent,
            (false, Direction::In) => &mut path.acks_received,
            (true, Direction::In) => &mut path.received,
            (false, Direction::Out) => &mut path.acks_sent,
        };
        *number += 1;
    }

    fn of(&self, port: u16, peer: SocketAddr) -> Option<Heartbeats> {
        let counted = self.ports.get(&port).and_then(|paths| paths.get(&peer)).copied();
        counted.or((!self.is_cut).then(Heartbeats::default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::source::Binding;

    fn peer(number: u16) -> SocketAddr {
        ([192, 0, 2, 9], number).into()
    }

    #[test]
    fn each_path_and_direction_has_its_number() {
        let mut counts = Counts::default();
        for (chunk, direction, times) in [
            (HEARTBEAT, Direction::Out, 1),
            (HEARTBEAT_ACK, Direction::In, 2),
            (HEARTBEAT, Direction::In, 3),
            (HEARTBEAT_ACK, Direction::Out, 4),
        ] {
            (0..times).for_each(|_| counts.count(chunk, direction, 7, peer(9)));
        }
        let expected = Heartbeats { sent: 1, acks_received: 2, received: 3, acks_sent: 4 };
        assert_eq!(counts.of(7, peer(9)), Some(expected));
        assert_eq!(counts.of(7, peer(8)), Some(Heartbeats::default()));
        assert_eq!(counts.of(8, peer(9)), Some(Heartbeats::default()));
    }

    #[test]
    fn beyond_its_limit_it_does_not_know() {
        let mut counts = Counts { paths: MOST - 1, ..Counts::default() };
        counts.count(HEARTBEAT, Direction::In, 7, peer(1));
        counts.count(HEARTBEAT, Direction::In, 7, peer(2));
        counts.count(HEARTBEAT, Direction::In, 7, peer(1));
        assert_eq!(counts.of(7, peer(1)).map(|path| path.received), Some(2));
        assert_eq!(counts.of(7, peer(2)), None);
    }

    #[test]
    fn only_ports_of_this_process_are_counted_and_only_as_long() {
        const PORT: u16 = 61;
        let heartbeat = |peer| count(HEARTBEAT, Direction::Out, PORT, peer);
        let sent = |peer| of(PORT, peer).unwrap().sent;
        heartbeat(peer(1));
        let binding = Binding::new(PORT, Vec::new());
        heartbeat(peer(2));
        heartbeat(peer(3));
        count(3, Direction::Out, PORT, peer(3));
        assert_eq!([1, 2, 3].map(|number| sent(peer(number))), [0, 1, 1]);
        forget(PORT, &[peer(1), peer(3)]);
        assert_eq!([2, 3].map(|number| sent(peer(number))), [1, 0]);
        drop(binding);
        assert_eq!(sent(peer(2)), 0);
    }
}
