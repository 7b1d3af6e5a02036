//! Servers, routers with `lb`, and break-test on the tester, while something is done to them.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::super::fast_plane::{ROOM, VIPS};
use super::{Plane, Report, is_soak, turns};
use crate::address::{CLUSTER_NET, FAMILIES, Family, NodeId, Role};
use crate::lab::{Lab, PATIENCE, QUEUE};
use crate::process::Process;
use crate::wait;

/// The port of the ctraffic servers.
pub const ECHO_PORT: u16 = 5003;

/// What break-test runs in its middle: it lets the case act, and returns when that is done.
const DISTURB: &str = "#!/bin/sh
: >/run/disturb.asked
for turn in $(seq 9000); do
    [ ! -e /run/disturb.done ] || exit 0
    sleep 0.01
done
exit 1
";

const PICTURE: &str = "/run/breaks.svg";

pub struct Stage<'a> {
    pub lab: &'a mut Lab,
    plane: Plane,
    balancers: BTreeMap<NodeId, Process>,
}

/// What break-test found, and what came of the disturbance.
pub struct Measured<T> {
    pub report: Report,
    pub value: T,
}

/// How long break-test runs.
pub fn seconds() -> u32 {
    if is_soak() { 60 } else { 4 }
}

impl<'a> Stage<'a> {
    /// Starts servers, and `lb` on every router.
    pub fn new(lab: &'a mut Lab, plane: Plane) -> Result<Self> {
        lab.serve("ctraffic", ECHO_PORT)?;
        let mut stage = Self { lab, plane, balancers: BTreeMap::new() };
        for id in stage.routers() {
            stage.lab.cluster.node(id)?.script("shm-tool init; shm-tool activate 1 2 3 4")?;
            stage.start_lb(id)?;
        }
        Ok(stage)
    }

    pub fn routers(&self) -> Vec<NodeId> {
        let ids = self.lab.cluster.ids().into_iter();
        ids.filter(|id| id.role() == Role::Router).collect()
    }

    /// Starts `lb` and waits until it serves.
    pub fn start_lb(&mut self, id: NodeId) -> Result<()> {
        let plane: &[&str] = if self.plane == Plane::Fast { &["--fast"] } else { &[] };
        let words = [&["lb", "--queue", QUEUE], &VIPS[..], &ROOM[..], plane].concat();
        let mut lb = self.lab.cluster.node(id)?.spawn("lb", &words)?;
        lb.wait_for_log("ready", PATIENCE)?;
        self.balancers.insert(id, lb);
        Ok(())
    }

    /// Ends `lb` by a signal.
    pub fn end(&mut self, id: NodeId, signal: &str) -> Result<()> {
        let mut lb = self.balancers.remove(&id).context("lb was not started")?;
        lb.signal(signal)?;
        lb.wait(PATIENCE).map(drop)
    }

    /// Packets for virtual addresses that a router had, in both planes.
    pub fn packets(&self, id: NodeId) -> Result<u64> {
        let report = self.lab.cluster.node(id)?.run(&["lb", "--status", "--json"])?.success()?;
        let report: Value = serde_json::from_str(&report).context("read lb --status")?;
        let of = |plane: &str| {
            report[plane]["packets"].as_u64().with_context(|| format!("read lb --status: {report}"))
        };
        // In the slow plane there is no counter of the other.
        let fast = if self.plane == Plane::Fast { of("fast")? } else { 0 };
        Ok(fast + of("queued")?)
    }

    /// Runs break-test, and in its middle the disturbance.
    pub fn measure<T>(
        &mut self,
        command: &str,
        disturb: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<Measured<T>> {
        let cluster = self.lab.cluster.clone();
        let tester = cluster.tester()?;
        let script = format!("/usr/local/bin/{command}");
        tester.write(&script, DISTURB)?;
        tester.script(&format!("chmod +x {script}"))?;
        let (seconds, port) = (seconds().to_string(), ECHO_PORT.to_string());
        let mut words = vec!["break-test", "-remote-port", &port, "-echo-port", &port];
        words.extend(["-duration-seconds", &seconds, "-output", "json"]);
        words.extend(["-plot", PICTURE, "-during", command]);
        let paths = paths();
        words.extend(paths.iter().map(String::as_str));
        let mut test = tester.spawn("break-test", &words)?;
        let half = Duration::from_secs(u64::from(self::seconds())) / 2;
        wait::until("break-test to come to its middle", half + PATIENCE, || {
            Ok(tester.entry().read_file("/run/disturb.asked")?.map(drop))
        })?;
        let value = disturb(self)?;
        tester.write("/run/disturb.done", "")?;
        test.wait(half + PATIENCE)?;
        let log = test.log();
        let json = log.lines().find(|line| line.starts_with('{'));
        let report = Report::parse(json.with_context(|| format!("no report: {log}"))?)?;
        let picture = tester.entry().read_file(PICTURE)?.context("break-test made no picture")?;
        crate::progress::keep("breaks.svg", &picture)?;
        Ok(Measured { report, value })
    }

    /// Does something once, in the long form several times.
    pub fn each_turn<T>(&mut self, mut act: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        (0..turns())
            .map(|turn| {
                if turn > 0 {
                    // So long, traffic is to be undisturbed between two turns.
                    thread::sleep(Duration::from_secs(1));
                }
                act(self)
            })
            .collect()
    }
}

/// The paths of break-test: to a server, and by the virtual addresses.
fn paths() -> Vec<String> {
    let server = NodeId::VM_003;
    let path = |name: &str, family, address| match family {
        Family::V4 => format!("{name}={address}"),
        Family::V6 => format!("{name}6={address}"),
    };
    let direct = FAMILIES.map(|family| path("direct", family, family.address(CLUSTER_NET, server)));
    let by_vip = FAMILIES.map(|family| path("vip", family, family.vip()));
    direct.into_iter().chain(by_vip).collect()
}
