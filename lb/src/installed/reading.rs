//! What there is in nftables, for whoever wants to know.

use std::net::IpAddr;

use lb_sys::nft::{CounterInfo, MapInfo, MarkCount, TableId};

use super::difference::in_order;
use super::{Found, InstallError, Installed, named};
use crate::express;
use crate::means::MOST_SLOTS;
use crate::rules::TARGETS;

impl Installed {
    /// What the kernel counts in all our tables.
    pub fn counters(&mut self) -> Result<Vec<CounterInfo>, InstallError> {
        let mut counters = Vec::new();
        for table in self.in_force.iter().filter(|table| table.rules.is_some()) {
            counters.extend(self.nft.counters(&table.id).map_err(named(&table.id))?);
        }
        Ok(counters)
    }

    /// What is there, whoever made it.
    pub fn look(&mut self) -> Result<Vec<(TableId, Found)>, InstallError> {
        let ids = self.in_force.iter().map(|table| &table.id);
        ids.map(|id| {
            let found = Found::read(&mut self.nft, id).map_err(named(id))?;
            Ok((id.clone(), found))
        })
        .collect()
    }

    /// The elements of a map by slot.
    pub fn elements(&mut self, id: &TableId, map: &MapInfo) -> Result<Vec<u32>, InstallError> {
        // One that is larger is not of our making.
        let size = map.size.unwrap_or(0).min(MOST_SLOTS);
        let elements = self.nft.elements(id, &map.name, 0, size).map_err(named(id))?;
        Ok(in_order(&elements, 0, size))
    }

    /// What the kernel has counted for each mark.
    pub fn counters_by_mark(&mut self, id: &TableId) -> Result<Vec<MarkCount>, InstallError> {
        self.nft.counters_by_mark(id, TARGETS).map_err(named(id))
    }

    /// The next hops that a table has: of each a mark, the number of a device, and a neighbour.
    pub fn next_hops(
        &mut self,
        id: &TableId,
        found: &Found,
    ) -> Result<Vec<(u32, u32, IpAddr)>, InstallError> {
        let mut hops = Vec::new();
        for map in found.maps.iter().filter(|map| express::is_hops(&map.name)) {
            let values = self.nft.values(id, &map.name).map_err(named(id))?;
            hops.extend(values.into_iter().filter_map(|(mark, value)| {
                let (device, address) = express::next_hop_of(&value)?;
                Some((mark, device, address))
            }));
        }
        Ok(hops)
    }
}
