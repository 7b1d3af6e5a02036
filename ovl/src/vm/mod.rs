//! Nodes that are virtual machines: the same clusters on a kernel of their own.

pub mod agent;
mod cache;
mod channel;
pub mod client;
mod cpio;
pub mod guest;
mod image;
pub mod keeper;
mod kernel;
mod protocol;
mod qemu;

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use self::client::Line;
use self::kernel::Kernel;
use self::qemu::{Accelerator, NetDevice, Settings};
use crate::bins;
use crate::holder::OWN_EXE;
use crate::net::port;
use crate::topology::plan::NodePlan;
use crate::wait;

/// What machines are to be like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hardware {
    /// A kernel, and the folder of its modules; None for Debian's cloud kernel.
    pub kernel: Option<PathBuf>,
    pub modules: Option<PathBuf>,
    /// Of each machine, in MB.
    pub memory: u16,
}

/// What the machines of a cluster have in common, ready to be started.
#[derive(Debug, Serialize, Deserialize)]
pub struct Machines {
    accelerator: Accelerator,
    kernel: PathBuf,
    version: String,
    initrd: PathBuf,
    disks: Vec<PathBuf>,
    memory: u16,
}

/// As much as a machine needs.
pub const USUAL_MEMORY: u16 = 128;

/// In the cluster's work folder: what [`Machines`] is.
const FILE: &str = "machines.json";

/// How long a kernel may take on a processor that helps.
const TRIAL: Duration = Duration::from_secs(10);

impl Default for Hardware {
    fn default() -> Self {
        Self { kernel: None, modules: None, memory: USUAL_MEMORY }
    }
}

impl Machines {
    /// Makes all that the machines of a cluster need, in its work folder or the cache.
    pub fn prepare(hardware: &Hardware, bin_dir: &Path, work: &Path, layer: &Path) -> Result<Self> {
        let kernel = Kernel::find(hardware)?;
        let programs = image::programs_disk().context("make the disk with programs")?;
        let binaries = work.join("binaries.squashfs");
        let names = [&bins::PROGRAMS[..], &[bins::SCTP_TESTS]].concat();
        image::binaries_disk(bin_dir, &names, &binaries).context("make the disk with binaries")?;
        let initrd = work.join("initrd");
        image::initial(&kernel, layer, &initrd)?;
        let machines = Self {
            accelerator: find_accelerator(&kernel)?,
            kernel: kernel.image(),
            version: kernel.version()?,
            initrd,
            disks: vec![binaries, programs, kernel.disk()],
            memory: hardware.memory,
        };
        let path = work.join(FILE);
        fs::write(&path, serde_json::to_string_pretty(&machines)?)
            .with_context(|| format!("write {}", path.display()))?;
        Ok(machines)
    }

    /// Those of a cluster that runs already.
    pub fn of_running(work: &Path) -> Result<Self> {
        let path = work.join(FILE);
        let what = || format!("read {}", path.display());
        serde_json::from_slice(&fs::read(&path).with_context(what)?).with_context(what)
    }

    /// What they are, in a few words.
    pub fn about(&self) -> String {
        format!("kernel {}, {} MB each, {}", self.version, self.memory, self.accelerator.name())
    }

    /// Starts the keeper of a machine, which starts the machine.
    pub fn launch(&self, plan: &NodePlan, work: &Path) -> Result<Child> {
        let line = Line::new(work, &plan.id.to_string());
        let folder = line.folder();
        fs::create_dir_all(folder)
            .with_context(|| format!("create folder {}", folder.display()))?;
        let settings = Settings {
            accelerator: self.accelerator,
            memory: self.memory,
            kernel: self.kernel.clone(),
            initrd: self.initrd.clone(),
            disks: self.disks.clone(),
            devices: plan
                .devices
                .iter()
                .map(|device| NetDevice {
                    tap: port(plan.id, device.net),
                    mac: plan.id.mac(device.net),
                })
                .collect(),
        };
        settings.write(folder)?;
        keeper_command(plan, work).spawn().context("start its keeper")
    }
}

fn keeper_command(plan: &NodePlan, work: &Path) -> Command {
    let mut command = Command::new(OWN_EXE);
    command.arg0("ovl").args(["keeper", &plan.id.to_string()]).arg(work);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Whether the processor helps is tried: a device may be there that leads nowhere. What came of it is
/// kept until the machine is started anew.
fn find_accelerator(kernel: &Kernel) -> Result<Accelerator> {
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(Accelerator::Tcg);
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read boot_id")?;
    let name = format!("kvm-{}", boot.trim());
    let path = cache::keep(&name, |path| {
        let works = boots_on_kvm(&kernel.image())?;
        Ok(fs::write(path, if works { "works" } else { "does not boot" })?)
    })
    .context("try KVM")?;
    let found = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(if found == "works" { Accelerator::Kvm } else { Accelerator::Tcg })
}

/// A kernel without anything else gives up, and that is enough to see.
fn boots_on_kvm(kernel: &Path) -> Result<bool> {
    let words =
        "-nodefaults -no-user-config -no-reboot -display none -machine q35 -m 128 -accel kvm";
    let mut qemu = Command::new(qemu::PROGRAM)
        .args(words.split(' '))
        .arg("-kernel")
        .arg(kernel)
        .args(["-append", "quiet panic=-1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("start {} (run make deps)", qemu::PROGRAM))?;
    let ended = wait::for_up_to(TRIAL, || Ok(qemu.try_wait()?));
    // Fails only when it has ended.
    let _ = qemu.kill();
    let _ = qemu.wait();
    Ok(ended?.is_some_and(|status| status.success()))
}
