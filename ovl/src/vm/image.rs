//! What the root of machines is made of: disks, and the archive that a kernel starts with.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::cache::{self, make_disk, run};
use super::cpio::Archive;
use super::kernel::Kernel;
use crate::rootfs::BIN_DIR;

/// A machine's disks, the uppermost first, and where they are mounted before they are one root.
pub const DISKS: [(&str, &str); 3] =
    [("vda", "/disk/binaries"), ("vdb", "/disk/programs"), ("vdc", "/disk/modules")];

/// In the initial file system: the cluster's overlays, and the modules that are needed first.
pub const LAYER: &str = "/layer";
pub const MODULES: &str = "/modules";

/// To be raised when programs are put onto their disk in another way.
const FORM: u32 = 1;

/// Programs of the machine that every root has. What else is usual in a shell comes from busybox.
const NEEDED: &str = "\
    awk bash busybox curl dash ethtool ip ip6tables ip6tables-restore ip6tables-save \
    iptables iptables-restore iptables-save modprobe nc nft ping setpriv setsid sh tar tc \
    timeout";

/// Those that it has if the machine does.
const WANTED: &str = "\
    basename bridge cat checksctp chmod chown conntrack cp cut date dd df dirname dmesg du \
    env expr find grep gzip head id insmod ipset ln ls lsmod mkdir mkfifo mktemp mount mv \
    nsenter od openssl ps readlink rm rmdir rmmod sctp_darn sctp_test sed seq sleep sort ss \
    stat stty sysctl tail tcpdump tee touch tr tracepath umount uname uniq unshare wc \
    withsctp xargs xxd";

/// Folders whose files programs load while they run, and files that they read.
const BESIDE: [&str; 11] = [
    "/etc/group",
    "/etc/host.conf",
    "/etc/iproute2",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/profile",
    "/etc/protocols",
    "/etc/services",
    "/usr/lib/tc",
    "/usr/lib/x86_64-linux-gnu/lksctp-tools",
    "/usr/lib/x86_64-linux-gnu/xtables",
];

/// Folders that a root must have.
const FOLDERS: &str = "\
    dev etc/init.d home mnt opt proc root run srv sys tmp usr/bin usr/lib usr/lib64 usr/sbin \
    var/log var/tmp var/lib";

/// Folders of the root that are links into usr where the machine has it so.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

const SEARCH: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The disk with programs of the machine that runs the cluster.
pub fn programs_disk() -> Result<PathBuf> {
    let mut tree = Tree::default();
    for name in NEEDED.split(' ') {
        let path =
            find(name).with_context(|| format!("find {name}: not installed (run make deps)"))?;
        tree.bring(&path)?;
    }
    for path in WANTED.split(' ').filter_map(find) {
        tree.bring(&path)?;
    }
    for path in BESIDE.into_iter().map(Path::new).filter(|path| path.exists()) {
        tree.bring_all(path)?;
    }
    tree.bring_libraries()?;
    let files = tree.files.iter().map(PathBuf::as_path);
    let key = cache::digest(files)?;
    cache::keep(&format!("programs-{FORM}-{key}.squashfs"), |disk| {
        let folder = disk.with_extension("tree");
        tree.copy(&folder)?;
        for name in FOLDERS.split(' ') {
            fs::create_dir_all(folder.join(name))?;
        }
        add_applets(&folder)?;
        make_disk(&folder, disk)
    })
}

/// A disk with the binaries under test, as far as they are there, and the libraries that they need.
pub fn binaries_disk(bin_dir: &Path, names: &[&str], disk: &Path) -> Result<()> {
    let mut binaries: BTreeMap<&str, PathBuf> =
        names.iter().map(|name| (*name, bin_dir.join(name))).collect();
    binaries.retain(|_, path| path.is_file());
    // Whatever else is in the folder, the program that runs the cluster is in its machines, too.
    binaries.insert("ovl", own()?);
    let folder = disk.with_extension("tree");
    let bins = folder.join(BIN_DIR.trim_start_matches('/'));
    fs::create_dir_all(&bins).with_context(|| format!("create folder {}", bins.display()))?;
    let mut tree = Tree::default();
    for library in libraries(binaries.values().map(PathBuf::as_path))? {
        tree.bring(&library)?;
    }
    tree.copy(&folder).context("copy libraries")?;
    for (name, path) in &binaries {
        strip(path, &bins.join(name))?;
    }
    make_disk(&folder, disk)?;
    fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))
}

