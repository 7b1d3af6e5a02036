//! What is found in nftables.

use super::Hook;

/// A table as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// What its maker wrote about it.
    pub comment: Option<String>,
    /// Whether it is switched off.
    pub dormant: bool,
}

/// A chain as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainInfo {
    /// Its name.
    pub name: String,
    /// Where packets enter it.
    pub entry: Entry,
}

/// How packets get into a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// From other chains only.
    None,
    /// By a hook as [`super::Transaction::add_chain`] makes it.
    Hook(Hook),
    /// By a hook with another place, type or policy.
    Other,
}

/// A rule as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    /// Its chain.
    pub chain: String,
    /// What its maker wrote about it.
    pub comment: Option<String>,
}

/// A set or map as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapInfo {
    /// Its name.
    pub name: String,
    /// How many elements it has room for.
    pub size: Option<u32>,
}

/// What a counter has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterInfo {
    /// Its name.
    pub name: String,
    /// Packets.
    pub packets: u64,
    /// Bytes of them, from the IP header on.
    pub bytes: u64,
}

/// What the element of a set has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkCount {
    /// The element.
    pub mark: u32,
    /// Packets.
    pub packets: u64,
    /// Bytes of them, from the IP header on.
    pub bytes: u64,
}
