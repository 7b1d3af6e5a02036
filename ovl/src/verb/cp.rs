//! `ovl cp`: files to, from and between nodes.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;

use super::cp_machines;
use crate::address::NodeId;
use crate::backend::Backend;
use crate::cli::{CpArgs, Place};
use crate::cluster::Record;
use crate::enter::pass_through;
use crate::holder;
use crate::namespace;
use crate::state::Folder;

/// The source is opened where it is, and `cp` runs where the copy is to be, with the open source
/// handed down to it: no other way leads from one node's files to those of another.
pub fn run(args: &CpArgs) -> Result<ExitCode> {
    if args.from.node.is_none() && args.to.node.is_none() {
        bail!("copy {}: neither side is on a node (write NODE:PATH)", args.from.path.display());
    }
    let folder = Folder::of(&args.cluster.name)?;
    let record = Record::of(&folder)?;
    for node in [args.from.node, args.to.node].into_iter().flatten() {
        record.node(node)?;
    }
    if record.order.backend != Backend::Namespaces {
        return cp_machines::run(args, &folder);
    }
    let machine = Files::of_machine()?;
    let source = {
        if let Some(id) = args.from.node {
            holder::enter_files(&folder)?;
            namespace::enter_files(record.running(id)?)?;
        }
        let source = open_source(&args.from)?;
        machine.return_to()?;
        source
    };
    if let Some(id) = args.to.node {
        holder::enter_files(&folder)?;
        namespace::enter_node(record.running(id)?)?;
    }
    let target = target(&args.from, &args.to)?;
    fcntl(&source, FcntlArg::F_SETFD(FdFlag::empty())).context("hand the source down")?;
    let words = ["cp", "--archive", "-H", "--no-target-directory", "--"].map(OsString::from);
    let source = format!("/proc/self/fd/{}", source.as_raw_fd()).into();
    pass_through(&[&words[..], &[source, target.into()]].concat(), |_| {})
}

/// The mounts and the current folder of this process when it began.
struct Files {
    mounts: File,
    current: PathBuf,
}

impl Files {
    fn of_machine() -> Result<Self> {
        let path = "/proc/self/ns/mnt";
        Ok(Self {
            mounts: File::open(path).with_context(|| format!("open {path}"))?,
            current: std::env::current_dir().context("find current folder")?,
        })
    }

    fn return_to(&self) -> Result<()> {
        setns(&self.mounts, CloneFlags::CLONE_NEWNS).context("return to the machine's files")?;
        std::env::set_current_dir(&self.current).context("return to current folder")
    }
}

fn open_source(place: &Place) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    open(&place.path, flags, Mode::empty()).with_context(|| format!("open {}", named(place)))
}

/// A folder takes the copy under its old name.
fn target(from: &Place, to: &Place) -> Result<PathBuf> {
    if !to.path.is_dir() {
        return Ok(to.path.clone());
    }
    let name = from.path.file_name();
    let name = name.with_context(|| format!("copy {}: it has no name", named(from)))?;
    Ok(to.path.join(name))
}

fn named(place: &Place) -> String {
    let path: &Path = &place.path;
    place.node.map_or_else(
        || path.display().to_string(),
        |id: NodeId| format!("{} on {id}", path.display()),
    )
}
