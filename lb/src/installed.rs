//! What `lb` has in nftables: found, made, changed in place, checked and mended.

use std::collections::{BTreeMap, BTreeSet};

use lb_core::target::Mark;
use lb_sys::nft::{
    ChainInfo, CounterInfo, Entry, MapInfo, MarkCount, Nft, NftError, Rule, TableInfo, Transaction,
};
use lb_sys::shm::Name;
use thiserror::Error;

use crate::rules::{FAST, Map, QUEUED, Ruleset, TARGETS};

/// The word for a slot of which the map has nothing. No mark of a map is this number.
pub const NOTHING: u32 = Mark::EMPTY;

/// By this the table is known to be ours.
const TABLE_COMMENT: &str = "made by lb of Markway";

/// Why our table could not be had.
#[derive(Debug, Error)]
pub enum InstallError {
    /// The name is taken.
    #[error(
        "table inet {0}: it is there and was not made by lb; choose another --instance, or remove it"
    )]
    Foreign(String),
    /// nftables refused.
    #[error("table inet {table}: {cause}")]
    Nft {
        /// The table.
        table: String,
        /// Why.
        cause: NftError,
    },
}

/// What the kernel is to know of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The mark of every slot, as far as it is ours.
    pub slots: Vec<u32>,
    /// All marks that are counted: those of slots, and maybe more.
    pub marks: BTreeSet<u32>,
}

/// The table of an instance.
#[derive(Debug)]
pub struct Installed {
    nft: Nft,
    table: String,
    /// What is in force as far as we know.
    ruleset: Ruleset,
    content: Content,
    /// Marks that have a counter.
    counted: BTreeSet<u32>,
    /// Those of them that had no target when it was looked last.
    gone: BTreeSet<u32>,
    /// The generation of nftables while nobody else changes anything.
    generation: u32,
}

/// What it took to put something into force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Whether the table was not there, or not usable.
    pub made: bool,
    /// Whether rules or chains were changed.
    pub rules: bool,
    /// Whether a map was made, because the table's dimensions are new.
    pub map: bool,
    /// How many elements of the map were changed.
    pub slots: usize,
    /// How many counters of targets were made.
    pub counters: usize,
}

impl Installed {
    /// Opens nftables; nothing is changed.
    pub fn open(instance: &Name) -> Result<Self, InstallError> {
        let table = table_name(instance);
        let nft = Nft::open().map_err(|cause| InstallError::Nft { table: table.clone(), cause })?;
        Ok(Installed {
            nft,
            table,
            ruleset: Ruleset::default(),
            content: Content::default(),
            counted: BTreeSet::new(),
            gone: BTreeSet::new(),
            generation: 0,
        })
    }

    /// The table's name.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Whether the rules in force look marks up in a map.
    pub fn has_map(&self) -> bool {
        self.ruleset.map.is_some()
    }

    /// Whether anybody else has changed nftables since we looked.
    pub fn is_disturbed(&mut self) -> Result<bool, InstallError> {
        let generation = self.nft.generation();
        Ok(self.named(generation)? != self.generation)
    }

    /// Puts these rules into force, and this content. What is there already stays, what differs
    /// is replaced, all in one transaction.
    pub fn put(&mut self, ruleset: &Ruleset, content: Content) -> Result<Changes, InstallError> {
        let put = self.try_put(ruleset, &content);
        let changes = match put {
            Err(PutError::Foreign) => return Err(InstallError::Foreign(self.table.clone())),
            Err(PutError::Nft(cause)) => self.named(Err(cause))?,
            Ok(changes) => changes,
        };
        self.ruleset = ruleset.clone();
        self.content = content;
        Ok(changes)
    }

