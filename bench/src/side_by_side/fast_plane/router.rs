//! The router whose rules `lb` makes itself, and what the kernel has of them.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, ensure};
use lb_sys::nft::{Nft, TableFamily, TableId};

use crate::side_by_side::consumer::Consumer;
use crate::side_by_side::lab::Lab;
use crate::side_by_side::rig::{Alternative, Rig, TABLE};

/// How long rules may take, with the largest of maps.
const PATIENCE: Duration = Duration::from_secs(20);

/// A router with rules by `lb`, or without.
pub struct Router<'a> {
    rig: &'a Rig,
    lab: &'a Lab,
    nft: Nft,
}

impl fmt::Debug for Router<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("lab", self.lab).finish_non_exhaustive()
    }
}

impl<'a> Router<'a> {
    /// Opens the nftables of this network.
    pub fn open(rig: &'a Rig, lab: &'a Lab) -> anyhow::Result<Self> {
        Ok(Router { rig, lab, nft: open_nft(lab)? })
    }

    /// Starts `lb` in the plane of this alternative, for the table that is there; returns when its rules
    /// are in force. What an earlier one has left is removed before.
    pub fn start(&mut self, plane: Alternative, cpu: Option<usize>) -> anyhow::Result<Consumer> {
        self.remove_rules()?;
        let mut command = self.rig.lb_with(&["--queue", "0", "--vip", "10.0.0.0/24"]);
        if plane == Alternative::Fast {
            command.arg("--fast");
        }
        let mut consumer = Consumer::start(command, self.lab, 1, cpu, &self.rig.signals)?;
        let mut has_map = false;
        let made = self.rig.signals.until(PATIENCE, || {
            consumer.cpu()?; // It tells if lb has ended.
            // Rules and maps come in one transaction.
            let is_there = self.nft.table(&nft_table())?.is_some();
            has_map = is_there && !self.nft.maps(&nft_table())?.is_empty();
            Ok(is_there)
        })?;
        ensure!(made, "lb made no rules within {PATIENCE:?}");
        ensure!(has_map == (plane == Alternative::Fast), "lb could not use the fast plane");
        Ok(consumer)
    }

    /// Moves with every transaction.
    pub fn generation(&mut self) -> anyhow::Result<u32> {
        Ok(self.nft.generation()?)
    }

    /// Removes what is left of an `lb` that has ended.
    pub fn remove_rules(&self) -> anyhow::Result<()> {
        let mut down = self.rig.lb_with(&["--down"]);
        self.lab.router.run(&mut down, "").context("remove the rules").map(drop)
    }
}

/// nftables of the router.
pub fn open_nft(lab: &Lab) -> anyhow::Result<Nft> {
    lab.router.enter(|| Nft::open().context("open nftables"))
}

fn nft_table() -> TableId {
    TableId { family: TableFamily::Inet, name: format!("markway-{TABLE}") }
}
