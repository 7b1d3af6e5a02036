//! Which router of a tier handles the fragments between two addresses.
//!
//! The fragments of a datagram may come to different routers, and only one of them sees the first. So
//! all routers of a tier have one more table, with the routers as targets, and look fragments up in
//! it by what every fragment has: its addresses. The table is the same everywhere but for the own
//! mark, by which a router knows which fragments are for itself.

use thiserror::Error;

use crate::hash::{Hash, Slot};
use crate::key::Key;
use crate::table::Table;
use crate::target::Mark;
use crate::wire::Packet;
use crate::wire::ip::{self, Addresses};

/// The table of a tier, seen from one of its routers.
#[derive(Clone, Copy, Debug)]
pub struct Tier<'m> {
    table: Table<'m>,
    own: Mark,
}

/// A router that does not know its own mark would send its fragments to itself for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "as the table of a tier it needs the mark of this router: make it with `shm-tool init --own-mark MARK`"
)]
pub struct NoOwnMark;

/// Where the fragments between two addresses go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The hash of the addresses.
    pub hash: Hash,
    /// Its slot.
    pub slot: Slot,
    /// What the slot holds.
    pub held: Option<Mark>,
    /// The mark of another router; none if they are handled here, also while no router is active.
    pub other: Option<Mark>,
}

impl<'m> Tier<'m> {
    /// The tier of a table, which must tell the mark of this router.
    pub fn new(table: Table<'m>) -> Result<Self, NoOwnMark> {
        match table.config().own_mark {
            0 => Err(NoOwnMark),
            own => Mark::new(own).map(|own| Tier { table, own }).ok_or(NoOwnMark),
        }
    }

    /// The mark by which the others reach this router.
    pub fn own_mark(&self) -> Mark {
        self.own
    }

    /// Where the fragments between two addresses go. The protocol does not count: what later fragments of
    /// IPv6 say about it need not be true (RFC 8200, section 4.5).
    pub fn way(&self, addresses: Addresses<'_>) -> Way {
        let config = self.table.config();
        let hash = Key::tuple(addresses, 0, [0; 4]).hash(config.seed);
        let slot = hash.slot(config.slots);
        let held = self.table.mark(slot);
        Way { hash, slot, held, other: held.filter(|mark| *mark != self.own) }
    }

    /// As [`Tier::way`], of a fragment. Whatever is none has no way.
    pub fn way_of(&self, packet: Packet<'_>) -> Option<Way> {
        let ip = ip::parse(packet).ok()?;
        ip.fragment.map(|_| self.way(ip.addresses))
    }
}
