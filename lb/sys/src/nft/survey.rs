//! All rules of all tables, whoever made them: what may stand in the way of ours.

use super::expression::{EXPR_DATA, EXPR_NAME};
use super::message::{Kind, NLM_F_DUMP, TableFamily};
use super::{Nft, NftError, named};
#[cfg(test)]
use crate::netlink::attribute::Attributes;
use crate::netlink::attribute::{attribute, attributes, number};

/// Chains and rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// In no order.
    pub chains: Vec<SurveyedChain>,
    /// In the order of each chain.
    pub rules: Vec<SurveyedRule>,
}

/// A chain of somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurveyedChain {
    /// The family of its table.
    pub family: TableFamily,
    /// The name of its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Its priority, if packets that come in enter it.
    pub prerouting: Option<i32>,
}

/// A rule of somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurveyedRule {
    /// The family of its table.
    pub family: TableFamily,
    /// The name of its table.
    pub table: String,
    /// The name of its chain.
    pub chain: String,
    /// What it does.
    pub steps: Vec<Step>,
}

/// A step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The kernel's name of it, or that of the match or target of iptables.
    pub name: String,
    /// Where it sends packets, if that is to queues.
    pub spread: Option<Spread>,
}

/// How packets are spread over queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// The first queue.
    pub first: u16,
    /// How many.
    pub count: u16,
    /// By the processor that has them, not by their addresses.
    pub by_cpu: bool,
}

/// Those of which packets come to our hook.
const FAMILIES: [TableFamily; 3] = [TableFamily::Ip, TableFamily::Ip6, TableFamily::Inet];

impl Nft {
    /// Looks at everything.
    pub fn survey(&mut self) -> Result<Survey, NftError> {
        let mut survey = Survey::default();
        for family in FAMILIES {
            survey.chains.extend(self.get(
                "list all chains",
                (Kind::GetChain, family),
                NLM_F_DUMP,
                |_| {},
                |object| chain(family, object),
            )?);
            survey.rules.extend(self.get(
                "list all rules",
                (Kind::GetRule, family),
                NLM_F_DUMP,
                |_| {},
                |object| rule(family, object),
            )?);
        }
        Ok(survey)
    }
}

fn chain(family: TableFamily, object: &[u8]) -> Option<SurveyedChain> {
    const HOOK: u16 = 4;
    const PREROUTING: u32 = 0;
    let hook = attribute(object, HOOK);
    let priority = hook.filter(|hook| attribute(hook, 1).and_then(number) == Some(PREROUTING));
    let priority = priority.and_then(|hook| attribute(hook, 2)?.first_chunk());
    Some(SurveyedChain {
        family,
        table: named(object, 1)?.into(),
        name: named(object, 3)?.into(),
        prerouting: priority.map(|bytes| i32::from_be_bytes(*bytes)),
    })
}

fn rule(family: TableFamily, object: &[u8]) -> Option<SurveyedRule> {
    const EXPRESSIONS: u16 = 4;
    let steps = attributes(attribute(object, EXPRESSIONS).unwrap_or_default());
    Some(SurveyedRule {
        family,
        table: named(object, 1)?.into(),
        chain: named(object, 2)?.into(),
        steps: steps.filter_map(|(_, expression)| step(expression)).collect(),
    })
}

fn step(expression: &[u8]) -> Option<Step> {
    const INFO: u16 = 3;
    let name = named(expression, EXPR_NAME)?;
    let data = attribute(expression, EXPR_DATA).unwrap_or_default();
    match name {
        "match" | "target" => {
            let name = named(data, 1)?;
            let info = attribute(data, INFO).filter(|_| name == "NFQUEUE");
            Some(Step { name: name.into(), spread: info.and_then(spread_of_target) })
        }
        "queue" => Some(Step { name: name.into(), spread: spread(data) }),
        _ => Some(Step { name: name.into(), spread: None }),
    }
}

