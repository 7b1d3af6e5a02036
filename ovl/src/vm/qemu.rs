//! What qemu is told about a machine.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::protocol::PORT;

pub const PROGRAM: &str = "qemu-system-x86_64";

const FILE: &str = "settings.json";

/// How a machine's instructions are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Accelerator {
    /// By the processor.
    Kvm,
    /// By qemu, one after the other.
    Tcg,
}

/// All that a machine is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    pub accelerator: Accelerator,
    /// In MB.
    pub memory: u16,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    pub disks: Vec<PathBuf>,
    /// In the order of the machine's devices.
    pub devices: Vec<NetDevice>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetDevice {
    /// The tap on the switch.
    pub tap: String,
    pub mac: String,
}

impl Accelerator {
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

impl Settings {
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let what = || format!("read {}", path.display());
        serde_json::from_slice(&fs::read(&path).with_context(what)?).with_context(what)
    }

    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        fs::write(&path, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("write {}", path.display()))
    }

    /// The command line; `line` is the open end of the serial line to the agent.
    pub fn words(&self, host: &str, line: i32, console: &Path) -> Vec<OsString> {
        let mut words = Words::default();
        words.add("-name", host);
        words.flags("-nodefaults -no-user-config -no-reboot -display none -machine q35 -smp 1");
        match self.accelerator {
            Accelerator::Kvm => words.flags("-accel kvm -cpu host"),
            // What is translated is kept, but not all of it; the processor has random numbers.
            Accelerator::Tcg => words.flags("-accel tcg,tb-size=64 -cpu qemu64,+rdrand"),
        }
        words.add("-m", &self.memory.to_string());
        words.path("-kernel", "", &self.kernel);
        words.path("-initrd", "", &self.initrd);
        words.add(
            "-append",
            &format!("console=ttyS0 loglevel=5 no_timer_check panic=-1 -- guest {host}"),
        );
        words.path("-chardev", "file,id=console,append=on,path=", console);
        words.flags("-serial chardev:console");
        words.flags("-device virtio-serial-pci");
        words.add("-chardev", &format!("socket,id=agent,fd={line}"));
        words.add("-device", &format!("virtserialport,chardev=agent,name={PORT}"));
        for (number, disk) in self.disks.iter().enumerate() {
            let what = format!("if=none,id=disk{number},format=raw,readonly=on,file=");
            words.path("-drive", &what, disk);
            words.add("-device", &format!("virtio-blk-pci,drive=disk{number}"));
        }
        for (number, NetDevice { tap, mac }) in self.devices.iter().enumerate() {
            let tap = format!("tap,id=net{number},ifname={tap},script=no,downscript=no");
            words.add("-netdev", &tap);
            // Without a program of its own for the time before the kernel.
            let device = format!("virtio-net-pci,netdev=net{number},mac={mac},romfile=");
            words.add("-device", &device);
        }
        words.0
    }
}

#[derive(Default)]
struct Words(Vec<OsString>);

impl Words {
    fn flags(&mut self, words: &str) {
        self.0.extend(words.split(' ').map(OsString::from));
    }

    fn add(&mut self, option: &str, value: &str) {
        self.0.extend([option.into(), value.into()]);
    }

    /// A value that ends with a path.
    fn path(&mut self, option: &str, before: &str, path: &Path) {
        let mut value = OsString::from(before);
        // In a list of values a comma stands for itself when it is doubled.
        let list = before.contains(',');
        for byte in path.as_os_str().as_bytes() {
            value.push(OsStr::from_bytes(&[*byte]));
            if list && *byte == b',' {
                value.push(",");
            }
        }
        self.0.extend([option.into(), value]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_its_disks_and_devices_in_order() {
        let device = |tap: &str| NetDevice { tap: tap.to_owned(), mac: "00:01".to_owned() };
        let settings = Settings {
            accelerator: Accelerator::Tcg,
            memory: 128,
            kernel: "/k".into(),
            initrd: "/i".into(),
            disks: vec!["/a".into(), "/b".into()],
            devices: vec![device("net0-vm-201"), device("net2-vm-201")],
        };
        let words = settings.words("vm-201", 7, Path::new("/c,d"));
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        let line = words.join(" ");
        for part in [
            "-name vm-201 ",
            " -accel tcg,tb-size=64 ",
            " -m 128 -kernel /k -initrd /i -append console=ttyS0 loglevel=5 no_timer_check panic=-1 -- guest vm-201 ",
            " -chardev file,id=console,append=on,path=/c,,d -serial chardev:console ",
            " socket,id=agent,fd=7 ",
            "id=disk0,format=raw,readonly=on,file=/a -device virtio-blk-pci,drive=disk0 -drive",
            "ifname=net0-vm-201,script=no,downscript=no -device virtio-net-pci,netdev=net0,mac=00:01",
            "id=net1,ifname=net2-vm-201,",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        let folder = tempfile::tempdir().unwrap();
        settings.write(folder.path()).unwrap();
        let read = Settings::read(folder.path()).unwrap();
        let (one, other) = (
            read.words("vm-201", 7, Path::new("/c")),
            settings.words("vm-201", 7, Path::new("/c")),
        );
        assert_eq!(one, other);
    }
}
