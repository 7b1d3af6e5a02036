//! The rules of the fast plane.

use lb_core::fast::{Family, Lane, lanes};
use lb_core::table::Config;
use lb_sys::nft::{Expression, Meta, Rule};

use super::guards::{Guard, guards, inits};
use super::steps::{find_mark, is_protocol, protocol_name};
use super::{FAST, Map, QUEUE, SHOWN, TARGETS, Wanted, rule};

/// INITs in a second that the fast plane shows to the queue, of each version of IP: enough to know them by, and
/// a flood of them leaves the queue to others.
const INITS_SHOWN: u32 = 1000;

/// What is not for the kernel goes to the queue, then the lanes, then the queue for what is left.
pub(super) fn rules(wanted: &Wanted, family: Family, config: &Config, map: &Map) -> Vec<Rule> {
    let version = match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    let guards = guards(wanted, family, &config.modes).into_iter();
    let mut rules: Vec<Rule> = guards
        .map(|guard| {
            let mut expressions = guard.such_of_any(family);
            expressions.push(Expression::Goto(QUEUE.into()));
            rule(format!("{version} {}", guard.what), expressions)
        })
        .collect();
    for lane in lanes(family, &config.modes) {
        if let Some(inits) = inits(wanted).filter(|inits| inits.concerns(&lane)) {
            rules.push(init_rule(version, (&inits, &lane), config, map));
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
fn init_rule(version: &str, (inits, lane): (&Guard, &Lane), config: &Config, map: &Map) -> Rule {
    let mut expressions = is_protocol(lane).to_vec();
    expressions.extend(inits.such());
    expressions.push(Expression::Limit { rate: INITS_SHOWN, burst: INITS_SHOWN });
    let (find, mark) = find_mark(lane, config, map);
    expressions.extend(find);
    expressions.push(Expression::SetMark { from: mark });
    expressions.push(Expression::Goto(SHOWN.into()));
    rule(format!("{version} {} to the queue, marked", inits.what), expressions)
}
