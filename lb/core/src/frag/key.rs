//! What tells one datagram from another, and the hash by which it is found.

use crate::wire::ip::{Addresses, Fragment};

/// What all fragments of a datagram have in common (RFC 791: source, destination, protocol and
/// identification; RFC 8200: the same without the protocol).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramKey([u64; 5]);

/// Who is held to account for what is held: an IPv4 address, or the /64 of an IPv6 address, as whoever
/// has one address of it has them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SourceKey([u64; 2]);

const V4: u64 = 4;
const V6: u64 = 6;

impl DatagramKey {
    /// That of no datagram.
    pub(super) const NONE: DatagramKey = DatagramKey([0; 5]);

    /// The key of a fragment.
    pub fn new(addresses: Addresses<'_>, protocol: u8, fragment: Fragment) -> Self {
        let id = u64::from(fragment.id) << 16;
        match addresses {
            Addresses::V4(both) => {
                let last = id | u64::from(protocol) << 8 | V4;
                DatagramKey([u64::from_ne_bytes(*both), 0, 0, 0, last])
            }
            Addresses::V6(both) => {
                let (chunks, _) = both.as_chunks::<8>();
                let [s0, s1, d0, d1] = core::array::from_fn(|i| u64::from_ne_bytes(chunks[i]));
                DatagramKey([s0, s1, d0, d1, id | V6])
            }
        }
    }

    pub(super) fn source(&self) -> SourceKey {
        let family = self.0[4] & 0xff;
        match family {
            V4 => {
                let [s0, s1, s2, s3, ..] = self.0[0].to_ne_bytes();
                SourceKey([u64::from(u32::from_ne_bytes([s0, s1, s2, s3])), V4])
            }
            _ => SourceKey([self.0[0], V6]),
        }
    }

    pub(super) fn hash(&self, secret: Secret) -> u32 {
        secret.hash(&self.0)
    }

    pub(super) fn long_hash(&self, secret: Secret) -> u64 {
        secret.siphash(&self.0)
    }
}

impl SourceKey {
    /// That of nobody.
    pub(super) const NONE: SourceKey = SourceKey([0; 2]);

    pub(super) fn hash(&self, secret: Secret) -> u32 {
        secret.hash(&self.0)
    }
}

/// A number that nobody outside knows, so that nobody can aim at one bucket. To be drawn at start.
#[derive(Clone, Copy)]
pub struct Secret(pub [u64; 2]);

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// The low half of SipHash-2-4 over these words.
    fn hash(self, words: &[u64]) -> u32 {
        let [_, _, _, _, low @ ..] = self.siphash(words).to_be_bytes();
        u32::from_be_bytes(low)
    }

    fn siphash(self, words: &[u64]) -> u64 {
        let Secret([k0, k1]) = self;
        let mut v = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        let byte_len = (words.len() as u64).wrapping_mul(8);
        for word in words.iter().map(|word| u64::from_le(*word)).chain([byte_len << 56]) {
            v[3] ^= word;
            v = round(round(v));
            v[0] ^= word;
        }
        v[2] ^= 0xff;
        v = round(round(round(round(v))));
        v[0] ^ v[1] ^ v[2] ^ v[3]
    }
}

#[inline]
fn round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::hash::Hasher;

    const FRAGMENT: Fragment = Fragment { id: 0x1234, offset: 1480, more: true };

    #[test]
    fn an_ipv4_datagram_is_told_by_addresses_protocol_and_id() {
        let both = [10, 0, 0, 1, 10, 0, 0, 2];
        let key = |both: &[u8; 8], protocol, id| {
            DatagramKey::new(Addresses::V4(both), protocol, Fragment { id, ..FRAGMENT })
        };
        let one = key(&both, 17, 0x1234);
        assert_eq!(
            one,
            DatagramKey::new(
                Addresses::V4(&both),
                17,
                Fragment { offset: 0, more: false, ..FRAGMENT }
            )
        );
        for other in [
            key(&[10, 0, 0, 2, 10, 0, 0, 1], 17, 0x1234),
            key(&both, 6, 0x1234),
            key(&both, 17, 0x1235),
        ] {
            assert_ne!(one, other);
        }
        assert_eq!(one.source(), key(&[10, 0, 0, 1, 9, 9, 9, 9], 6, 1).source());
        assert_ne!(one.source(), key(&[10, 0, 0, 2, 10, 0, 0, 1], 17, 0x1234).source());
    }

    #[test]
    fn an_ipv6_datagram_is_told_by_addresses_and_id_and_its_source_is_a_prefix() {
        let mut both = [0u8; 32];
        both[0] = 0x20;
        let key = |both: &[u8; 32], protocol, id| {
            DatagramKey::new(Addresses::V6(both), protocol, Fragment { id, ..FRAGMENT })
        };
        let one = key(&both, 17, 0x1234_5678);
        assert_eq!(one, key(&both, 60, 0x1234_5678));
        assert_ne!(one, key(&both, 17, 0x1234_5679));
        let mut neighbour = both;
        neighbour[15] = 1;
        assert_ne!(one, key(&neighbour, 17, 0x1234_5678));
        assert_eq!(one.source(), key(&neighbour, 17, 9).source());
        neighbour[7] = 1;
        assert_ne!(one.source(), key(&neighbour, 17, 9).source());
        // An IPv4 address is not the prefix that looks like it.
        let v4 = DatagramKey::new(Addresses::V4(&[0; 8]), 17, FRAGMENT);
        assert_ne!(v4.source(), key(&[0; 32], 17, 9).source());
        assert_ne!(v4, key(&[0; 32], 17, 0x1234));
    }

    proptest! {
        #[test]
        #[expect(deprecated, reason = "the only SipHash-2-4 at hand that somebody else wrote")]
        fn the_hash_is_siphash(k0: u64, k1: u64, words in prop::collection::vec(any::<u64>(), 0..7)) {
            let mut other = core::hash::SipHasher::new_with_keys(k0, k1);
            words.iter().for_each(|word| other.write(&word.to_ne_bytes()));
            prop_assert_eq!(Secret([k0, k1]).siphash(&words), other.finish());
        }
    }
}