    fn try_put(&mut self, ruleset: &Ruleset, content: &Content) -> Result<Changes, PutError> {
        let generation = self.nft.generation()?;
        let mut found = Found::read(&mut self.nft, &self.table)?;
        if found.table.as_ref().is_some_and(|table| !is_ours(table)) {
            return Err(PutError::Foreign);
        }
        let mut transaction = Transaction::new(&self.table);
        let mut changes = Changes::default();
        if found.table.is_some() && !found.is_usable(ruleset) {
            transaction.delete_table();
            found = Found::default();
        }
        if found.table.is_none() {
            changes.made = true;
            transaction.add_table(TABLE_COMMENT);
        }
        for counter in [FAST, QUEUED] {
            if !found.counters.iter().any(|found| found.name == counter) {
                transaction.add_counter(counter);
            }
        }
        if let Some(map) = &ruleset.map {
            let before = if !found.has(map) {
                changes.map = true;
                transaction.add_map(&map.name, map.size);
                Vec::new()
            } else if self.ruleset.map.as_ref() == Some(map) {
                self.content.slots.clone()
            } else {
                in_order(&self.nft.elements(&self.table, &map.name, 0, map.size)?, 0, map.size)
            };
            changes.slots = replace(&mut transaction, map, 0, &before, &content.slots);
        }
        let mut counted = BTreeSet::new();
        if let Some(set) = &ruleset.targets {
            if found.has(set) {
                let counts = self.nft.counters_by_mark(&self.table, &set.name)?;
                counted = counts.iter().map(|count| count.mark).collect();
            } else {
                transaction.add_counters_by_mark(&set.name, set.size);
            }
            changes.counters = count_marks(&mut transaction, set, &mut counted, &content.marks);
        }
        if found.rules != rules_of(ruleset) || found.chains.len() != ruleset.chains.len() {
            changes.rules = true;
            put_rules(&mut transaction, ruleset, &found.chains);
        }
        let left = found
            .maps
            .iter()
            .filter(|found| !ruleset.sets().any(|wanted| wanted.name == found.name));
        left.for_each(|map| transaction.delete_map(&map.name));
        self.commit(transaction, generation)?;
        self.counted = counted;
        Ok(changes)
    }

    /// Puts other content into force; says how many slots differ.
    pub fn put_content(&mut self, content: Content) -> Result<usize, InstallError> {
        let Some(map) = &self.ruleset.map else { return Ok(0) };
        let mut transaction = Transaction::new(&self.table);
        let mut counted = self.counted.clone();
        if let Some(set) = &self.ruleset.targets {
            count_marks(&mut transaction, set, &mut counted, &content.marks);
        }
        let changed = replace(&mut transaction, map, 0, &self.content.slots, &content.slots);
        let committed = self.commit(transaction, self.generation);
        self.named(committed)?;
        self.counted = counted;
        self.content = content;
        Ok(changed)
    }

    /// Believes nothing any more: the next [`Installed::put`] reads the whole map.
    pub fn forget(&mut self) {
        self.ruleset = Ruleset::default();
        self.content = Content::default();
    }

    /// Compares the map with what it should have for `many` slots from `first` on, and mends it; says how
    /// many were wrong, and none when there are no such slots.
    pub fn check(&mut self, first: u32, many: u32) -> Result<Option<usize>, InstallError> {
        let Some(map) = self.ruleset.map.clone() else { return Ok(None) };
        let end = map.size.min(first.saturating_add(many));
        if first >= end {
            return Ok(None);
        }
        let elements = self.nft.elements(&self.table, &map.name, first, end);
        let found = in_order(&self.named(elements)?, first, end);
        let wanted = self.content.slots.get(first as usize..end as usize).unwrap_or_default();
        let mut transaction = Transaction::new(&self.table);
        let wrong = replace(&mut transaction, &map, first, &found, wanted);
        let committed = self.commit(transaction, self.generation);
        self.named(committed).map(|()| Some(wrong))
    }

    /// Ends the counters of targets that are gone: those that the table has had neither now nor when this
    /// was called last. So a target that is away for a moment goes on where it was.
    pub fn end_counters(&mut self) -> Result<(), InstallError> {
        let Some(set) = &self.ruleset.targets else { return Ok(()) };
        let gone: BTreeSet<u32> = self.counted.difference(&self.content.marks).copied().collect();
        let ended: Vec<u32> = gone.intersection(&self.gone).copied().collect();
        let mut transaction = Transaction::new(&self.table);
        transaction.delete_elements(&set.name, &ended);
        let committed = self.commit(transaction, self.generation);
        self.named(committed)?;
        self.counted.retain(|mark| !ended.contains(mark));
        self.gone = gone;
        Ok(())
    }

