//! What `lb` has in nftables: found, made, changed in place, checked and mended.

mod difference;
mod found;
mod reading;

use std::collections::{BTreeMap, BTreeSet};

use lb_core::target::Mark;
use lb_sys::nft::{MapValue, Nft, NftError, TableFamily, TableId, Transaction};
use lb_sys::shm::Name;
use thiserror::Error;

use crate::rules::{Map, Table};
use difference::{count_marks, in_order, put_rules, replace, replace_hops, rules_of};
pub use found::Found;
use found::{TABLE_COMMENT, is_ours};

/// The word for a slot of which the map has nothing. No mark of a map is this number.
pub const NOTHING: u32 = Mark::EMPTY;

/// There may be a table of ours in each; the first one is always there.
const FAMILIES: [TableFamily; 2] = [TableFamily::Inet, TableFamily::Netdev];

/// Why our tables could not be had.
#[derive(Debug, Error)]
pub enum InstallError {
    /// The name is taken.
    #[error(
        "table {0}: it is there and was not made by lb; choose another --instance, or remove it"
    )]
    Foreign(TableId),
    /// nftables refused.
    #[error("table {table}: {cause}")]
    Nft {
        /// The table.
        table: TableId,
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
    /// Next hops of marks, by the map that has them.
    pub hops: BTreeMap<&'static str, BTreeMap<u32, Vec<u8>>>,
}

/// The tables of an instance, one in each family. They are changed together.
#[derive(Debug)]
pub struct Installed {
    nft: Nft,
    /// What is in force as far as we know.
    in_force: [InForce; 2],
    content: Content,
    /// The generation of nftables while nobody else changes anything.
    generation: u32,
}

/// A table of one family.
#[derive(Clone, Debug)]
struct InForce {
    id: TableId,
    rules: Option<Table>,
    /// Marks that have a counter.
    counted: BTreeSet<u32>,
    /// Those of them that had no target when it was looked last.
    gone: BTreeSet<u32>,
}

/// What it took to put something into force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Whether a table was not there, or not usable.
    pub made: bool,
    /// Whether rules or chains were changed.
    pub rules: bool,
    /// How many elements of the map were changed.
    pub slots: usize,
    /// How many next hops were changed.
    pub hops: usize,
    /// How many counters of targets were made.
    pub counters: usize,
}

impl Installed {
    /// Opens nftables; nothing is changed.
    pub fn open(instance: &Name) -> Result<Self, InstallError> {
        let in_force = FAMILIES.map(|family| InForce {
            id: TableId { family, name: table_name(instance) },
            rules: None,
            counted: BTreeSet::new(),
            gone: BTreeSet::new(),
        });
        let nft = Nft::open().map_err(named(&in_force[0].id))?;
        Ok(Installed { nft, in_force, content: Content::default(), generation: 0 })
    }

    /// The table that marks and queues.
    pub fn table(&self) -> &TableId {
        &self.in_force[0].id
    }

    /// Whether the rules in force look marks up in a map.
    pub fn has_map(&self) -> bool {
        self.in_force.iter().any(|table| table.map().is_some())
    }

    /// Whether these rules are in force.
    pub fn has_rules(&self, tables: &[Table]) -> bool {
        self.in_force.iter().all(|table| table.rules.as_ref() == wanted_of(tables, table))
    }

    /// Whether anybody else has changed nftables since we looked.
    pub fn is_disturbed(&mut self) -> Result<bool, InstallError> {
        let generation = self.nft.generation().map_err(named(self.table()))?;
        Ok(generation != self.generation)
    }

    /// Puts these rules into force, and this content. What is there already stays, what differs
    /// is replaced, all in one transaction.
    pub fn put(&mut self, tables: &[Table], content: Content) -> Result<Changes, InstallError> {
        let generation = self.nft.generation().map_err(named(self.table()))?;
        let mut transaction = Transaction::new(self.table());
        let mut changes = Changes::default();
        let mut in_force = self.in_force.clone();
        for table in &mut in_force {
            transaction.go_to(&table.id);
            let wanted = wanted_of(tables, table);
            self.put_table(table, wanted, &content, &mut transaction, &mut changes)?;
        }
        self.commit(transaction, generation)?;
        self.in_force = in_force;
        self.content = content;
        Ok(changes)
    }

