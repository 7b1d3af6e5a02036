//! A socket of the library, made safe.

use std::ffi::{c_int, c_void};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::library::Library;
use super::source::{self, Binding};
use super::wake::{Registration, Signal};
use super::{ffi, heartbeats, hooks};
use crate::endpoint::{Endpoint, Piece};
use crate::notification::Numbering;
use crate::{Addresses, Path, PathState, address, route};

/// What the library takes for the longest packet of IPv4.
const LIBRARY_MTU: u32 = 1_500;
/// What the library adds to the MTU that it is given: SCTP's header in UDP in IPv6; in IPv4 it is less.
const OVERHEAD: u32 = 12 + 8 + 40;

/// How long the port of a closed socket is waited for, and how often it is tried. The library frees it some 10 ms
/// later if the association ended while somebody read or sent.
const RELEASE: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(5);

/// It takes nothing shorter.
const SHORTEST: u32 = 512;

/// Closed when dropped; the library then shuts its association down in the background.
pub(crate) struct Socket {
    raw: NonNull<ffi::RawSocket>,
    pub(super) signal: Arc<Signal>,
    registration: Option<Registration>,
    binding: Option<Arc<Binding>>,
    /// The peer's, of a socket that shares its port with others.
    peers: Vec<SocketAddr>,
    /// It runs as long as there is a socket.
    library: Arc<Library>,
}

// SAFETY: the library locks its sockets itself; the pointer is valid until `drop`.
unsafe impl Send for Socket {}
// SAFETY: as above.
unsafe impl Sync for Socket {}

/// Structures that the library fills or reads.
///
/// # Safety
/// Plain numbers, of which every pattern of bits is a value.
pub(super) unsafe trait Plain: Copy {}
// SAFETY: of numbers and bytes only.
unsafe impl Plain for ffi::Initmsg {}
// SAFETY: as above.
unsafe impl Plain for ffi::RtoInfo {}
// SAFETY: as above.
unsafe impl Plain for ffi::AssocParams {}
// SAFETY: as above.
unsafe impl Plain for ffi::PeerAddrParams {}
// SAFETY: as above.
unsafe impl Plain for ffi::PeerAddrInfo {}
// SAFETY: as above.
unsafe impl Plain for ffi::SetPrimary {}
// SAFETY: as above.
unsafe impl Plain for ffi::UdpEncaps {}
// SAFETY: as above.
unsafe impl Plain for ffi::Event {}
// SAFETY: as above.
unsafe impl Plain for c_int {}

impl Socket {
    /// A new one of the one-to-one style, for both families.
    pub(super) fn new(library: &Arc<Library>) -> io::Result<Self> {
        // SAFETY: numbers and null pointers, which mean no callbacks.
        let raw = unsafe {
            ffi::usrsctp_socket(
                libc::AF_INET6,
                libc::SOCK_STREAM,
                ffi::IPPROTO_SCTP,
                ptr::null(),
                ptr::null(),
                0,
                ptr::null_mut(),
            )
        };
        let socket = Self::own(raw, library, None)?;
        // SAFETY: the socket is open.
        check(unsafe { ffi::usrsctp_set_non_blocking(socket.raw(), 1) })?;
        Ok(socket)
    }

    /// Takes what the library gave.
    fn own(
        raw: *mut ffi::RawSocket,
        library: &Arc<Library>,
        binding: Option<Arc<Binding>>,
    ) -> io::Result<Self> {
        let raw = NonNull::new(raw).ok_or_else(io::Error::last_os_error)?;
        let signal = Arc::new(Signal::default());
        // SAFETY: the socket is open; `drop` ends the registration first.
        let registration = unsafe { Registration::new(raw.as_ptr(), Arc::clone(&signal)) };
        let library = Arc::clone(library);
        let (registration, peers) = (Some(registration), Vec::new());
        Ok(Socket { raw, signal, registration, binding, peers, library })
    }

