//! The rules of nftables that `lb` owns, as values: what they are follows from the settings and the table.
//!
//! ```text
//! prerouting ─(device)─▶ vips ─┐                ┌─▶ mark from the map, accept
//! output ──────────────────────┴─(VIP)─▶ ip4/ip6┤
//!                                               └─▶ queue (all that is left)
//! ```
//!
//! What is forwarded before all that is in [`crate::express`].

mod fast;
pub mod guards;
pub mod steps;

use std::hash::{DefaultHasher, Hash, Hasher};

use lb_core::fast::{Family, lanes};
use lb_core::table::{Config, MAX_TARGETS};
use lb_sys::nft::{Comparison, Expression, Hook, MapValue, Meta, Queues, Rule, TableFamily};

use crate::cidr::Cidr;
use steps::{FIRST, NFPROTO_IPV4, NFPROTO_IPV6, equal, is_vip, network};

/// What is wanted of the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The virtual addresses.
    pub vips: Vec<Cidr>,
    /// Devices by which their packets come in; all if there is none.
    pub devices: Vec<String>,
    /// Whether packets of this machine count too.
    pub local: bool,
    /// Whether they are kept from connection tracking.
    pub notrack: bool,
    /// Where packets go.
    pub queues: Queues,
    /// The bits of the fwmark that are ours.
    pub mark_mask: u32,
    /// Whether the fast plane counts by mark.
    pub count_targets: bool,
    /// Whether the fast plane shows INITs of SCTP to the queue.
    pub show_inits: bool,
}

/// By which means the kernel hands packets over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueBy {
    /// nftables' own expression.
    Expression,
    /// The target of iptables.
    Target,
}

/// All of it, a table of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Which packets it is for.
    pub family: TableFamily,
    /// Counters with names.
    pub counters: &'static [&'static str],
    /// In an order in which no chain refers to a later one.
    pub chains: Vec<Chain>,
    /// The map that the rules look marks up in, with its size.
    pub map: Option<Map>,
    /// The set of marks in which packets are counted.
    pub targets: Option<Map>,
    /// Maps from marks to next hops.
    pub hops: Vec<(Map, MapValue)>,
}

/// A chain with its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub name: String,
    pub hook: Option<Hook>,
    pub rules: Vec<Rule>,
}

/// A map from slots to marks, or a set of marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    pub name: String,
    pub size: u32,
}

/// The counter of packets that the kernel marked.
pub const FAST: &str = "fast";
/// The counter of packets that went to the queue.
pub const QUEUED: &str = "queue";
/// The set with a counter for each mark. Unlike the map it stays when the table's dimensions change.
pub const TARGETS: &str = "targets";
/// Its room: as many targets as a table can have, and those that went a moment ago.
pub const MOST_COUNTED: u32 = 2 * MAX_TARGETS;

const QUEUE: &str = "queue";
/// Of packets that have their mark and are shown to the queue.
const SHOWN: &str = "shown";
const VIPS: &str = "vips";

impl Table {
    /// The rules that mark and queue; with a table's configuration those of the fast plane.
    pub fn new(wanted: &Wanted, by: QueueBy, fast: Option<&Config>) -> Self {
        let map = fast.map(|config| Map::of(config, wanted.mark_mask));
        let mut chains = vec![chain(QUEUE, None, vec![queue_rule(wanted, by)])];
        if fast.is_some() && guards::inits(wanted).is_some() {
            chains.push(chain(SHOWN, None, vec![shown_rule(wanted, by)]));
        }
        for family in [Family::V4, Family::V6] {
            if let (Some(config), Some(map)) = (fast, &map) {
                let rules = fast::rules(wanted, family, config, map);
                chains.push(chain(name_of(family), None, rules));
            }
        }
        let entry = |family| if fast.is_some() { name_of(family) } else { QUEUE };
        let vips = |local| wanted.vips.iter().flat_map(move |vip| vip_rules(vip, entry, local));
        if wanted.devices.is_empty() {
            chains.push(chain("prerouting", Some(Hook::Prerouting), vips(false).collect()));
        } else {
            chains.push(chain(VIPS, None, vips(false).collect()));
            let rules = wanted.devices.iter().map(|device| device_rule(device)).collect();
            chains.push(chain("prerouting", Some(Hook::Prerouting), rules));
        }
        if wanted.local {
            chains.push(chain("output", Some(Hook::Output), vips(fast.is_some()).collect()));
        }
        let targets = (fast.is_some() && wanted.count_targets).then(Map::counters_of_targets);
        let counters = &[FAST, QUEUED];
        Table { family: TableFamily::Inet, counters, chains, map, targets, hops: Vec::new() }
    }

