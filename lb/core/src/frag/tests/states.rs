//! One datagram after the other through the states.

use super::*;
use crate::walk::Class;

const FIRST: Part = Part { start: 0, len: 16, more: true };
const MIDDLE: Part = Part { start: 16, len: 16, more: true };
const LAST: Part = Part { start: 32, len: 3, more: false };

#[test]
fn later_fragments_follow_the_first_in_both_families() {
    for datagram in [V4, V6] {
        let mut router = Router::new(SMALL);
        let mark = router.expected(datagram);
        assert!(matches!(mark, Decision::Mark(_)));
        for part in [FIRST, LAST, MIDDLE] {
            let walked = router.walk(&datagram.part(part), Time(0));
            assert_eq!(walked, Walked { class: Class::Fragment, decision: mark });
        }
        let counts = *router.fragments.counts();
        assert_eq!((counts.entries, counts.completed, counts.held_peak), (1, 1, 0));
        router.check_forgotten(0, Time(0));
    }
}

#[test]
fn early_fragments_are_held_and_go_in_the_order_in_which_they_came() {
    for datagram in [V4, V6] {
        let mut router = Router::new(SMALL);
        let mark = router.expected(datagram);
        let [middle, last] = [MIDDLE, LAST].map(|part| datagram.part(part));
        assert_eq!(router.decide(&last, Time(0)), Decision::Hold);
        assert_eq!(router.decide(&middle, Time(0)), Decision::Hold);
        assert_eq!(router.ready(), Vec::<Vec<u8>>::new());
        assert_eq!(router.decide(&datagram.part(FIRST), Time(1)), mark);
        let ready = router.ready();
        assert_eq!(ready, [last, middle]);
        assert_eq!(router.fragments.counts().completed, 0, "they have not passed yet");
        for packet in ready {
            assert_eq!(router.decide(&packet, Time(2)), mark);
        }
        assert_eq!(router.fragments.counts().completed, 1);
        router.check_forgotten(2, Time(2));
    }
}

#[test]
fn without_buffers_early_fragments_are_dropped_and_the_first_passes() {
    let mut router = Router::new(FragConfig { held: 0, ..SMALL });
    let mark = router.expected(V4);
    let early = Decision::Drop(Reason::EarlyFragment);
    assert_eq!(router.decide(&V4.part(LAST), Time(0)), early);
    assert_eq!(router.fragments.counts().entries, 0, "nothing is to be remembered of it");
    assert_eq!(router.decide(&V4.part(FIRST), Time(0)), mark);
    assert_eq!(router.decide(&V4.part(MIDDLE), Time(0)), mark);
}

#[test]
fn what_follows_a_first_fragment_without_target_is_dropped_at_once() {
    let mut router = Router::new(SMALL);
    router.memory = Memory::with_targets(0);
    assert_eq!(router.decide(&V4.part(LAST), Time(0)), Decision::Hold);
    assert_eq!(router.decide(&V4.part(FIRST), Time(0)), Decision::Drop(Reason::NoTarget));
    assert_eq!(router.fragments.counts().held_refused, 1);
    let dropped = Decision::Drop(Reason::FirstDropped);
    assert_eq!(router.decide(&V4.part(MIDDLE), Time(0)), dropped);
    router.check_forgotten(1, Time(0));
}

#[test]
fn a_first_fragment_that_ends_before_the_ports_has_a_reason_of_its_own() {
    for datagram in [V4, V6] {
        for len in 0..4 {
            let mut router = Router::new(SMALL);
            assert_eq!(router.decide(&datagram.part(LAST), Time(0)), Decision::Hold);
            let short = datagram.part(Part { len, ..FIRST });
            let too_short = Decision::Drop(Reason::FirstTooShort);
            assert_eq!(router.decide(&short, Time(0)), too_short, "{len}");
            let dropped = Decision::Drop(Reason::FirstDropped);
            assert_eq!(router.decide(&datagram.part(MIDDLE), Time(0)), dropped);
            // One that can be read begins the datagram anew, and one that cannot changes nothing.
            let mark = router.expected(datagram);
            assert_eq!(router.decide(&datagram.part(FIRST), Time(0)), mark);
            assert_eq!(router.decide(&short, Time(0)), too_short);
            assert_eq!(router.decide(&datagram.part(MIDDLE), Time(0)), mark);
            router.check_forgotten(1, Time(0));
        }
    }
}

#[test]
fn a_first_fragment_begins_a_datagram() {
    let mut router = Router::new(SMALL);
    let other = (4001..4100)
        .map(|port| Datagram { port, ..V4 })
        .find(|other| router.expected(*other) != router.expected(V4))
        .unwrap();
    let (mark, other_mark) = (router.expected(V4), router.expected(other));
    assert_eq!(router.decide(&V4.part(FIRST), Time(0)), mark);
    // The sender has come round to the same identification.
    assert_eq!(router.decide(&other.part(FIRST), Time(1)), other_mark);
    assert_eq!(router.decide(&other.part(LAST), Time(2)), other_mark);
    assert_eq!(router.fragments.counts().completed, 0);
    assert_eq!(router.decide(&other.part(MIDDLE), Time(2)), other_mark);
    assert_eq!((router.fragments.counts().completed, router.fragments.counts().entries), (1, 1));
}

#[test]
fn time_counts_from_the_first_sight_whatever_comes_after() {
    let mut router = Router::new(SMALL);
    let mark = router.expected(V4);
    assert_eq!(router.decide(&V4.part(LAST), millis(0)), Decision::Hold);
    assert_eq!(router.decide(&V4.part(FIRST), millis(600)), mark);
    assert_eq!(router.ready().len(), 1);
    assert_eq!(router.decide(&V4.part(MIDDLE), millis(999)), mark);
    // Over: it is an early fragment of a datagram that nobody knows.
    assert_eq!(router.decide(&V4.part(MIDDLE), millis(1000)), Decision::Hold);
    let counts = router.fragments.counts();
    assert_eq!((counts.expired, counts.entries), (1, 1));
    router.fragments.expire(millis(1999));
    assert_eq!(router.fragments.counts().held_expired, 0);
    router.fragments.expire(millis(2000));
    assert_eq!(router.fragments.counts().held_expired, 1);
}

