//! The rules of the fast plane.

use lb_core::fast::{Family, Lane, lanes};
use lb_core::table::Config;
use lb_core::wire::{protocol, sctp};
use lb_sys::nft::{Expression, Meta, Queues, Rule};

use super::steps::{
    FIRST, behind_addresses, equal, find_mark, first_chunk, is_protocol, network, not_equal,
    protocol_name, protocol_offset, transport,
};
use super::{FAST, Map, QUEUE, QueueBy, TARGETS, Wanted, rule, to_queue};

/// INITs in a second that the fast plane shows to the queue, of each version of IP: enough to know them by, and
/// a flood of them leaves the queue to others.
const INITS_SHOWN: u32 = 1000;

/// What is not for the kernel goes to the queue, then the lanes, then the queue for what is left.
pub(super) fn rules(
    wanted: &Wanted,
    family: Family,
    by: QueueBy,
    config: &Config,
    map: &Map,
) -> Vec<Rule> {
    let version = match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    let mut rules = Vec::new();
    if family == Family::V4 {
        // Before all else: a later fragment has data where the others have ports. IPv6 has a header of its
        // own for fragments, and what has any goes to the queue.
        // With the two bytes before, because the kernel masks a whole word faster.
        const MORE_OR_OFFSET: [u8; 4] = [0, 0, 0x3f, 0xff];
        let expressions = vec![
            network(4, 4, FIRST),
            Expression::And { register: FIRST, mask: MORE_OR_OFFSET.to_vec() },
            not_equal(FIRST, &[0; 4]),
            Expression::Goto(QUEUE.into()),
        ];
        rules.push(rule(format!("{version} fragments"), expressions));
    }
    if wanted.mark_mask != u32::MAX {
        let theirs = (!wanted.mark_mask).to_ne_bytes();
        let expressions = vec![
            Expression::Meta { key: Meta::Mark, to: FIRST },
            Expression::And { register: FIRST, mask: theirs.to_vec() },
            not_equal(FIRST, &[0; 4]),
            Expression::Goto(QUEUE.into()),
        ];
        rules.push(rule(format!("{version} with marks of others"), expressions));
    }
    for port in config.modes.sctp_encap.0.into_iter().filter(|port| *port != 0) {
        let expressions = vec![
            network(protocol_offset(family), 1, FIRST),
            equal(FIRST, &[protocol::UDP]),
            transport(2, 2, FIRST),
            equal(FIRST, &port.to_be_bytes()),
            Expression::Goto(QUEUE.into()),
        ];
        rules.push(rule(format!("{version} SCTP in UDP to port {port}"), expressions));
    }
    for lane in lanes(family, &config.modes) {
        if lane.protocol == protocol::SCTP && wanted.show_inits {
            rules.push(init_rule(wanted, version, &lane, by, config, map));
        }
        rules.push(lane_rule(wanted, version, &lane, config, map));
    }
    let rest = vec![Expression::Goto(QUEUE.into())];
    rules.push(rule(format!("{version}, what is left"), rest));
    rules
}

fn lane_rule(wanted: &Wanted, version: &str, lane: &Lane, config: &Config, map: &Map) -> Rule {
    let mut expressions = is_protocol(lane).to_vec();
    let (find, mark) = find_mark(lane, config, map);
    expressions.extend(find);
    expressions.push(Expression::SetMark { from: mark });
    if wanted.count_targets {
        // The register has the mark already, but nft 1.0.6 dies of a rule that looks up what it looked up.
        // A mark without a counter is a miss like any other: the queue gives the same mark.
        expressions.extend([
            Expression::Meta { key: Meta::Mark, to: mark },
            Expression::CountIn { set: TARGETS.into(), key: mark },
        ]);
    }
    expressions.extend(wanted.notrack.then_some(Expression::NoTrack));
    expressions.extend([Expression::Count { counter: FAST.into() }, Expression::Accept]);
    rule(format!("{version} {} by its slot", protocol_name(lane)), expressions)
}

/// The first packet of an association is shown to the queue with its mark: the worker gives the same one, and
/// where there is none the packet goes on with this. What is beyond the limit stays in the lane.
fn init_rule(
    wanted: &Wanted,
    version: &str,
    lane: &Lane,
    by: QueueBy,
    config: &Config,
    map: &Map,
) -> Rule {
    let [_, _, chunk, _] = behind_addresses(lane.family);
    let mut expressions = is_protocol(lane).to_vec();
    expressions.extend([
        first_chunk(chunk),
        equal(chunk, &[sctp::INIT]),
        Expression::Limit { rate: INITS_SHOWN, burst: INITS_SHOWN },
    ]);
    let (find, mark) = find_mark(lane, config, map);
    expressions.extend(find);
    expressions.push(Expression::SetMark { from: mark });
    let queues = Queues { bypass: true, ..wanted.queues };
    expressions.extend(to_queue(wanted, by, queues));
    rule(format!("{version} INITs of SCTP to the queue, marked"), expressions)
}
