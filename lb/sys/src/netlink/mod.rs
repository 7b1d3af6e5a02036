//! Netlink sockets: to netfilter for queues and rules, and to the kernel's routing.

pub(crate) mod attribute;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Type};

/// How long a receiver waits before it looks round.
const IDLE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Socket(socket2::Socket);

impl Socket {
    /// To netfilter.
    pub fn open() -> io::Result<Self> {
        Self::open_to(libc::NETLINK_NETFILTER)
    }

    /// To the kernel's routing.
    pub fn open_routing() -> io::Result<Self> {
        Self::open_to(libc::NETLINK_ROUTE)
    }

    fn open_to(part: libc::c_int) -> io::Result<Self> {
        let netlink = Domain::from(libc::AF_NETLINK);
        let socket = socket2::Socket::new(netlink, Type::RAW, Some(Protocol::from(part)))?;
        // Connected to the kernel, a netlink socket hears from nobody else.
        socket.connect(&kernel_address())?;
        socket.set_read_timeout(Some(IDLE))?;
        let socket = Socket(socket);
        // When the buffer overflows, the kernel otherwise stops delivering until it is empty. What
        // is lost is counted by the kernel and read from there.
        socket.set_flag(libc::NETLINK_NO_ENOBUFS)?;
        Ok(socket)
    }

    /// Asks for errors that say more than a number, and do not repeat the request.
    pub fn explain_errors(&self) -> io::Result<()> {
        self.set_flag(libc::NETLINK_CAP_ACK)?;
        self.set_flag(libc::NETLINK_EXT_ACK)
    }

    /// Asks to be told what happens.
    pub fn join(&self, group: libc::c_int) -> io::Result<()> {
        self.set_option(libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group)
    }

    /// How large a datagram may be, beyond the system's limit.
    pub fn set_send_buffer(&self, bytes: usize) -> io::Result<()> {
        let wanted = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        self.set_option(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, wanted)
    }

    /// Asks for a buffer beyond the system's limit, else for as much as the limit allows.
    pub fn set_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        let wanted = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        match self.set_option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, wanted) {
            Ok(()) => Ok(()),
            Err(_) => self.0.set_recv_buffer_size(bytes),
        }
    }

    pub fn receive_buffer(&self) -> io::Result<usize> {
        self.0.recv_buffer_size()
    }

    pub fn send(&self, datagram: &[u8]) -> io::Result<()> {
        self.0.send(datagram).map(|_| ())
    }

    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the buffer is initialised and `recv` writes initialised bytes.
        let buffer = unsafe { &mut *(std::ptr::from_mut(buffer) as *mut [MaybeUninit<u8>]) };
        self.0.recv(buffer)
    }

    /// A datagram that waits already, or none.
    pub fn receive_waiting(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        // SAFETY: the buffer is initialised and `recv` writes initialised bytes.
        let buffer = unsafe { &mut *(std::ptr::from_mut(buffer) as *mut [MaybeUninit<u8>]) };
        loop {
            match self.0.recv_with_flags(buffer, libc::MSG_DONTWAIT) {
                Ok(len) => return Ok(Some(len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Fills the buffers that the headers describe; says how many.
    pub fn receive_batch(&self, headers: &mut [libc::mmsghdr]) -> io::Result<usize> {
        let count = libc::c_uint::try_from(headers.len()).unwrap_or(libc::c_uint::MAX);
        // SAFETY: the headers and all that they point to are valid for writes (see `Ring`).
        let received = unsafe {
            libc::recvmmsg(
                self.0.as_raw_fd(),
                headers.as_mut_ptr(),
                count,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    fn set_flag(&self, flag: libc::c_int) -> io::Result<()> {
        self.set_option(libc::SOL_NETLINK, flag, 1)
    }

    fn set_option(
        &self,
        level: libc::c_int,
        option: libc::c_int,
        value: libc::c_int,
    ) -> io::Result<()> {
        // SAFETY: the pointer is to an int and the length is that of an int.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                len_of::<libc::c_int>(),
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// The kernel is port 0.
fn kernel_address() -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_nl is one of the types that the storage is for.
    let address = unsafe { storage.view_as::<libc::sockaddr_nl>() };
    address.nl_family = libc::sa_family_t::try_from(libc::AF_NETLINK).unwrap_or_default();
    // SAFETY: the storage holds a sockaddr_nl of this length.
    unsafe { SockAddr::new(storage, len_of::<libc::sockaddr_nl>()) }
}

fn len_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(libc::socklen_t::MAX)
}
