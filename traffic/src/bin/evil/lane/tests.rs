//! Lanes in virtual time.

use super::*;
use crate::frame::tests::{v4, v6};
use crate::instructions;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn lane(words: &str) -> Lane {
    let words: Vec<&str> = words.split_whitespace().collect();
    let [there, _] = instructions::parse(&words).unwrap();
    Lane::new(&there, 1, 1 << 20)
}

/// Three fragments of a datagram, of IPv4 or IPv6 by turns.
fn datagram(id: u16) -> [Frame; 3] {
    let fragment = |part: std::ops::Range<u16>, is_last| match id % 2 {
        0 => v4(id, part, is_last),
        _ => v6(id.into(), part, is_last),
    };
    [fragment(0..800, false), fragment(800..1600, false), fragment(1600..1700, true)]
}

/// Which fragments these are: the number of the datagram's first byte that each has, by 100.
fn parts(frames: &[Frame]) -> Vec<u32> {
    frames.iter().map(|frame| frame.fragment().map_or(99, |it| it.part.start / 100)).collect()
}

fn put_all(lane: &mut Lane, frames: impl IntoIterator<Item = Frame>, now: Duration) -> Vec<Frame> {
    let sent: Vec<Frame> = frames.into_iter().flat_map(|frame| lane.put(frame, now)).collect();
    sent.iter().for_each(|_| lane.count_sent(true));
    sent
}

/// Lets time pass until nothing is held.
fn drain(lane: &mut Lane) -> Vec<(Duration, Frame)> {
    let mut drained = Vec::new();
    while let Some(due) = lane.next_due() {
        for frame in lane.release(due) {
            lane.count_sent(true);
            drained.push((due, frame));
        }
    }
    drained
}

#[track_caller]
fn assert_balance(lane: &Lane) {
    let it = lane.counters();
    assert_eq!(
        it.received + it.duplicated,
        it.sent + it.refused + it.lost + it.dropped_full + it.held,
        "{it:?}"
    );
}

#[test]
fn without_instructions_all_passes() {
    let mut lane = lane("");
    assert_eq!(parts(&put_all(&mut lane, datagram(1), ms(0))), [0, 8, 16]);
    assert_eq!(lane.next_due(), None);
    let counters = lane.counters();
    assert_eq!((counters.received, counters.fragments, counters.sent), (3, 3, 3));
}

#[test]
fn each_datagram_is_reversed_for_itself() {
    let mut lane = lane("reverse");
    let [a, b] = [datagram(1), datagram(2)];
    let mixed = [&a[0], &b[0], &b[1], &a[1], &b[2], &a[2]].map(Clone::clone);
    let sent = put_all(&mut lane, mixed, ms(0));
    assert_eq!(parts(&sent), [16, 8, 0, 16, 8, 0]);
    assert!(sent[..3].iter().all(|frame| frame.packet.as_ref().is_some_and(|it| it.is_v4)));
    assert_eq!((lane.counters().rearranged, lane.counters().held_peak), (2, 5));
    assert_balance(&lane);
}

#[test]
fn what_came_reversed_or_twice_is_held_as_well() {
    let mut lane = lane("reverse");
    let [first, middle, last] = datagram(2);
    let twice = [last.clone(), middle.clone(), last, first];
    assert_eq!(parts(&put_all(&mut lane, twice, ms(0))), [0, 16, 8, 16]);
    assert_eq!(lane.counters().held, 0);
}

#[test]
fn whole_packets_do_not_wait() {
    let mut lane = lane("reverse");
    let [first, ..] = datagram(1);
    assert!(put_all(&mut lane, [first], ms(0)).is_empty());
    assert_eq!(put_all(&mut lane, [v4(9, 0..100, true)], ms(0)).len(), 1);
}

#[test]
fn an_incomplete_datagram_is_let_go_after_its_time() {
    for words in ["reverse hold 50ms", "shuffle hold 50ms", "interleave 2 hold 50ms"] {
        let mut lane = lane(words);
        let [first, middle, _] = datagram(1);
        assert!(put_all(&mut lane, [first, middle], ms(10)).is_empty());
        assert_eq!(lane.next_due(), Some(ms(60)));
        assert!(lane.release(ms(59)).is_empty());
        let let_go = drain(&mut lane);
        assert_eq!(let_go.len(), 2, "{words}");
        let counters = lane.counters();
        assert_eq!((counters.timed_out, counters.rearranged, counters.held), (1, 0, 0));
        assert_balance(&lane);
    }
}

#[test]
fn a_chance_strikes_whole_datagrams() {
    let mut lane = lane("reverse 1/2");
    let orders: Vec<_> = (0..6).map(|id| parts(&put_all(&mut lane, datagram(id), ms(0)))).collect();
    let (plain, reversed) = (vec![0, 8, 16], vec![16, 8, 0]);
    assert_eq!(orders, [&plain, &reversed, &plain, &reversed, &plain, &reversed].map(Vec::clone));
}

#[test]
fn shuffled_datagrams_come_in_every_order() {
    let mut lane = lane("shuffle");
    let orders: std::collections::BTreeSet<_> =
        (0..100).map(|id| parts(&put_all(&mut lane, datagram(id), ms(0)))).collect();
    assert_eq!(orders.len(), 6);
}