    /// Adds to the transaction what makes a table as it is wanted.
    fn put_table(
        &mut self,
        table: &mut InForce,
        wanted: Option<&Table>,
        content: &Content,
        transaction: &mut Transaction,
        changes: &mut Changes,
    ) -> Result<(), InstallError> {
        let id = &table.id;
        let mut found = Found::read(&mut self.nft, id).map_err(named(id))?;
        let Some(wanted) = wanted else {
            if found.is_ours() {
                transaction.delete_table();
                changes.rules = true;
            }
            table.rules = None;
            return Ok(());
        };
        if found.table.is_some() && !found.is_ours() {
            return Err(InstallError::Foreign(id.clone()));
        }
        if found.table.is_some() && !found.is_usable(wanted) {
            transaction.delete_table();
            found = Found::default();
        }
        if found.table.is_none() {
            changes.made = true;
            transaction.add_table(TABLE_COMMENT);
        }
        for counter in wanted.counters {
            if !found.counters.iter().any(|found| found.name == *counter) {
                transaction.add_counter(counter);
            }
        }
        if let Some(map) = &wanted.map {
            let before = if !found.has(map) {
                transaction.add_map(&map.name, map.size, MapValue::Mark);
                Vec::new()
            } else if table.map() == Some(map) {
                self.content.slots.clone()
            } else {
                let elements = self.nft.elements(id, &map.name, 0, map.size);
                in_order(&elements.map_err(named(id))?, 0, map.size)
            };
            changes.slots += replace(transaction, map, 0, &before, &content.slots);
        }
        for (map, value) in &wanted.hops {
            let mut before = BTreeMap::new();
            if found.has(map) {
                let values = self.nft.values(id, &map.name).map_err(named(id))?;
                before = values.into_iter().collect();
            } else {
                transaction.add_map(&map.name, map.size, *value);
            }
            let wanted = content.hops_of(map);
            changes.hops += replace_hops(transaction, (map, *value), &before, wanted);
        }
        table.counted.clear();
        if let Some(set) = &wanted.targets {
            if found.has(set) {
                let counts = self.nft.counters_by_mark(id, &set.name).map_err(named(id))?;
                table.counted = counts.iter().map(|count| count.mark).collect();
            } else {
                transaction.add_counters_by_mark(&set.name, set.size);
            }
            changes.counters += count_marks(transaction, set, &mut table.counted, &content.marks);
        }
        if found.rules != rules_of(wanted) || found.chains.len() != wanted.chains.len() {
            changes.rules = true;
            put_rules(transaction, wanted, &found.chains, &found.rules);
        }
        let left =
            found.maps.iter().filter(|found| !wanted.sets().any(|map| map.name == found.name));
        left.for_each(|map| transaction.delete_map(&map.name));
        table.rules = Some(wanted.clone());
        Ok(())
    }

    /// Puts other content into force; says how many slots differ.
    pub fn put_content(&mut self, content: Content) -> Result<usize, InstallError> {
        let mut transaction = Transaction::new(self.table());
        let mut in_force = self.in_force.clone();
        let mut changed = 0;
        for table in &mut in_force {
            let Some(rules) = &table.rules else { continue };
            transaction.go_to(&table.id);
            if let Some(set) = &rules.targets {
                count_marks(&mut transaction, set, &mut table.counted, &content.marks);
            }
            if let Some(map) = &rules.map {
                changed = replace(&mut transaction, map, 0, &self.content.slots, &content.slots);
            }
            for (map, value) in &rules.hops {
                let before = self.content.hops_of(map);
                replace_hops(&mut transaction, (map, *value), before, content.hops_of(map));
            }
        }
        self.commit(transaction, self.generation)?;
        self.in_force = in_force;
        self.content = content;
        Ok(changed)
    }

    /// Believes nothing any more: the next [`Installed::put`] reads the whole map.
    pub fn forget(&mut self) {
        self.in_force.iter_mut().for_each(|table| table.rules = None);
        self.content = Content::default();
    }

