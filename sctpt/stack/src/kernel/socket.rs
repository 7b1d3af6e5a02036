//! A socket of the kernel's SCTP, one-to-one style, IPv6 family.

use std::io::{self, IoSlice};
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use libc::{c_int, socklen_t};
use socket2::{Domain, MsgHdr, Protocol, Type};

use super::uapi;
use crate::endpoint::{Endpoint, Piece};
use crate::notification::Numbering;
use crate::{Addresses, Path};

/// Room for a list of addresses; more cannot be bound.
const LIST: usize = 4096;
/// Of control data: length, level, type.
const CMSG_HEADER: usize = size_of::<libc::cmsghdr>();

#[derive(Debug)]
pub(crate) struct Socket {
    socket: socket2::Socket,
    /// Readable when waits are to end (eventfd).
    ended: OwnedFd,
}

/// Control data, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 64]);

impl Socket {
    pub fn new() -> io::Result<Self> {
        let socket =
            socket2::Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::from(uapi::SOL_SCTP)))?;
        socket.set_only_v6(false)?;
        Self::own(socket)
    }

    fn own(socket: socket2::Socket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // SAFETY: numbers only.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Socket { socket, ended: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    pub fn bind(&self, local: &Addresses) -> io::Result<()> {
        if local.is_any() {
            let any = SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), local.port);
            return self.socket.bind(&any.into());
        }
        self.set(uapi::BINDX_ADD, &uapi::mapped(local.sockets()))
    }

    pub fn set(&self, option: c_int, value: &[u8]) -> io::Result<()> {
        let length = socklen_t::try_from(value.len()).map_err(io::Error::other)?;
        let (fd, value) = (self.socket.as_raw_fd(), value.as_ptr().cast());
        // SAFETY: `value` is valid for `length`.
        match unsafe { libc::setsockopt(fd, uapi::SOL_SCTP, option, value, length) } {
            // Some answer with an association's number.
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Asks with what is in `value`; the answer takes its place.
    fn get(&self, option: c_int, mut value: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut length = socklen_t::try_from(value.len()).map_err(io::Error::other)?;
        let (fd, place) = (self.socket.as_raw_fd(), value.as_mut_ptr().cast());
        // SAFETY: `place` is valid for `length`.
        let result =
            unsafe { libc::getsockopt(fd, uapi::SOL_SCTP, option, place, &raw mut length) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(value)
    }

    fn addresses(&self, option: c_int) -> io::Result<Vec<SocketAddr>> {
        let answer = self.get(option, vec![0; LIST])?;
        uapi::read_addresses(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// False when the time is over.
    fn poll(&self, events: libc::c_short, deadline: Option<Instant>) -> io::Result<bool> {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let millis = left.map_or(-1, |left| {
                // Rounded up, or the last millisecond would be spun through.
                i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
            });
            let poll = |fd, events| libc::pollfd { fd, events, revents: 0 };
            let mut polled =
                [poll(self.socket.as_raw_fd(), events), poll(self.ended.as_raw_fd(), libc::POLLIN)];
            // SAFETY: two structures.
            match unsafe { libc::poll(polled.as_mut_ptr(), 2, millis) } {
                0 if left.is_some_and(|left| left > Duration::from_millis(1)) => continue,
                0 => return Ok(false),
                1.. => return Ok(true),
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
    }
}

impl Endpoint for Socket {
    const NUMBERING: Numbering = Numbering { kind: 0x8000, state: 0 };

    fn connect(&self, remote: &Addresses) -> io::Result<()> {
        match self.set(uapi::CONNECTX, &uapi::mapped(remote.sockets())) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
            other => other,
        }
    }

    fn listen(&self, backlog: c_int) -> io::Result<()> {
        self.socket.listen(backlog)
    }

    fn accept(&self) -> io::Result<Self> {
        Self::own(self.socket.accept()?.0)
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Piece>> {
        let mut control = Control([0; 64]);
        let (base, iov_len) = (buffer.as_mut_ptr().cast(), buffer.len());
        let mut piece = libc::iovec { iov_base: base, iov_len };
        // SAFETY: a structure of numbers and pointers, which may all be zero.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_iov = &raw mut piece;
        header.msg_iovlen = 1;
        header.msg_control = (&raw mut control.0).cast();
        header.msg_controllen = control.0.len();
        // SAFETY: the header points to a buffer and control data of the lengths in it.
        let length =
            unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        let last = header.msg_flags & libc::MSG_EOR != 0;
        if length == 0 && !last {
            return Ok(None);
        }
        let notification = header.msg_flags & uapi::MSG_NOTIFICATION != 0;
        let stream = stream(&control.0[..header.msg_controllen.min(control.0.len())]);
        Ok(Some(Piece { length, stream, notification, last }))
    }

    fn send(&self, message: &[u8], stream: u16) -> io::Result<()> {
        let info = uapi::send_info(stream);
        let mut control = Control([0; 64]);
        let whole = CMSG_HEADER + info.len();
        control.0[..8].copy_from_slice(&whole.to_ne_bytes());
        control.0[8..12].copy_from_slice(&uapi::SOL_SCTP.to_ne_bytes());
        control.0[12..16].copy_from_slice(&uapi::CMSG_SNDINFO.to_ne_bytes());
        control.0[CMSG_HEADER..whole].copy_from_slice(&info);
        let pieces = [IoSlice::new(message)];
        let header = MsgHdr::new().with_buffers(&pieces).with_control(&control.0[..whole]);
        self.socket.sendmsg(&header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL).map(drop)
    }

    /// `poll` looks at what is there, so nothing needs to be counted.
    fn reads(&self) -> u64 {
        0
    }

    fn writes(&self) -> u64 {
        0
    }

    fn wait_for_read(&self, _seen: u64, deadline: Option<Instant>) -> io::Result<bool> {
        self.poll(libc::POLLIN, deadline)
    }

    fn wait_for_write(&self, _seen: u64, deadline: Instant) -> io::Result<bool> {
        self.poll(libc::POLLOUT, Some(deadline))
    }

    fn wake(&self) {
        let one = 1u64;
        let place = (&raw const one).cast();
        // Full, it is readable as well.
        // SAFETY: `place` is valid for its 8 bytes.
        unsafe { libc::write(self.ended.as_raw_fd(), place, size_of::<u64>()) };
    }

    fn shutdown(&self) -> io::Result<()> {
        self.socket.shutdown(std::net::Shutdown::Write)
    }

    /// Sockets of this style are aborted by closing them without time to linger. The descriptor stays, as others
    /// may use it; it is something else from now on.
    fn abort(&self) -> io::Result<()> {
        self.socket.set_linger(Some(Duration::ZERO))?;
        // Who waits keeps the socket open.
        self.wake();
        // SAFETY: both descriptors are this structure's own and open.
        match unsafe { libc::dup2(self.ended.as_raw_fd(), self.socket.as_raw_fd()) } {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn port(&self) -> u16 {
        let address = self.socket.local_addr().ok().and_then(|address| address.as_socket());
        address.map_or(0, |address| address.port())
    }

    fn local_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.addresses(uapi::GET_LOCAL_ADDRS)
    }

    fn peer_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.addresses(uapi::GET_PEER_ADDRS).map_err(|error| match error.raw_os_error() {
            // That is all it says of an association that is gone.
            Some(libc::EINVAL) => io::Error::from_raw_os_error(libc::ENOTCONN),
            _ => error,
        })
    }

    fn path(&self, peer: SocketAddr) -> io::Result<Path> {
        let answer = self.get(uapi::GET_PEER_ADDR_INFO, uapi::path_question(peer))?;
        uapi::read_path(peer, &answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn primary(&self) -> io::Result<IpAddr> {
        let answer = self.get(uapi::PRIMARY_ADDR, vec![0; uapi::PRIMARY_LENGTH])?;
        let address = uapi::read_primary(&answer).map(|address| address.ip());
        address.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn set_primary(&self, peer: SocketAddr) -> io::Result<()> {
        self.set(uapi::PRIMARY_ADDR, &uapi::primary(peer))
    }
}

/// The stream of a message, from its control data.
fn stream(control: &[u8]) -> u16 {
    let number =
        |at: usize| -> Option<i32> { Some(i32::from_ne_bytes(*control.get(at..)?.first_chunk()?)) };
    let found = || -> Option<u16> {
        let wanted = (number(8)?, number(12)?) == (uapi::SOL_SCTP, uapi::CMSG_RCVINFO);
        let stream = control.get(CMSG_HEADER..)?.first_chunk()?;
        wanted.then_some(u16::from_ne_bytes(*stream))
    };
    found().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_in_the_control_data() {
        let mut control = [0; 48];
        control[..16].copy_from_slice(&[44, 0, 0, 0, 0, 0, 0, 0, 132, 0, 0, 0, 3, 0, 0, 0]);
        control[16] = 5;
        assert_eq!(stream(&control), 5);
        // Of another kind, cut off, none.
        assert_eq!(stream(&control[..17]), 0);
        control[12] = 1;
        assert_eq!(stream(&control), 0);
        assert_eq!(stream(&[]), 0);
    }
}
