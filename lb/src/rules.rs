//! The rules of nftables that `lb` owns, as values: what they are follows from the settings and the table.
//!
//! ```text
//! prerouting ─(device)─▶ vips ─┐                ┌─▶ mark from the map, accept
//! output ──────────────────────┴─(VIP)─▶ ip4/ip6┤
//!                                               └─▶ queue (all that is left)
//! ```
//!
//! What is forwarded before all that is in [`crate::express`].

use std::hash::{DefaultHasher, Hash, Hasher};

use lb_core::fast::{Content, Family, Lane, Shape, lanes};
use lb_core::table::{Config, MAX_TARGETS};
use lb_core::wire::{protocol, sctp};
use lb_sys::nft::{
    Base, Comparison, Expression, Hook, MapValue, Meta, Queues, Register, Rule, TableFamily,
};

use crate::cidr::Cidr;

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

/// INITs in a second that the fast plane shows to the queue, of each version of IP: enough to know them by, and
/// a flood of them leaves the queue to others.
const INITS_SHOWN: u32 = 1000;

const QUEUE: &str = "queue";
const VIPS: &str = "vips";

impl Table {
    /// The rules that mark and queue; with a table's configuration those of the fast plane.
    pub fn new(wanted: &Wanted, by: QueueBy, fast: Option<&Config>) -> Self {
        let map = fast.map(|config| Map::of(config, wanted.mark_mask));
        let mut chains = vec![chain(QUEUE, None, vec![queue_rule(wanted, by)])];
        for family in [Family::V4, Family::V6] {
            if let (Some(config), Some(map)) = (fast, &map) {
                let rules = fast_rules(wanted, family, by, config, map);
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

/// Where the rules work. Packets of both versions of IP use the same registers, as far as they go.
pub const FIRST: Register = Register(0);

fn queue_rule(wanted: &Wanted, by: QueueBy) -> Rule {
    rule("to the queue".into(), to_queue(wanted, by, wanted.queues))
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

/// The numbers of IPv4 and IPv6 among protocol families.
pub const NFPROTO_IPV4: u8 = 2;
pub const NFPROTO_IPV6: u8 = 10;

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

/// Whether the destination has this prefix.
pub fn is_vip(vip: &Cidr, family: Family) -> Vec<Expression> {
    let (offset, len) = match family {
        Family::V4 => (16, 4),
        Family::V6 => (24, 16),
    };
    let mut expressions = vec![network(offset, len, FIRST)];
    if let Some(bytes) = vip.whole_bytes() {
        // A mask would be another step.
        expressions.push(equal(FIRST, &bytes));
    } else {
        expressions.push(Expression::And { register: FIRST, mask: vip.mask() });
        expressions.push(equal(FIRST, &vip.octets()));
    }
    expressions
}

/// What is not for the kernel goes to the queue, then the lanes, then the queue for what is left.
fn fast_rules(
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

fn protocol_offset(family: Family) -> u32 {
    match family {
        Family::V4 => 9,
        Family::V6 => 6,
    }
}

/// Whether it is of the lane's protocol. The number stays where the key has it.
pub fn is_protocol(lane: &Lane) -> [Expression; 2] {
    let [protocol, ..] = behind_addresses(lane.family);
    [network(protocol_offset(lane.family), 1, protocol), equal(protocol, &[lane.protocol])]
}

/// Registers behind two addresses: for the protocol, the ports, the slot and the mark.
fn behind_addresses(family: Family) -> [Register; 4] {
    let place = match family {
        Family::V4 => 2,
        Family::V6 => 8,
    };
    [0, 1, 2, 3].map(|after| Register(place + after))
}

/// From the ports or the identifier to the mark, and the register that has it. Addresses, protocol and these go
/// into registers side by side, as they stand in a key.
pub fn find_mark(lane: &Lane, config: &Config, map: &Map) -> (Vec<Expression>, Register) {
    let (address_at, address_len) = match lane.family {
        Family::V4 => (12, 4),
        Family::V6 => (8, 16),
    };
    let [_, last, slot, mark] = behind_addresses(lane.family);
    let mut expressions = Vec::new();
    let shape = match lane.content {
        // Where they are missing the walk has to say so, whatever the key is.
        Content::Ports(shape) => {
            expressions.push(transport(0, 4, last));
            shape
        }
        // With the sequence number, because the walk wants the header to its end.
        Content::Echo(request) => {
            expressions.extend([
                transport(0, 1, last),
                equal(last, &[request]),
                transport(4, 4, last),
                Expression::And { register: last, mask: vec![0xff, 0xff, 0, 0] },
            ]);
            Shape::Tuple
        }
    };
    let (from, len) = match shape {
        Shape::Ports => (last, 4),
        Shape::Client => (FIRST, address_len),
        Shape::Tuple => (FIRST, 2 * address_len + 8),
    };
    match (shape, lane.family) {
        (Shape::Ports, _) => {}
        (Shape::Client, _) => expressions.push(network(address_at, address_len, FIRST)),
        // Words are loaded faster than anything else.
        (Shape::Tuple, Family::V4) => {
            expressions.extend([network(12, 4, FIRST), network(16, 4, Register(1))]);
        }
        (Shape::Tuple, Family::V6) => expressions.push(network(8, 32, FIRST)),
    }
    expressions.extend([
        Expression::Hash { from, len, seed: config.seed.0, modulus: config.slots, to: slot },
        Expression::Lookup { map: map.name.clone(), key: slot, to: mark },
    ]);
    (expressions, mark)
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

/// The type of the first chunk of SCTP.
pub fn first_chunk(to: Register) -> Expression {
    transport(u32::from(sctp::HEADER_LEN), 1, to)
}

pub fn protocol_name(lane: &Lane) -> &'static str {
    match lane.protocol {
        protocol::TCP => "TCP",
        protocol::UDP => "UDP",
        protocol::SCTP => "SCTP",
        _ => "echo",
    }
}

fn transport(offset: u32, len: u32, to: Register) -> Expression {
    Expression::Payload { base: Base::Transport, offset, len, to }
}

pub fn network(offset: u32, len: u32, to: Register) -> Expression {
    Expression::Payload { base: Base::Network, offset, len, to }
}

pub fn equal(register: Register, value: &[u8]) -> Expression {
    Expression::Compare { register, comparison: Comparison::Equal, value: value.to_vec() }
}

pub fn not_equal(register: Register, value: &[u8]) -> Expression {
    Expression::Compare { register, comparison: Comparison::NotEqual, value: value.to_vec() }
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

    fn texts<'a>(ruleset: &'a Table, chain: &str) -> Vec<&'a str> {
        let chain = ruleset.chains.iter().find(|found| found.name == chain).unwrap();
        chain.rules.iter().map(|rule| rule.comment.split(" [").next().unwrap()).collect()
    }

    #[test]
    fn without_the_fast_plane_all_goes_to_the_queue() {
        let ruleset = Table::new(&wanted(), QueueBy::Target, None);
        assert_eq!(names(&ruleset), ["queue", "prerouting"]);
        assert_eq!(ruleset.map, None);
        assert_eq!(texts(&ruleset, "prerouting"), ["to 10.0.0.0/24", "to 1000::/128"]);
        let to_queue = Expression::Goto(QUEUE.into());
        let ends = ruleset.chains[1].rules.iter().map(|rule| rule.expressions.last().unwrap());
        assert!(ends.into_iter().all(|end| *end == to_queue));
    }

    #[test]
    fn devices_and_packets_of_this_machine_have_chains_of_their_own() {
        let wanted = Wanted { devices: vec!["eth1".into()], local: true, ..wanted() };
        let config = Config::default();
        let ruleset = Table::new(&wanted, QueueBy::Expression, Some(&config));
        assert_eq!(names(&ruleset), ["queue", "ip4", "ip6", "vips", "prerouting", "output"]);
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
        let init = &ruleset.chains[1].rules[3].expressions;
        let names: Vec<_> = init.iter().map(Expression::name).collect();
        let steps = "payload cmp payload cmp limit payload hash lookup meta objref notrack target";
        assert_eq!(names.join(" "), steps);
        let bypass = |queues: &Queues| queues.bypass;
        assert!(matches!(init.last(), Some(Expression::QueueTarget(queues)) if bypass(queues)));
        let queue = &ruleset.chains[0].rules[0].expressions;
        assert!(matches!(queue.last(), Some(Expression::QueueTarget(queues)) if !bypass(queues)));

        let without = Wanted { show_inits: false, ..wanted };
        let without = Table::new(&without, QueueBy::Target, Some(&config));
        assert_eq!(without.chains[1].rules.len() + 1, ruleset.chains[1].rules.len());
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
                assert_ne!(one.chains[1].rules, other.chains[1].rules);
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
            let names = ruleset.chains[1].rules[1].expressions.iter().map(Expression::name);
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
