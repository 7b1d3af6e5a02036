//! What a lane has done.

use serde::Serialize;

/// `received + duplicated = sent + refused + lost + dropped_full + held`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Frames that came in.
    pub received: u64,
    /// Of these, fragments.
    pub fragments: u64,
    /// The kernel lost them before they came in, because they came too fast. Not among `received`.
    pub missed: u64,
    pub sent: u64,
    /// The device did not take them.
    pub refused: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub corrupted: u64,
    pub delayed: u64,
    /// Went at once, before those that were delayed.
    pub hurried: u64,
    /// Datagrams whose fragments went in another order.
    pub rearranged: u64,
    /// Datagrams whose fragments went because the rest did not come.
    pub timed_out: u64,
    /// Datagrams and whole packets, each counted once, of which something was lost or corrupted.
    pub hit: u64,
    /// There was no room to delay them.
    pub dropped_full: u64,
    /// There was no room to hold them for their datagram, and they passed.
    pub passed_full: u64,
    /// Now.
    pub held: u64,
    pub held_bytes: u64,
    /// At most.
    pub held_peak: u64,
    pub held_bytes_peak: u64,
}
