//! Several routers as a tier: whichever a fragment comes to, one router has its datagram.

use super::*;
use crate::tier::{NoOwnMark, Tier};
use crate::wire::ip::Addresses;
use alloc::vec;
use proptest::prelude::*;

const FIRST_ROUTER: u32 = 201;
const ROUTERS: u32 = 3;

/// A router with the table of its tier.
struct Member {
    router: Router,
    tier: Memory,
}

impl Member {
    fn new(own_mark: u32, active: impl IntoIterator<Item = u32>) -> Self {
        Member { router: Router::new(SMALL), tier: Memory::new(own_mark, active) }
    }

    fn decide(&mut self, packet: &[u8]) -> Decision {
        let tier = self.tier.table();
        let tier = Tier::new(tier).unwrap();
        let (packet, policy) = (Packet::whole(packet), Policy::default());
        let Router { memory, fragments } = &mut self.router;
        walk_with(packet, &memory.table(), &policy, Some(&tier), fragments, Time(0)).decision
    }
}

fn members() -> Vec<Member> {
    let marks = FIRST_ROUTER..FIRST_ROUTER + ROUTERS;
    marks.clone().map(|own| Member::new(own, marks.clone())).collect()
}

/// Lets a packet come to a router, and on to where that sends it; what becomes of it, and where.
fn deliver(members: &mut [Member], at: usize, packet: &[u8]) -> (usize, Decision) {
    match members[at].decide(packet) {
        Decision::Relay(mark) => {
            let next = (mark.get() - FIRST_ROUTER) as usize;
            assert_ne!(next, at, "nobody sends to itself");
            let decision = members[next].decide(packet);
            assert!(!matches!(decision, Decision::Relay(_)), "it is there");
            (next, decision)
        }
        decision => (at, decision),
    }
}

fn datagram(v6: bool, source: u32) -> Datagram {
    Datagram { v6, source, ..V4 }
}

proptest! {
    /// Fragments of a datagram come in any order, each to any router.
    #[test]
    fn a_datagram_meets_its_target_whichever_routers_its_fragments_come_to(
        v6: bool,
        source: u32,
        port: u16,
        order in Just((0..5usize).collect::<Vec<_>>()).prop_shuffle(),
        entrances in prop::collection::vec(0..ROUTERS as usize, 5),
    ) {
        let mut members = members();
        let datagram = Datagram { port, ..datagram(v6, source) };
        let expected = members[0].router.expected(datagram);
        let parts = parts(5, 16);
        let (mut places, mut passed) = (vec![], 0);
        for (&part, &entrance) in order.iter().zip(&entrances) {
            let (place, decision) = deliver(&mut members, entrance, &datagram.part(parts[part]));
            places.push(place);
            match decision {
                Decision::Hold => {}
                decision => {
                    prop_assert_eq!(decision, expected);
                    passed += 1;
                }
            }
        }
        prop_assert!(places.iter().all(|place| *place == places[0]), "{:?}", places);
        // Those that were held come in once more, and stay where they are.
        for copy in members[places[0]].router.ready() {
            prop_assert_eq!(deliver(&mut members, places[0], &copy), (places[0], expected));
            passed += 1;
        }
        prop_assert_eq!(passed, 5);
        // A whole packet is decided where it comes.
        for member in &mut members {
            prop_assert_eq!(member.decide(&datagram.whole()), expected);
        }
    }
}

#[test]
fn every_router_has_its_share() {
    let mut members = members();
    let mut shares = [0; ROUTERS as usize];
    for source in 0..3000 {
        let later = datagram(source % 2 == 0, source * 256).part(parts(2, 16)[1]);
        shares[deliver(&mut members, 0, &later).0] += 1;
    }
    assert!(shares.iter().all(|share| (850..1150).contains(share)), "{shares:?}");
}

#[test]
fn a_router_that_is_not_active_has_none_and_one_that_is_alone_has_all() {
    let others = FIRST_ROUTER + 1..FIRST_ROUTER + ROUTERS;
    let mut drained = Member::new(FIRST_ROUTER, others);
    let mut alone = Member::new(FIRST_ROUTER, [FIRST_ROUTER]);
    let mut empty = Member::new(FIRST_ROUTER, []);
    for source in 0..100 {
        let first = datagram(source % 2 == 0, source * 256).part(parts(2, 16)[0]);
        assert!(matches!(drained.decide(&first), Decision::Relay(_)));
        assert!(matches!(alone.decide(&first), Decision::Mark(_)));
        assert!(matches!(empty.decide(&first), Decision::Mark(_)));
    }
}

/// What a first fragment holds behind its IP header is the other router's to judge.
#[test]
fn a_fragment_for_another_router_is_not_looked_into() {
    let mut member = Member::new(FIRST_ROUTER, [FIRST_ROUTER + 1]);
    let short = V4.part(Part { start: 0, len: 2, more: true });
    let to = Mark::new(FIRST_ROUTER + 1).unwrap();
    assert_eq!(member.decide(&short), Decision::Relay(to));
    let cut = V6.part(parts(2, 16)[0]);
    assert_eq!(member.decide(&cut[..45]), Decision::Drop(Reason::Truncated));
}

#[test]
fn the_protocol_of_a_fragment_does_not_count() {
    let member = Member::new(FIRST_ROUTER, FIRST_ROUTER..FIRST_ROUTER + ROUTERS);
    let memory = member.tier.table();
    let tier = Tier::new(memory).unwrap();
    for source in 0..100 {
        let mut udp = datagram(true, source * 256).part(parts(2, 16)[1]);
        let way = tier.way_of(Packet::whole(&udp)).unwrap();
        udp[40] = 60;
        assert_eq!(tier.way_of(Packet::whole(&udp)), Some(way));
    }
    assert_eq!(tier.way_of(Packet::whole(&V4.whole())), None);
}

#[test]
fn a_tier_needs_to_know_who_it_is() {
    let memory = Memory::new(0, [FIRST_ROUTER]);
    assert_eq!(Tier::new(memory.table()).map(|tier| tier.own_mark()), Err(NoOwnMark));
    let memory = Memory::new(u32::MAX, [FIRST_ROUTER]);
    assert_eq!(Tier::new(memory.table()).map(|tier| tier.own_mark()), Err(NoOwnMark));
    let memory = Memory::new(7, [FIRST_ROUTER]);
    let tier = Tier::new(memory.table()).unwrap();
    assert_eq!(tier.own_mark().get(), 7);
    let way = tier.way(Addresses::V4(&[10, 0, 0, 1, 10, 0, 0, 2]));
    assert_eq!((way.held, way.other), (Mark::new(FIRST_ROUTER), Mark::new(FIRST_ROUTER)));
}
