//! A device of the kernel through which packets come in that this process writes.

use std::ffi::CString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::str::FromStr;

use socket2::{Domain, Socket, Type};
use thiserror::Error;

use crate::capability::Capability;
use crate::device::{SettingError, source_check};

/// The name of a network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceName(CString);

/// Why a text is not the name of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not the name of a device: 1 to 15 characters without space, '/', ':' and '%'")]
pub struct DeviceNameError;

impl FromStr for DeviceName {
    type Err = DeviceNameError;

    fn from_str(text: &str) -> Result<Self, DeviceNameError> {
        // The kernel would take '%' for a place to put a number.
        let legal = |byte: u8| byte.is_ascii_graphic() && !b"/:%".contains(&byte);
        let is_name = (1..libc::IFNAMSIZ).contains(&text.len())
            && text.bytes().all(legal)
            && !matches!(text, "." | "..");
        if !is_name {
            return Err(DeviceNameError);
        }
        CString::new(text).map(DeviceName).map_err(|_| DeviceNameError)
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string_lossy())
    }
}

/// Why a device could not be had.
#[derive(Debug, Error)]
pub enum TunError {
    /// The process lacks the right.
    #[error(
        "create tun device {0}: not permitted; CAP_NET_ADMIN over this network namespace is needed"
    )]
    NotPermitted(DeviceName),
    /// The kernel, or the container, has no such thing.
    #[error(
        "create tun device {0}: there is no usable /dev/net/tun ({1}); load the module tun, and let a \
         container have the device"
    )]
    NotSupported(DeviceName, io::Error),
    /// Somebody else has it.
    #[error("create tun device {0}: another process has it, or it is a device of another kind")]
    InUse(DeviceName),
    /// The system refused.
    #[error("{action} tun device {name}: {cause}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The device.
        name: DeviceName,
        /// Why it failed.
        cause: io::Error,
    },
}

/// A tun device that is up. It goes when this is dropped.
#[derive(Debug)]
pub struct Tun {
    file: File,
    name: DeviceName,
}

/// IPv6 does not work on a device with less.
const MIN_MTU: u32 = 1280;

impl Tun {
    /// Creates a device and brings it up, without addresses and open to packets from any source.
    pub fn create(name: &DeviceName, mtu: u32) -> Result<Self, TunError> {
        let io = |action| {
            let name = name.clone();
            move |cause| TunError::Io { action, name, cause }
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .map_err(|cause| TunError::NotSupported(name.clone(), cause))?;
        let mut request = Request::new(name);
        request.set_flags(libc::IFF_TUN | libc::IFF_NO_PI);
        request.send(file.as_raw_fd(), libc::TUNSETIFF).map_err(|cause| refused(name, cause))?;

        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).map_err(io("set up"))?;
        request.set_mtu(mtu.max(MIN_MTU));
        request.send(socket.as_raw_fd(), libc::SIOCSIFMTU).map_err(io("set the mtu of"))?;
        let tun = Tun { file, name: name.clone() };
        // Whoever forbids these can have made the settings before. What is wrong with them shows in
        // `source_check`; an address of its own would only make the device talk.
        let _ = fs::write(tun.setting("ipv4", "rp_filter"), "0");
        let _ = fs::write(tun.setting("ipv6", "addr_gen_mode"), "1");
        request.send(socket.as_raw_fd(), libc::SIOCGIFFLAGS).map_err(io("bring up"))?;
        request.set_flags(request.flags() | libc::IFF_UP);
        request.send(socket.as_raw_fd(), libc::SIOCSIFFLAGS).map_err(io("bring up"))?;
        Ok(tun)
    }

    /// Lets a packet come in by the device.
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        (&self.file).write(packet).map(|_| ())
    }

    /// The setting that makes the kernel drop packets by the device because of their source, if there
    /// is one: the device's own or that of all devices counts, whichever is larger.
    pub fn source_check(&self) -> Result<Option<&'static str>, SettingError> {
        let is_on = |name: &str| source_check(name).map(|strictness| strictness != 0);
        Ok(if is_on(&self.name.to_string())? {
            Some("net.ipv4.conf.default.rp_filter")
        } else if is_on("all")? {
            Some("net.ipv4.conf.all.rp_filter")
        } else {
            None
        })
    }

    fn setting(&self, family: &str, key: &str) -> String {
        format!("/proc/sys/net/{family}/conf/{}/{key}", self.name)
    }
}

fn refused(name: &DeviceName, cause: io::Error) -> TunError {
    match cause.raw_os_error() {
        Some(libc::EPERM) if !Capability::NetAdmin.in_effect() => {
            TunError::NotPermitted(name.clone())
        }
        Some(libc::EBUSY | libc::EINVAL | libc::EPERM) => TunError::InUse(name.clone()),
        Some(libc::EBADFD | libc::ENOTTY) => TunError::NotSupported(name.clone(), cause),
        _ => TunError::Io { action: "create", name: name.clone(), cause },
    }
}

