//! Network devices whose packets are read and written as a file.

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

/// What is read from a device and written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ethernet frames.
    Tap,
    /// IP packets.
    Tun,
}

/// Packets that the kernel keeps for a reader that is busy; its default of 500 is used up in no time.
const QUEUE: i32 = 10_000;

/// Makes a device and brings it up. It vanishes when the file is closed. Reading and writing do not
/// wait.
pub fn create(name: &str, kind: Kind, mtu: u32) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    let mut request = Request::named(name)?;
    let kind = match kind {
        Kind::Tap => libc::IFF_TAP,
        Kind::Tun => libc::IFF_TUN,
    };
    // One that is there already is somebody else's. Nothing stands before the packet.
    let flags = kind | libc::IFF_NO_PI | libc::IFF_TUN_EXCL;
    request.set_flags(flags);
    request.ask(&file, libc::TUNSETIFF)?;
    let socket = control_socket()?;
    request.set_number(i32::try_from(mtu).map_err(io::Error::other)?);
    request.ask(&socket, libc::SIOCSIFMTU)?;
    request.set_number(QUEUE);
    // Refused to the root of a user namespace, who has to live with the default.
    let _ = request.ask(&socket, libc::SIOCSIFTXQLEN);
    request.set_flags(libc::IFF_UP);
    request.ask(&socket, libc::SIOCSIFFLAGS)?;
    Ok(file)
}

/// What the kernel is asked about a device: its name, and a value.
struct Request(libc::ifreq);

impl Request {
    fn named(name: &str) -> io::Result<Self> {
        // SAFETY: the structure is made of integers and a null pointer, for which zero is a value.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains(['/', '\0', '%']) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no name of a device"));
        }
        for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *place = libc::c_char::from_ne_bytes([byte]);
        }
        Ok(Self(request))
    }

    fn set_flags(&mut self, flags: i32) {
        let [low, high, ..] = flags.to_le_bytes();
        self.0.ifr_ifru.ifru_flags = i16::from_le_bytes([low, high]);
    }

    fn set_number(&mut self, number: i32) {
        self.0.ifr_ifru.ifru_mtu = number;
    }

    fn ask(&mut self, file: &impl std::os::fd::AsFd, what: libc::Ioctl) -> io::Result<()> {
        let file = file.as_fd().as_raw_fd();
        // SAFETY: all requests here read a `struct ifreq`, and TUNSETIFF writes the device's name
        // to it; it outlives the call, and the descriptor is borrowed for its time.
        match unsafe { libc::ioctl(file, what, &raw mut self.0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Any socket will do to ask about devices of this network namespace.
fn control_socket() -> io::Result<OwnedFd> {
    // SAFETY: three numbers go in.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was opened just now, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_are_refused() {
        for name in ["", "a-name-of-16-byt", "a/b", "a%d", "a\0"] {
            let error = create(name, Kind::Tun, 1500).unwrap_err();
            // Who may not open the file at all never comes to the name.
            let kinds = [
                io::ErrorKind::InvalidInput,
                io::ErrorKind::PermissionDenied,
                io::ErrorKind::NotFound,
            ];
            assert!(kinds.contains(&error.kind()), "{name:?}: {error}");
        }
        assert!(Request::named("a-name-of-15-by").is_ok());
    }

    #[test]
    fn flags_keep_their_low_half() {
        let mut request = Request::named("x").unwrap();
        request.set_flags(libc::IFF_TUN_EXCL | libc::IFF_TAP);
        // SAFETY: it was written as this field just now.
        let flags = unsafe { request.0.ifr_ifru.ifru_flags };
        assert_eq!(flags.cast_unsigned(), 0x8002);
    }
}
