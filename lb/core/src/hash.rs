//! The hash of both planes: Bob Jenkins' lookup3 as the kernel's `jhash` and nft's `hash` expression
//! compute it, then reciprocal scaling to a slot.

use core::fmt;

/// The number of the hash in use, kept in every table: readers refuse a table that counts on another.
pub const HASH_VERSION: u64 = 1;

/// Initial value of the hash, shared by all routers of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u32);

impl Default for Seed {
    /// A fixed value ("MWAY"), so that routers agree without being told.
    fn default() -> Self {
        Seed(0x4d57_4159)
    }
}

/// The hash of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(pub u32);

/// A place in the lookup table, below its number of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(pub u32);

impl Hash {
    /// The slot in a table of `slots`: scaled, not divided, as the kernel does.
    #[inline]
    pub fn slot(self, slots: u32) -> Slot {
        Slot(((u64::from(self.0) * u64::from(slots)) >> 32) as u32)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

/// Hashes key words that were loaded in native byte order.
#[inline(always)]
pub fn jhash(words: &[u32], seed: Seed) -> Hash {
    const START: u32 = 0xdead_beef;
    let byte_len = ((words.len() as u64 * 4) & 0xffff_ffff) as u32;
    let start = START.wrapping_add(byte_len).wrapping_add(seed.0);
    let [mut a, mut b, mut c] = [start; 3];
    let mut rest = words;
    while let [x, y, z, more @ ..] = rest
        && !more.is_empty()
    {
        [a, b, c] = mix(a.wrapping_add(*x), b.wrapping_add(*y), c.wrapping_add(*z));
        rest = more;
    }
    match *rest {
        [] => return Hash(c),
        [x] => a = a.wrapping_add(x),
        [x, y] => [a, b] = [a.wrapping_add(x), b.wrapping_add(y)],
        [x, y, z, ..] => {
            [a, b, c] = [a.wrapping_add(x), b.wrapping_add(y), c.wrapping_add(z)];
        }
    }
    Hash(finish(a, b, c))
}

#[inline(always)]
fn mix(mut a: u32, mut b: u32, mut c: u32) -> [u32; 3] {
    a = a.wrapping_sub(c) ^ c.rotate_left(4);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(6);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(8);
    b = b.wrapping_add(a);
    a = a.wrapping_sub(c) ^ c.rotate_left(16);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(19);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(4);
    b = b.wrapping_add(a);
    [a, b, c]
}

#[inline(always)]
fn finish(mut a: u32, mut b: u32, mut c: u32) -> u32 {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slots_scale_over_the_whole_range() {
        assert_eq!(Hash(0).slot(997), Slot(0));
        assert_eq!(Hash(u32::MAX).slot(997), Slot(996));
        assert_eq!(Hash(0x8000_0000).slot(997), Slot(498));
        assert_eq!(Hash(u32::MAX).slot(1_000_003), Slot(1_000_002));
    }

    proptest! {
        #[test]
        fn a_slot_is_below_the_number_of_slots(hash: u32, slots in 1u32..) {
            prop_assert!(Hash(hash).slot(slots).0 < slots);
        }
    }
}
