//! What somebody wants a cluster to be.

use std::collections::BTreeSet;
use std::path::{self, Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::address::NodeId;
use crate::backend::Backend;
use crate::bins;
use crate::cli::StartArgs;
use crate::lab::Layout;
use crate::overlay;
use crate::topology::Topology;
use crate::topology::plan::{Plan, Size, Variables};

/// Overlays that every cluster has unless it is bare.
const ALWAYS: [&str; 2] = ["base", "network-topology"];

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// A name, or a file.
    pub topology: String,
    pub size: Size,
    pub variables: Variables,
    pub overlays: Vec<String>,
    /// The folder of the binaries under test.
    pub bin_dir: PathBuf,
    pub backend: Backend,
}

impl Order {
    pub fn new(args: &StartArgs) -> Result<Self> {
        Ok(Self {
            topology: absolute(&args.topology)?,
            size: (&args.size).into(),
            variables: args.variables.iter().cloned().collect(),
            overlays: match args.bare {
                true => args.overlays.clone(),
                false => with_usual(&args.overlays),
            },
            bin_dir: bins::dir(args.bin_dir.as_deref())?,
            backend: args.backend.wanted()?,
        })
    }

    /// For a function test.
    pub fn of_test(wanted: &Layout, bin_dir: &Path, backend: Backend) -> Result<Self> {
        Ok(Self {
            topology: absolute(&wanted.topology)?,
            size: wanted.size,
            variables: wanted.variables.clone(),
            overlays: with_usual(&wanted.overlays),
            bin_dir: bin_dir.to_owned(),
            backend,
        })
    }

    pub fn plan(&self) -> Result<Plan> {
        Topology::find(&self.topology)?.plan(&self.size, &[], &self.variables)
    }

    /// The plan of a cluster that has these nodes.
    pub fn plan_of(&self, nodes: &BTreeSet<NodeId>) -> Result<Plan> {
        Topology::find(&self.topology)?.plan_of(nodes, &self.variables)
    }

    /// Lays the overlays into a folder.
    pub fn lay(&self, into: &Path) -> Result<()> {
        overlay::unpack(&self.overlays, &self.variables, &self.bin_dir, into).map(drop)
    }
}

fn with_usual(overlays: &[String]) -> Vec<String> {
    ALWAYS.iter().map(|name| (*name).to_owned()).chain(overlays.iter().cloned()).collect()
}

/// A topology's file, unlike a name, is to be found from other folders too.
fn absolute(topology: &str) -> Result<String> {
    if !topology.contains('/') && !Path::new(topology).is_file() {
        return Ok(topology.to_owned());
    }
    let path = path::absolute(topology).with_context(|| format!("find topology {topology}"))?;
    path.into_os_string()
        .into_string()
        .ok()
        .with_context(|| format!("find topology {topology}: its path is not UTF-8"))
}
