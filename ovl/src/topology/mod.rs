//! Topologies: which nodes there are, which networks join them and which way packets go.
//!
//! A topology is a file. `parse` makes lines of it, `layout` decides what they mean for the nodes of
//! a cluster, `files` writes that down for each node, `draw` for people.

mod draw;
mod file;
mod files;
mod layout;
mod parse;
pub mod plan;
#[cfg(test)]
mod simulate;
mod template;
pub mod verb;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};

pub use file::Topology;
use file::{Count, Gateway, Statement, Who};
use layout::Given;
use plan::{Plan, Size, Variables};

use crate::address::{NetId, NodeId, Role};

/// A list of folders with topology files, separated by colons; they come before the built-in ones.
pub const FOLDERS: &str = "OVL_TOPOLOGIES";

const EXTENSION: &str = "topo";

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../topologies/", $name, ".topo")))),*]
    };
}

/// The project's own, the default first.
const BUILT_IN: &[(&str, &str)] = built_in![
    "xnet",
    "dual-path",
    "multihop",
    "zones",
    "backend",
    "bridge",
    "multilan",
    "multilan-router",
    "evil-tester",
    "diamond",
    "x-diamond",
];

pub const DEFAULT: &str = "xnet";

const ROLES: [Role; 3] = [Role::Server, Role::Router, Role::Tester];

impl Topology {
    /// A topology by its name, or by the path of its file (with a `/` or ending in `.topo`).
    pub fn find(name: &str) -> Result<Self> {
        Self::find_in(name, &folders())
    }

    /// Reads a file and sees whether its lines fit together.
    pub fn parse(name: &str, file: &str, text: &str) -> Result<Self> {
        let topology = parse::parse(name, file, text)?;
        topology.check()?;
        Ok(topology)
    }

    /// All nodes of a cluster of this size, and `extra` ones beside them.
    pub fn plan(&self, size: &Size, extra: &[NodeId], variables: &Variables) -> Result<Plan> {
        self.plan_of(&self.nodes(size, extra)?, variables)
    }

    /// The plan of any nodes, for clusters that were scaled: nodes may be missing.
    pub fn plan_of(&self, nodes: &BTreeSet<NodeId>, variables: &Variables) -> Result<Plan> {
        let layout = self.layout(nodes, Given::Variables(variables))?;
        files::plan(&self.name, &layout, variables)
    }

    /// The nodes of a cluster of this size, and `extra` ones.
    fn nodes(&self, size: &Size, extra: &[NodeId]) -> Result<BTreeSet<NodeId>> {
        let mut ids = self.sized(size)?;
        for id in extra {
            ensure!(ids.insert(*id), "add {id}: it is in the cluster already");
        }
        Ok(ids)
    }

