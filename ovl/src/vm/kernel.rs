//! The kernel of machines: Debian's cloud kernel, or one that was named.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Hardware;
use super::cache::{self, make_disk, run};

/// The package that depends on the newest of Debian's cloud kernels.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// What is needed before modules can be loaded as they are asked for.
const BOOT: [&str; 6] =
    ["virtio_pci", "virtio_console", "virtio_blk", "squashfs", "overlay", "virtio_net"];

const DEBIAN: &str = "debian-";

/// A kernel and its modules, in a folder of the cache.
pub struct Kernel {
    folder: PathBuf,
}

impl Kernel {
    /// Debian's is downloaded once; the one that is there is taken from then on.
    pub fn find(hardware: &Hardware) -> Result<Self> {
        let folder = match (&hardware.kernel, &hardware.modules) {
            (Some(image), Some(modules)) => named(image, modules).context("take a kernel")?,
            (None, None) => match newest_kept()? {
                Some(folder) => folder,
                None => download().context("get Debian's cloud kernel")?,
            },
            _ => bail!("take a kernel: --kernel and --modules belong together"),
        };
        Ok(Self { folder })
    }

    pub fn image(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// A disk with all modules.
    pub fn disk(&self) -> PathBuf {
        self.folder.join("modules.squashfs")
    }

    /// The modules that a machine needs first, named in their order.
    pub fn boot(&self) -> PathBuf {
        self.folder.join("boot")
    }

    pub fn version(&self) -> Result<String> {
        let path = self.folder.join("version");
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }
}

fn newest_kept() -> Result<Option<PathBuf>> {
    let dir = cache::dir()?;
    let entries = fs::read_dir(&dir).with_context(|| format!("read folder {}", dir.display()))?;
    let names = entries.flatten().map(|entry| entry.path());
    let of_debian = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(DEBIAN.as_bytes()))
    };
    Ok(names.filter(of_debian).max())
}

fn download() -> Result<PathBuf> {
    let depends = run("apt-cache", &["depends", PACKAGE].map(OsStr::new), None)?;
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let package = package.with_context(|| {
        format!("apt knows no {PACKAGE} (apt-get update, or use --kernel and --modules)")
    })?;
    cache::keep(&format!("{DEBIAN}{package}"), |folder| {
        let scratch = folder.with_extension("package");
        fs::create_dir(&scratch)?;
        run("apt-get", &["download", package].map(OsStr::new), Some(&scratch))?;
        let file = fs::read_dir(&scratch)?.flatten().map(|entry| entry.path()).next();
        let file = file.context("apt-get downloaded nothing")?;
        let tree = scratch.join("tree");
        run("dpkg-deb", &["-x".as_ref(), file.as_os_str(), tree.as_os_str()], None)?;
        let modules = only_entry(&tree.join("lib/modules"))?;
        let version = name(&modules)?;
        run("depmod", &["-b".as_ref(), tree.as_os_str(), version.as_ref()], None)?;
        fs::create_dir(folder)?;
        fs::rename(tree.join(format!("boot/vmlinuz-{version}")), folder.join("vmlinuz"))?;
        let package = file.file_stem().unwrap_or_default().to_string_lossy();
        let package = package.split('_').nth(1).unwrap_or("?").to_owned();
        fill(folder, &modules, &format!("{version} (Debian {package})"))
    })
}

/// A kernel that somebody else has made.
fn named(image: &Path, modules: &Path) -> Result<PathBuf> {
    let image = image.canonicalize().with_context(|| format!("open {}", image.display()))?;
    let modules = modules.canonicalize().with_context(|| format!("open {}", modules.display()))?;
    let version = name(&modules)?;
    check_version(&image, &modules, &version)?;
    let key = cache::digest([image.as_path(), modules.as_path()])?;
    cache::keep(&format!("named-{key}"), |folder| {
        let scratch = folder.with_extension("modules");
        let copy = scratch.join("lib/modules");
        fs::create_dir_all(&copy)?;
        run("cp", &["-a".as_ref(), modules.as_os_str(), copy.as_os_str()], None)?;
        run("depmod", &["-b".as_ref(), scratch.as_os_str(), version.as_ref()], None)?;
        fs::create_dir(folder)?;
        fs::copy(&image, folder.join("vmlinuz"))?;
        fill(folder, &copy.join(&version), &version)
            .with_context(|| format!("use the modules in {}", modules.display()))
    })
}

/// Modules of another version would be refused one by one, when a machine starts.
fn check_version(image: &Path, modules: &Path, expected: &str) -> Result<()> {
    let content = fs::read(image).with_context(|| format!("read {}", image.display()))?;
    let Some(version) = image_version(&content) else {
        bail!("{} is no Linux kernel", image.display());
    };
    if version != expected {
        let (image, modules) = (image.display(), modules.display());
        bail!("{image} is version {version}, {modules} are the modules of {expected}");
    }
    Ok(())
}