    /// Compares the maps with what they should have for `many` slots from `first` on, and mends them; says how
    /// many were wrong, and none when there are no such slots.
    pub fn check(&mut self, first: u32, many: u32) -> Result<Option<usize>, InstallError> {
        let mut transaction = Transaction::new(self.table());
        let mut checked = None;
        for table in &self.in_force {
            let Some(rules) = &table.rules else { continue };
            let id = &table.id;
            transaction.go_to(id);
            for (map, value) in rules.hops.iter().filter(|_| first == 0) {
                let found = self.nft.values(id, &map.name).map_err(named(id))?;
                let found = found.into_iter().collect();
                let wanted = self.content.hops_of(map);
                let wrong = replace_hops(&mut transaction, (map, *value), &found, wanted);
                checked = Some(checked.unwrap_or(0) + wrong);
            }
            let Some(map) = &rules.map else { continue };
            let end = map.size.min(first.saturating_add(many));
            if first < end {
                let elements = self.nft.elements(id, &map.name, first, end).map_err(named(id))?;
                let found = in_order(&elements, first, end);
                let wanted =
                    self.content.slots.get(first as usize..end as usize).unwrap_or_default();
                let wrong = replace(&mut transaction, map, first, &found, wanted);
                checked = Some(checked.unwrap_or(0) + wrong);
            }
        }
        self.commit(transaction, self.generation)?;
        Ok(checked)
    }

    /// Ends the counters of targets that are gone: those that the table has had neither now nor when this
    /// was called last. So a target that is away for a moment goes on where it was.
    pub fn end_counters(&mut self) -> Result<(), InstallError> {
        let mut transaction = Transaction::new(self.table());
        let mut in_force = self.in_force.clone();
        for table in &mut in_force {
            let Some(set) = table.rules.as_ref().and_then(|rules| rules.targets.as_ref()) else {
                continue;
            };
            let gone: BTreeSet<u32> =
                table.counted.difference(&self.content.marks).copied().collect();
            let ended: Vec<u32> = gone.intersection(&table.gone).copied().collect();
            transaction.go_to(&table.id);
            transaction.delete_elements(&set.name, &ended);
            table.counted.retain(|mark| ended.binary_search(mark).is_err());
            table.gone = gone;
        }
        self.commit(transaction, self.generation)?;
        self.in_force = in_force;
        Ok(())
    }

    /// To be called before rules that queue by the target NFQUEUE.
    pub fn load_queue_target(&mut self) -> Result<(), InstallError> {
        self.nft.load_queue_target().map_err(named(self.table()))
    }

    /// Removes our tables; says of each whether there was one.
    pub fn remove(&mut self) -> Result<Vec<(TableId, bool)>, InstallError> {
        let mut transaction = Transaction::new(self.table());
        let mut removed = Vec::new();
        for table in &self.in_force {
            let id = &table.id;
            let found = self.nft.table(id).map_err(named(id))?;
            match &found {
                Some(found) if is_ours(found) => {
                    transaction.go_to(id);
                    transaction.delete_table();
                }
                // Only the first is always ours to have.
                Some(_) if id == self.table() => return Err(InstallError::Foreign(id.clone())),
                _ => {}
            }
            removed.push((id.clone(), found.as_ref().is_some_and(is_ours)));
        }
        self.commit(transaction, 0)?;
        Ok(removed)
    }

    /// After this the generation is one higher, if nobody else changed anything since `generation`.
    fn commit(&mut self, transaction: Transaction, generation: u32) -> Result<(), InstallError> {
        let changes = !transaction.is_empty();
        self.nft.commit(transaction).map_err(|cause| {
            let is_about = |table: &&InForce| cause.is_about(table.id.family);
            let table = self.in_force.iter().find(is_about).unwrap_or(&self.in_force[0]);
            InstallError::Nft { table: table.id.clone(), cause }
        })?;
        // The kernel leaves the zero out.
        self.generation = if changes { generation.wrapping_add(1).max(1) } else { generation };
        Ok(())
    }
}

impl InForce {
    fn map(&self) -> Option<&Map> {
        self.rules.as_ref().and_then(|rules| rules.map.as_ref())
    }
}

impl Content {
    fn hops_of(&self, map: &Map) -> &BTreeMap<u32, Vec<u8>> {
        static NONE: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        self.hops.get(map.name.as_str()).unwrap_or(&NONE)
    }
}

/// The name of an instance's tables.
pub fn table_name(instance: &Name) -> String {
    format!("markway-{instance}")
}

fn wanted_of<'a>(tables: &'a [Table], table: &InForce) -> Option<&'a Table> {
    tables.iter().find(|wanted| wanted.family == table.id.family)
}

fn named(table: &TableId) -> impl Fn(NftError) -> InstallError + use<> {
    let table = table.clone();
    move |cause| InstallError::Nft { table: table.clone(), cause }
}
