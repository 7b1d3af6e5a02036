//! What is not for the kernel, though its protocol is: one list for the rules that send such packets to the queue
//! and for those that leave them to the IP stack.

use lb_core::fast::{Family, Lane};
use lb_core::key::KeyModes;
use lb_core::wire::{protocol, sctp};
use lb_sys::nft::{Expression, Meta};

use super::Wanted;
use super::steps::{FIRST, equal, first_chunk, network, not_equal, protocol_offset, transport};

/// A kind of packet, by what stands in the first register once its steps are done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// What such packets are.
    pub what: String,
    /// The protocol that they have; none if it may be any.
    protocol: Option<u8>,
    load: Vec<Expression>,
    /// Whether it is equality by which they are known.
    is_equal: bool,
    value: Vec<u8>,
}

impl Guard {
    /// Whether packets of a lane can be such.
    pub fn concerns(&self, lane: &Lane) -> bool {
        self.protocol.is_none_or(|protocol| protocol == lane.protocol)
    }

    /// Steps that end the rule for all other packets, whatever their protocol.
    pub fn such_of_any(&self, family: Family) -> Vec<Expression> {
        let protocol = self.protocol.map(|protocol| {
            [network(protocol_offset(family), 1, FIRST), equal(FIRST, &[protocol])]
        });
        protocol.into_iter().flatten().chain(self.such()).collect()
    }

    /// Steps that end the rule for all other packets of the protocol.
    pub fn such(&self) -> Vec<Expression> {
        self.compared(self.is_equal)
    }

    /// Steps that end the rule for such packets of the protocol.
    pub fn no_such(&self) -> Vec<Expression> {
        self.compared(!self.is_equal)
    }

    fn compared(&self, is_equal: bool) -> Vec<Expression> {
        let compare = if is_equal { equal } else { not_equal };
        let mut steps = self.load.clone();
        steps.push(compare(FIRST, &self.value));
        steps
    }
}

/// What is for the queue alone. Fragments come first: a later one has data where the others have ports.
pub fn guards(wanted: &Wanted, family: Family, modes: &KeyModes) -> Vec<Guard> {
    let mut guards = Vec::new();
    // IPv6 has a header of its own for fragments, and what has any goes to the queue.
    if family == Family::V4 {
        // With the two bytes before, because the kernel masks a whole word faster.
        const MORE_OR_OFFSET: [u8; 4] = [0, 0, 0x3f, 0xff];
        guards.push(Guard {
            what: "fragments".into(),
            protocol: None,
            load: masked(network(4, 4, FIRST), &MORE_OR_OFFSET),
            is_equal: false,
            value: vec![0; 4],
        });
    }
    if wanted.mark_mask != u32::MAX {
        let theirs = (!wanted.mark_mask).to_ne_bytes();
        guards.push(Guard {
            what: "with marks of others".into(),
            protocol: None,
            load: masked(Expression::Meta { key: Meta::Mark, to: FIRST }, &theirs),
            is_equal: false,
            value: vec![0; 4],
        });
    }
    let ports = modes.sctp_encap.0.into_iter().filter(|port| *port != 0);
    guards.extend(ports.map(|port| Guard {
        what: format!("SCTP in UDP to port {port}"),
        protocol: Some(protocol::UDP),
        load: vec![transport(2, 2, FIRST)],
        is_equal: true,
        value: port.to_be_bytes().to_vec(),
    }));
    guards
}

/// The first packets of SCTP associations, if the queue is to see them: it does so with the mark that the kernel
/// gave them.
pub fn inits(wanted: &Wanted) -> Option<Guard> {
    wanted.show_inits.then(|| Guard {
        what: "INITs of SCTP".into(),
        protocol: Some(protocol::SCTP),
        load: vec![first_chunk(FIRST)],
        is_equal: true,
        value: vec![sctp::INIT],
    })
}

fn masked(load: Expression, mask: &[u8]) -> Vec<Expression> {
    vec![load, Expression::And { register: FIRST, mask: mask.to_vec() }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_core::fast::lanes;
    use lb_core::key::EncapPorts;
    use lb_sys::nft::{Comparison, Queues};

    fn wanted(mark_mask: u32) -> Wanted {
        Wanted {
            vips: vec![],
            devices: vec![],
            local: false,
            notrack: false,
            queues: Queues { first: 2, count: 1, bypass: false },
            mark_mask,
            count_targets: false,
            show_inits: true,
        }
    }

    fn comparison(steps: &[Expression]) -> (Comparison, &[u8]) {
        match steps.last() {
            Some(Expression::Compare { register: FIRST, comparison, value }) => {
                (*comparison, value)
            }
            other => panic!("no comparison of the first register: {other:?}"),
        }
    }

    #[test]
    fn each_is_known_by_the_same_steps_from_both_sides() {
        let modes = KeyModes { sctp_encap: EncapPorts([9899, 0]), ..KeyModes::default() };
        let wanted = wanted(0xff);
        let mut all = guards(&wanted, Family::V4, &modes);
        let texts: Vec<&str> = all.iter().map(|guard| guard.what.as_str()).collect();
        assert_eq!(texts, ["fragments", "with marks of others", "SCTP in UDP to port 9899"]);
        all.extend(inits(&wanted));
        for guard in &all {
            let (such, none) = (guard.such(), guard.no_such());
            let ((with, value), (without, other)) = (comparison(&such), comparison(&none));
            assert_eq!(such[..such.len() - 1], none[..none.len() - 1], "{}", guard.what);
            assert_eq!(value, other);
            let opposites = [Comparison::Equal, Comparison::NotEqual];
            assert!(with != without && opposites.contains(&with) && opposites.contains(&without));
            let of_any = guard.such_of_any(Family::V4);
            assert!(of_any.ends_with(&such));
            assert_eq!(of_any.len() - such.len(), if guard.protocol.is_some() { 2 } else { 0 });
        }
        assert_eq!(comparison(&all[0].such()), (Comparison::NotEqual, &[0; 4][..]));
        assert_eq!(comparison(&all[2].such()), (Comparison::Equal, &9899u16.to_be_bytes()[..]));
    }

    #[test]
    fn lanes_are_concerned_by_their_protocol() {
        let modes = KeyModes { sctp_encap: EncapPorts([9899, 0]), ..KeyModes::default() };
        let of = |protocol| {
            let lane = lanes(Family::V6, &modes).into_iter().find(|lane| lane.protocol == protocol);
            let all = guards(&wanted(0xff), Family::V6, &modes).into_iter();
            let all = all.chain(inits(&wanted(0xff)));
            all.filter(|guard| guard.concerns(&lane.unwrap()))
                .map(|guard| guard.what)
                .collect::<Vec<_>>()
        };
        assert_eq!(of(protocol::TCP), ["with marks of others"]);
        assert_eq!(of(protocol::UDP), ["with marks of others", "SCTP in UDP to port 9899"]);
        assert_eq!(of(protocol::SCTP), ["with marks of others", "INITs of SCTP"]);
    }

    #[test]
    fn what_cannot_be_has_no_guard() {
        let none = KeyModes::default();
        assert_eq!(guards(&wanted(u32::MAX), Family::V6, &none), []);
        assert_eq!(guards(&wanted(u32::MAX), Family::V4, &none).len(), 1);
        assert_eq!(inits(&Wanted { show_inits: false, ..wanted(u32::MAX) }), None);
    }
}
