//! New SCTP associations by their ports: are there ports that far too many of them have?
//!
//! In ports mode all clients that use the same fixed source port meet the same target. Each worker keeps an
//! [`Openings`]: a fixed number of entries for the most frequent port pairs (the "space saving" of
//! Metwally, Agrawal and El Abbadi). An entry that is taken over inherits the number of the one before as its
//! possible error, so what is left after subtracting it was counted for certain, and no pair that makes up
//! more than one part in [`ENTRIES`] is ever missing. A flood of other ports makes no entry more.

use alloc::collections::BTreeMap;

use crate::counters::{Counter, Counts};
use crate::hash::{Seed, jhash};
use crate::key::{KeyModes, SctpHash};
use crate::walk::Class;
use crate::wire::ip::{self, Addresses};
use crate::wire::l4::{self, Ports};
use crate::wire::sctp::{self, Chunk};
use crate::wire::{Packet, WireError};

/// Port pairs that are counted at a time.
pub const ENTRIES: usize = 128;

/// INITs of the most frequent port pairs since the last [`Openings::clear`].
#[derive(Clone, Debug)]
pub struct Openings {
    inits: u64,
    used: usize,
    entries: [Entry; ENTRIES],
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    ports: Ports,
    /// Never less than there were.
    counted: u32,
    /// How many of them may have been of other ports.
    error: u32,
    sources: Sources,
}

/// Which of 64 classes of source addresses occurred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sources(u64);

impl Default for Openings {
    fn default() -> Self {
        Openings { inits: 0, used: 0, entries: [Entry::default(); ENTRIES] }
    }
}

impl Openings {
    /// Counts an INIT.
    pub fn add(&mut self, ports: Ports, source: Addresses<'_>) {
        self.inits += 1;
        let entries = &mut self.entries[..self.used];
        let place = match entries.iter().position(|entry| entry.ports == ports) {
            Some(place) => place,
            None if self.used < ENTRIES => {
                self.used += 1;
                self.entries[self.used - 1] = Entry { ports, ..Entry::default() };
                self.used - 1
            }
            None => {
                let places = entries.iter().enumerate();
                let least = places.min_by_key(|(_, entry)| entry.counted);
                let (place, counted) = least.map_or((0, 0), |(at, entry)| (at, entry.counted));
                let sources = Sources::default();
                self.entries[place] = Entry { ports, counted, error: counted, sources };
                place
            }
        };
        let entry = &mut self.entries[place];
        entry.counted = entry.counted.saturating_add(1);
        entry.sources.add(source);
    }

    /// Begins anew.
    pub fn clear(&mut self) {
        (self.inits, self.used) = (0, 0);
    }
}

impl Sources {
    fn add(&mut self, addresses: Addresses<'_>) {
        let hash = match addresses {
            Addresses::V4(both) => hash_of::<4, 1>(both),
            Addresses::V6(both) => hash_of::<16, 4>(both),
        };
        self.0 |= 1 << (hash % 64);
    }

    /// There were at least so many addresses.
    fn at_least(self) -> u32 {
        self.0.count_ones()
    }
}

/// Over the first bytes, which are the source.
fn hash_of<const BYTES: usize, const WORDS: usize>(both: &[u8]) -> u32 {
    let (chunks, _) = both[..BYTES].as_chunks::<4>();
    let words: [u32; WORDS] = core::array::from_fn(|i| u32::from_ne_bytes(chunks[i]));
    jhash(&words, Seed::default()).0
}

/// Counts what is special about an SCTP packet, after [`Counts::record`]. Of others it is one
/// comparison, and so it stands outside the walk. It is given the bytes, not the packet made of them: for
/// that the walk's own would have to lie in memory, which is as much again as the whole walk.
#[inline(always)]
pub fn record(
    bytes: &[u8],
    full_len: usize,
    class: Class,
    modes: &KeyModes,
    counts: &mut Counts,
    openings: &mut Openings,
) {
    if matches!(class, Class::Sctp | Class::SctpInUdp) {
        record_sctp(bytes, full_len, class, modes, counts, openings);
    }
}

#[inline(never)]
fn record_sctp(
    bytes: &[u8],
    full_len: usize,
    class: Class,
    modes: &KeyModes,
    counts: &mut Counts,
    openings: &mut Openings,
) {
    let Ok((addresses, sctp)) = sctp_of(Packet::copied(bytes, full_len), class) else {
        counts.add(Counter::Chunk(Chunk::None), 1);
        return;
    };
    let chunk = sctp::first_chunk(sctp).unwrap_or(Chunk::None);
    counts.add(Counter::Chunk(chunk), 1);
    // By tuple the target depends on more than ports.
    if chunk == Chunk::Init
        && modes.sctp_hash == SctpHash::Ports
        && let Ok(ports) = l4::ports(sctp)
    {
        openings.add(ports, addresses);
    }
}

