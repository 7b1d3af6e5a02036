//! Fuzz targets: functions that take any bytes and panic if a promise is broken.
//!
//! `run` lets libFuzzer look for such bytes. What it found worth keeping is in `corpus/`, what it found
//! to panic in `crashes/`; the crate's tests replay both.

mod choices;
mod flow;
mod fragments;
mod memory;
mod netlink;
mod stats_file;
mod table;
mod table_file;
mod walk;

/// Something to be fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, also that of its folders.
    pub name: &'static str,
    /// Takes an input; panics if a promise is broken.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 7] = [
    Target { name: "walk", run: walk::run },
    Target { name: "flow", run: flow::run },
    Target { name: "fragments", run: fragments::run },
    Target { name: "netlink", run: netlink::run },
    Target { name: "table", run: table::run },
    Target { name: "table_file", run: table_file::run },
    Target { name: "stats_file", run: stats_file::run },
];

/// The target of that name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
