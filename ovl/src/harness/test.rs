//! All function tests: Rust functions and scenario files.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::case::{self, Case, On, is_soak};
use crate::lab::{Lab, Layout, SLOWNESS_OF_MACHINES};
use crate::scenario::Scenario;

/// How long machines may take to be there.
const MACHINES_BOOT: Duration = Duration::from_secs(300);

/// The project's own scenario files.
macro_rules! own {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../cases/", $name, ".case")))),*]
    };
}

const OWN: &[(&str, &str)] = own! {
    "topology-backend"
    "topology-bridge"
    "topology-diamond"
    "topology-dual-path"
    "topology-evil-tester"
    "topology-multihop"
    "topology-multilan"
    "topology-multilan-router"
    "topology-x-diamond"
    "topology-xnet"
    "topology-zones"
    "overlay-base"
    "overlay-lb"
    "overlay-mserver"
    "overlay-mserver-no-sctp"
    "nfqlb-basic"
    "nfqlb-dual-path"
    "nfqlb-fragrev"
    "nfqlb-fragrev-fast"
    "nfqlb-fragrev-queues"
    "nfqlb-mtu"
    "nfqlb-nft"
    "nfqlb-queues"
    "nfqlb-routers"
    "nfqlb-start"
    "nfqlb-start-empty"
    "nfqlb-targets"
    "nfqlb-udp"
    "traffic-ctraffic"
    "traffic-hello"
    "traffic-kahttp"
    "evil-losses"
    "evil-netem"
    "evil-orders"
    "evil-restart"
    "evil-squeeze"
    "link-impaired"
    "mtu-jumbo"
    "mtu-ladder"
    "sctp-evil"
    "squeeze-chain"
};

/// A function test of either kind.
#[derive(Clone)]
pub struct Test {
    pub name: String,
    /// What makes `ovl` find it: its name, or the path of its file.
    pub spec: String,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Function(&'static Case),
    Scenario(Box<Scenario>),
}

/// The project's own tests, in the order in which they are listed.
pub fn own() -> Result<Vec<Test>> {
    let functions = case::all().into_iter().map(|case| {
        Ok(Test {
            name: case.name.to_owned(),
            spec: case.name.to_owned(),
            kind: Kind::Function(case),
        })
    });
    let scenarios = OWN.iter().map(|(name, text)| {
        let scenario = Scenario::parse(&format!("{name}.case"), text)?;
        Ok(Test {
            name: (*name).to_owned(),
            spec: (*name).to_owned(),
            kind: Kind::Scenario(Box::new(scenario)),
        })
    });
    functions.chain(scenarios).collect()
}

/// Whether a user means a file.
pub fn is_path(spec: &str) -> bool {
    spec.contains('/') || spec.ends_with(".case")
}

/// Reads a scenario file of the user.
pub fn read(path: &str) -> Result<Test> {
    let text = fs::read_to_string(path).with_context(|| format!("read scenario {path}"))?;
    let Some(name) = Path::new(path).file_stem().and_then(|stem| stem.to_str()) else {
        bail!("read scenario {path}: its name is not UTF-8");
    };
    let scenario = Scenario::parse(path, &text)?;
    Ok(Test {
        name: name.to_owned(),
        spec: path.to_owned(),
        kind: Kind::Scenario(Box::new(scenario)),
    })
}

/// Finds a test by its name or the path of its file.
pub fn find(spec: &str) -> Result<Test> {
    if is_path(spec) {
        return read(spec);
    }
    let found = own()?.into_iter().find(|test| test.name == spec);
    found.with_context(|| format!("find case {spec}: there is none (see ovl test --list)"))
}

impl Test {
    pub fn about(&self) -> &str {
        match &self.kind {
            Kind::Function(case) => case.about,
            Kind::Scenario(scenario) => &scenario.about,
        }
    }

    /// How long it may take, cluster included.
    pub fn limit(&self) -> Duration {
        match &self.kind {
            Kind::Function(case) => case::limit(case.limit),
            Kind::Scenario(scenario) => case::limit(scenario.limit),
        }
    }

    /// Whether it needs the machine for itself.
    pub fn is_alone(&self) -> bool {
        match &self.kind {
            // Long forms want an idle machine, whatever they test.
            Kind::Function(case) => case.alone || is_soak(),
            Kind::Scenario(scenario) => scenario.alone,
        }
    }

    /// Whether it can run on nodes of this kind.
    pub fn runs_on(&self, machines: bool) -> bool {
        match self.on() {
            On::Any => true,
            On::Namespaces => !machines,
            On::Machines => machines,
        }
    }

    fn on(&self) -> On {
        match &self.kind {
            Kind::Function(case) => case.on,
            Kind::Scenario(scenario) => scenario.on,
        }
    }

    /// Whether both want the same cluster, and are of the kind that can be cleared up after.
    pub fn shares_cluster_with(&self, other: &Self) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::Function(case), Kind::Function(other)) => {
                let prepared = |case: &Case| case.setting.is_none();
                prepared(case) && prepared(other) && case.shape == other.shape
            }
            _ => false,
        }
    }

    /// How long it may take on machines, whose processors may be slow.
    pub fn limit_on_machines(&self, boots: bool) -> Duration {
        let boot = if boots { MACHINES_BOOT } else { Duration::ZERO };
        self.limit() * SLOWNESS_OF_MACHINES + boot
    }

    pub fn layout(&self) -> Layout {
        match &self.kind {
            Kind::Function(case) => case.layout(),
            Kind::Scenario(scenario) => scenario.layout.clone(),
        }
    }

    pub fn run(&self, lab: &mut Lab) -> Result<()> {
        match &self.kind {
            Kind::Function(case) => {
                if case.setting.is_none() {
                    lab.prepare(case.shape)?;
                }
                (case.run)(lab)
            }
            Kind::Scenario(scenario) => scenario.run(lab),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_file_is_listed_and_every_name_comes_once() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/cases");
        let files: BTreeSet<String> = fs::read_dir(folder)
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter_map(|name| name.strip_suffix(".case").map(str::to_owned))
            .collect();
        assert_eq!(files, OWN.iter().map(|(name, _)| (*name).to_owned()).collect());
        let tests = own().unwrap();
        let names: BTreeSet<_> = tests.iter().map(|test| &test.name).collect();
        assert_eq!(names.len(), tests.len());
        assert!(names.iter().all(|name| name.len() <= 24), "{names:?}");
    }
}