    /// Takes these addresses for its own.
    pub fn bind(&mut self, local: &Addresses) -> io::Result<()> {
        let deadline = Instant::now() + RELEASE;
        loop {
            match self.try_to_bind(local) {
                // No socket has the port any more, but the library is not done with the last one.
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse
                        && !source::is_bound(local.port)
                        && Instant::now() < deadline =>
                {
                    thread::sleep(LOOK);
                }
                done => return done,
            }
        }
    }

    fn try_to_bind(&mut self, local: &Addresses) -> io::Result<()> {
        let mut bytes = address::packed(local.sockets());
        if local.is_any() {
            let length = libc::socklen_t::try_from(bytes.len()).unwrap_or(0);
            // SAFETY: `bytes` is one address of this length.
            check(unsafe { ffi::usrsctp_bind(self.raw(), bytes.as_mut_ptr().cast(), length) })?;
        } else {
            local.addresses.iter().try_for_each(|address| hooks::make_known(*address))?;
            let count = c_int::try_from(local.addresses.len()).unwrap_or(c_int::MAX);
            let list = bytes.as_mut_ptr();
            // SAFETY: `list` holds `count` addresses.
            check(unsafe { ffi::usrsctp_bindx(self.raw(), list, count, ffi::BINDX_ADD_ADDR) })?;
        }
        let port = match local.port {
            0 => self.local_addresses()?.first().map_or(0, SocketAddr::port),
            port => port,
        };
        let addresses = if local.is_any() { Vec::new() } else { local.addresses.clone() };
        self.binding = Some(Arc::new(Binding::new(port, addresses)));
        Ok(())
    }

    /// Keeps packets as short as the route to the peer wants: the library believes in 1,500 bytes (1,280 in
    /// IPv6), and what is longer than the interface allows the kernel does not send. All paths of an association
    /// take the shortest.
    fn fit_packets(&self, peers: impl Iterator<Item = IpAddr>) -> io::Result<()> {
        let mtu = peers.filter_map(|peer| match peer {
            IpAddr::V4(peer) => route::mtu(peer).ok(),
            IpAddr::V6(_) => None,
        });
        match mtu.min() {
            Some(mtu) if mtu < LIBRARY_MTU => {
                let path_mtu = mtu.saturating_sub(OVERHEAD).max(SHORTEST);
                let address = address::storage(address::ANY);
                let flags = ffi::SPP_PMTUD_DISABLE;
                let params = ffi::PeerAddrParams {
                    address,
                    association: 0,
                    heartbeat_interval: 0,
                    path_mtu,
                    flags,
                    flow_label: 0,
                    max_retransmits: 0,
                    dscp: 0,
                };
                self.set(ffi::PEER_ADDR_PARAMS, &params)
            }
            _ => Ok(()),
        }
    }

