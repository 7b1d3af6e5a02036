//! What was found of a table of ours, and whether it can be used.

use lb_sys::nft::{ChainInfo, CounterInfo, Entry, MapInfo, Nft, NftError, TableId, TableInfo};

use super::difference::Comments;
use crate::rules::{Map, Table};

/// By this the table is known to be ours.
pub(super) const TABLE_COMMENT: &str = "made by lb of Markway";

/// A table of nftables as it was found.
#[derive(Debug, Default)]
pub struct Found {
    pub table: Option<TableInfo>,
    pub chains: Vec<ChainInfo>,
    pub rules: Comments,
    pub maps: Vec<MapInfo>,
    pub counters: Vec<CounterInfo>,
}

impl Found {
    pub(super) fn read(nft: &mut Nft, id: &TableId) -> Result<Self, NftError> {
        let Some(table) = nft.table(id)? else { return Ok(Found::default()) };
        let mut rules = Comments::new();
        for rule in nft.rules(id)? {
            rules.entry(rule.chain).or_default().push(rule.comment.unwrap_or_default());
        }
        Ok(Found {
            table: Some(table),
            chains: nft.chains(id)?,
            rules,
            maps: nft.maps(id)?,
            counters: nft.counters(id)?,
        })
    }

    /// Whether our table is ours and can be changed into what is wanted without a gap.
    pub(super) fn is_usable(&self, wanted: &Table) -> bool {
        let fits = |chain: &ChainInfo| {
            let mut chains = wanted.chains.iter();
            let entry = match chains.find(|wanted| wanted.name == chain.name) {
                Some(wanted) => wanted.hook.clone().map_or(Entry::None, Entry::Hook),
                None => return true,
            };
            entry == chain.entry
        };
        // One of our names with another size is not of our making.
        let has_size = |found: &MapInfo| {
            let mut sets = wanted.sets();
            sets.all(|wanted| wanted.name != found.name || found.size == Some(wanted.size))
        };
        self.table.as_ref().is_some_and(|table| !table.dormant)
            && self.chains.iter().all(fits)
            && self.maps.iter().all(has_size)
    }

    pub(super) fn has(&self, map: &Map) -> bool {
        self.maps.iter().any(|found| found.name == map.name)
    }

    /// Whether the table is one that `lb` made.
    pub fn is_ours(&self) -> bool {
        self.table.as_ref().is_some_and(is_ours)
    }
}

pub(super) fn is_ours(table: &TableInfo) -> bool {
    table.comment.as_deref() == Some(TABLE_COMMENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_sys::nft::{Hook, TableFamily};

    #[test]
    fn a_table_is_usable_unless_somebody_bent_it() {
        let wanted = |name, hook| crate::rules::chain(name, hook, Vec::new());
        let chains = vec![wanted("queue", None), wanted("prerouting", Some(Hook::Prerouting))];
        let ruleset = Table {
            family: TableFamily::Inet,
            counters: &[],
            chains,
            map: None,
            targets: None,
            hops: Vec::new(),
        };
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
            assert!(!found(false, entry.clone()).is_usable(&ruleset), "{entry:?}");
        }
        assert!(!Found::default().is_ours());
        let ruleset = Table { map: Some(Map { name: "slots".into(), size: 997 }), ..ruleset };
        for (name, size, usable) in
            [("slots", 997, true), ("slots", 9, false), ("left-over", 9, true)]
        {
            let maps = vec![MapInfo { name: name.into(), size: Some(size) }];
            let found = Found { maps, ..found(false, Entry::Hook(Hook::Prerouting)) };
            assert_eq!(found.is_usable(&ruleset), usable, "{name} {size}");
        }
    }
}
