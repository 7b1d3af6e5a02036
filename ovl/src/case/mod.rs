//! Function tests that are Rust functions, for what shell commands cannot say.

mod breaks;
mod connectivity;
mod daemon;
mod datagrams;
mod drops;
mod fast_plane;
mod fragments;
mod icmp;
mod impaired;
mod ingress;
mod kernel_hash;
mod keys;
mod lb_check;
mod machines;
mod mark;
mod overload;
mod pmtu;
mod privilege;
mod queues;
mod reconfigure;
mod sctp;
mod sctp_paths;
mod sctp_stack;
mod table;
mod targets;
mod tier;
mod traffic;
mod verbs;

use std::env;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::lab::{Lab, Layout, Shape};
use crate::topology::plan::Size;

/// One function test. It gets a fresh cluster of its shape, in which nothing runs yet.
pub struct Case {
    pub name: &'static str,
    pub about: &'static str,
    pub shape: Shape,
    /// A cluster that its overlays prepare, in place of the shape.
    pub setting: Option<Setting>,
    /// How long it may take, cluster included.
    pub limit: Duration,
    /// Whether it needs the machine for itself.
    pub alone: bool,
    /// What kind of nodes it is for.
    pub on: On,
    pub run: fn(&mut Lab) -> Result<()>,
}

/// A cluster as a scenario file would ask for it.
#[derive(Clone, Copy)]
pub struct Setting {
    pub topology: &'static str,
    pub nodes: u8,
    pub testers: u8,
    pub overlays: &'static [&'static str],
    pub variables: &'static [(&'static str, &'static str)],
}

impl Case {
    /// The cluster that it wants.
    pub fn layout(&self) -> Layout {
        let Some(setting) = self.setting else { return self.shape.layout() };
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Layout {
            topology: setting.topology.to_owned(),
            size: Size {
                nodes: Some(setting.nodes),
                routers: None,
                testers: Some(setting.testers),
            },
            overlays: setting.overlays.iter().map(|name| (*name).to_owned()).collect(),
            variables: setting.variables.iter().map(owned).collect(),
        }
    }
}

/// What nodes may be for a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    Any,
    Namespaces,
    Machines,
}

/// Far more than a case needs that asks for no more, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(60);

/// How much longer a long form may take.
const SOAK_FACTOR: u32 = 10;

/// What most cases want; to be filled in with a name and the like.
const PLAIN: Case = Case {
    name: "",
    about: "",
    shape: Shape::STANDARD,
    setting: None,
    limit: LIMIT,
    alone: false,
    on: On::Namespaces,
    run: |_| bail!("the case does not say what to do"),
};

/// All cases in the order in which they are listed.
pub fn all() -> Vec<&'static Case> {
    let groups = [
        connectivity::CASES,
        traffic::CASES,
        targets::CASES,
        reconfigure::CASES,
        pmtu::CASES,
        queues::CASES,
        overload::CASES,
        table::CASES,
        mark::CASES,
        kernel_hash::CASES,
        keys::CASES,
        icmp::CASES,
        drops::CASES,
        fragments::CASES,
        datagrams::CASES,
        tier::CASES,
        daemon::CASES,
        lb_check::CASES,
        privilege::CASES,
        fast_plane::CASES,
        breaks::CASES,
        sctp::CASES,
        sctp_paths::CASES,
        machines::CASES,
        impaired::CASES,
        ingress::CASES,
    ];
    groups.into_iter().flatten().collect()
}

/// Whether the long forms of cases are wanted, which `make soak` runs.
pub fn is_soak() -> bool {
    env::var_os("MARKWAY_SOAK").is_some_and(|value| value == "1")
}

/// How long something may take, whose short form may take so long.
pub fn limit(short: Duration) -> Duration {
    if is_soak() { short * SOAK_FACTOR } else { short }
}

/// Fails unless `holds`; the report shows both texts.
pub fn check(holds: bool, expected: impl fmt::Display, seen: impl fmt::Display) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Mismatch { expected: expected.to_string(), seen: seen.to_string() }.into())
}

/// A case that this machine's kernel cannot run, and why. Whatever else is missing is a failure.
#[derive(Debug)]
pub struct Skip(pub String);

#[derive(Debug)]
pub struct Mismatch {
    expected: String,
    seen: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |text: &str| text.trim_end().replace('\n', "\n          ");
        write!(f, "expected: {}\nseen:     {}", text(&self.expected), text(&self.seen))
    }
}

impl Error for Mismatch {}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Skip {}
