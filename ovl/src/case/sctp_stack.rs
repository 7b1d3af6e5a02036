//! The tests of crate `sctp-stack` on a kernel that has SCTP: of both stacks, and of the two with each other. They
//! run on a router, which needs none of its networks for that.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;

use super::check;
use crate::address::NodeId;
use crate::bins::SCTP_TESTS;
use crate::lab::Lab;
use crate::node::Node;
use crate::progress;

/// How long they may take. Without KVM it is one to two minutes on an idle machine.
const WHILE: Duration = Duration::from_secs(400);

/// In the names of tests of the user stack, and of those of the kernel's.
const USER: &str = "user::";
const KERNEL: &str = "kernel::";

/// Runs those of the kernel's stack, which are as many as those of the user stack, and those of both together.
pub fn kernel_stack(lab: &mut Lab) -> Result<()> {
    let router = lab.cluster.node(NodeId::ROUTER_2)?;
    let all = listed(router)?;
    let ran = passed(router, &["--skip", USER])?;
    let of = |tests: &BTreeSet<String>, stack: &str| -> BTreeSet<String> {
        let name = |test: &String| test.contains(stack).then(|| test.replace(stack, ""));
        tests.iter().filter_map(name).collect()
    };
    let (user, kernel) = (of(&all, USER), of(&ran, KERNEL));
    check(
        !user.is_empty() && user == kernel,
        format!("the tests of the user stack for the kernel's, too: {user:?}"),
        format!("{kernel:?}"),
    )?;
    const TOGETHER: &str = "echo::the_stacks_talk_to_each_other";
    check(ran.contains(TOGETHER), TOGETHER, format!("{ran:?}"))
}

/// Runs those of the user stack on this kernel.
pub fn user_stack(lab: &mut Lab) -> Result<()> {
    // A kernel aborts associations of the user stack as soon as it has the module, which stays until the next boot.
    let ids = BTreeSet::from([NodeId::ROUTER_2]);
    lab.cluster.power_off(&ids)?;
    lab.cluster.power_on(&ids)?;
    let router = lab.cluster.node(NodeId::ROUTER_2)?;
    let all = listed(router)?;
    let ran = passed(router, &[USER])?;
    let wanted: BTreeSet<String> = all.into_iter().filter(|test| test.contains(USER)).collect();
    check(!wanted.is_empty() && ran == wanted, format!("{wanted:?}"), format!("{ran:?}"))
}

/// All tests that there are.
fn listed(router: &Node) -> Result<BTreeSet<String>> {
    let there = router.run(&["sh", "-c", &format!("command -v {SCTP_TESTS}")])?;
    check(there.succeeded(), format!("{SCTP_TESTS} among the binaries (make test)"), "none")?;
    let list = router.run(&[SCTP_TESTS, "--list"])?.stdout();
    Ok(list.lines().filter_map(|line| Some(line.strip_suffix(": test")?.to_owned())).collect())
}

/// The tests that passed, which must be all of these.
fn passed(router: &Node, which: &[&str]) -> Result<BTreeSet<String>> {
    // One at a time: there is one processor.
    let words = [&[SCTP_TESTS], which, &["--test-threads", "1"]].concat();
    let ran = router.run_within(WHILE, &words)?;
    let (stdout, stderr) = (ran.stdout(), ran.stderr());
    let result = stdout.lines().find(|line| line.starts_with("test result"));
    progress::tell("sctp", result.unwrap_or("the tests do not end"));
    let skipped: Vec<_> = stderr.lines().filter(|line| line.contains("SKIPPED")).collect();
    check(
        ran.succeeded() && skipped.is_empty(),
        format!("all tests of {which:?} to pass, and none to be skipped"),
        format!("{:?}: {skipped:?}\n{stdout}\n{stderr}", ran.code()),
    )?;
    Ok(parse_passed(&stdout))
}

fn parse_passed(stdout: &str) -> BTreeSet<String> {
    let passed = |line: &str| Some(line.strip_prefix("test ")?.strip_suffix(" ... ok")?.to_owned());
    stdout.lines().filter_map(passed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passed_is_read() {
        let stdout = "\nrunning 3 tests\ntest echo::user::by_ipv4 ... ok\n\
            test peer::peer ... ignored, it is started by other tests\ntest many::user::x ... FAILED\n\n\
            test result: FAILED. 1 passed\n";
        assert_eq!(parse_passed(stdout), ["echo::user::by_ipv4".to_owned()].into());
    }
}
