//! System calls of the library that this crate answers; `build.rs` leads them here.
//!
//! They mend what cannot be set: the source of each path (`source`), socket buffers that a burst of some hundred
//! packets would overrun, addresses on the loopback interface, answers that would end the associations of
//! other processes on this host, and a COOKIE ECHO that comes twice at once. And they count heartbeats.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{io, ptr, slice};

use libc::{ifaddrs, msghdr, sockaddr, socklen_t, ssize_t};

use super::alone::is_alone;
use super::control::Control;
use super::heartbeats::{self, Direction};
use super::pieces::{IPV4_HEADER, Pieces};
use super::{ffi, source};
use crate::address;

/// Bytes of each of the library's system sockets; it asks for 128 KiB.
const SYSTEM_BUFFER: c_int = 8 << 20;
/// The library skips addresses on interfaces that are called `lo…`, unless both ends are on this host.
const LOOPBACK: &CStr = c"lo";
const RENAMED: &CStr = c"vip";
const RENAMED_INDEX: c_uint = 0x7fff_fff0;
/// The common header of SCTP.
const COMMON_HEADER: usize = 12;
/// With type, flags and length of the first chunk.
const SCTP_HEADER: usize = COMMON_HEADER + 4;
/// The longest header of IPv4, and the common one.
const LONGEST_HEAD: usize = 60 + COMMON_HEADER;

const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;
const COOKIE_ECHO: u8 = 10;
const SHUTDOWN_COMPLETE: u8 = 14;
/// The tag is the peer's own: what it answers belongs to no association.
const TAG_REFLECTED: u8 = 1;

/// Who has it takes in a COOKIE ECHO. The library has a thread for each kind of packets, and makes two sockets of one
/// association, of which one is dead, if the second COOKIE ECHO (sent again, over the other family) comes just then.
static COOKIES: Mutex<()> = Mutex::new(());

thread_local! {
    /// Held until this thread wants the next packet.
    static TURN: RefCell<Option<MutexGuard<'static, ()>>> = const { RefCell::new(None) };
}

/// Addresses of this host that the library knows.
static KNOWN: Mutex<Vec<IpAddr>> = Mutex::new(Vec::new());

/// Tells the library of an address of this host, if it came after its start. Fails if it is none.
pub(super) fn make_known(address: IpAddr) -> io::Result<()> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if known.contains(&address) {
        return Ok(());
    }
    UdpSocket::bind((address, 0))?;
    let bytes = address::packed(std::iter::once(SocketAddr::new(address, 0)));
    let (none, name, place) = (ptr::null(), RENAMED.as_ptr(), bytes.as_ptr().cast());
    // SAFETY: the library runs, as there is a socket; it copies the name and the address.
    unsafe { ffi::sctp_add_addr_to_vrf(0, none, RENAMED_INDEX, 0, name, none, place, 0, 0) };
    known.push(address);
    Ok(())
}

/// What the library wants to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outgoing {
    to: IpAddr,
    /// Directly in IP.
    raw: bool,
    /// What the library chose, where it can be seen.
    from: Option<Ipv4Addr>,
    /// SCTP's source port.
    port: u16,
    /// The peer's.
    peer_port: u16,
    chunk: u8,
    flags: u8,
}

impl Outgoing {
    /// From the address and the first bytes of the packet.
    fn read(name: &[u8], head: &[u8]) -> Option<Self> {
        let (to, _) = address::unpack(name)?;
        let raw = to.port() == 0;
        let (from, sctp) = match to.ip() {
            IpAddr::V4(_) if raw => {
                let from = Ipv4Addr::from(*head.get(12..)?.first_chunk::<4>()?);
                (Some(from), head.get(IPV4_HEADER..)?)
            }
            _ => (None, head),
        };
        let sctp: &[u8; SCTP_HEADER] = sctp.first_chunk()?;
        let port = u16::from_be_bytes([sctp[0], sctp[1]]);
        let peer_port = u16::from_be_bytes([sctp[2], sctp[3]]);
        Some(Outgoing { to: to.ip(), raw, from, port, peer_port, chunk: sctp[12], flags: sctp[13] })
    }

    fn peer(&self) -> SocketAddr {
        SocketAddr::new(self.to, self.peer_port)
    }

