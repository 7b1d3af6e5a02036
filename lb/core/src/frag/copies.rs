//! Copies of fragments that came before the first of their datagram, in buffers made at start.

use alloc::boxed::Box;
use alloc::vec;

use super::list::{Links, List};

/// The buffers, each in one of three lists: free, that of a datagram, or ready to go.
#[derive(Debug)]
pub(super) struct Copies {
    bytes: Box<[u8]>,
    size: usize,
    lens: Box<[usize]>,
    links: Links,
    free: List,
    ready: List,
}

impl Copies {
    pub fn new(count: u32, size: usize) -> Self {
        let (links, free) = Links::all(count);
        Copies {
            bytes: vec![0; count as usize * size].into(),
            size,
            lens: vec![0; count as usize].into(),
            links,
            free,
            ready: List::EMPTY,
        }
    }

    pub const fn memory(count: usize, size: usize) -> usize {
        count * (size + size_of::<usize>() + Links::BYTES)
    }

    pub fn is_full(&self) -> bool {
        self.free.first().is_none()
    }

    /// Adds a copy to those of a datagram; whether there was room.
    pub fn store(&mut self, list: &mut List, bytes: &[u8]) -> bool {
        if bytes.len() > self.size {
            return false;
        }
        let Some(at) = self.links.pop(&mut self.free) else {
            return false;
        };
        let start = at as usize * self.size;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        self.lens[at as usize] = bytes.len();
        self.links.push(list, at);
        true
    }

    /// Forgets the copies of a datagram.
    pub fn release(&mut self, list: List) {
        self.links.append(&mut self.free, list);
    }

    /// The copies of a datagram may go, after those that may already.
    pub fn make_ready(&mut self, list: List) {
        self.links.append(&mut self.ready, list);
    }

    /// The next copy to go. Its buffer is free from now on, but nobody writes to it while this lasts.
    pub fn poll_ready(&mut self) -> Option<&[u8]> {
        let at = self.links.pop(&mut self.ready)?;
        self.links.push(&mut self.free, at);
        let start = at as usize * self.size;
        self.bytes.get(start..start + self.lens[at as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_go_in_the_order_in_which_they_came() {
        let mut copies = Copies::new(3, 4);
        let (mut one, mut other) = (List::EMPTY, List::EMPTY);
        assert!(copies.store(&mut one, b"a1"));
        assert!(copies.store(&mut other, b"b"));
        assert!(!copies.store(&mut one, b"too long"));
        assert!(copies.store(&mut one, b"a2.."));
        assert!(copies.is_full() && !copies.store(&mut one, b""));
        copies.make_ready(other);
        copies.make_ready(one);
        for expected in [&b"b"[..], b"a1", b"a2.."] {
            assert_eq!(copies.poll_ready(), Some(expected));
        }
        assert_eq!(copies.poll_ready(), None);
        let mut again = List::EMPTY;
        for _ in 0..3 {
            assert!(copies.store(&mut again, b"x"));
        }
        copies.release(again);
        assert!(!copies.is_full());
    }

    #[test]
    fn no_buffers_hold_nothing() {
        let mut copies = Copies::new(0, 1500);
        let mut list = List::EMPTY;
        assert!(copies.is_full() && !copies.store(&mut list, b"x"));
        assert_eq!(copies.poll_ready(), None);
    }
}