    fn send_with(&self, message: &[u8], mut info: ffi::SndInfo) -> io::Result<()> {
        // SAFETY: the pointers are valid for the lengths given with them; null: to the peer.
        let length = unsafe {
            ffi::usrsctp_sendv(
                self.raw(),
                message.as_ptr().cast(),
                message.len(),
                ptr::null_mut(),
                0,
                (&raw mut info).cast(),
                length_of::<ffi::SndInfo>(),
                ffi::SENDV_SNDINFO,
                0,
            )
        };
        if length < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    pub(super) fn set<T: Plain>(&self, option: c_int, value: &T) -> io::Result<()> {
        let value: *const T = value;
        let (level, length) = (ffi::IPPROTO_SCTP, length_of::<T>());
        // SAFETY: `value` is valid for its length.
        check(unsafe { ffi::usrsctp_setsockopt(self.raw(), level, option, value.cast(), length) })
    }

    /// Asks; what is in `value` tells the library about what.
    pub(super) fn get<T: Plain>(&self, option: c_int, mut value: T) -> io::Result<T> {
        let mut length = length_of::<T>();
        let (level, place) = (ffi::IPPROTO_SCTP, (&raw mut value).cast::<c_void>());
        // SAFETY: `place` is valid for `length`, and any bits are a value (`Plain`).
        check(unsafe {
            ffi::usrsctp_getsockopt(self.raw(), level, option, place, &raw mut length)
        })?;
        Ok(value)
    }

    /// The addresses of one end, asked for and freed by these functions of the library.
    fn list(&self, ask: ffi::AskList, free: ffi::FreeList) -> io::Result<Vec<SocketAddr>> {
        let mut list = ptr::null_mut();
        // SAFETY: the socket is open, `list` is a place for the answer.
        let count = unsafe { ask(self.raw(), 0, &raw mut list) };
        check(count)?;
        // SAFETY: the library answered with `count` addresses at `list`.
        let addresses = unsafe { copy_list(list, count) };
        if !list.is_null() && count > 0 {
            // SAFETY: `list` is from the call above and used no more.
            unsafe { free(list) };
        }
        Ok(addresses)
    }

    fn raw(&self) -> *mut ffi::RawSocket {
        self.raw.as_ptr()
    }
}

impl Endpoint for Socket {
    const NUMBERING: Numbering = Numbering { kind: 0, state: 1 };

    fn connect(&self, remote: &Addresses) -> io::Result<()> {
        self.fit_packets(remote.addresses.iter().copied())?;
        let bytes = address::packed(remote.sockets());
        let count = c_int::try_from(remote.addresses.len()).unwrap_or(c_int::MAX);
        let mut association = 0u32;
        // SAFETY: `bytes` holds `count` addresses; the last pointer is valid.
        let result = unsafe {
            ffi::usrsctp_connectx(self.raw(), bytes.as_ptr(), count, &raw mut association)
        };
        match check(result) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
            other => other,
        }
    }

    fn listen(&self, backlog: c_int) -> io::Result<()> {
        // SAFETY: the socket is open.
        check(unsafe { ffi::usrsctp_listen(self.raw(), backlog) })
    }

    fn accept(&self) -> io::Result<Self> {
        // SAFETY: the socket is open; null: the address is not asked for.
        let raw = unsafe { ffi::usrsctp_accept(self.raw(), ptr::null_mut(), ptr::null_mut()) };
        let mut socket = Self::own(raw, &self.library, self.binding.clone())?;
        // SAFETY: the socket is open.
        check(unsafe { ffi::usrsctp_set_non_blocking(socket.raw(), 1) })?;
        // It may have ended already; whoever receives will see.
        socket.peers = socket.peer_addresses().unwrap_or_default();
        let _ = socket.fit_packets(socket.peers.iter().map(SocketAddr::ip));
        Ok(socket)
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Piece>> {
        let mut info = ffi::RcvInfo::default();
        let mut info_length = length_of::<ffi::RcvInfo>();
        let (mut info_type, mut flags) = (0, 0);
        // SAFETY: the pointers are valid for the lengths given with them; null: no address is asked for.
        let length = unsafe {
            ffi::usrsctp_recvv(
                self.raw(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                ptr::null_mut(),
                ptr::null_mut(),
                (&raw mut info).cast(),
                &raw mut info_length,
                &raw mut info_type,
                &raw mut flags,
            )
        };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        let notification = flags & ffi::MSG_NOTIFICATION != 0;
        let last = flags & ffi::MSG_EOR != 0;
        if length == 0 && !last {
            return Ok(None);
        }
        Ok(Some(Piece { length, stream: info.stream, notification, last }))
    }

    fn send(&self, message: &[u8], stream: u16) -> io::Result<()> {
        self.send_with(message, ffi::SndInfo { stream, ..Default::default() })
    }

    fn reads(&self) -> u64 {
        self.signal.reads()
    }

    fn writes(&self) -> u64 {
        self.signal.writes()
    }

    fn wait_for_read(&self, seen: u64, deadline: Option<Instant>) -> io::Result<bool> {
        Ok(self.signal.wait_for_read(seen, deadline))
    }

    fn wait_for_write(&self, seen: u64, deadline: Instant) -> io::Result<bool> {
        Ok(self.signal.wait_for_write(seen, deadline))
    }

    fn wake(&self) {
        self.signal.wake(true, true);
    }

    fn shutdown(&self) -> io::Result<()> {
        // SAFETY: the socket is open.
        check(unsafe { ffi::usrsctp_shutdown(self.raw(), libc::SHUT_WR) })
    }

    fn abort(&self) -> io::Result<()> {
        self.send_with(&[], ffi::SndInfo { flags: ffi::ABORT, ..Default::default() })
    }

    fn port(&self) -> u16 {
        self.binding.as_ref().map_or(0, |binding| binding.port())
    }

    fn local_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.list(ffi::usrsctp_getladdrs, ffi::usrsctp_freeladdrs)
    }

    fn peer_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.list(ffi::usrsctp_getpaddrs, ffi::usrsctp_freepaddrs)
    }