/// An `ifreq`: a device's name and one value.
struct Request(libc::ifreq);

impl Request {
    fn new(DeviceName(name): &DeviceName) -> Self {
        // SAFETY: zeros are a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes_with_nul()) {
            *to = libc::c_char::from_ne_bytes([*from]);
        }
        Request(request)
    }

    fn set_flags(&mut self, flags: libc::c_int) {
        // The kernel's flags that are used here fit.
        self.0.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).unwrap_or_default();
    }

    fn flags(&self) -> libc::c_int {
        // SAFETY: any bytes are a short.
        unsafe { self.0.ifr_ifru.ifru_flags }.into()
    }

    fn set_mtu(&mut self, mtu: u32) {
        self.0.ifr_ifru.ifru_mtu = libc::c_int::try_from(mtu).unwrap_or(libc::c_int::MAX);
    }

    fn send(&mut self, fd: RawFd, command: libc::Ioctl) -> io::Result<()> {
        // SAFETY: these commands read and write an ifreq, which this is.
        let result = unsafe { libc::ioctl(fd, command, &raw mut self.0) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::env;
    use std::net::UdpSocket;
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn names_that_the_kernel_takes() {
        for name in ["tun0", "a", "frag-v.4_x", "123456789012345"] {
            assert_eq!(name.parse::<DeviceName>().unwrap().to_string(), name);
        }
        for name in ["", "1234567890123456", "a b", "a/b", "tun%d", "a:1", ".", "..", "ü", "a\0"] {
            assert_eq!(name.parse::<DeviceName>(), Err(DeviceNameError), "{name:?}");
        }
    }

    /// It calls itself in a network namespace of its own.
    #[test]
    fn what_is_written_comes_in() {
        const VARIABLE: &str = "MARKWAY_TEST_IN_NAMESPACE";
        if env::var_os(VARIABLE).is_some() {
            return in_namespace();
        }
        let unshare = |command: &[&str]| {
            let mut unshare = Command::new("unshare");
            unshare.args(["--map-root-user", "--net", "--"]).args(command);
            unshare.env(VARIABLE, "1").status().unwrap().success()
        };
        if !unshare(&["sh", "-c", ": <>/dev/net/tun"]) {
            eprintln!("skipped: this user may not make a network namespace with a tun device");
            return;
        }
        let exe = env::current_exe().unwrap();
        let name = "tun::tests::what_is_written_comes_in";
        assert!(unshare(&[exe.to_str().unwrap(), name, "--exact", "--test-threads=1"]));
    }

    fn in_namespace() {
        let name: DeviceName = "frag0".parse().unwrap();
        let tun = Tun::create(&name, 9000).unwrap();
        let again = Tun::create(&name, 1500).unwrap_err();
        assert_eq!(
            again.to_string(),
            "create tun device frag0: another process has it, or it is a device of another kind"
        );
        let lo = Tun::create(&"lo".parse().unwrap(), 1500).unwrap_err();
        assert!(matches!(lo, TunError::InUse(_)), "{lo}");

        let ip = |arguments: &str| {
            let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let link = ip("-o link show frag0");
        assert!(link.contains("UP") && link.contains(" mtu 9000 "), "{link}");
        assert_eq!(ip("-o addr show dev frag0"), "");

        ip("link set lo up");
        ip("addr add 10.9.9.1/32 dev lo");
        let socket = UdpSocket::bind("10.9.9.1:7000").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        // 192.0.2.1 port 4000, where no route leads, to 10.9.9.1 port 7000; "ok", no UDP checksum.
        let mut packet = [
            0x45, 0, 0, 30, 0, 1, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 10, 9, 9, 1, //
            0x0f, 0xa0, 0x1b, 0x58, 0, 10, 0, 0, b'o', b'k',
        ];
        let checksum = header_checksum(&packet[..20]).to_be_bytes();
        packet[10..12].copy_from_slice(&checksum);
        tun.write(&packet).unwrap();
        let mut buffer = [0; 16];
        let (len, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from.to_string()), (&b"ok"[..], "192.0.2.1:4000".into()));

        assert_eq!(tun.source_check().unwrap(), None);
        fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").unwrap();
        assert_eq!(tun.source_check().unwrap(), Some("net.ipv4.conf.all.rp_filter"));
        assert!(tun.write(&[0x15; 40]).is_err(), "no version of IP");
        drop(tun);
        assert!(
            !Command::new("ip").args(["link", "show", "frag0"]).output().unwrap().status.success()
        );
    }

    fn header_checksum(header: &[u8]) -> u16 {
        let (words, _) = header.as_chunks::<2>();
        let mut sum: u32 = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }
}