    /// Everything with elements.
    pub fn sets(&self) -> impl Iterator<Item = &Map> {
        self.map.iter().chain(&self.targets).chain(self.hops.iter().map(|(map, _)| map))
    }
}

impl Map {
    /// Maps of different tables have different names, so that one can be filled while rules look the
    /// other up.
    pub fn of(config: &Config, mark_mask: u32) -> Self {
        let Config { slots, targets: _, own_mark: _, seed, modes } = config;
        let mut hasher = DefaultHasher::new();
        (slots, seed.0, mark_mask, modes.sctp_encap.0).hash(&mut hasher);
        lanes(Family::V4, modes).hash(&mut hasher);
        Map { name: format!("slots-{:016x}", hasher.finish()), size: *slots }
    }

    /// The set with a counter for each mark.
    pub fn counters_of_targets() -> Self {
        Map { name: TARGETS.into(), size: MOST_COUNTED }
    }
}

pub fn chain(name: impl Into<String>, hook: Option<Hook>, rules: Vec<Rule>) -> Chain {
    Chain { name: name.into(), hook, rules }
}

/// A rule that is known again by its comment: it ends with a digest of what the rule does.
pub fn rule(text: String, expressions: Vec<Expression>) -> Rule {
    let mut hasher = DefaultHasher::new();
    expressions.hash(&mut hasher);
    Rule { comment: format!("{text} [{:016x}]", hasher.finish()), expressions }
}

pub fn name_of(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip4",
        Family::V6 => "ip6",
    }
}

fn queue_rule(wanted: &Wanted, by: QueueBy) -> Rule {
    rule("to the queue".into(), to_queue(wanted, by, wanted.queues))
}

fn shown_rule(wanted: &Wanted, by: QueueBy) -> Rule {
    let queues = Queues { bypass: true, ..wanted.queues };
    rule("to the queue, or on".into(), to_queue(wanted, by, queues))
}

fn to_queue(wanted: &Wanted, by: QueueBy, queues: Queues) -> Vec<Expression> {
    let mut expressions = vec![Expression::Count { counter: QUEUED.into() }];
    expressions.extend(wanted.notrack.then_some(Expression::NoTrack));
    expressions.push(match by {
        QueueBy::Expression => Expression::Queue(queues),
        QueueBy::Target => Expression::QueueTarget(queues),
    });
    expressions
}

fn device_rule(device: &str) -> Rule {
    const NAME_LEN: usize = 16;
    let mut name = device.as_bytes().to_vec();
    name.resize(NAME_LEN, 0);
    let expressions = vec![
        Expression::Meta { key: Meta::InputDevice, to: FIRST },
        equal(FIRST, &name),
        Expression::Goto(VIPS.into()),
    ];
    rule(format!("from {device}"), expressions)
}

/// The rules for one prefix. `unchecked` packets have not been through the kernel's check of received
/// ones, which cuts off what lies behind the length that the header tells.
fn vip_rules(
    vip: &Cidr,
    entry: impl Fn(Family) -> &'static str,
    unchecked: bool,
) -> impl Iterator<Item = Rule> {
    let family = if vip.is_v6() { Family::V6 } else { Family::V4 };
    let to_short = (unchecked && vip.is_v6()).then(|| {
        // As long as what a lane looks at, at most.
        const HEADER_LEN: u16 = 8;
        let mut expressions = to_vip(vip, family);
        expressions.push(network(4, 2, FIRST));
        expressions.push(Expression::Compare {
            register: FIRST,
            comparison: Comparison::Less,
            value: HEADER_LEN.to_be_bytes().to_vec(),
        });
        expressions.push(Expression::Goto(QUEUE.into()));
        rule(format!("to {vip}, too short for a header"), expressions)
    });
    let mut expressions = to_vip(vip, family);
    expressions.push(Expression::Goto(entry(family).into()));
    to_short.into_iter().chain([rule(format!("to {vip}"), expressions)])
}