    fn find_in(name: &str, folders: &[PathBuf]) -> Result<Self> {
        let path = Path::new(name);
        if name.contains('/') || path.extension().is_some_and(|found| found == EXTENSION) {
            return Self::read(path);
        }
        for folder in folders {
            let path = folder.join(format!("{name}.{EXTENSION}"));
            if path.is_file() {
                return Self::read(&path);
            }
        }
        match BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            Some((name, text)) => Self::parse(name, &format!("{name}.{EXTENSION}"), text),
            None => {
                let known = names(folders).join(", ");
                bail!(
                    "find topology {name}: unknown; there are {known}, or give the path of a file"
                )
            }
        }
    }

    fn read(path: &Path) -> Result<Self> {
        let file = path.display().to_string();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let name = stem.with_context(|| format!("read topology {file}: its name is not UTF-8"))?;
        let mut text = String::new();
        // One byte more than allowed, so that a file that is too long is noticed.
        let limit = u64::try_from(parse::FILE_LIMIT)?.saturating_add(1);
        File::open(path)
            .and_then(|opened| opened.take(limit).read_to_string(&mut text))
            .with_context(|| format!("read topology {file}"))?;
        Self::parse(name, &file, &text)
    }

    fn sized(&self, size: &Size) -> Result<BTreeSet<NodeId>> {
        let asked = [
            (Role::Server, "nodes", size.nodes),
            (Role::Router, "routers", size.routers),
            (Role::Tester, "testers", size.testers),
        ];
        let mut ids = BTreeSet::new();
        for (role, word, asked) in asked {
            let Count { default, min, max } = self.size.of(role);
            let number = asked.unwrap_or(default);
            if !self.size.of(role).includes(number) {
                let range =
                    if min == max { format!("{min} only") } else { format!("{min} to {max}") };
                bail!("topology {}: {number} {word}: it works with {range}", self.name);
            }
            ids.extend(role.nodes(number));
        }
        Ok(ids)
    }

    /// Whether the lines fit together, whatever size and variables will be asked for.
    fn check(&self) -> Result<()> {
        for line in &self.lines {
            let at = |cause: String| self.error(line, &anyhow!(cause));
            if let Who::Numbers(ranges) = &line.who {
                let mut ids = ranges.iter().cloned().flatten().filter_map(NodeId::new);
                if let Some(id) = ids.find(|id| !self.size.allows(*id)) {
                    return Err(at(self.too_many(id)));
                }
            }
            if let Some(net) = line.what.nets().into_iter().find(|net| !self.is_used(*net)) {
                return Err(at(format!("unknown net {}: no node is on it", net.0)));
            }
            let Statement::Route(route) = &line.what else { continue };
            for hop in &route.hops {
                let Some(Gateway::Nodes(ids)) = &hop.gateway else { continue };
                if let Some(cause) = ids.iter().find_map(|id| self.may_lack(*id)) {
                    return Err(at(cause));
                }
            }
        }
        if let Some(net) = self.net_names.keys().find(|net| !self.is_used(**net)) {
            bail!("{}: net {} has a name, but no node is on it", self.file, net.0);
        }
        let largest = ROLES.iter().flat_map(|role| role.nodes(self.size.of(*role).max)).collect();
        for ids in [self.sized(&Size::default())?, largest] {
            for holds in [false, true] {
                self.layout(&ids, Given::Always(holds))?;
            }
        }
        Ok(())
    }

    fn is_used(&self, net: NetId) -> bool {
        self.lines.iter().any(|line| match &line.what {
            Statement::Nets(nets) => nets.contains(&net),
            // A net of addresses only.
            Statement::Addressing { how: file::Addressing::As(subnet), .. } => *subnet == net,
            _ => false,
        })
    }

    /// Why a node cannot be a gateway. Testers and cluster nodes may be absent, and then nobody
    /// needs a way to them, but a way over routers must be there.
    fn may_lack(&self, id: NodeId) -> Option<String> {
        let count = self.size.of(id.role());
        if !self.size.allows(id) {
            return Some(format!("unknown gateway: {}", self.too_many(id)));
        }
        let lacks = id.role() == Role::Router && id.index() >= count.min;
        lacks.then(|| {
            let needed = id.index() + 1;
            let (default, max) = (count.default.max(needed), count.max);
            format!(
                "gateway {id} may be absent: `size` must say `routers {default} of {needed}-{max}`"
            )
        })
    }
}

/// Names of all topologies, the default first.
pub fn names(folders: &[PathBuf]) -> Vec<String> {
    let mut own: Vec<String> = Vec::new();
    for folder in folders {
        // A folder that cannot be read holds no topologies.
        let entries = folder.read_dir().into_iter().flatten().flatten();
        let files = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION));
        own.extend(files.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())));
    }
    own.sort();
    own.dedup();
    let mut names: Vec<String> = BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
    own.retain(|name| !names.contains(name));
    names.extend(own);
    names
}