#[test]
fn complete_datagrams_make_room_first_and_then_the_oldest() {
    let mut router = Router::new(FragConfig { entries: 3, ..SMALL });
    let datagram = |id| Datagram { id, ..V4 };
    let mark = router.expected(V4);
    for id in 1..=3 {
        assert_eq!(router.decide(&datagram(id).part(FIRST), Time(id.into())), mark);
    }
    router.decide(&datagram(2).part(MIDDLE), Time(4));
    router.decide(&datagram(2).part(LAST), Time(4));
    assert_eq!(router.fragments.counts().completed, 1);
    router.decide(&datagram(4).part(FIRST), Time(5));
    assert_eq!(router.fragments.counts().evicted, 0);
    for id in [1, 3, 4] {
        assert_eq!(router.decide(&datagram(id).part(MIDDLE), Time(6)), mark, "{id}");
    }
    router.decide(&datagram(5).part(FIRST), Time(7));
    assert_eq!(router.fragments.counts().evicted, 1);
    assert_eq!(router.decide(&datagram(3).part(MIDDLE), Time(8)), mark);
    assert_eq!(router.decide(&datagram(1).part(MIDDLE), Time(8)), Decision::Hold);
}

#[test]
fn a_source_gives_up_its_own_oldest_when_it_has_its_share() {
    let mut router = Router::new(FragConfig { held_per_source: 2, ..SMALL });
    let other = Datagram { source: 0xc000_0202, ..V4 };
    let datagram = |id| Datagram { id, ..V4 };
    assert_eq!(router.decide(&other.part(LAST), Time(0)), Decision::Hold);
    for id in 1..=3 {
        assert_eq!(router.decide(&datagram(id).part(LAST), Time(1)), Decision::Hold);
    }
    assert_eq!(router.fragments.counts().held_evicted, 1);
    // Not for a datagram that has the whole share itself.
    assert_eq!(router.decide(&datagram(3).part(MIDDLE), Time(1)), Decision::Hold);
    let full = Decision::Drop(Reason::SourceFull);
    assert_eq!(router.decide(&datagram(3).part(MIDDLE), Time(1)), full);
    router.decide(&other.part(FIRST), Time(2));
    assert_eq!(router.ready(), [other.part(LAST)]);
}

#[test]
fn all_of_a_prefix_is_one_source() {
    let mut router = Router::new(FragConfig { held_per_source: 2, ..SMALL });
    for source in 1..=3 {
        router.decide(&Datagram { source, ..V6 }.part(LAST), Time(0));
    }
    assert_eq!(router.fragments.counts().held_evicted, 1);
}

#[test]
fn when_all_buffers_are_in_use_the_oldest_goes_but_not_what_is_ready() {
    let mut router = Router::new(FragConfig { held: 3, ..SMALL });
    let datagram = |source| Datagram { source, ..V4 };
    for source in 1..=4 {
        let decision = router.decide(&datagram(source).part(LAST), Time(source.into()));
        assert_eq!(decision, Decision::Hold);
    }
    let counts = router.fragments.counts();
    assert_eq!((counts.evicted, counts.held_evicted, counts.held_now), (1, 1, 3));
    for source in 2..=4 {
        router.decide(&datagram(source).part(FIRST), Time(9));
    }
    let full = Decision::Drop(Reason::HeldFull);
    assert_eq!(router.decide(&datagram(5).part(LAST), Time(9)), full);
    assert_eq!(router.ready(), [2, 3, 4].map(|source| datagram(source).part(LAST)));
    router.check_forgotten(4, Time(9));
}

#[test]
fn only_whole_copies_are_held() {
    let mut router = Router::new(SMALL);
    let too_long = Decision::Drop(Reason::TooLongToHold);
    let fits = V4.part(Part { start: 8, len: 80, more: true });
    let longer = V4.part(Part { start: 8, len: 88, more: true });
    assert_eq!((fits.len(), longer.len()), (100, 108));
    assert_eq!(router.decide(&fits, Time(0)), Decision::Hold);
    assert_eq!(router.decide(&longer, Time(0)), too_long);
    let cut = Packet::copied(&fits[..99], 100);
    let (table, policy) = (Memory::with_targets(1), Policy::default());
    let walked = walk_with(cut, &table.table(), &policy, None, &mut router.fragments, Time(0));
    assert_eq!(walked.decision, too_long);
}

#[test]
fn whole_packets_leave_no_trace() {
    let mut router = Router::new(SMALL);
    for datagram in [V4, V6] {
        let walked = router.walk(&datagram.whole(), Time(0));
        assert_eq!((walked.class, walked.decision), (Class::Udp, router.expected(datagram)));
    }
    assert_eq!(*router.fragments.counts(), FragCounts::default());
}

/// As docs/fragments.md tells it.
#[test]
fn the_memory_of_some_options() {
    for (entries, held, held_bytes, kilobytes) in [
        (16_384, 0, 512, 2359),
        (4096, 256, 1500, 990),
        (16_384, 1024, 1500, 3961),
        (65_536, 4096, 1500, 15_843),
        (16_384, 1024, 9000, 11_641),
    ] {
        let config = FragConfig { entries, held, held_bytes, ..SMALL };
        assert_eq!((config.memory() + 500) / 1000, kilobytes, "{config:?}");
    }
}
