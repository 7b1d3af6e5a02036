//! The runner's second self: process 1 of a process namespace that holds every cluster.
//!
//! Whatever a cluster starts is a descendant of that process 1. When it ends, for whatever reason,
//! the kernel kills them all, and namespaces without processes vanish: nothing is left behind,
//! not even by a runner that was killed.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

/// Runs this very command line again inside, and passes its exit code on.
pub fn run_inside() -> Result<ExitCode> {
    need_root()?;
    let exe = env::current_exe().context("find ovl's own executable")?;
    // The chain dies from the top: setpriv asks for SIGKILL when this process ends, unshare for
    // the same on behalf of its child.
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .args(["unshare", "--pid", "--mount", "--fork", "--kill-child=KILL", "--mount-proc", "--"])
        .arg(exe)
        .arg("--supervised")
        .args(env::args_os().skip(1))
        .status()
        .context("start setpriv (of util-linux)")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}

fn need_root() -> Result<()> {
    let user = fs::metadata("/proc/self").context("read /proc/self")?.uid();
    if user != 0 {
        bail!("start cluster: namespaces and bridges need root (run it with sudo)");
    }
    Ok(())
}
