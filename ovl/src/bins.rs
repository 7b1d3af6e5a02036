//! Where the binaries under test are.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::rootfs::BIN_DIR;

/// Programs of the system that clusters and cases need.
const SYSTEM: [&str; 12] = [
    "bash",
    "busybox",
    "curl",
    "ethtool",
    "ip",
    "ip6tables",
    "iptables",
    "nft",
    "ping",
    "tc",
    "timeout",
    "tracepath",
];

/// Programs under test.
pub const PROGRAMS: [&str; 10] = [
    "lb",
    "shm-tool",
    "mconnect",
    "ctraffic",
    "kahttp",
    "break-test",
    "hello-server",
    "hello-client",
    "evil",
    "sctpt",
];

/// The tests of crate `sctp-stack`, which the Makefile puts beside those: a case on machines runs them.
pub const SCTP_TESTS: &str = "sctp-stack-traffic";

/// The folder of the built binaries; all of them were there when it was made.
#[derive(Clone)]
pub struct Bins {
    dir: PathBuf,
    ovl: PathBuf,
}

/// The folder of the binaries under test: one that was asked for, or that of this executable.
pub fn dir(asked: Option<&Path>) -> Result<PathBuf> {
    match asked {
        Some(dir) => dir.canonicalize().with_context(|| format!("open folder {}", dir.display())),
        None => {
            let ovl = env::current_exe().context("find ovl's own executable")?;
            Ok(ovl.parent().context("find the folder of ovl's executable")?.to_owned())
        }
    }
}

impl Bins {
    pub fn find(dir: Option<&Path>) -> Result<Self> {
        let ovl = env::current_exe().context("find ovl's own executable")?;
        let dir = self::dir(dir)?;
        for name in PROGRAMS {
            if !dir.join(name).is_file() {
                bail!(
                    "find {name}: not in {} (run `make build`, or name the folder with --bin-dir)",
                    dir.display()
                );
            }
        }
        let bins = Self { dir, ovl };
        if let Some(name) = SYSTEM.iter().find(|name| !bins.finds(name)) {
            bail!("find {name}: not installed (run `make deps`)");
        }
        Ok(bins)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A search path that finds the binaries under test first.
    fn search_path(&self) -> OsString {
        let mut path = self.dir.clone().into_os_string();
        path.push(":");
        path.push(env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into()));
        path
    }

    fn finds(&self, program: &str) -> bool {
        env::split_paths(&self.search_path()).any(|dir| dir.join(program).is_file())
    }

    /// This executable, for the verbs that run inside a node.
    pub fn ovl_in_node(&self) -> PathBuf {
        // Its own folder may be on a file system that nodes do not see.
        if self.ovl.parent() == Some(&self.dir) {
            return Path::new(BIN_DIR).join("ovl");
        }
        self.ovl.clone()
    }
}