/// Reads the headers once more: handed over they would lie in memory for the packets that are many.
fn sctp_of(packet: Packet<'_>, class: Class) -> Result<(Addresses<'_>, Packet<'_>), WireError> {
    let ip = ip::parse(packet)?;
    let sctp = match class {
        Class::SctpInUdp => ip.payload.after(l4::UDP_HEADER_LEN)?,
        _ => ip.payload,
    };
    Ok((ip.addresses, sctp))
}

/// What several workers saw.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    inits: u64,
    pairs: BTreeMap<Ports, (u64, Sources)>,
}

/// The port pair with the most INITs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heaviest {
    /// Source and destination.
    pub ports: Ports,
    /// INITs that it had for certain.
    pub inits: u64,
    /// INITs of all ports.
    pub of: u64,
    /// At least so many addresses sent them.
    pub sources: u32,
}

impl Sum {
    /// Adds what a worker saw.
    pub fn add(&mut self, openings: &Openings) {
        self.inits += openings.inits;
        for entry in &openings.entries[..openings.used] {
            let (inits, sources) = self.pairs.entry(entry.ports).or_default();
            *inits += u64::from(entry.counted - entry.error);
            sources.0 |= entry.sources.0;
        }
    }

    /// The pair with the most, if there is any.
    pub fn heaviest(&self) -> Option<Heaviest> {
        let (ports, (inits, sources)) = self.pairs.iter().max_by_key(|(_, (inits, _))| *inits)?;
        Some(Heaviest { ports: *ports, inits: *inits, of: self.inits, sources: sources.at_least() })
    }
}

impl Heaviest {
    /// Fewer are chance.
    pub const LEAST_INITS: u64 = 32;
    /// Two associations with the same ports need two clients: from fewer addresses it is one
    /// that tries again and again.
    pub const LEAST_SOURCES: u32 = 4;
    /// A part of all that is never too much.
    pub const LEAST_PART: f64 = 0.05;
    /// A target that has so many times its share has too much.
    pub const TOO_MUCH: f64 = 1.5;

    /// Its part of all INITs.
    pub fn part(&self) -> f64 {
        self.inits as f64 / self.of.max(1) as f64
    }

    /// The part of all INITs that its target has, if the others spread by the shares.
    pub fn part_of_target(&self, share: f64) -> f64 {
        self.part() + (1.0 - self.part()) * share
    }

