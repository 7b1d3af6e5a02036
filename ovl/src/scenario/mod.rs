//! Scenario files: function tests as a few lines of commands for nodes.
//!
//! A file is a header, which says what cluster the scenario wants, and then steps. A step has a
//! title, a deadline and actions. The language is described in docs/ovl.md.

mod parse;
mod run;

use std::fmt;
use std::time::Duration;

use anyhow::Result;

use crate::address::{NodeId, Role};
use crate::case::On;
use crate::lab::Layout;

/// A function test read from a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Where it was read from, for messages.
    pub file: String,
    /// One line about what must hold.
    pub about: String,
    pub layout: Layout,
    /// How long it may take, cluster included.
    pub limit: Duration,
    /// Whether it needs the machine for itself.
    pub alone: bool,
    pub needs: Vec<Feature>,
    /// What kind of nodes it is for.
    pub on: On,
    pub steps: Vec<Step>,
}

/// Something that not every kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    Nfqueue,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub line: usize,
    pub title: String,
    /// For all its actions together.
    pub limit: Duration,
    pub actions: Vec<Action>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    pub line: usize,
    pub verb: Verb,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Verb {
    /// A shell command on each of the nodes, one after the other.
    Run { nodes: Nodes, expected: Expected, command: String },
    /// A program in the background of each of the nodes.
    Start { nodes: Nodes, program: String, command: String },
    /// Links that are impaired, or no longer; the device is one of each of the nodes.
    Impair { nodes: Nodes, device: String, words: Vec<String> },
    /// Such a program must end by itself, with exit code 0.
    Await { nodes: Nodes, program: String },
    /// Such a program must be there still, and is ended.
    Stop { nodes: Nodes, program: String },
}

/// What a command must do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Expected {
    Success,
    /// It may fail until then.
    SuccessWithin(Duration),
    Failure,
    /// Succeed, and print the same on all of the nodes.
    Same,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Nodes {
    All,
    OfRole(Role),
    /// From the first to the last of each pair.
    Numbered(Vec<(NodeId, NodeId)>),
}

impl Scenario {
    /// Reads the text of a file; errors begin with FILE:LINE.
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        parse::parse(file, text)
    }
}

impl Nodes {
    fn holds(&self, node: NodeId) -> bool {
        match self {
            Self::All => true,
            Self::OfRole(role) => node.role() == *role,
            Self::Numbered(ranges) => ranges.iter().any(|(a, b)| (*a..=*b).contains(&node)),
        }
    }

    /// Those that are listed one by one.
    fn named(&self) -> impl Iterator<Item = NodeId> {
        let ranges = match self {
            Self::Numbered(ranges) => ranges.as_slice(),
            Self::All | Self::OfRole(_) => &[],
        };
        ranges.iter().filter(|(first, last)| first == last).map(|(first, _)| *first)
    }
}

/// As it is written in a file.
impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::OfRole(Role::Server) => f.write_str("vm"),
            Self::OfRole(Role::Router) => f.write_str("router"),
            Self::OfRole(Role::Tester) => f.write_str("tester"),
            Self::Numbered(ranges) => {
                let texts: Vec<String> = ranges
                    .iter()
                    .map(|(first, last)| match first == last {
                        true => first.number().to_string(),
                        false => format!("{}-{}", first.number(), last.number()),
                    })
                    .collect();
                f.write_str(&texts.join(","))
            }
        }
    }
}