pub fn folders() -> Vec<PathBuf> {
    let folders = std::env::var_os(FOLDERS).unwrap_or_default();
    std::env::split_paths(&folders).filter(|folder| !folder.as_os_str().is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const HEAD: &str = "about a test\nsize nodes 2 routers 2 testers 1\n";
    const NETS: &str = "vm nets 0 1\nrouter nets 0 1 2\ntester nets 0 2\n";

    /// What is wrong with lines after a head of two lines.
    fn refused(lines: &str) -> String {
        Topology::parse("x", "x.topo", &format!("{HEAD}{lines}")).unwrap_err().to_string()
    }

    fn size(nodes: u8, routers: u8, testers: u8) -> Size {
        Size { nodes: Some(nodes), routers: Some(routers), testers: Some(testers) }
    }

    fn plan_error(name: &str, size: Size, extra: &[u8], variables: &[(&str, &str)]) -> String {
        let topology = Topology::find_in(name, &[]).unwrap();
        let extra: Vec<NodeId> = extra.iter().filter_map(|number| NodeId::new(*number)).collect();
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables = variables.iter().map(pair).collect();
        topology.plan(&size, &extra, &variables).unwrap_err().to_string()
    }

    #[test]
    fn lines_that_do_not_fit_are_refused() {
        let cases = [
            ("vm nets 0 1", "x.topo: no `nets` line for vm-201"),
            (
                &format!("{NETS}vm route default via 201 on 3"),
                "x.topo:6: unknown net 3: no node is on it",
            ),
            (&format!("{NETS}vm plain 7"), "x.topo:6: unknown net 7: no node is on it"),
            (&format!("{NETS}net 7 far"), "x.topo: net 7 has a name, but no node is on it"),
            (
                &format!("{NETS}vm route default via router on 2"),
                "x.topo:6: vm-001 has no device on net 2",
            ),
            (
                &format!("{NETS}vm route net 2 via 221 on 1"),
                "x.topo:6: gateway vm-221 has no address on net 1",
            ),
            (
                &format!("{NETS}vm route net 2 via tester on 1"),
                "x.topo:6: no tester has an address on net 1",
            ),
            (
                &format!("{NETS}vm route net 2 via 202 on 1"),
                "x.topo:6: gateway vm-202 may be absent: `size` must say `routers 2 of 2-20`",
            ),
            (
                &format!("{NETS}router route net 2 via 201 on 1"),
                "x.topo:6: vm-201 is its own gateway",
            ),
            (
                &format!("{NETS}vm plain 1\nvm route net 2 via 201 on 1"),
                "x.topo:7: eth1 of vm-001 has no address, so it reaches no gateway",
            ),
            (&format!("{NETS}221 mtu 1 1400"), "x.topo:6: vm-221 has no device on net 1"),
            (
                &format!("{NETS}vm bridge b of 1 2 address 1"),
                "x.topo:6: vm-001 has no device on net 2",
            ),
            (
                &format!(
                    "{NETS}router bridge a of 1 2 address 1\nrouter bridge b of 1 2 address 2"
                ),
                "x.topo:7: net 1 of vm-201 is in another bridge",
            ),
            (
                &format!("{NETS}router address 2 as 1"),
                "x.topo: vm-201 has the address of net 1 twice: eth1, eth2",
            ),
            // Also those that are in force only sometimes, or in larger clusters.
            (
                &format!("{NETS}vm route default via router on 2 if LATER"),
                "x.topo:6: vm-001 has no device on net 2",
            ),
            (
                &format!("{NETS}199 nets 0\nvm route default via router on 1"),
                "x.topo:7: vm-199 has no device on net 1",
            ),
        ];
        for (lines, cause) in cases {
            assert_eq!(refused(lines), cause, "{lines}");
        }
        let fixed = "about x\nsize nodes 1 routers 1 fixed testers 1 fixed\n";
        let refused = |line: &str| {
            let text = format!("{fixed}{NETS}{line}");
            Topology::parse("x", "x.topo", &text).unwrap_err().to_string()
        };
        assert_eq!(refused("201-202 forward"), "x.topo:6: no vm-202: 1 is the most of its role");
        assert_eq!(
            refused("vm route default via 202 on 1"),
            "x.topo:6: unknown gateway: no vm-202: 1 is the most of its role"
        );
    }

    #[test]
    fn a_size_that_does_not_work_is_refused() {
        let refused = |name, size| plan_error(name, size, &[], &[]);
        assert_eq!(
            refused("diamond", size(4, 3, 1)),
            "topology diamond: 3 routers: it works with 4 only"
        );
        assert_eq!(
            refused("zones", size(4, 3, 1)),
            "topology zones: 3 routers: it works with 1 to 2"
        );
        assert_eq!(
            refused("evil-tester", size(4, 1, 1)),
            "topology evil-tester: 1 testers: it works with 2 to 20"
        );
        assert_eq!(
            refused("xnet", size(201, 1, 1)),
            "topology xnet: 201 nodes: it works with 0 to 200"
        );
        assert_eq!(
            refused("xnet", size(4, 0, 1)),
            "topology xnet: 0 routers: it works with 1 to 20"
        );
        assert_eq!(
            plan_error("xnet", Size::default(), &[4], &[]),
            "add vm-004: it is in the cluster already"
        );
        assert_eq!(
            plan_error("diamond", Size::default(), &[205], &[]),
            "topology diamond: no vm-205: 4 is the most of its role"
        );
    }

    #[test]
    fn variables_that_do_not_work_are_refused() {
        let refused = |variable| plan_error("multilan-router", Size::default(), &[], &[variable]);
        assert_eq!(refused(("NODE", "7")), "variable NODE: nodes have it already");
        assert_eq!(refused(("A-B", "7")), "`A-B` is not the name of a variable");
        assert_eq!(refused(("MTU9", "1400")), "variable MTU9: net 9 is not one of the test's nets");
        assert_eq!(refused(("MTU0", "1400")), "variable MTU0: net 0 is not one of the test's nets");
        let mtu = "not a number from 1280 to 65535";
        assert_eq!(format!("variable MTU3: MTU `x`: {mtu}"), plan_chain(("MTU3", "x")));
        assert_eq!(format!("variable MTU: MTU ``: {mtu}"), plan_chain(("MTU", "")));
        assert_eq!(
            refused(("XLAN_TEMPLATE", "169.254.0.0/20/28")),
            "multilan-router.topo:17: variable XLAN_TEMPLATE: node 202 does not fit the 4 bits \
             for the node in 169.254.0.0/20/28"
        );
        assert_eq!(
            refused(("XLAN_TEMPLATE", "1.2.3.4")),
            "multilan-router.topo:16: variable XLAN_TEMPLATE: template `1.2.3.4`: not of the form \
             169.254.0.0/20/24"
        );
    }

    fn plan_chain((name, value): (&str, &str)) -> String {
        let topology = Topology::find_in("multilan-router", &[]).unwrap();
        let variables = [(name.to_owned(), value.to_owned())].into();
        format!("{:#}", topology.plan(&Size::default(), &[], &variables).unwrap_err())
    }

    #[test]
    fn topologies_are_found_by_name_folder_and_path() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().join("absent"), folder.path().to_owned()];
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("mine.topo", &format!("{HEAD}{NETS}"));
        write("xnet.topo", &format!("{HEAD}{NETS}"));
        write("broken.topo", "about x\n");
        write("notes.txt", "");
        let find = |name: &str| Topology::find_in(name, &folders);
        assert_eq!(find("mine").unwrap().about, "a test");
        assert_eq!(find("xnet").unwrap().about, "a test");
        assert_ne!(find("diamond").unwrap().about, "a test");
        let path = folder.path().join("mine.topo").display().to_string();
        assert_eq!(Topology::find_in(&path, &[]).unwrap().name, "mine");
        let broken = folder.path().join("broken.topo").display().to_string();
        let said = |name: &str| find(name).unwrap_err().to_string();
        assert_eq!(said("broken"), format!("{broken}: no `size` line"));
        assert_eq!(said("./nowhere"), "read topology ./nowhere");
        assert_eq!(said("nowhere.topo"), "read topology nowhere.topo");
        let built_in: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            said("nowhere"),
            format!(
                "find topology nowhere: unknown; there are {}, broken, mine, or give the path of a file",
                built_in.join(", ")
            )
        );
        assert_eq!(built_in[0], DEFAULT);
    }

    #[test]
    fn the_example_of_the_manual_works() {
        let manual = include_str!("../../../docs/topologies.md");
        let example = manual.split("```").nth(1).unwrap();
        let topology = Topology::parse("mine", "mine.topo", example).unwrap();
        assert_eq!(topology.about, "cluster nodes behind two routers in a row");
        for (name, _) in BUILT_IN {
            assert!(manual.contains(&format!("\n| `{name}` ")), "{name} is not in the manual");
        }
    }

    #[test]
    fn a_scaled_cluster_may_lack_nodes() {
        let topology = Topology::find_in("diamond", &[]).unwrap();
        let ids = [1, 7, 201, 202, 204, 221].into_iter().filter_map(NodeId::new).collect();
        let plan = topology.plan_of(&ids, &Variables::new()).unwrap();
        assert_eq!(plan.nodes.len(), 6);
        let node = plan.node(NodeId::ROUTER).unwrap().file(plan::NODE).unwrap();
        assert!(node.contains("NODES=\"1 7\"\nROUTERS=\"201 202 204\"\n"), "{node}");
        let routes = plan.node(NodeId::ROUTER).unwrap().file(plan::ROUTES4).unwrap();
        assert!(
            routes.starts_with("route add 192.168.2.0/24 via 192.168.4.204 dev eth3"),
            "{routes}"
        );
    }
}
