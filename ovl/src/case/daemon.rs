//! How `lb` starts, refuses to start and ends.

use std::time::Duration;

use anyhow::Result;

use super::verbs::connect_all_kinds;
use super::{Case, PLAIN, check, is_soak};
use crate::lab::{Lab, PATIENCE, QUEUE};
use crate::wait;

pub const CASES: &[Case] = &[
    Case {
        name: "queue-in-use",
        about: "a second lb on the same queue or instance is refused, the first goes on",
        run: |lab| {
            lab.start_service()?;
            refuses(lab, &["lb", "--queue", QUEUE, "--instance", "second"], "queue 2")?;
            refuses(lab, &["lb", "--queue", "3"], "instance")?;
            connect_all_kinds(lab, 4)
        },
        ..PLAIN
    },
    Case {
        name: "table-missing",
        about: "lb without its table says so",
        run: |lab| refuses(lab, &["lb", "--shm", "absent", "--queue", QUEUE], "absent"),
        ..PLAIN
    },
    Case {
        name: "rights-missing",
        about: "lb without the right to use the queue says so",
        run: |lab| {
            lab.table(&["init"])?;
            let without = ["setpriv", "--bounding-set=-net_admin", "--"];
            refuses(lab, &[&without[..], &["lb", "--queue", QUEUE]].concat(), "CAP_NET_ADMIN")
        },
        ..PLAIN
    },
    Case {
        name: "sigterm",
        about: "SIGTERM ends lb cleanly, with a summary",
        run: ends_on_sigterm,
        ..PLAIN
    },
    Case {
        name: "restart",
        about: "a new lb takes over from one that was killed under traffic",
        alone: true,
        run: taken_over_after_kill,
        ..PLAIN
    },
];

/// Far more than a turn takes.
const FLOOD_LIMIT: Duration = Duration::from_secs(60);

/// The command must end with an error in one line that names `what`.
fn refuses(lab: &Lab, words: &[&str], what: &str) -> Result<()> {
    let ran = lab.cluster.router()?.run(words)?;
    let stderr = ran.stderr();
    check(
        matches!(ran.code(), Some(1..=123)) && stderr.lines().count() == 1 && stderr.contains(what),
        format!("an exit code of failure and one line that names {what}"),
        format!("exit code {:?} and:\n{stderr}", ran.code()),
    )
}

fn ends_on_sigterm(lab: &mut Lab) -> Result<()> {
    lab.start_service()?;
    connect_all_kinds(lab, 4)?;
    let received = lab.stats()?.sum.received;
    let lb = lab.lb_mut()?;
    lb.signal("TERM")?;
    let status = lb.wait(PATIENCE)?;
    let log = lb.log();
    check(status.success(), "exit code 0", status)?;
    check(
        log.lines().last().is_some_and(|line| line.contains(&received.to_string())),
        format!("a last line that tells of {received} packets received"),
        log,
    )
}

fn taken_over_after_kill(lab: &mut Lab) -> Result<()> {
    let kills = if is_soak() { 500 } else { 5 };
    lab.start_service()?;
    connect_all_kinds(lab, 4)?;
    for _ in 0..kills {
        let flood = lab.start_flood(20_000, 500, FLOOD_LIMIT)?;
        serves(lab)?;
        let lb = lab.lb_mut()?;
        lb.signal("KILL")?;
        lb.wait(PATIENCE)?;
        check(!lab.stats()?.running, "stats that say not running", "running")?;
        lab.start_lb(&["--queue", QUEUE])?;
        serves(lab)?;
        lab.stop_flood(flood)?;
    }
    connect_all_kinds(lab, 4)
}

/// Waits until `lb` says that it runs and marks packets.
fn serves(lab: &Lab) -> Result<()> {
    wait::until("lb to mark packets", PATIENCE, || {
        let stats = lab.stats()?;
        let more = || Ok::<_, anyhow::Error>(lab.stats()?.sum.marked > stats.sum.marked);
        Ok((stats.running && more()?).then_some(()))
    })
}