    /// Whether it is too much for a target with this share of the slots.
    pub fn is_too_much(&self, share: f64) -> bool {
        self.inits >= Self::LEAST_INITS
            && self.sources >= Self::LEAST_SOURCES
            && self.part() >= Self::LEAST_PART
            && self.part_of_target(share) >= Self::TOO_MUCH * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn ports(from: u16) -> Ports {
        let [high, low] = from.to_be_bytes();
        [high, low, 23, 112]
    }

    fn add(openings: &mut Openings, from: u16, source: u32) {
        let [a, b, c, d] = source.to_be_bytes();
        openings.add(ports(from), Addresses::V4(&[a, b, c, d, 10, 0, 0, 0]));
    }

    fn heaviest(all: &[Openings]) -> Option<Heaviest> {
        let mut sum = Sum::default();
        all.iter().for_each(|openings| sum.add(openings));
        sum.heaviest()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Every client with a random port of the ephemeral range, whatever the targets are.
        #[test]
        fn random_ports_are_never_too_much(
            froms in prop::collection::vec(32_768u16..61_000, 0..3000),
            share in 0.0001f64..=1.0,
        ) {
            let mut all = [Openings::default(), Openings::default()];
            for (client, from) in (0u32..).zip(&froms) {
                add(&mut all[client as usize % 2], *from, client);
            }
            prop_assert!(heaviest(&all).is_none_or(|pair| !pair.is_too_much(share)));
        }

        #[test]
        fn few_inits_are_never_too_much(
            froms in prop::collection::vec(1u16..4, 0..32),
            share in 0.0001f64..=1.0,
        ) {
            let mut openings = Openings::default();
            for (client, from) in (0..).zip(&froms) {
                add(&mut openings, *from, client);
            }
            prop_assert!((froms.len() as u64) < Heaviest::LEAST_INITS);
            prop_assert!(heaviest(&[openings]).is_none_or(|pair| !pair.is_too_much(share)));
        }

        /// One port in `every` is fixed, in any order among random ones, in several queues.
        #[test]
        fn a_fixed_port_is_always_found(
            froms in prop::collection::vec(1024u16.., 2000..6000),
            every in 2usize..12,
            queues in 1usize..5,
        ) {
            const FIXED: u16 = 1000;
            let mut all = std::vec![Openings::default(); queues];
            let mut fixed = 0;
            for ((client, number), from) in (0usize..).zip(0u32..).zip(&froms) {
                let is_fixed = client % every == 0;
                fixed += u64::from(is_fixed);
                // Clients meet queues by their addresses.
                let queue = &mut all[(client / 3) % queues];
                add(queue, if is_fixed { FIXED } else { *from }, number);
            }
            let found = heaviest(&all).unwrap();
            prop_assert_eq!((found.ports, found.of), (ports(FIXED), froms.len() as u64));
            prop_assert!(found.inits <= fixed);
            prop_assert!(found.inits + found.of / ENTRIES as u64 >= fixed);
            // A share of a hundred targets.
            prop_assert!(found.is_too_much(0.01), "{:?}", found);
        }

        /// What is told for certain is never more than there was, whatever comes.
        #[test]
        fn no_pair_gets_more_than_it_had(froms in prop::collection::vec(0u16..400, 0..4000)) {
            let mut openings = Openings::default();
            froms.iter().for_each(|from| add(&mut openings, *from, 7));
            let mut sum = Sum::default();
            sum.add(&openings);
            for (pair, (inits, _)) in &sum.pairs {
                let had = froms.iter().filter(|from| ports(**from) == *pair).count() as u64;
                prop_assert!(*inits <= had);
            }
        }
    }

    #[test]
    fn too_much_depends_on_the_share_of_the_target() {
        let pair = |inits| Heaviest { ports: ports(1), inits, of: 1000, sources: 64 };
        for (share, least) in [(0.01, 50), (0.1, 56), (0.25, 167), (0.5, 500)] {
            assert!(pair(least).is_too_much(share), "{share}");
            assert!(!pair(least - 1).is_too_much(share), "{share}");
        }
        assert!(!pair(1000).is_too_much(1.0), "a single target has it all anyway");
        assert!(!Heaviest { sources: 3, ..pair(1000) }.is_too_much(0.1), "one client");
    }

    #[test]
    fn addresses_are_told_apart_by_the_source_alone() {
        let mut openings = Openings::default();
        for client in 0..200u8 {
            let mut both = [0; 32];
            both[15] = 1;
            both[31] = client;
            openings.add(ports(1), Addresses::V6(&both));
        }
        assert_eq!(heaviest(&[openings.clone()]).unwrap().sources, 1);
        for client in 0..200u8 {
            let mut both = [0; 32];
            both[15] = client;
            openings.add(ports(1), Addresses::V6(&both));
        }
        assert!(heaviest(&[openings.clone()]).unwrap().sources > 40);
        openings.clear();
        assert_eq!(heaviest(&[openings]), None);
    }

    fn counted(packets: &[Vec<u8>], modes: KeyModes) -> (Counts, Openings) {
        use crate::table::Config;
        use crate::walk::keyed;
        let config = Config { modes, ..Config::default() };
        let (mut counts, mut openings) = (Counts::default(), Openings::default());
        for bytes in packets {
            let (class, _) = keyed(Packet::whole(bytes), &config);
            record(bytes, bytes.len(), class, &modes, &mut counts, &mut openings);
        }
        (counts, openings)
    }

    fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let len = u8::try_from(20 + payload.len()).unwrap();
        let mut bytes = std::vec![0x45, 0, 0, len, 0, 0, 0, 0, 64, protocol, 0, 0];
        bytes.extend([20, 0, 0, 1, 10, 0, 0, 0]);
        bytes.extend(payload);
        bytes
    }

    fn sctp(chunk: u8) -> Vec<u8> {
        std::vec![19, 196, 23, 112, 0, 0, 0, 0, 1, 2, 3, 4, chunk, 0, 0, 4]
    }

    #[test]
    fn packets_are_counted_by_their_first_chunk_plain_and_in_udp() {
        let modes =
            KeyModes { sctp_encap: crate::key::EncapPorts([9899, 0]), ..Default::default() };
        let in_udp = |inside: &[u8]| {
            let [high, low] = 9899u16.to_be_bytes();
            v4(17, &[&[1, 2, high, low, 0, 24, 0, 0], inside].concat())
        };
        let packets = [
            v4(132, &sctp(1)),
            in_udp(&sctp(1)),
            v4(132, &sctp(0)),
            in_udp(&sctp(4)),
            v4(132, &sctp(200)),
            v4(132, &sctp(0)[..12]),
            v4(132, &sctp(1)[..3]),
            in_udp(&sctp(0)[..4]),
            v4(6, &sctp(1)),
        ];
        let (counts, openings) = counted(&packets, modes);
        for (chunk, number) in [
            (Chunk::Init, 2),
            (Chunk::Data, 1),
            (Chunk::Heartbeat, 1),
            (Chunk::Other, 1),
            (Chunk::None, 3),
            (Chunk::Sack, 0),
        ] {
            assert_eq!(counts.get(Counter::Chunk(chunk)), number, "{chunk:?}");
        }
        let heaviest = heaviest(&[openings]).unwrap();
        assert_eq!((heaviest.ports, heaviest.inits, heaviest.of), ([19, 196, 23, 112], 2, 2));

        let modes = KeyModes { sctp_hash: SctpHash::Tuple, ..modes };
        let (counts, openings) = counted(&packets, modes);
        assert_eq!(counts.get(Counter::Chunk(Chunk::Init)), 2);
        assert_eq!(openings.inits, 0);
    }
}
