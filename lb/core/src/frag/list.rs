//! Lists and an index of things that have a number and a place in an array of their own. Nothing here
//! allocates after it was made.

use alloc::boxed::Box;
use alloc::vec;

/// No number.
const NONE: u32 = u32::MAX;

/// The ends of a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    first: u32,
    last: u32,
}

/// What connects the members of lists: for each thing, its neighbours in the one list that it is in.
#[derive(Debug)]
pub(super) struct Links(Box<[Link]>);

#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    before: u32,
    behind: u32,
}

impl List {
    pub const EMPTY: List = List { first: NONE, last: NONE };

    pub fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }
}

impl Links {
    /// Bytes for each thing.
    pub const BYTES: usize = size_of::<Link>();

    /// For things with numbers below `len`, in no list.
    pub fn new(len: u32) -> Self {
        Links(vec![Link { before: NONE, behind: NONE }; len as usize].into())
    }

    /// All things in a list, for those that are free at first.
    pub fn all(len: u32) -> (Self, List) {
        let (mut links, mut list) = (Links::new(len), List::EMPTY);
        (0..len).for_each(|member| links.push(&mut list, member));
        (links, list)
    }

    /// Puts a thing that is in no list to the end of one.
    pub fn push(&mut self, list: &mut List, member: u32) {
        self.0[member as usize] = Link { before: list.last, behind: NONE };
        match list.last {
            NONE => list.first = member,
            last => self.0[last as usize].behind = member,
        }
        list.last = member;
    }

    /// Takes a member out of its list.
    pub fn remove(&mut self, list: &mut List, member: u32) {
        let Link { before, behind } = self.0[member as usize];
        match before {
            NONE => list.first = behind,
            before => self.0[before as usize].behind = behind,
        }
        match behind {
            NONE => list.last = before,
            behind => self.0[behind as usize].before = before,
        }
    }

    /// Takes the first member.
    pub fn pop(&mut self, list: &mut List) -> Option<u32> {
        let first = list.first()?;
        self.remove(list, first);
        Some(first)
    }

    /// Puts all members of another list to the end of one.
    pub fn append(&mut self, list: &mut List, other: List) {
        match (list.last, other.first) {
            (_, NONE) => {}
            (NONE, _) => *list = other,
            (last, first) => {
                self.0[last as usize].behind = first;
                self.0[first as usize].before = last;
                list.last = other.last;
            }
        }
    }
}

/// Finds things by a hash. Things whose hashes share a bucket are chained.
#[derive(Debug)]
pub(super) struct Index {
    /// The first of each bucket.
    buckets: Box<[u32]>,
    /// What follows each thing in its bucket.
    next: Box<[u32]>,
}

impl Index {
    /// For things with numbers below `len`, which must not be 0.
    pub fn new(len: u32) -> Self {
        let buckets = (len as usize).next_power_of_two();
        Index { buckets: vec![NONE; buckets].into(), next: vec![NONE; len as usize].into() }
    }

    fn bucket(&self, hash: u32) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    /// The thing with this hash that is the one.
    pub fn find(&self, hash: u32, is_the_one: impl Fn(u32) -> bool) -> Option<u32> {
        let mut at = self.buckets[self.bucket(hash)];
        while at != NONE {
            if is_the_one(at) {
                return Some(at);
            }
            at = self.next[at as usize];
        }
        None
    }

    /// Adds a thing that is not there.
    pub fn insert(&mut self, hash: u32, member: u32) {
        let bucket = self.bucket(hash);
        self.next[member as usize] = self.buckets[bucket];
        self.buckets[bucket] = member;
    }

    /// Takes a thing out that is there with this hash.
    pub fn remove(&mut self, hash: u32, member: u32) {
        let bucket = self.bucket(hash);
        let behind = self.next[member as usize];
        if self.buckets[bucket] == member {
            self.buckets[bucket] = behind;
            return;
        }
        let mut at = self.buckets[bucket];
        while at != NONE {
            let next = self.next[at as usize];
            if next == member {
                self.next[at as usize] = behind;
                return;
            }
            at = next;
        }
    }

    /// Bytes for so many things.
    pub const fn memory(len: usize) -> usize {
        (len.next_power_of_two() + len) * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn members(links: &Links, list: List) -> Vec<u32> {
        let next = |member: &u32| Some(links.0[*member as usize].behind).filter(|at| *at != NONE);
        core::iter::successors(list.first(), next).collect()
    }

    proptest! {
        /// Two lists on the same links, beside two vectors.
        #[test]
        fn lists_are_as_vectors(steps in prop::collection::vec((0usize..2, 0u32..8, 0u8..4), 0..60)) {
            let mut links = Links::new(8);
            let mut lists = [List::EMPTY; 2];
            let mut expected = [const { Vec::new() }; 2];
            for (which, member, action) in steps {
                match action {
                    0 if !expected.iter().flatten().any(|one| *one == member) => {
                        links.push(&mut lists[which], member);
                        expected[which].push(member);
                    }
                    1 if expected[which].contains(&member) => {
                        links.remove(&mut lists[which], member);
                        expected[which].retain(|one| *one != member);
                    }
                    2 => {
                        let first = (!expected[which].is_empty()).then(|| expected[which].remove(0));
                        prop_assert_eq!(links.pop(&mut lists[which]), first);
                    }
                    3 => {
                        let other = core::mem::replace(&mut lists[1 - which], List::EMPTY);
                        links.append(&mut lists[which], other);
                        let other = core::mem::take(&mut expected[1 - which]);
                        expected[which].extend(other);
                    }
                    _ => {}
                }
                for (list, expected) in lists.iter().zip(&expected) {
                    prop_assert_eq!(&members(&links, *list), expected);
                }
            }
        }

        #[test]
        fn an_index_finds_what_was_put_in(steps in prop::collection::vec((0u32..8, 0u32..4), 0..60)) {
            let mut index = Index::new(8);
            let mut hashes = [None; 8];
            for (member, hash) in steps {
                match hashes[member as usize].take() {
                    Some(hash) => index.remove(hash, member),
                    None => {
                        index.insert(hash, member);
                        hashes[member as usize] = Some(hash);
                    }
                }
                for hash in 0..4 {
                    for member in 0..8 {
                        let there = hashes[member as usize] == Some(hash);
                        prop_assert_eq!(index.find(hash, |one| one == member).is_some(), there);
                    }
                }
            }
        }
    }
}