    /// Where the first chunk begins.
    fn chunks(&self) -> usize {
        self.from.map_or(0, |_| IPV4_HEADER) + COMMON_HEADER
    }

    /// Whether it answers a packet that may be for another process.
    fn is_stray_answer(&self) -> bool {
        let answer = match self.chunk {
            ABORT => true,
            SHUTDOWN_COMPLETE => self.flags & TAG_REFLECTED != 0,
            _ => false,
        };
        answer && self.raw && !source::is_bound(self.port)
    }

    /// The source it should have; none: as it is.
    fn source(&self) -> Option<IpAddr> {
        // The answer to an INIT comes from where the INIT went, as does what no socket sends.
        let answer = self.chunk == INIT_ACK || !source::is_bound(self.port);
        match self.from {
            Some(_) if answer => source::arrival(self.peer()),
            Some(from) => source::choose(self.port, self.peer(), Some(from)),
            None if answer => source::arrival(self.peer()),
            None => source::choose(self.port, self.peer(), None)
                .or_else(|| source::arrival(self.peer())),
        }
    }
}

/// What came for the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Incoming {
    /// With SCTP's source port.
    from: SocketAddr,
    /// This host's address, where it can be seen.
    at: Option<IpAddr>,
    /// SCTP's destination port.
    port: u16,
    /// Where the first chunk begins.
    chunks: usize,
}

impl Incoming {
    /// From the address, which IPv4 with its header has not, the control data and the first bytes of the packet.
    fn read(name: &[u8], control: &[u8], head: &[u8]) -> Option<Self> {
        let (from, at, sctp) = if name.is_empty() {
            let address = |at: usize| Some(IpAddr::from(*head.get(at..)?.first_chunk::<4>()?));
            (address(12)?, address(16), usize::from(head.first()? & 0x0f) * 4)
        } else {
            (address::unpack(name)?.0.ip(), Control::destination(control), 0)
        };
        let ports: [u8; 4] = *head.get(sctp..)?.first_chunk()?;
        let from = SocketAddr::new(from, u16::from_be_bytes([ports[0], ports[1]]));
        let port = u16::from_be_bytes([ports[2], ports[3]]);
        Some(Incoming { from, at, port, chunks: sctp + COMMON_HEADER })
    }
}

/// The library's `sendmsg`.
///
/// # Safety
/// As for the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn markway_sctp_sendmsg(
    fd: c_int,
    message: *const msghdr,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller gives a valid message; the library gives it no control data.
    let given = unsafe { &*message };
    // SAFETY: the name is valid as long as the call lasts.
    let name = unsafe { name(given) };
    // SAFETY: so are the pieces.
    let pieces = unsafe { Pieces::of(given) };
    let mut head = [0; IPV4_HEADER + SCTP_HEADER];
    let length = pieces.copy(0, &mut head);
    let Some(packet) = Outgoing::read(name, &head[..length]) else {
        // SAFETY: as the caller wants it.
        return unsafe { libc::sendmsg(fd, message, flags) };
    };
    if packet.is_stray_answer() && !is_alone() {
        return ssize_t::try_from(pieces.length()).unwrap_or(ssize_t::MAX);
    }
    let mut message = *given;
    let mut control = Control::new();
    match (packet.source(), packet.from) {
        // SAFETY: the packet begins with an IPv4 header, at which the library does not look during the call.
        (Some(IpAddr::V4(source)), Some(_)) => unsafe { pieces.set_source(source) },
        (Some(source), None) => {
            let length = control.set_source(source);
            message.msg_control = (&raw mut control).cast();
            message.msg_controllen = length;
        }
        _ => {}
    }
    // SAFETY: as the caller wants it; the control data lives on the stack.
    let mut sent = unsafe { libc::sendmsg(fd, &raw const message, flags) };
    if sent < 0 && message.msg_controllen > 0 && !is_transient() {
        // The source may be gone from this host; the kernel then chooses.
        message.msg_control = ptr::null_mut();
        message.msg_controllen = 0;
        // SAFETY: as the caller wants it.
        sent = unsafe { libc::sendmsg(fd, &raw const message, flags) };
    }
    if sent >= 0 {
        for chunk in pieces.control_chunks(packet.chunks(), pieces.length()) {
            heartbeats::count(chunk, Direction::Out, packet.port, packet.peer());
        }
    }
    sent
}

