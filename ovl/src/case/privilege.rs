//! How little `lb` needs: a user without rights, a root file system that cannot be written.

use anyhow::{Context, Result};

use super::table::marks_follow_table;
use super::verbs::connect_all_kinds;
use super::{Case, PLAIN, check};
use crate::lab::{Lab, PATIENCE, QUEUE};
use crate::trace::Trace;
use crate::wait;

pub const CASES: &[Case] = &[
    Case {
        name: "user",
        about: "lb --user keeps CAP_NET_ADMIN alone, under a system-call filter, and serves",
        run: serves_as_a_user,
        ..PLAIN
    },
    Case {
        name: "read-only-root",
        about: "lb runs where nothing but the folder of tables can be written",
        run: serves_with_a_root_that_is_read_only,
        ..PLAIN
    },
];

const CAP_NET_ADMIN: u64 = 1 << 12;

fn serves_as_a_user(lab: &mut Lab) -> Result<()> {
    lab.start_servers()?;
    lab.queue(&["--queue-num", QUEUE])?;
    lab.table(&["init"])?;
    lab.activate_all()?;
    lab.start_lb(&["--queue", QUEUE, "--user", "nobody"])?;
    // The filter comes last of all, after the log says ready.
    wait::until("the system-call filter", PATIENCE, || {
        // The thread of the queue may not be there yet.
        let modes = threads(lab, "Seccomp")?;
        Ok((modes.len() >= 2 && modes.iter().all(|mode| mode == "2")).then_some(()))
    })?;
    let nobody = lab.cluster.router()?.script("id -u nobody")?;
    let users = [nobody.trim(); 4].join("\t");
    let uids = each_thread(lab, "Uid")?;
    check(
        uids.iter().all(|ids| *ids == users),
        format!("user {users} alone"),
        format!("{uids:?}"),
    )?;
    for (set, expected) in [
        ("CapEff", CAP_NET_ADMIN),
        ("CapPrm", CAP_NET_ADMIN),
        ("CapInh", 0),
        ("CapAmb", 0),
        // Nothing that it might start gains any either.
        ("NoNewPrivs", 1),
    ] {
        let seen = each_thread(lab, set)?;
        check(
            seen.iter().all(|seen| u64::from_str_radix(seen, 16) == Ok(expected)),
            format!("{set} {expected:016x}"),
            format!("{seen:?}"),
        )?;
    }
    connect_all_kinds(lab, 4)?;

    follows_a_new_table(lab)?;

    let lb = lab.lb_mut()?;
    lb.signal("TERM")?;
    let status = lb.wait(PATIENCE)?;
    check(status.success(), "exit code 0", status)
}

/// A field of /proc/PID/status, of every thread of `lb` that is there.
fn threads(lab: &Lab, field: &str) -> Result<Vec<String>> {
    let id = lab.lb()?.id();
    let status = lab.cluster.router()?.script(&format!("cat /proc/{id}/task/*/status"))?;
    let values = status.lines().filter_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(values.map(|value| value.trim().to_owned()).collect())
}

/// The same, once all are there.
fn each_thread(lab: &Lab, field: &str) -> Result<Vec<String>> {
    let values = threads(lab, field)?;
    // The main thread and that of the queue.
    check(values.len() >= 2, format!("{field} of two threads"), format!("{values:?}"))?;
    Ok(values)
}

fn serves_with_a_root_that_is_read_only(lab: &mut Lab) -> Result<()> {
    lab.start_servers()?;
    lab.queue(&["--queue-num", QUEUE])?;
    let router = lab.cluster.router()?;
    // Every mount but /dev/shm; /run holds the log, which the runner has open for lb already.
    let mounts = router.script("cut -d' ' -f5 /proc/self/mountinfo")?;
    let remounts: String = mounts
        .lines()
        .filter(|path| !["/dev/shm", "/run"].contains(path))
        // What lies hidden under another mount is refused.
        .map(|path| format!("mount -o remount,bind,ro '{path}' 2>&- || true\n"))
        .collect();
    router.script(&remounts).context("make the root read-only")?;
    for path in ["/", "/dev", "/etc", "/root", "/tmp", "/var", "/var/tmp"] {
        let ran = router.run(&["touch", &format!("{path}/written")])?;
        check(
            ran.stderr().contains("Read-only file system"),
            format!("{path} to be read-only"),
            format!("exit code {:?} of touch: {}", ran.code(), ran.stderr()),
        )?;
    }
    lab.table(&["init"])?;
    lab.activate_all()?;
    lab.start_lb(&["--queue", QUEUE])?;
    connect_all_kinds(lab, 4)?;
    follows_a_new_table(lab)
}

fn follows_a_new_table(lab: &Lab) -> Result<()> {
    lab.table(&["init", "--m", "499", "--keep"])?;
    let trace = Trace::of_marks(lab.cluster.router()?)?;
    marks_follow_table(lab, &trace, 499)?;
    connect_all_kinds(lab, 4)
}
