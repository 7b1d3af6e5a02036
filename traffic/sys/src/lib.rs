//! Where the traffic tools need the kernel unsafely: what it knows about a TCP connection, and
//! network devices that are files.
#![warn(missing_docs)]

pub mod tun;

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd as _};

/// Segments that were sent again, over the whole life of the connection. A
/// connection that failed can be asked as long as its socket is open.
pub fn retransmits(socket: impl AsFd) -> io::Result<u32> {
    // SAFETY: the structure is made of integers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&info)).expect("a small structure");
    // SAFETY: the kernel writes at most `length` bytes to `info`; both outlive
    // the call, and the descriptor is borrowed for its time.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    match result {
        0 => Ok(info.tcpi_total_retrans),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn a_new_connection_has_sent_nothing_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(retransmits(&stream).unwrap(), 0);
    }

    #[test]
    fn other_sockets_are_refused() {
        assert!(retransmits(UdpSocket::bind("127.0.0.1:0").unwrap()).is_err());
    }
}