fn own() -> Result<PathBuf> {
    std::env::current_exe().context("find ovl's own executable")
}

/// Symbols for debuggers are most of a binary.
fn strip(from: &Path, to: &Path) -> Result<()> {
    let words = ["--strip-unneeded".as_ref(), "-o".as_ref(), to.as_os_str(), from.as_os_str()];
    run("strip", &words, None).map(drop)
}

/// What the kernel starts with: process 1, the modules that it needs, the cluster's overlays.
pub fn initial(kernel: &Kernel, layer: &Path, into: &Path) -> Result<()> {
    let what = || format!("write {}", into.display());
    let scratch = into.with_extension("init");
    let own = own()?;
    strip(&own, &scratch)?;
    let file = File::create(into).with_context(what)?;
    let mut archive = Archive::new(file);
    let written = (|| {
        archive.folder("dev", 0o755)?;
        archive.device("dev/console", (5, 1))?;
        archive.device("dev/null", (1, 3))?;
        archive.file("init", 0o755, &fs::read(&scratch)?)?;
        let folder = MODULES.trim_start_matches('/');
        archive.folder(folder, 0o755)?;
        archive.tree(&kernel.boot(), folder)?;
        let mut folders = BTreeSet::new();
        for library in libraries([own.as_path()])? {
            let place = library.to_string_lossy();
            let place = place.trim_start_matches('/');
            for (at, _) in place.match_indices('/') {
                if folders.insert(place[..at].to_owned()) {
                    archive.folder(&place[..at], 0o755)?;
                }
            }
            archive.file(place, 0o755, &fs::read(&library)?)?;
        }
        let file = archive.end()?;
        let mut archive = Archive::new(file);
        let folder = LAYER.trim_start_matches('/');
        archive.folder(folder, 0o755)?;
        archive.tree(layer, folder)?;
        archive.end()?.flush()?;
        Ok::<_, anyhow::Error>(())
    })();
    written.with_context(what)?;
    fs::remove_file(&scratch).with_context(|| format!("remove {}", scratch.display()))
}