fn is_transient() -> bool {
    matches!(io::Error::last_os_error().raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS))
}

/// The library's `recvmsg`.
///
/// # Safety
/// As for the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn markway_sctp_recvmsg(
    fd: c_int,
    message: *mut msghdr,
    flags: c_int,
) -> ssize_t {
    // This thread is done with the packet before.
    TURN.take();
    // SAFETY: as the caller wants it.
    let length = unsafe { libc::recvmsg(fd, message, flags) };
    let Ok(received) = usize::try_from(length) else { return length };
    // SAFETY: the system call succeeded, so the message is valid.
    let message = unsafe { &*message };
    // SAFETY: as above.
    let name = unsafe { name(message) };
    // SAFETY: as above.
    let pieces = unsafe { Pieces::of(message) };
    let mut head = [0; LONGEST_HEAD];
    let head_length = pieces.copy(0, &mut head).min(received);
    // SAFETY: the system call filled in the control data and its length.
    let control = unsafe { control(message) };
    if let Some(packet) = Incoming::read(name, control, &head[..head_length]) {
        if let Some(at) = packet.at {
            source::arrived(packet.from, at);
        }
        for chunk in pieces.control_chunks(packet.chunks, received) {
            if chunk == COOKIE_ECHO && TURN.with_borrow(Option::is_none) {
                TURN.set(Some(COOKIES.lock().unwrap_or_else(PoisonError::into_inner)));
            }
            heartbeats::count(chunk, Direction::In, packet.port, packet.from);
        }
    }
    length
}

/// The library's `setsockopt`.
///
/// # Safety
/// As for the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn markway_sctp_setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> c_int {
    let forced = match (level, name) {
        (libc::SOL_SOCKET, libc::SO_RCVBUF) => libc::SO_RCVBUFFORCE,
        (libc::SOL_SOCKET, libc::SO_SNDBUF) => libc::SO_SNDBUFFORCE,
        // SAFETY: as the caller wants it.
        _ => return unsafe { libc::setsockopt(fd, level, name, value, length) },
    };
    let size = SYSTEM_BUFFER;
    // Without the right to it, as much as everybody may have.
    for name in [forced, name] {
        let value = (&raw const size).cast();
        // SAFETY: `value` is an int.
        if unsafe { libc::setsockopt(fd, level, name, value, length) } == 0 {
            return 0;
        }
    }
    -1
}

/// The library's `getifaddrs`: addresses on `lo` that others can reach seem to be on another interface.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn markway_sctp_getifaddrs(list: *mut *mut ifaddrs) -> c_int {
    // SAFETY: as the caller wants it.
    let result = unsafe { libc::getifaddrs(list) };
    if result != 0 {
        return result;
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.clear();
    // SAFETY: the call succeeded and filled it in.
    let mut next = unsafe { *list };
    while !next.is_null() {
        // SAFETY: an element of the list, which nobody else has yet.
        let entry = unsafe { &mut *next };
        next = entry.ifa_next;
        if entry.ifa_name.is_null() || entry.ifa_addr.is_null() {
            continue;
        }
        // SAFETY: a string of the C library.
        let name = unsafe { CStr::from_ptr(entry.ifa_name) };
        // SAFETY: an address that is as long as its family wants.
        let address = unsafe { read_address(entry.ifa_addr) };
        known.extend(address);
        if name == LOOPBACK && address.is_some_and(|address| !address.is_loopback()) {
            // The list is freed as a whole, names and all.
            entry.ifa_name = RENAMED.as_ptr().cast_mut();
        }
    }
    0
}

/// The library's `if_nametoindex`, which knows the other interface, too.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn markway_sctp_if_nametoindex(name: *const c_char) -> c_uint {
    // SAFETY: the caller gives a string.
    if unsafe { CStr::from_ptr(name) } == RENAMED {
        return RENAMED_INDEX;
    }
    // SAFETY: as the caller wants it.
    unsafe { libc::if_nametoindex(name) }
}

