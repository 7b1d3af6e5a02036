//! Process 1 of a machine: first in the initial file system, which finds the disks and makes the
//! root of them; then in that root, where it looks after orphans.
//!
//! The root is what a node of namespaces has: files of the machine that runs the cluster at the
//! bottom (a choice of them, on disks), the cluster's overlays above them, and on top a layer in
//! memory that takes all that is written.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, chdir, chroot, sethostname, sync};

use super::image::{DISKS, LAYER, MODULES};
use crate::cli::GuestArgs;
use crate::rootfs::{BIN_DIR, DEVICE_LINKS, SEARCH_PATH};
use crate::wait;

/// How long a disk may take to be there after its driver is.
const DISK: Duration = Duration::from_secs(20);

pub fn run(args: &GuestArgs) -> Result<ExitCode> {
    let result = if args.in_root { look_after(args) } else { start(args) };
    if let Err(error) = &result {
        // On the console, which the machine's keeper shows.
        eprintln!("ovl: start {}: {error:#}", args.host);
    }
    sync();
    reboot(RebootMode::RB_POWER_OFF).context("power off")?;
    Ok(ExitCode::FAILURE)
}

/// In the initial file system.
fn start(args: &GuestArgs) -> Result<()> {
    kernel_file_systems(Path::new("/"))?;
    load_modules()?;
    let disks = DISKS.iter().map(|(device, folder)| mount_disk(device, folder));
    let disks = disks.collect::<Result<Vec<_>>>()?;
    let own = Path::new("/own");
    mount_new("tmpfs", own, "mode=755")?;
    let (upper, scratch, root) = (own.join("upper"), own.join("work"), own.join("root"));
    for folder in [&upper, &scratch, &root] {
        make_folder(folder)?;
    }
    make_folder(Path::new(LAYER))?;
    let lower: Vec<&str> = [LAYER].into_iter().chain(disks).collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        upper.display(),
        scratch.display()
    );
    mount_new("overlay", &root, &options)?;
    // What was needed so far would stay in memory.
    for folder in [MODULES, "/lib64", "/usr", "/lib"] {
        remove(Path::new(folder))?;
    }
    chdir(&root).context("change to the new root")?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .context("move the new root")?;
    chroot(".").context("change the root")?;
    chdir("/").context("change to folder /")?;
    let ovl = Path::new(BIN_DIR).join("ovl");
    let error = Command::new(&ovl).args(["guest", "--in-root", &args.host]).exec();
    Err(error).with_context(|| format!("run {}", ovl.display()))
}

/// In the root.
fn look_after(args: &GuestArgs) -> Result<()> {
    kernel_file_systems(Path::new("/"))?;
    for (kind, folder, options) in [
        ("devpts", "/dev/pts", "ptmxmode=666,mode=620"),
        ("tmpfs", "/dev/shm", "mode=1777"),
        ("tmpfs", "/run", "mode=755"),
        ("tmpfs", "/tmp", "mode=1777"),
    ] {
        mount_new(kind, Path::new(folder), options)?;
    }
    make_tun()?;
    for (name, target) in DEVICE_LINKS {
        let link = Path::new("/dev").join(name);
        remove(&link)?;
        symlink(target, &link).with_context(|| format!("make {}", link.display()))?;
    }
    sethostname(&args.host).context("set host name")?;
    let mut command = Command::new(Path::new(BIN_DIR).join("ovl"));
    let agent = command.arg("agent").env("PATH", SEARCH_PATH).spawn().context("start agent")?;
    let agent = Pid::from_raw(i32::try_from(agent.id())?);
    loop {
        // Whatever has lost its parent is a child of this process.
        let ended = waitpid(None, None).context("wait for processes")?;
        if ended.pid() == Some(agent) {
            return Err(anyhow::anyhow!("the agent ended: {}", described(ended)));
        }
    }
}

/// The kernel makes it only when the module is there, which it loads when somebody opens this.
fn make_tun() -> Result<()> {
    let path = Path::new("/dev/net/tun");
    if path.exists() {
        return Ok(());
    }
    make_folder(Path::new("/dev/net"))?;
    mknod(path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(10, 200))
        .with_context(|| format!("make {}", path.display()))
}

fn described(ended: WaitStatus) -> String {
    match ended {
        WaitStatus::Exited(_, code) => format!("exit code {code}"),
        other => format!("{other:?}"),
    }
}

fn kernel_file_systems(root: &Path) -> Result<()> {
    for (kind, folder) in [("proc", "proc"), ("sysfs", "sys"), ("devtmpfs", "dev")] {
        mount_new(kind, &root.join(folder), "")?;
    }
    Ok(())
}

/// Loads the modules that disks and the way to the outside need; they are numbered in their order.
fn load_modules() -> Result<()> {
    let entries = fs::read_dir(MODULES).with_context(|| format!("read {MODULES}"))?;
    let entries = entries.map(|entry| Ok(entry.context("read modules")?.path()));
    let mut modules: Vec<PathBuf> = entries.collect::<Result<_>>()?;
    modules.sort();
    for path in modules {
        let what = || format!("load {}", path.display());
        let file = File::open(&path).with_context(what)?;
        finit_module(&file, c"", ModuleInitFlags::empty()).with_context(what)?;
    }
    Ok(())
}

fn mount_disk(device: &str, folder: &'static str) -> Result<&'static str> {
    let device = Path::new("/dev").join(device);
    wait::until(&device.display().to_string(), DISK, || Ok(device.exists().then_some(())))?;
    make_folder(Path::new(folder))?;
    mount(Some(&device), folder, Some("squashfs"), MsFlags::MS_RDONLY, None::<&str>)
        .with_context(|| format!("mount {}", device.display()))?;
    Ok(folder)
}

fn mount_new(kind: &str, target: &Path, options: &str) -> Result<()> {
    make_folder(target)?;
    mount(Some(kind), target, Some(kind), MsFlags::empty(), Some(options))
        .with_context(|| format!("mount {kind} on {}", target.display()))
}

fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("create folder {}", path.display()))
}

fn remove(path: &Path) -> Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(data) if data.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