fn find(name: &str) -> Option<PathBuf> {
    SEARCH.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// Files and links of the machine, at their own places.
#[derive(Default)]
struct Tree {
    files: BTreeSet<PathBuf>,
    links: BTreeMap<PathBuf, PathBuf>,
}

impl Tree {
    /// A file, and where it is a link all that it leads to.
    fn bring(&mut self, path: &Path) -> Result<()> {
        let what = || format!("bring {}", path.display());
        // Folders of the path may be links.
        let folder = path.parent().context("no folder").with_context(what)?;
        let folder = folder.canonicalize().with_context(what)?;
        let place = folder.join(path.file_name().context("no name").with_context(what)?);
        if !place.symlink_metadata().with_context(what)?.is_symlink() {
            self.files.insert(place);
            return Ok(());
        }
        let target = fs::read_link(&place).with_context(what)?;
        let next = folder.join(&target);
        if self.links.insert(place, target).is_none() {
            self.bring(&next)?;
        }
        Ok(())
    }

    /// A file, or all that is in a folder.
    fn bring_all(&mut self, path: &Path) -> Result<()> {
        if !path.is_dir() {
            return self.bring(path);
        }
        let what = || format!("read folder {}", path.display());
        for entry in fs::read_dir(path).with_context(what)? {
            self.bring_all(&entry.with_context(what)?.path())?;
        }
        Ok(())
    }

    fn bring_libraries(&mut self) -> Result<()> {
        let programs = self.files.iter().filter(|path| is_elf(path));
        for library in libraries(programs.map(PathBuf::as_path))? {
            self.bring(&library)?;
        }
        Ok(())
    }

    fn copy(&self, into: &Path) -> Result<()> {
        let place = |path: &Path| {
            let place = into.join(path.strip_prefix("/").unwrap_or(path));
            let folder = place.parent().map_or(Ok(()), fs::create_dir_all);
            folder.map(|()| place)
        };
        fs::create_dir_all(into)?;
        for name in MERGED {
            if let Ok(target) = fs::read_link(Path::new("/").join(name)) {
                fs::create_dir_all(into.join(&target))?;
                symlink(target, into.join(name))?;
            }
        }
        for file in &self.files {
            fs::copy(file, place(file)?).with_context(|| format!("copy {}", file.display()))?;
        }
        for (link, target) in &self.links {
            let place = place(link)?;
            symlink(target, &place).with_context(|| format!("link {}", link.display()))?;
        }
        Ok(())
    }
}

/// What busybox can do besides, where no program of that name was brought.
fn add_applets(root: &Path) -> Result<()> {
    let busybox = find("busybox").context("find busybox")?;
    let list = run(&busybox.to_string_lossy(), &["--list".as_ref()], None)?;
    for applet in list.lines().map(str::trim).filter(|applet| !applet.is_empty()) {
        let there = |folder: &str| root.join(folder).join(applet).symlink_metadata().is_ok();
        if !["usr/bin", "usr/sbin"].into_iter().any(there) {
            symlink(&busybox, root.join("usr/bin").join(applet))
                .with_context(|| format!("link {applet}"))?;
        }
    }
    Ok(())
}

fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok()
        && magic == *b"\x7fELF"
}

/// The shared libraries that programs need, and what loads them.
fn libraries<'a>(programs: impl IntoIterator<Item = &'a Path>) -> Result<BTreeSet<PathBuf>> {
    let programs: Vec<&OsStr> = programs.into_iter().map(Path::as_os_str).collect();
    // It fails when one of several needs none.
    let output = std::process::Command::new("ldd")
        .args(&programs)
        .env("LC_ALL", "C")
        .output()
        .context("start ldd (of libc-bin)")?;
    let listing = String::from_utf8_lossy(&output.stdout);
    if let Some(line) = listing.lines().find(|line| line.contains("not found")) {
        bail!("find library: {}", line.trim());
    }
    Ok(listed_libraries(&listing))
}

fn listed_libraries(listing: &str) -> BTreeSet<PathBuf> {
    let path = |line: &str| {
        // A line of a program itself ends with a colon.
        let line = line.strip_prefix('\t')?;
        let path = line.split_once(" => ").map_or(line, |(_, path)| path);
        let path = path.split_once(" (").map_or(path, |(path, _)| path);
        path.starts_with('/').then(|| PathBuf::from(path))
    };
    listing.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_a_listing() {
        let listing = "/usr/bin/a:\n\tlinux-vdso.so.1 (0x7)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x7)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x7)\n/usr/bin/b:\n\tnot a dynamic executable\n";
        let found = listed_libraries(listing);
        let found: Vec<_> = found.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(found, ["/lib/x/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }

    #[test]
    fn links_are_brought_with_what_they_lead_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().canonicalize().unwrap().join(name);
        fs::create_dir_all(path("real")).unwrap();
        fs::write(path("real/program"), "x").unwrap();
        symlink("real", path("way")).unwrap();
        symlink("../way/program", path("real/alias")).unwrap();
        let mut tree = Tree::default();
        tree.bring(&path("way/alias")).unwrap();
        assert_eq!(tree.files, [path("real/program")].into());
        assert_eq!(tree.links, [(path("real/alias"), "../way/program".into())].into());
        let copy = tempfile::tempdir().unwrap();
        let mut tree_of_one = Tree::default();
        tree_of_one.bring(&path("way/program")).unwrap();
        tree_of_one.copy(copy.path()).unwrap();
        let below = path("real/program");
        let below = copy.path().join(below.strip_prefix("/").unwrap());
        assert_eq!(fs::read_to_string(below).unwrap(), "x");
    }
}
