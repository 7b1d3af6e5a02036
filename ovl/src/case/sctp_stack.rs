//! The tests of crate `sctp-stack` on a kernel that has SCTP: both stacks, and the two with each other.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;

use super::check;
use crate::address::NodeId;
use crate::bins::SCTP_TESTS;
use crate::lab::Lab;
use crate::node::Node;
use crate::progress;

/// How long each half may take. Without KVM, on a busy machine, it takes three minutes.
const HALF: Duration = Duration::from_secs(400);

/// In the names of tests of the user stack.
const USER: &str = "user::";

/// Runs them on a router, which needs none of its networks for that.
pub fn both_stacks(lab: &mut Lab) -> Result<()> {
    // A kernel aborts associations of the user stack as soon as it has the module, which stays until the next boot.
    let ids = BTreeSet::from([NodeId::ROUTER_2]);
    lab.cluster.power_off(&ids)?;
    lab.cluster.power_on(&ids)?;
    let router = lab.cluster.node(NodeId::ROUTER_2)?;
    let there = router.run(&["sh", "-c", &format!("command -v {SCTP_TESTS}")])?;
    check(there.succeeded(), format!("{SCTP_TESTS} among the binaries (make test)"), "none")?;

    let user = passed(router, &[USER])?;
    let others = passed(router, &["--skip", USER])?;
    let of = |tests: &BTreeSet<String>, stack: &str| -> BTreeSet<String> {
        let name = |test: &String| test.contains(stack).then(|| test.replace(stack, ""));
        tests.iter().filter_map(name).collect()
    };
    let (user, kernel) = (of(&user, USER), of(&others, "kernel::"));
    check(
        !user.is_empty() && user == kernel,
        format!("the tests of the user stack for the kernel's, too: {user:?}"),
        format!("{kernel:?}"),
    )?;
    const TOGETHER: &str = "echo::the_stacks_talk_to_each_other";
    check(others.contains(TOGETHER), TOGETHER, format!("{others:?}"))
}

/// The tests that passed, which must be all of these.
fn passed(router: &Node, which: &[&str]) -> Result<BTreeSet<String>> {
    // One at a time: there is one processor.
    let words = [&[SCTP_TESTS], which, &["--test-threads", "1"]].concat();
    let ran = router.run_within(HALF, &words)?;
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