    /// What the kernel has counted for each mark.
    pub fn counters_by_mark(&mut self) -> Result<Vec<MarkCount>, InstallError> {
        let counts = self.nft.counters_by_mark(&self.table, TARGETS);
        self.named(counts)
    }

    /// What the kernel counts.
    pub fn counters(&mut self) -> Result<Vec<CounterInfo>, InstallError> {
        let counters = self.nft.counters(&self.table);
        self.named(counters)
    }

    /// Removes our table; says whether there was one.
    pub fn remove(&mut self) -> Result<bool, InstallError> {
        let table = self.nft.table(&self.table);
        match self.named(table)? {
            None => Ok(false),
            Some(table) if !is_ours(&table) => Err(InstallError::Foreign(self.table.clone())),
            Some(_) => {
                let mut transaction = Transaction::new(&self.table);
                transaction.delete_table();
                let removed = self.nft.commit(transaction);
                self.named(removed).map(|()| true)
            }
        }
    }

    /// What is there, whoever made it.
    pub fn look(&mut self) -> Result<Found, InstallError> {
        let found = Found::read(&mut self.nft, &self.table);
        self.named(found)
    }

    /// The elements of a map by slot.
    pub fn elements(&mut self, map: &MapInfo) -> Result<Vec<u32>, InstallError> {
        let size = map.size.unwrap_or(0);
        let elements = self.nft.elements(&self.table, &map.name, 0, size);
        self.named(elements).map(|elements| in_order(&elements, 0, size))
    }

    /// After this the generation is one higher, if nobody else changed anything since `generation`.
    fn commit(&mut self, transaction: Transaction, generation: u32) -> Result<(), NftError> {
        let changes = !transaction.is_empty();
        self.nft.commit(transaction)?;
        // The kernel leaves the zero out.
        self.generation = if changes { generation.wrapping_add(1).max(1) } else { generation };
        Ok(())
    }

    fn named<T>(&self, result: Result<T, NftError>) -> Result<T, InstallError> {
        result.map_err(|cause| InstallError::Nft { table: self.table.clone(), cause })
    }
}

/// The name of an instance's table.
pub fn table_name(instance: &Name) -> String {
    format!("markway-{instance}")
}

fn is_ours(table: &TableInfo) -> bool {
    table.comment.as_deref() == Some(TABLE_COMMENT)
}

#[derive(Debug)]
enum PutError {
    Foreign,
    Nft(NftError),
}

impl From<NftError> for PutError {
    fn from(cause: NftError) -> Self {
        PutError::Nft(cause)
    }
}

/// A table of nftables as it was found.
#[derive(Debug, Default)]
pub struct Found {
    pub table: Option<TableInfo>,
    pub chains: Vec<ChainInfo>,
    /// The comments of each chain's rules.
    pub rules: BTreeMap<String, Vec<String>>,
    pub maps: Vec<MapInfo>,
    pub counters: Vec<CounterInfo>,
}

impl Found {
    fn read(nft: &mut Nft, name: &str) -> Result<Self, NftError> {
        let Some(table) = nft.table(name)? else { return Ok(Found::default()) };
        let mut rules: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for rule in nft.rules(name)? {
            rules.entry(rule.chain).or_default().push(rule.comment.unwrap_or_default());
        }
        Ok(Found {
            table: Some(table),
            chains: nft.chains(name)?,
            rules,
            maps: nft.maps(name)?,
            counters: nft.counters(name)?,
        })
    }

    /// Whether our table is ours and can be changed into what is wanted without a gap.
    fn is_usable(&self, ruleset: &Ruleset) -> bool {
        let fits = |chain: &ChainInfo| {
            let mut wanted = ruleset.chains.iter();
            let entry = match wanted.find(|wanted| wanted.name == chain.name) {
                Some(wanted) => wanted.hook.map_or(Entry::None, Entry::Hook),
                None => return true,
            };
            entry == chain.entry
        };
        // One of our names with another size is not of our making.
        let has_size = |found: &MapInfo| {
            let mut wanted = ruleset.sets();
            wanted.all(|wanted| wanted.name != found.name || found.size == Some(wanted.size))
        };
        self.table.as_ref().is_some_and(|table| !table.dormant)
            && self.chains.iter().all(fits)
            && self.maps.iter().all(has_size)
    }