/// Of nft's own expression. One that computes the number has no range.
fn spread(data: &[u8]) -> Option<Spread> {
    const BY_CPU: u16 = 2;
    let number =
        |kind| attribute(data, kind)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
    let by_cpu = number(3).unwrap_or(0) & BY_CPU != 0;
    Some(Spread { first: number(1)?, count: number(2).unwrap_or(1), by_cpu })
}

/// Of the target NFQUEUE: first queue, number of queues, flags, as many as its revision has.
fn spread_of_target(info: &[u8]) -> Option<Spread> {
    const BY_CPU: u16 = 2;
    let number =
        |place: usize| info.get(2 * place..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes));
    let by_cpu = number(2).unwrap_or(0) & BY_CPU != 0;
    Some(Spread { first: number(0)?, count: number(1).unwrap_or(1).max(1), by_cpu })
}

#[cfg(test)]
mod tests {
    use super::super::message::Messages;
    use super::*;

    /// The attributes of a message.
    fn object(write: impl FnOnce(&mut Attributes<'_>)) -> Vec<u8> {
        const HEADERS: usize = 20;
        let mut messages = Messages::default();
        messages.push((Kind::NewRule, TableFamily::Ip), 0, 1, write);
        messages.bytes()[HEADERS..].to_vec()
    }

    #[test]
    fn a_rule_is_told_by_its_steps() {
        let bytes = object(|rule| {
            rule.text(1, "mangle");
            rule.text(2, "PREROUTING");
            rule.nested(4, |list| {
                list.nested(1, |step| step.text(EXPR_NAME, "ct"));
                list.nested(1, |step| {
                    step.text(EXPR_NAME, "queue");
                    step.nested(EXPR_DATA, |data| {
                        data.u16(1, 4);
                        data.u16(2, 3);
                        data.u16(3, 3);
                    });
                });
                list.nested(1, |step| {
                    step.text(EXPR_NAME, "target");
                    step.nested(EXPR_DATA, |data| {
                        data.text(1, "NFQUEUE");
                        let info = [2u16, 2, 0, 0].map(u16::to_ne_bytes).concat();
                        data.bytes(3, &info);
                    });
                });
            });
        });
        let found = rule(TableFamily::Ip, &bytes).unwrap();
        assert_eq!((found.table.as_str(), found.chain.as_str()), ("mangle", "PREROUTING"));
        let of = |name: &str, spread| Step { name: name.into(), spread };
        let expected = [
            of("ct", None),
            of("queue", Some(Spread { first: 4, count: 3, by_cpu: true })),
            of("NFQUEUE", Some(Spread { first: 2, count: 2, by_cpu: false })),
        ];
        assert_eq!(found.steps, expected);
    }

    #[test]
    fn a_chain_is_told_by_its_hook() {
        let hooked = |hook: u32, priority: i32| {
            let bytes = object(|chain| {
                chain.text(1, "t");
                chain.text(3, "c");
                chain.nested(4, |inside| {
                    inside.u32(1, hook);
                    inside.bytes(2, &priority.to_be_bytes());
                });
            });
            chain(TableFamily::Inet, &bytes).unwrap().prerouting
        };
        assert_eq!(hooked(0, -450), Some(-450));
        assert_eq!(hooked(1, -450), None);
        let plain = object(|chain| {
            chain.text(1, "t");
            chain.text(3, "c");
        });
        assert_eq!(chain(TableFamily::Inet, &plain).unwrap().prerouting, None);
        assert_eq!(chain(TableFamily::Inet, &[]), None);
    }

    #[test]
    fn old_targets_have_one_queue() {
        let spread =
            |bytes: &[u8]| spread_of_target(bytes).map(|spread| (spread.first, spread.count));
        assert_eq!(spread(&7u16.to_ne_bytes()), Some((7, 1)));
        assert_eq!(spread(&[1]), None);
    }
}
