//! Associations that cannot be: a message and an exit code, in time.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::super::check;
use super::stage::{Stage, client_addresses};
use crate::address::NodeId;
use crate::lab::Lab;

/// A connect may take two seconds; a busy machine needs a moment besides.
const IN_TIME: Duration = Duration::from_secs(5);

pub fn what_cannot_be_is_told(lab: &Lab) -> Result<()> {
    let stage = Stage::start(lab, &[])?;
    let local = client_addresses(NodeId::TESTER);
    // Over either plane, and by the one server that the ports lead to.
    probe(&stage, &["--addr", "10.0.0.1,1000::81", "--laddr", &local], 0, "recv> probe")?;
    for (options, says) in [
        (["--addr", "192.168.2.99", "--laddr", "192.168.2.221", "--port", "6000"], "connect"),
        (["--addr", "10.0.0.1", "--laddr", "192.168.2.221", "--port", "6999"], "refused"),
        (["--addr", "10.0.0.1", "--laddr", "1000::1:192.168.6.221", "--port", "6000"], "family"),
        (["--addr", "10.0.0.1", "--laddr", "192.168.9.9", "--port", "6000"], "192.168.9.9"),
        (["--addr", "10.0.0.1", "--laddr", "192.168.2.221", "--port", "0"], "Invalid port [0]"),
    ] {
        probe(&stage, &options, 1, says)?;
    }
    // Where the way is cut there is no answer at all.
    for way in super::WAYS {
        stage.cut(way, true)?;
    }
    probe(&stage, &["--addr", "10.0.0.1,1000::81", "--laddr", &local], 1, "no answer within")
}

fn probe(stage: &Stage, options: &[&str], code: i32, says: &str) -> Result<()> {
    let began = Instant::now();
    let script = "echo probe | sctpt client \"$@\"";
    let words = [&["sh", "-c", script, "sh"], options].concat();
    let ran = stage.tester()?.run_within(2 * IN_TIME, &words)?;
    let took = began.elapsed();
    let told = ran.stdout() + &ran.stderr();
    check(
        ran.code() == Some(code) && told.contains(says) && took < IN_TIME,
        format!("{options:?} to end with {code} in {IN_TIME:?}, and {says:?}"),
        format!("{:?} in {took:?}: {told}", ran.code()),
    )
}
