//! Every order of the fragments of a datagram.

use super::*;
use proptest::prelude::*;

/// Parts as they are sent: each at least once, some twice, perhaps one more that overlaps its
/// neighbours, in any order; and which of them are lost.
#[derive(Debug)]
struct Sent {
    datagram: Datagram,
    all: Vec<Part>,
    arriving: Vec<Part>,
}

fn sent(lossless: bool) -> impl Strategy<Value = Sent> {
    let count = 2u32..=6;
    (any::<bool>(), any::<u16>(), any::<u16>(), count, 1usize..4, 0u32..5)
        .prop_flat_map(move |(v6, port, id, count, units, overlap)| {
            let datagram = Datagram { v6, port, id, ..V4 };
            let all = parts(count, units * 8);
            let mut copies: Vec<Part> = all.clone();
            copies.extend(all.iter().take(3));
            if overlap + 2 < count {
                let len = units * 16;
                let start = overlap * u32::try_from(units * 8).unwrap() + 8;
                copies.push(Part { start, len, more: true });
            }
            let keep = prop::collection::vec(
                if lossless { Just(true).boxed() } else { prop::bool::weighted(0.7).boxed() },
                copies.len(),
            );
            (Just((datagram, all)), Just(copies).prop_shuffle(), keep)
        })
        .prop_map(|((datagram, all), copies, keep)| {
            let arriving =
                copies.into_iter().zip(keep).filter(|(_, kept)| *kept).map(|(part, _)| part);
            Sent { datagram, all, arriving: arriving.collect() }
        })
}

/// What became of the fragments that arrived.
#[derive(Default)]
struct Fate {
    marked: usize,
    held: u64,
    dropped: usize,
}

fn send(router: &mut Router, sent: &Sent, expected: Decision) -> Fate {
    let mut fate = Fate::default();
    for (at, part) in (0..).zip(&sent.arriving) {
        match router.decide(&sent.datagram.part(*part), millis(at)) {
            Decision::Hold => fate.held += 1,
            Decision::Drop(reason) => {
                assert_eq!(reason, Reason::EarlyFragment);
                fate.dropped += 1;
            }
            decision => {
                assert_eq!(decision, expected);
                fate.marked += 1;
            }
        }
        for packet in router.ready() {
            assert_eq!(router.decide(&packet, millis(at)), expected, "it went round once");
            fate.marked += 1;
        }
    }
    fate
}

fn has_first(parts: &[Part]) -> bool {
    parts.iter().any(|part| part.start == 0)
}

/// Whether every byte arrived at all.
fn is_whole(sent: &Sent) -> bool {
    let covered = |byte: u32| {
        let holds =
            |part: &&Part| part.start <= byte && (byte as usize) < part.start as usize + part.len;
        sent.arriving.iter().find(holds).is_some()
    };
    let last = sent.all[sent.all.len() - 1];
    sent.arriving.contains(&last) && (0..last.start).all(covered)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn all_arrive_at_the_target_of_the_datagram(sent in sent(true)) {
        let mut router = Router::new(FragConfig { held: 16, held_per_source: 16, ..SMALL });
        let expected = router.expected(sent.datagram);
        let fate = send(&mut router, &sent, expected);
        prop_assert_eq!(fate.marked, sent.arriving.len());
        router.check_forgotten(fate.held, millis(20));
    }

    #[test]
    fn with_loss_what_is_decided_is_decided_right(sent in sent(false)) {
        let mut router = Router::new(FragConfig { held: 16, held_per_source: 16, ..SMALL });
        let expected = router.expected(sent.datagram);
        let fate = send(&mut router, &sent, expected);
        let all = sent.arriving.len();
        prop_assert_eq!(fate.marked, if has_first(&sent.arriving) { all } else { 0 });
        if !is_whole(&sent) {
            prop_assert_eq!(router.fragments.counts().completed, 0);
        }
        router.check_forgotten(fate.held, millis(20));
    }

    #[test]
    fn without_buffers_only_what_comes_before_the_first_is_lost(sent in sent(false)) {
        let mut router = Router::new(FragConfig { held: 0, ..SMALL });
        let expected = router.expected(sent.datagram);
        let fate = send(&mut router, &sent, expected);
        let early = sent.arriving.iter().take_while(|part| part.start > 0).count();
        prop_assert_eq!((fate.held, fate.dropped), (0, early));
        prop_assert_eq!(fate.marked, sent.arriving.len() - early);
        router.check_forgotten(0, millis(20));
    }

    /// With little room much is lost, but nothing goes astray.
    #[test]
    fn several_datagrams_in_little_room(
        sent in prop::collection::vec(sent(false), 1..6),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
        (entries, held, held_per_source) in (1u32..5, 0u32..5, 1u32..4),
    ) {
        let mut router = Router::new(FragConfig { entries, held, held_per_source, ..SMALL });
        let mut left: Vec<_> = sent.iter().map(|sent| (sent.datagram, sent.arriving.iter())).collect();
        let mut copies = 0;
        for (at, index) in (0..).zip(order) {
            let (datagram, parts) = index.get_mut(&mut left);
            let Some(part) = parts.next() else { continue };
            // Datagrams of one key would have one another's marks, and rightly so.
            let id = (datagram.id & 0xff00) | (datagram.port % 251);
            let datagram = Datagram { id, port: datagram.port % 251, ..*datagram };
            let now = millis(at * 100);
            let expected = router.expected(datagram);
            match router.decide(&datagram.part(*part), now) {
                Decision::Hold => copies += 1,
                Decision::Mark(mark) => prop_assert_eq!(Decision::Mark(mark), expected),
                Decision::Drop(_) => prop_assert!(part.start > 0, "the first passes still"),
                Decision::Relay(_) => prop_assert!(false, "there is no tier"),
            }
            for packet in router.ready() {
                match router.decide(&packet, now) {
                    Decision::Hold => copies += 1, // its place was taken meanwhile
                    Decision::Mark(_) => {}
                    Decision::Relay(_) => prop_assert!(false, "there is no tier"),
                    Decision::Drop(reason) => prop_assert_ne!(reason, Reason::FirstDropped),
                }
            }
        }
        router.check_forgotten(copies, millis(6000));
    }
}