#[test]
fn datagrams_and_whole_packets_are_interleaved() {
    let mut lane = lane("interleave 3");
    let mut all = Vec::from(datagram(1));
    all.extend(datagram(2));
    all.push(v4(9, 0..100, true));
    let last = datagram(3);
    assert!(put_all(&mut lane, all, ms(0)).is_empty());
    let sent = put_all(&mut lane, last, ms(5));
    assert_eq!(sent.len(), 10);
    let order = parts(&sent);
    assert!(order.windows(4).any(|four| four != [0, 8, 16, 0]), "{order:?}");
    // Each keeps its own order.
    for id in 1..=3 {
        let one = datagram(id)[0].fragment().unwrap().datagram.clone();
        let mut own = sent.clone();
        own.retain(|frame| frame.fragment().is_some_and(|it| it.datagram == one));
        assert_eq!(parts(&own), [0, 8, 16]);
    }
    assert_eq!(lane.counters().held, 0);
}

#[test]
fn no_more_is_held_than_there_is_room_for() {
    let mut lane = lane("reverse limit 4");
    let sent = put_all(&mut lane, (0..4).map(|id| datagram(id)[0].clone()), ms(0));
    assert!(sent.is_empty());
    // There is no room for others, and they pass.
    assert_eq!(parts(&put_all(&mut lane, datagram(5), ms(0))), [0, 8, 16]);
    assert_eq!(lane.counters().passed_full, 3);

    let mut slow = self::lane("rate 8kbit limit 4");
    let sent = put_all(&mut slow, (0..10).map(|_| v4(1, 0..80, true)), ms(0));
    assert!(sent.is_empty());
    assert_eq!((slow.counters().dropped_full, slow.counters().held), (6, 4));
    // 100 bytes are 100 ms.
    let due: Vec<_> = drain(&mut slow).into_iter().map(|(due, _)| due).collect();
    assert_eq!(due, [100, 200, 300, 400].map(ms));
    assert_balance(&slow);
}

#[test]
fn bytes_are_bounded_as_well() {
    let words: Vec<&str> = "delay 1s".split_whitespace().collect();
    let [there, _] = instructions::parse(&words).unwrap();
    let mut lane = Lane::new(&there, 1, 250);
    put_all(&mut lane, (0..5).map(|_| v4(1, 0..80, true)), ms(0));
    let counters = lane.counters();
    assert_eq!((counters.held, counters.held_bytes, counters.dropped_full), (2, 200, 3));
}

#[test]
fn delays_have_jitter_and_some_frames_hurry() {
    let mut lane = lane("delay 100ms 20ms reorder 1/4");
    let sent = put_all(&mut lane, (0..400).map(|_| v4(1, 0..80, true)), ms(0));
    assert_eq!(sent.len(), 100);
    let due: Vec<_> = drain(&mut lane).into_iter().map(|(due, _)| due).collect();
    assert_eq!(due.len(), 300);
    assert!(due.is_sorted() && due[0] < ms(85) && due[299] > ms(115));
    assert!(due[0] >= ms(80) && due[299] <= ms(120));
    assert_eq!(lane.counters().hurried, 100);
}

#[test]
fn an_even_delay_keeps_the_order() {
    let mut lane = lane("delay 10ms");
    assert!(put_all(&mut lane, datagram(1), ms(3)).is_empty());
    let (due, frames): (Vec<_>, Vec<_>) = drain(&mut lane).into_iter().unzip();
    assert_eq!((due, parts(&frames)), (vec![ms(13); 3], vec![0, 8, 16]));
}

#[test]
fn treatments_are_for_those_that_were_selected() {
    let mut lane = lane("first delay 10ms later duplicate 100% last loss 100%");
    let sent = put_all(&mut lane, datagram(1), ms(0));
    assert_eq!(parts(&sent), [8, 8]);
    let counters = lane.counters();
    assert_eq!((counters.duplicated, counters.lost, counters.held), (2, 2, 1));
    assert_balance(&lane);
}

#[test]
fn a_datagram_is_hit_once() {
    let mut lane = lane("fragments loss 100%");
    put_all(&mut lane, datagram(1), ms(0));
    put_all(&mut lane, datagram(2), ms(0));
    assert_eq!((lane.counters().lost, lane.counters().hit), (6, 2));
}

#[test]
fn what_is_released_passes_the_stages_behind() {
    let mut lane = lane("delay 10ms reverse duplicate 1/3");
    put_all(&mut lane, datagram(1), ms(0));
    let frames: Vec<_> = drain(&mut lane).into_iter().map(|(_, frame)| frame).collect();
    assert_eq!(parts(&frames), [16, 8, 0, 0]);
    assert_balance(&lane);
}

#[test]
fn the_seed_decides() {
    let run = |seed| {
        let words: Vec<&str> =
            "loss 20% duplicate 20% corrupt 20% delay 5ms 5ms shuffle".split(' ').collect();
        let [there, _] = instructions::parse(&words).unwrap();
        let mut lane = Lane::new(&there, seed, 1 << 20);
        let mut sent = put_all(&mut lane, (0..50).flat_map(datagram), ms(0));
        sent.extend(drain(&mut lane).into_iter().map(|(_, frame)| frame));
        assert_balance(&lane);
        assert_eq!(lane.counters().held, 0);
        sent.into_iter().map(|frame| frame.bytes).collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
