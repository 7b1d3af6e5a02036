//! What a transaction has to change.

use std::collections::{BTreeMap, BTreeSet};

use lb_sys::nft::{ChainInfo, MapValue, Rule, Transaction};

use super::NOTHING;
use crate::rules::{Map, Table};

/// The comments of each chain's rules, by which they are known again.
pub(super) type Comments = BTreeMap<String, Vec<String>>;

pub(super) fn rules_of(table: &Table) -> Comments {
    let comments = |rules: &[Rule]| rules.iter().map(|rule| rule.comment.clone()).collect();
    let chains = table.chains.iter().filter(|chain| !chain.rules.is_empty());
    chains.map(|chain| (chain.name.clone(), comments(&chain.rules))).collect()
}

/// Makes the rules of a table as they are wanted. A chain that has them stays: a new rule with a target
/// of iptables waits for everything that nftables has still to destroy, tens of milliseconds after
/// another change.
pub(super) fn put_rules(
    transaction: &mut Transaction,
    table: &Table,
    found: &[ChainInfo],
    rules: &Comments,
) {
    let wanted = rules_of(table);
    let stays = |name: &String| rules.get(name) == wanted.get(name);
    for chain in found.iter().filter(|chain| !stays(&chain.name)) {
        transaction.clear_chain(&chain.name);
    }
    for chain in &table.chains {
        if !found.iter().any(|found| found.name == chain.name) {
            transaction.add_chain(&chain.name, chain.hook.as_ref());
        }
    }
    for chain in table.chains.iter().filter(|chain| !stays(&chain.name)) {
        chain.rules.iter().for_each(|rule| transaction.add_rule(&chain.name, rule));
    }
    for chain in found {
        if !table.chains.iter().any(|wanted| wanted.name == chain.name) {
            transaction.delete_chain(&chain.name);
        }
    }
}

/// Gives each of these marks a counter, unless it has one; says how many got one. If there is no room, those of
/// others end.
pub(super) fn count_marks(
    transaction: &mut Transaction,
    set: &Map,
    counted: &mut BTreeSet<u32>,
    marks: &BTreeSet<u32>,
) -> usize {
    let new: Vec<u32> = marks.difference(counted).copied().collect();
    if counted.len() + new.len() > set.size as usize {
        let others: Vec<u32> = counted.difference(marks).copied().collect();
        transaction.delete_elements(&set.name, &others);
        counted.retain(|mark| marks.contains(mark));
    }
    transaction.add_keys(&set.name, &new);
    counted.extend(&new);
    new.len()
}

/// Elements by slot, from the first slot to before the last.
pub(super) fn in_order(elements: &[(u32, u32)], first: u32, end: u32) -> Vec<u32> {
    let mut marks = vec![NOTHING; end.saturating_sub(first) as usize];
    for (slot, mark) in elements {
        let place = slot.checked_sub(first).and_then(|place| marks.get_mut(place as usize));
        if let Some(place) = place {
            *place = *mark;
        }
    }
    marks
}

/// Replaces what differs from slot `first` on; says how many slots.
pub(super) fn replace(
    transaction: &mut Transaction,
    map: &Map,
    first: u32,
    before: &[u32],
    after: &[u32],
) -> usize {
    let before = before.iter().copied().chain(std::iter::repeat(NOTHING));
    let (mut deleted, mut added, mut differ) = (Vec::new(), Vec::new(), 0);
    for ((slot, &after), before) in (first..).zip(after).zip(before) {
        if before == after {
            continue;
        }
        differ += 1;
        if before != NOTHING {
            deleted.push(slot);
        }
        if after != NOTHING {
            added.push((slot, after.to_ne_bytes()));
        }
    }
    transaction.delete_elements(&map.name, &deleted);
    transaction.add_elements(&map.name, MapValue::Mark, &added);
    differ
}