    fn path(&self, peer: SocketAddr) -> io::Result<Path> {
        let question = ffi::PeerAddrInfo {
            address: address::storage(peer),
            association: 0,
            state: 0,
            cwnd: 0,
            srtt: 0,
            rto: 0,
            mtu: 0,
        };
        let info = self.get(ffi::GET_PEER_ADDR_INFO, question)?;
        Ok(Path {
            address: peer,
            state: match info.state {
                ffi::ACTIVE => PathState::Active,
                ffi::UNCONFIRMED => PathState::Unconfirmed,
                _ => PathState::Inactive,
            },
            primary: false,
            srtt: Duration::from_millis(info.srtt.into()),
            rto: Duration::from_millis(info.rto.into()),
            mtu: info.mtu,
            cwnd: info.cwnd,
            heartbeats: heartbeats::of(self.port(), peer),
        })
    }

    fn primary(&self) -> io::Result<IpAddr> {
        let question = ffi::SetPrimary {
            address: address::storage(address::ANY),
            association: 0,
            padding: [0; 4],
        };
        let answer = self.get(ffi::PRIMARY_ADDR, question)?;
        let address = address::from_storage(&answer.address);
        address.map(|address| address.ip()).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn set_primary(&self, peer: SocketAddr) -> io::Result<()> {
        let address = address::storage(peer);
        self.set(ffi::PRIMARY_ADDR, &ffi::SetPrimary { address, association: 0, padding: [0; 4] })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // First, so that nobody looks at a closed socket.
        self.registration = None;
        // SAFETY: the socket is open and used no more.
        unsafe { ffi::usrsctp_set_upcall(self.raw(), None, ptr::null_mut()) };
        // SAFETY: as above.
        unsafe { ffi::usrsctp_close(self.raw()) };
        heartbeats::forget(self.port(), &self.peers);
    }
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn length_of<T>() -> libc::socklen_t {
    // Structures of some hundred bytes at most.
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

/// The addresses of a list of the library, whose elements are as long as their families want.
///
/// # Safety
/// If `count` is above 0 there are so many addresses at `list`.
unsafe fn copy_list(list: *const u8, count: c_int) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    let mut offset = 0;
    for _ in 0..count {
        // SAFETY: there is one more address here.
        let start = unsafe { list.add(offset) };
        // SAFETY: every address begins with its family.
        let family = unsafe { start.cast::<u16>().read_unaligned() };
        let length = match c_int::from(family) {
            libc::AF_INET => size_of::<libc::sockaddr_in>(),
            libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
            _ => break,
        };
        // SAFETY: an address of this family has this length.
        let bytes = unsafe { std::slice::from_raw_parts(start, length) };
        addresses.extend(address::unpack(bytes).map(|(address, _)| address));
        offset += length;
    }
    addresses
}