/// The version of a kernel, which the boot protocol of x86 has near its beginning.
fn image_version(image: &[u8]) -> Option<&str> {
    const MAGIC: usize = 0x202;
    const POINTER: usize = 0x20e;
    const BASE: usize = 0x200;
    if !image.get(MAGIC..)?.starts_with(b"HdrS") {
        return None;
    }
    let pointer = image.get(POINTER..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))?;
    let text = image.get(BASE + usize::from(pointer)..)?;
    let end = text.iter().position(|byte| *byte == b' ' || *byte == 0)?;
    str::from_utf8(&text[..end]).ok()
}

/// Puts into a kernel's folder what is made of its modules, which move.
fn fill(folder: &Path, modules: &Path, version: &str) -> Result<()> {
    copy_boot_modules(modules, &folder.join("boot"))?;
    let tree = folder.with_extension("tree");
    let place = tree.join("usr/lib/modules").join(name(modules)?);
    fs::create_dir_all(place.parent().unwrap_or(&tree))?;
    fs::rename(modules, &place)?;
    make_disk(&tree, &folder.join("modules.squashfs"))?;
    fs::write(folder.join("version"), version)?;
    Ok(())
}

fn copy_boot_modules(modules: &Path, into: &Path) -> Result<()> {
    fs::create_dir(into)?;
    let read = |file: &str| {
        let path = modules.join(file);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let (dependencies, built_in) = (read("modules.dep")?, read("modules.builtin")?);
    for (number, module) in boot_modules(&dependencies, &built_in)?.iter().enumerate() {
        let path = modules.join(module);
        let name = module_name(module);
        let target = into.join(format!("{number:02}-{name}.ko"));
        let program = match path.extension().and_then(OsStr::to_str) {
            Some("xz") => "xz",
            Some("zst") => "zstd",
            Some("gz") => "gzip",
            _ => {
                fs::copy(&path, &target)?;
                continue;
            }
        };
        let script = format!("{program} -dc \"$0\" >\"$1\"");
        let words = ["-c".as_ref(), script.as_ref(), path.as_os_str(), target.as_os_str()];
        run("sh", &words, None)?;
    }
    Ok(())
}

/// The modules that are needed first, each after those that it depends on.
fn boot_modules(dependencies: &str, built_in: &str) -> Result<Vec<String>> {
    let mut wanted: Vec<String> = Vec::new();
    for name in BOOT {
        let is_it = |path: &str| module_name(path) == name;
        let line = dependencies
            .lines()
            .find_map(|line| line.split_once(':').filter(|(module, _)| is_it(module)));
        match line {
            // The last one is needed first.
            Some((module, before)) => {
                for module in before.split_whitespace().rev().chain([module]) {
                    if !wanted.iter().any(|other| other == module) {
                        wanted.push(module.to_owned());
                    }
                }
            }
            None if built_in.lines().any(is_it) => {}
            None => bail!("machines need {name}, which is not among them"),
        }
    }
    Ok(wanted)
}

/// `kernel/drivers/net/virtio-net.ko.xz` is `virtio_net`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

fn only_entry(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let entry = entries.flatten().next().map(|entry| entry.path());
    entry.with_context(|| format!("read {}: it is empty", folder.display()))
}

fn name(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(OsStr::to_str);
    Ok(name.with_context(|| format!("read {}: odd name", path.display()))?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_those_they_depend_on() {
        let rest =
            "a/virtio-pci.ko: a/ring.ko\na/virtio_blk.ko:\na/squashfs.ko.xz:\na/overlay.ko:\n";
        let net = "a/virtio_net.ko: a/fail.ko a/virtio.ko a/ring.ko\na/ring.ko:\n";
        let found = boot_modules(&format!("{rest}{net}"), "kernel/x/virtio_console.ko\n").unwrap();
        assert_eq!(
            found,
            [
                "a/ring.ko",
                "a/virtio-pci.ko",
                "a/virtio_blk.ko",
                "a/squashfs.ko.xz",
                "a/overlay.ko",
                "a/virtio.ko",
                "a/fail.ko",
                "a/virtio_net.ko"
            ]
        );
        let error = boot_modules(rest, "").unwrap_err().to_string();
        assert_eq!(error, "machines need virtio_console, which is not among them");
    }

    #[test]
    fn a_kernel_tells_its_version() {
        let mut image = vec![0; 0x300];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x80_u16.to_le_bytes());
        image[0x280..0x28a].copy_from_slice(b"6.1.0-x (a");
        assert_eq!(image_version(&image), Some("6.1.0-x"));
        // Wherever it ends, it is no kernel or has no version, and nothing else happens.
        for length in 0..0x288 {
            assert_eq!(image_version(&image[..length]), None);
        }
        assert_eq!(image_version(b"\x7fELF"), None);
    }
}