/// Replaces next hops that differ; says how many.
pub(super) fn replace_hops(
    transaction: &mut Transaction,
    (map, value): (&Map, MapValue),
    before: &BTreeMap<u32, Vec<u8>>,
    after: &BTreeMap<u32, Vec<u8>>,
) -> usize {
    let differs = |other: &BTreeMap<u32, Vec<u8>>, mark, hop| other.get(mark) != Some(hop);
    let old = before.iter().filter(|(mark, hop)| differs(after, mark, hop));
    let deleted: Vec<u32> = old.map(|(mark, _)| *mark).collect();
    let new = after.iter().filter(|(mark, hop)| differs(before, mark, hop));
    let added: Vec<(u32, &[u8])> = new.map(|(mark, hop)| (*mark, hop.as_slice())).collect();
    transaction.delete_elements(&map.name, &deleted);
    transaction.add_elements(&map.name, value, &added);
    deleted.len().max(added.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_sys::nft::{Entry, TableFamily, TableId};

    fn transaction() -> Transaction {
        Transaction::new(&TableId { family: TableFamily::Inet, name: "t".into() })
    }

    #[test]
    fn elements_stand_at_their_slots_and_others_do_not_count() {
        assert_eq!(in_order(&[(5, 50), (3, 30), (9, 90), (2, 20)], 3, 6), [30, NOTHING, 50]);
        assert_eq!(in_order(&[], 0, 2), [NOTHING; 2]);
    }

    #[test]
    fn only_what_differs_is_replaced() {
        let map = Map { name: "m".into(), size: 4 };
        for (before, after, differ) in [
            (&[1, 2, 3][..], [1, 2, 3], 0),
            (&[1, 2, 3], [1, 9, NOTHING], 2),
            (&[], [1, NOTHING, 3], 2),
        ] {
            let mut transaction = transaction();
            assert_eq!(replace(&mut transaction, &map, 0, before, &after), differ);
            assert_eq!(transaction.is_empty(), differ == 0);
        }
    }

    #[test]
    fn chains_with_the_rules_wanted_stay() {
        let rule = |text: &str| crate::rules::rule(text.into(), Vec::new());
        let chain = |name: &str, text: &str| crate::rules::chain(name, None, vec![rule(text)]);
        let table = Table {
            family: TableFamily::Inet,
            counters: &[],
            chains: vec![chain("a", "one"), chain("b", "two")],
            map: None,
            targets: None,
            hops: Vec::new(),
        };
        let found = |name: &str| ChainInfo { name: name.into(), entry: Entry::None };
        let rules = rules_of(&table);
        let is_empty = |found: &[ChainInfo], rules: &Comments| {
            let mut transaction = transaction();
            put_rules(&mut transaction, &table, found, rules);
            transaction.is_empty()
        };
        assert!(is_empty(&[found("a"), found("b")], &rules));
        assert!(!is_empty(&[found("a")], &rules));
        assert!(!is_empty(&[found("a"), found("b"), found("c")], &rules));
        let mut other = rules.clone();
        other.insert("a".into(), vec!["three".into()]);
        assert!(!is_empty(&[found("a"), found("b")], &other));
    }

    #[test]
    fn counters_of_others_end_only_for_want_of_room() {
        let set = Map { name: "s".into(), size: 4 };
        let of = |marks: &[u32]| marks.iter().copied().collect::<BTreeSet<u32>>();
        for (before, marks, new, after) in [
            (&[][..], &[1, 2][..], 2, &[1, 2][..]),
            (&[1, 2], &[1, 2], 0, &[1, 2]),
            (&[1, 2], &[2, 3, 4], 2, &[1, 2, 3, 4]),
            (&[1, 2], &[2, 3, 4, 5], 3, &[2, 3, 4, 5]),
        ] {
            let mut transaction = transaction();
            let mut counted = of(before);
            assert_eq!(count_marks(&mut transaction, &set, &mut counted, &of(marks)), new);
            assert_eq!(counted, of(after));
            assert_eq!(transaction.is_empty(), new == 0);
        }
    }
}