fn to_vip(vip: &Cidr, family: Family) -> Vec<Expression> {
    let nfproto = match family {
        Family::V4 => NFPROTO_IPV4,
        Family::V6 => NFPROTO_IPV6,
    };
    let mut expressions =
        vec![Expression::Meta { key: Meta::Family, to: FIRST }, equal(FIRST, &[nfproto])];
    expressions.extend(is_vip(vip, family));
    expressions
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_core::key::{Affinity, EncapPorts, KeyModes, SctpHash};

    fn wanted() -> Wanted {
        Wanted {
            vips: vec!["10.0.0.0/24".parse().unwrap(), "1000::".parse().unwrap()],
            devices: vec![],
            local: false,
            notrack: false,
            queues: Queues { first: 2, count: 1, bypass: false },
            mark_mask: u32::MAX,
            count_targets: false,
            show_inits: true,
        }
    }

    fn names(ruleset: &Table) -> Vec<&str> {
        ruleset.chains.iter().map(|chain| chain.name.as_str()).collect()
    }

    fn rules<'a>(ruleset: &'a Table, chain: &str) -> &'a [Rule] {
        &ruleset.chains.iter().find(|found| found.name == chain).unwrap().rules
    }

    fn texts<'a>(ruleset: &'a Table, chain: &str) -> Vec<&'a str> {
        rules(ruleset, chain).iter().map(|rule| rule.comment.split(" [").next().unwrap()).collect()
    }

    #[test]
    fn without_the_fast_plane_all_goes_to_the_queue() {
        let ruleset = Table::new(&wanted(), QueueBy::Target, None);
        assert_eq!(names(&ruleset), ["queue", "prerouting"]);
        assert_eq!(ruleset.map, None);
        assert_eq!(texts(&ruleset, "prerouting"), ["to 10.0.0.0/24", "to 1000::/128"]);
        let to_queue = Expression::Goto(QUEUE.into());
        let ends =
            rules(&ruleset, "prerouting").iter().map(|rule| rule.expressions.last().unwrap());
        assert!(ends.into_iter().all(|end| *end == to_queue));
    }

    #[test]
    fn devices_and_packets_of_this_machine_have_chains_of_their_own() {
        let wanted = Wanted { devices: vec!["eth1".into()], local: true, ..wanted() };
        let config = Config::default();
        let ruleset = Table::new(&wanted, QueueBy::Expression, Some(&config));
        assert_eq!(
            names(&ruleset),
            ["queue", "shown", "ip4", "ip6", "vips", "prerouting", "output"]
        );
        assert_eq!(texts(&ruleset, "prerouting"), ["from eth1"]);
        let to_vips = ["to 10.0.0.0/24", "to 1000::/128, too short for a header", "to 1000::/128"];
        assert_eq!(texts(&ruleset, "output"), to_vips);
    }

    #[test]
    fn fragments_come_first_and_the_queue_last() {
        let modes = KeyModes { sctp_encap: EncapPorts([9899, 0]), ..KeyModes::default() };
        let config = Config { modes, ..Config::default() };
        let wanted = Wanted { mark_mask: 0xff, ..wanted() };
        let ruleset = Table::new(&wanted, QueueBy::Expression, Some(&config));
        let expected = [
            "IPv4 fragments",
            "IPv4 with marks of others",
            "IPv4 SCTP in UDP to port 9899",
            "IPv4 TCP by its slot",
            "IPv4 UDP by its slot",
            "IPv4 INITs of SCTP to the queue, marked",
            "IPv4 SCTP by its slot",
            "IPv4 echo by its slot",
            "IPv4, what is left",
        ];
        assert_eq!(texts(&ruleset, "ip4"), expected);
        assert_eq!(texts(&ruleset, "ip6").len(), expected.len() - 1);
    }

    #[test]
    fn inits_meet_the_queue_with_their_mark_and_pass_it() {
        let config = Config::default();
        let wanted = Wanted { notrack: true, ..wanted() };
        let ruleset = Table::new(&wanted, QueueBy::Target, Some(&config));
        let names =
            |rule: &Rule| -> Vec<_> { rule.expressions.iter().map(Expression::name).collect() };
        let init = &rules(&ruleset, "ip4")[3];
        let steps = "payload cmp payload cmp limit payload hash lookup meta immediate";
        assert_eq!(names(init).join(" "), steps);
        assert_eq!(init.expressions.last(), Some(&Expression::Goto(SHOWN.into())));
        assert_eq!(names(&rules(&ruleset, SHOWN)[0]), ["objref", "notrack", "target"]);
        let bypass = |chain| match rules(&ruleset, chain)[0].expressions.last() {
            Some(Expression::QueueTarget(queues)) => queues.bypass,
            other => panic!("{other:?}"),
        };
        assert_eq!((bypass(SHOWN), bypass(QUEUE)), (true, false));

        let without = Wanted { show_inits: false, ..wanted };
        let without = Table::new(&without, QueueBy::Target, Some(&config));
        assert_eq!(rules(&without, "ip4").len() + 1, rules(&ruleset, "ip4").len());
        assert!(without.chains.iter().all(|chain| chain.name != SHOWN));
    }

    #[test]
    fn a_table_made_anew_needs_no_new_target_of_iptables() {
        let config = Config::default();
        let anew = Config { seed: lb_core::hash::Seed(1), slots: 499, ..config };
        let chains = |config| Table::new(&wanted(), QueueBy::Target, Some(config)).chains;
        let has_target = |chain: &Chain| {
            let mut steps = chain.rules.iter().flat_map(|rule| &rule.expressions);
            steps.any(|step| matches!(step, Expression::QueueTarget(_)))
        };
        let with_target =
            |config| -> Vec<Chain> { chains(config).into_iter().filter(has_target).collect() };
        assert_eq!(with_target(&config), with_target(&anew));
        assert_eq!(with_target(&config).len(), 2);
        assert_ne!(chains(&config), chains(&anew));
    }

    #[test]
    fn what_changes_marks_changes_comments_and_the_map() {
        let of = |config: &Config, mark_mask| {
            Table::new(&Wanted { mark_mask, ..wanted() }, QueueBy::Expression, Some(config))
        };
        let config = Config::default();
        let other = |modes| Config { modes, ..config };
        let tables = [
            of(&config, u32::MAX),
            of(&config, 0xff),
            of(&Config { slots: 499, ..config }, u32::MAX),
            of(&Config { seed: lb_core::hash::Seed(1), ..config }, u32::MAX),
            of(&other(KeyModes { sctp_hash: SctpHash::Tuple, ..config.modes }), u32::MAX),
            of(&other(KeyModes { affinity: Affinity::Client, ..config.modes }), u32::MAX),
        ];
        for (i, one) in tables.iter().enumerate() {
            for other in &tables[i + 1..] {
                assert_ne!(one.map, other.map);
                assert_ne!(rules(one, "ip4"), rules(other, "ip4"));
            }
        }
        // Room for targets and the own mark decide about no packet.
        assert_eq!(of(&Config { targets: 9, own_mark: 5, ..config }, u32::MAX), tables[0]);
    }

    #[test]
    fn targets_are_counted_by_the_mark() {
        let config = Config::default();
        let of = |count_targets, fast| {
            let wanted = Wanted { count_targets, ..wanted() };
            Table::new(&wanted, QueueBy::Expression, fast)
        };
        let lane = |ruleset: &Table| {
            let names = rules(ruleset, "ip4")[1].expressions.iter().map(Expression::name);
            names.collect::<Vec<_>>().join(" ")
        };
        let counting = of(true, Some(&config));
        let plain = of(false, Some(&config));
        assert!(lane(&counting).ends_with("lookup meta meta lookup objref immediate"));
        assert!(lane(&plain).ends_with("lookup meta objref immediate"));
        let names = counting.sets().map(|set| set.name.as_str());
        assert_eq!(names.last(), Some(TARGETS));
        assert_eq!((plain.targets, of(true, None).targets), (None, None));
    }

    #[test]
    fn prefixes_of_whole_bytes_need_no_mask() {
        for (vip, is_masked) in [
            ("10.0.0.0/24", false),
            ("10.0.0.1", false),
            ("10.0.0.0/25", true),
            ("0.0.0.0/0", true),
            ("1000::/64", false),
            ("1000::/65", true),
        ] {
            let expressions = to_vip(&vip.parse().unwrap(), Family::V4);
            let masks = expressions.iter().any(|step| matches!(step, Expression::And { .. }));
            assert_eq!(masks, is_masked, "{vip}");
        }
    }

    #[test]
    fn comments_fit_where_nft_keeps_them() {
        let longest = "fd00:1111:2222:3333:4444:5555:6666:0/112".parse().unwrap();
        let wanted =
            Wanted { vips: vec![longest], devices: vec!["x".repeat(15)], local: true, ..wanted() };
        let ruleset = Table::new(&wanted, QueueBy::Target, Some(&Config::default()));
        let mut rules = ruleset.chains.iter().flat_map(|chain| &chain.rules);
        assert!(rules.all(|rule| rule.comment.len() <= 120));
    }
}