    fn has(&self, map: &Map) -> bool {
        self.maps.iter().any(|found| found.name == map.name)
    }

    /// Whether the table is one that `lb` made.
    pub fn is_ours(&self) -> bool {
        self.table.as_ref().is_some_and(is_ours)
    }
}

fn rules_of(ruleset: &Ruleset) -> BTreeMap<String, Vec<String>> {
    let comments = |rules: &[Rule]| rules.iter().map(|rule| rule.comment.clone()).collect();
    let chains = ruleset.chains.iter().filter(|chain| !chain.rules.is_empty());
    chains.map(|chain| (chain.name.to_string(), comments(&chain.rules))).collect()
}

fn put_rules(transaction: &mut Transaction, ruleset: &Ruleset, found: &[ChainInfo]) {
    for chain in found {
        transaction.clear_chain(&chain.name);
    }
    for chain in &ruleset.chains {
        if !found.iter().any(|found| found.name == chain.name) {
            transaction.add_chain(chain.name, chain.hook);
        }
    }
    for chain in &ruleset.chains {
        chain.rules.iter().for_each(|rule| transaction.add_rule(chain.name, rule));
    }
    for chain in found {
        if !ruleset.chains.iter().any(|wanted| wanted.name == chain.name) {
            transaction.delete_chain(&chain.name);
        }
    }
}

/// Gives each of these marks a counter, unless it has one; says how many got one. If there is no room, those of
/// others end.
fn count_marks(
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
fn in_order(elements: &[(u32, u32)], first: u32, end: u32) -> Vec<u32> {
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
fn replace(
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
            added.push((slot, after));
        }
    }
    transaction.delete_elements(&map.name, &deleted);
    transaction.add_elements(&map.name, &added);
    differ
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_sys::nft::Hook;

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
            let mut transaction = Transaction::new("t");
            assert_eq!(replace(&mut transaction, &map, 0, before, &after), differ);
            assert_eq!(transaction.is_empty(), differ == 0);
        }
    }

    #[test]
    fn a_table_is_usable_unless_somebody_bent_it() {
        let wanted = |name, hook| crate::rules::Chain { name, hook, rules: Vec::new() };
        let chains = vec![wanted("queue", None), wanted("prerouting", Some(Hook::Prerouting))];
        let ruleset = Ruleset { chains, ..Ruleset::default() };
        let found = |dormant, entry| Found {
            table: Some(TableInfo { comment: Some(TABLE_COMMENT.into()), dormant }),
            chains: vec![
                ChainInfo { name: "prerouting".into(), entry },
                ChainInfo { name: "left-over".into(), entry: Entry::Other },
            ],
            ..Found::default()
        };
        assert!(found(false, Entry::Hook(Hook::Prerouting)).is_usable(&ruleset));
        assert!(found(false, Entry::Hook(Hook::Prerouting)).is_ours());
        assert!(!found(true, Entry::Hook(Hook::Prerouting)).is_usable(&ruleset));
        for entry in [Entry::None, Entry::Other, Entry::Hook(Hook::Output)] {
            assert!(!found(false, entry).is_usable(&ruleset), "{entry:?}");
        }
        assert!(!Found::default().is_ours());
        let ruleset = Ruleset { map: Some(Map { name: "slots".into(), size: 997 }), ..ruleset };
        for (name, size, usable) in
            [("slots", 997, true), ("slots", 9, false), ("left-over", 9, true)]
        {
            let maps = vec![MapInfo { name: name.into(), size: Some(size) }];
            let found = Found { maps, ..found(false, Entry::Hook(Hook::Prerouting)) };
            assert_eq!(found.is_usable(&ruleset), usable, "{name} {size}");
        }
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
            let mut transaction = Transaction::new("t");
            let mut counted = of(before);
            assert_eq!(count_marks(&mut transaction, &set, &mut counted, &of(marks)), new);
            assert_eq!(counted, of(after));
            assert_eq!(transaction.is_empty(), new == 0);
        }
    }
}
