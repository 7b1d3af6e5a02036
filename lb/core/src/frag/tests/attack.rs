//! Floods of spoofed fragments beside honest senders, in virtual time.

use super::*;
use std::collections::HashMap;

const SECONDS: u64 = 2;
const FLOOD_PER_SECOND: u64 = 50_000;
const HONEST_PER_SECOND: u64 = 500;
const PARTS: u32 = 5;
/// Between two fragments of an honest datagram.
const GAP: u64 = 1_000_000;

/// An honest fragment on its way.
struct Sent {
    at: u64,
    datagram: Datagram,
    part: Part,
}

/// Honest datagrams of 50 senders, in order and reversed in turn.
fn honest() -> Vec<Sent> {
    let mut sent = Vec::new();
    for number in 0..SECONDS * HONEST_PER_SECOND {
        let start = number * 1_000_000_000 / HONEST_PER_SECOND;
        let number = u32::try_from(number).unwrap();
        let datagram = Datagram {
            v6: number % 4 >= 2,
            source: 0x0a01_0000 + number % 50,
            port: 5000,
            id: u16::try_from(number / 50).unwrap(),
        };
        for (place, part) in (0..).zip(parts(PARTS, 24)) {
            let place = if number % 2 == 0 { place } else { u64::from(PARTS) - 1 - place };
            sent.push(Sent { at: start + place * GAP, datagram, part });
        }
    }
    sent.sort_by_key(|sent| sent.at);
    sent
}

/// The share of honest datagrams that lost a fragment while `flood` sent.
fn honest_loss(mut flood: impl FnMut(&mut Random) -> Datagram) -> f64 {
    const FIRST: Part = Part { start: 0, len: 24, more: true };
    const LATER: Part = Part { start: 24, len: 24, more: true };
    let mut router = Router::new(FragConfig { held_bytes: 100, ..FragConfig::default() });
    let mut random = Random(1);
    let mut honest = honest().into_iter().peekable();
    let mut marked = HashMap::new();
    let step = 1_000_000_000 / FLOOD_PER_SECOND;
    // A moment longer, so that the last honest datagram is through.
    for tick in 0..(SECONDS * FLOOD_PER_SECOND + 1000) {
        let now = tick * step;
        for part in [FIRST, LATER] {
            let datagram = flood(&mut random);
            router.decide(&datagram.part(part), Time(now));
        }
        while let Some(Sent { datagram, part, .. }) = honest.next_if(|sent| sent.at <= now) {
            let expected = router.expected(datagram);
            let mut decisions = vec![router.decide(&datagram.part(part), Time(now))];
            for packet in router.ready() {
                decisions.push(router.decide(&packet, Time(now)));
            }
            for decision in decisions {
                if let Decision::Mark(_) = decision {
                    assert_eq!(decision, expected);
                    *marked.entry((datagram.v6, datagram.source, datagram.id)).or_insert(0) += 1;
                }
            }
        }
    }
    let whole = marked.values().filter(|count| **count == PARTS).count() as f64;
    1.0 - whole / (SECONDS * HONEST_PER_SECOND) as f64
}

#[test]
fn honest_senders_hardly_notice_floods_from_everywhere() {
    let loss = honest_loss(|random| Datagram {
        v6: false,
        source: random.next(),
        port: 1,
        id: u16::try_from(random.next() & 0xffff).unwrap(),
    });
    assert!(loss < 0.01, "{loss}");
}

#[test]
fn honest_senders_hardly_notice_a_flood_from_one_source() {
    let mut id = 0u16;
    let loss = honest_loss(|_| {
        id = id.wrapping_add(1);
        Datagram { v6: true, source: 1 << 31, port: 1, id }
    });
    assert!(loss < 0.01, "{loss}");
}