/// # Safety
/// The address is as long as its family wants.
unsafe fn read_address(address: *const sockaddr) -> Option<IpAddr> {
    // SAFETY: every address begins with its family.
    let family = unsafe { (*address).sa_family };
    let length = match c_int::from(family) {
        libc::AF_INET => size_of::<libc::sockaddr_in>(),
        libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
        _ => return None,
    };
    // SAFETY: the caller promises so many bytes.
    let bytes = unsafe { slice::from_raw_parts(address.cast::<u8>(), length) };
    address::unpack(bytes).map(|(address, _)| address.ip())
}

/// The message's address; empty if it has none.
///
/// # Safety
/// The message is valid.
unsafe fn name(message: &msghdr) -> &[u8] {
    if message.msg_name.is_null() {
        return &[];
    }
    let length = usize::try_from(message.msg_namelen).unwrap_or(0);
    // SAFETY: the caller promises so many bytes.
    unsafe { slice::from_raw_parts(message.msg_name.cast(), length) }
}

/// The message's control data.
///
/// # Safety
/// The message is valid.
unsafe fn control(message: &msghdr) -> &[u8] {
    if message.msg_control.is_null() {
        return &[];
    }
    // SAFETY: the caller promises so many bytes.
    unsafe { slice::from_raw_parts(message.msg_control.cast(), message.msg_controllen) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO_V4: [u8; 16] = [2, 0, 0, 0, 192, 0, 2, 9, 0, 0, 0, 0, 0, 0, 0, 0];

    fn ipv4_packet(chunk: u8, flags: u8) -> Vec<u8> {
        let mut packet = vec![0x45; 20];
        packet[12..20].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 9]);
        packet.extend([0x17, 0x70, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, chunk, flags, 0, 4]);
        packet
    }

    #[test]
    fn packets_are_understood() {
        let packet = Outgoing::read(&TO_V4, &ipv4_packet(0, 3)).unwrap();
        let expected = Outgoing {
            to: [192, 0, 2, 9].into(),
            raw: true,
            from: Some([192, 0, 2, 1].into()),
            port: 6000,
            peer_port: 7,
            chunk: 0,
            flags: 3,
        };
        assert_eq!(packet, expected);
        // In UDP there is no IP header to be seen.
        let mut to = TO_V4;
        to[2..4].copy_from_slice(&9899u16.to_be_bytes());
        let packet = Outgoing::read(&to, &ipv4_packet(0, 3)[20..]).unwrap();
        assert_eq!(packet, Outgoing { raw: false, from: None, ..expected });
        assert_eq!((packet.chunks(), expected.chunks()), (12, 32));
        assert_eq!(Outgoing::read(&TO_V4, &ipv4_packet(0, 3)[..35]), None);
        assert_eq!(Outgoing::read(&[], &[]), None);
    }

    #[test]
    fn what_comes_is_understood() {
        let packet = ipv4_packet(4, 0);
        let ip = |address: [u8; 4]| IpAddr::from(address);
        let from = SocketAddr::new(ip([192, 0, 2, 1]), 6000);
        let expected = Incoming { from, at: Some(ip([192, 0, 2, 9])), port: 7, chunks: 32 };
        assert_eq!(Incoming::read(&[], &[], &packet), Some(expected));
        // With options, which move what follows.
        let mut longer = packet.clone();
        longer[0] = 0x46;
        longer.splice(20..20, [0; 4]);
        assert_eq!(Incoming::read(&[], &[], &longer), Some(Incoming { chunks: 36, ..expected }));
        // In UDP the address is given.
        let from = SocketAddr::new(ip([192, 0, 2, 9]), 6000);
        let in_udp = Incoming { from, at: None, port: 7, chunks: 12 };
        assert_eq!(Incoming::read(&TO_V4, &[], &packet[20..]), Some(in_udp));
        assert_eq!(Incoming::read(&TO_V4, &[], &packet[20..23]), None);
        assert_eq!(Incoming::read(&[], &[], &packet[..23]), None);
        assert_eq!(Incoming::read(&[], &[], &[]), None);
    }

    #[test]
    fn answers_about_ports_of_others_are_known() {
        let stray = |chunk, flags| {
            Outgoing::read(&TO_V4, &ipv4_packet(chunk, flags)).unwrap().is_stray_answer()
        };
        assert!(stray(ABORT, 0) && stray(ABORT, 1) && stray(SHUTDOWN_COMPLETE, 1));
        assert!(!stray(SHUTDOWN_COMPLETE, 0) && !stray(0, 3));
    }
}
