//! The root of a node: the machine's files below, the cluster's overlays above them, and on top a
//! file system of the node's own that takes all that is written.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::{chdir, pivot_root};

/// Where a node finds the binaries under test.
pub const BIN_DIR: &str = "/opt/markway/bin";

/// The overlays of a cluster, below its work folder; the lower folders of all nodes.
pub const LAYER: &str = "layer";

/// Where a node mounts its own file system, below the work folder.
pub const OWN: &str = "node";

/// Programs look for each other here; those under test first.
pub const SEARCH_PATH: &str =
    "/opt/markway/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Character devices that a node has when the machine has them.
const DEVICES: [&str; 12] = [
    "fuse",
    "full",
    "kmsg",
    "kvm",
    "net/tun",
    "null",
    "random",
    "tty",
    "urandom",
    "vhost-net",
    "vhost-vsock",
    "zero",
];

pub const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "fd/0"),
    ("stdout", "fd/1"),
    ("stderr", "fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// File systems whose content a node sees too when they are mounted somewhere on the machine.
const LOWER: [&str; 8] = ["btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "xfs", "zfs"];

/// Folders whose content is of no use in a node, or made anew.
const NOT_LOWER: [&str; 5] = ["/dev", "/proc", "/run", "/sys", "/tmp"];

/// Makes a root in this process' mount namespace, which must be its own, and moves there.
///
/// `work` is the folder of the cluster; `bin_dir` is seen at [`BIN_DIR`].
pub fn change(work: &Path, bin_dir: &Path) -> Result<()> {
    // Relative paths need no care for characters that mean something in the options of a mount.
    chdir(work).with_context(|| format!("change to {}", work.display()))?;
    let own = Path::new(OWN);
    mount_new("tmpfs", own, MsFlags::empty(), "mode=755")?;
    let root = own.join("root");
    overlay(own, Path::new("/"), &root)?;
    for point in lower_mounts()? {
        // Without the content of a file system a node is of use still.
        let below = own.join("more").join(escaped(&point));
        if let Err(error) = overlay(&below, &point, &inside(&root, &point)) {
            eprintln!("ovl: {error:#}");
        }
    }
    let bins = inside(&root, Path::new(BIN_DIR));
    make_folder(&bins)?;
    mount_flags(Some(bin_dir), &bins, MsFlags::MS_BIND)?;
    mount_flags(None, &bins, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY)?;
    mount_new("proc", &root.join("proc"), MsFlags::empty(), "")?;
    mount_new("sysfs", &root.join("sys"), MsFlags::empty(), "")?;
    mount_new("tmpfs", &root.join("run"), MsFlags::empty(), "mode=755")?;
    mount_new("tmpfs", &root.join("tmp"), MsFlags::empty(), "mode=1777")?;
    devices(&root.join("dev"))?;
    enter(&root)
}

fn enter(root: &Path) -> Result<()> {
    chdir(root).context("change to the new root")?;
    // The old root comes to lie upon the new one, and is taken off.
    pivot_root(".", ".").context("change the root")?;
    umount2(".", MntFlags::MNT_DETACH).context("unmount the old root")?;
    chdir("/").context("change to folder /")
}

/// Mounts a folder of the machine with the cluster's layer above it.
fn overlay(own: &Path, lower: &Path, target: &Path) -> Result<()> {
    let (upper, scratch) = (own.join("upper"), own.join("work"));
    for folder in [&upper, &scratch, target] {
        make_folder(folder)?;
    }
    let layer = inside(Path::new(LAYER), lower);
    make_folder(&layer)?;
    let options = format!(
        "lowerdir={}:{},upperdir={},workdir={}",
        layer.display(),
        lower.display(),
        upper.display(),
        scratch.display()
    );
    mount_new("overlay", target, MsFlags::empty(), &options)
}

/// File systems of the machine that are mounted below its root, in the order of their mounts.
fn lower_mounts() -> Result<Vec<PathBuf>> {
    let mounts = "/proc/self/mountinfo";
    let text = fs::read_to_string(mounts).with_context(|| format!("read {mounts}"))?;
    let points = text.lines().filter_map(lower_mount);
    Ok(points.filter(|point| point.is_dir()).collect())
}

/// The mount point when a line of mountinfo is of a file system that nodes see too.
fn lower_mount(line: &str) -> Option<PathBuf> {
    let (mount, system) = line.split_once(" - ")?;
    let point = mount.split(' ').nth(4)?;
    let kind = system.split(' ').next()?;
    // What an overlay's options cannot say; such names are rare.
    let plain = !point.contains(['\\', ':', ',']);
    let useful =
        point != "/" && !NOT_LOWER.iter().any(|folder| Path::new(point).starts_with(folder));
    (plain && useful && LOWER.contains(&kind)).then(|| point.into())
}

fn devices(dev: &Path) -> Result<()> {
    mount_new("tmpfs", dev, MsFlags::MS_NOSUID, "mode=755")?;
    for name in DEVICES {
        let Ok(device) = fs::metadata(Path::new("/dev").join(name)) else { continue };
        let path = dev.join(name);
        if let Some(folder) = path.parent() {
            make_folder(folder)?;
        }
        let mode = Mode::from_bits_truncate(device.mode());
        mknod(&path, SFlag::S_IFCHR, mode, device.rdev())
            .with_context(|| format!("make device {name}"))?;
    }
    for (name, target) in DEVICE_LINKS {
        symlink(target, dev.join(name)).with_context(|| format!("make /dev/{name}"))?;
    }
    for (name, kind, options) in
        [("pts", "devpts", "newinstance,ptmxmode=666,mode=620"), ("shm", "tmpfs", "mode=1777")]
    {
        let point = dev.join(name);
        make_folder(&point)?;
        mount_new(kind, &point, MsFlags::MS_NOSUID, options)?;
    }
    Ok(())
}

/// An absolute path below a root.
fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// A path as the name of one folder.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace('/', "-")
}

fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("create folder {}", path.display()))
}

fn mount_new(kind: &str, target: &Path, flags: MsFlags, options: &str) -> Result<()> {
    mount(Some(kind), target, Some(kind), flags, Some(options)).with_context(|| {
        format!("mount {kind} on {} (does this kernel have it?)", target.display())
    })
}

fn mount_flags(source: Option<&Path>, target: &Path, flags: MsFlags) -> Result<()> {
    mount(source, target, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("bind {}", target.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_of_the_machine_are_seen_and_those_of_the_kernel_are_not() {
        let line = |point: &str, kind: &str| {
            lower_mount(&format!("36 35 98:0 /x {point} rw,noatime master:1 - {kind} /dev/sda rw"))
        };
        assert_eq!(line("/home", "ext4"), Some("/home".into()));
        assert_eq!(line("/var/lib/x", "xfs"), Some("/var/lib/x".into()));
        assert_eq!(line("/", "ext4"), None);
        assert_eq!(line("/run/media", "ext4"), None);
        assert_eq!(line("/home", "tmpfs"), None);
        assert_eq!(line("/my\\040disk", "ext4"), None);
        assert_eq!(lower_mount(""), None);
    }

    #[test]
    fn paths_are_put_below_a_root() {
        assert_eq!(inside(Path::new("a"), Path::new("/")), Path::new("a"));
        assert_eq!(inside(Path::new("a"), Path::new("/b/c")), Path::new("a/b/c"));
        assert_eq!(escaped(Path::new("/b/c")), "-b-c");
    }
}
