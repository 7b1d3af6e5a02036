//! A UDP server socket that answers from the address it was asked at.
//!
//! A socket bound to `[::]` or `0.0.0.0` lets the kernel choose the source of
//! what it sends, by route. That is wrong for a server that owns a virtual
//! address beside its own: the client asked the virtual one and takes no
//! answer from another. So each datagram brings its destination along as packet
//! info (`IP_PKTINFO`, `IPV6_RECVPKTINFO`), and the answer carries it back.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use nix::cmsg_space;
use nix::libc::{in_pktinfo, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, Socket, Type};

/// A bound, non-blocking server socket. On `[::]` it serves both families.
pub struct DatagramServer {
    socket: Socket,
    control: Vec<u8>,
}

const RECEIVE_BUFFER: usize = 8 << 20;

/// Where a datagram came from and which address it was sent to.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Bytes put into the buffer; what did not fit is gone.
    pub length: usize,
    pub peer: SocketAddr,
    asked: Asked,
}

/// The packet info of an answer: its source address and no interface, which is
/// left to routing.
#[derive(Clone, Copy, Debug)]
enum Asked {
    V4(in_pktinfo),
    /// Also an IPv4 address on a socket of both families, as `::ffff:a.b.c.d`.
    V6(in6_pktinfo),
    /// A group cannot be a source: the kernel chooses.
    Group,
}

impl DatagramServer {
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), None)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        }
        // What waits here is not lost: a server that is busy for a moment must
        // not look like a loss on the way. Beyond the system's limit only root
        // gets it, and the others get what they may have.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        socket.bind(&address.into())?;
        Ok(Self {
            socket,
            // One of the two comes; together they are room enough for either.
            control: cmsg_space!(in_pktinfo, in6_pktinfo),
        })
    }

    /// Takes one datagram; `WouldBlock` when there is none.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Request> {
        let mut parts = [IoSliceMut::new(buffer)];
        let message = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut self.control),
            MsgFlags::empty(),
        )?;
        let peer = message
            .address
            .as_ref()
            .and_then(to_socket_address)
            .ok_or_else(|| io::Error::other("a datagram without a sender"))?;
        let asked = message
            .cmsgs()?
            .find_map(|control| match control {
                ControlMessageOwned::Ipv4PacketInfo(info) => Some(Asked::v4(info)),
                ControlMessageOwned::Ipv6PacketInfo(info) => Some(Asked::v6(info)),
                _ => None,
            })
            .ok_or_else(|| io::Error::other("a datagram without packet info"))?;
        Ok(Request { length: message.bytes, peer, asked })
    }

    /// Answers a request from the address that it was sent to.
    pub fn answer(&self, request: &Request, payload: &[u8]) -> io::Result<()> {
        let source = match &request.asked {
            Asked::V4(info) => Some(ControlMessage::Ipv4PacketInfo(info)),
            Asked::V6(info) => Some(ControlMessage::Ipv6PacketInfo(info)),
            Asked::Group => None,
        };
        sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(payload)],
            source.as_slice(),
            MsgFlags::empty(),
            Some(&SockaddrStorage::from(request.peer)),
        )?;
        Ok(())
    }
}

impl AsFd for DatagramServer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Asked {
    fn v4(received: in_pktinfo) -> Self {
        Self::V4(in_pktinfo {
            ipi_ifindex: 0,
            // Already one of this host's addresses, even if the destination
            // was a broadcast or a group.
            ipi_spec_dst: received.ipi_spec_dst,
            ipi_addr: received.ipi_addr,
        })
    }

    fn v6(received: in6_pktinfo) -> Self {
        let address = Ipv6Addr::from(received.ipi6_addr.s6_addr);
        let is_group = match address.to_ipv4_mapped() {
            Some(mapped) => mapped.is_multicast() || mapped.is_broadcast(),
            None => address.is_multicast(),
        };
        match is_group {
            true => Self::Group,
            false => Self::V6(in6_pktinfo { ipi6_ifindex: 0, ..received }),
        }
    }
}

fn to_socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some((*v4).into());
    }
    address.as_sockaddr_in6().map(|v6| (*v6).into())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::{Duration, Instant};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn server(address: &str) -> (DatagramServer, u16) {
        let server = DatagramServer::bind(address.parse().unwrap()).unwrap();
        let bound = server.socket.local_addr().unwrap();
        (server, bound.as_socket().unwrap().port())
    }

    fn receive(server: &mut DatagramServer, buffer: &mut [u8]) -> Request {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match server.receive(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    assert!(Instant::now() < deadline, "no datagram came");
                    std::thread::yield_now();
                }
                other => return other.unwrap(),
            }
        }
    }

    /// A connected socket takes answers from nowhere else.
    fn connected(address: &str, port: u16) -> UdpSocket {
        let local = match address.contains(':') {
            true => "[::]:0",
            false => "0.0.0.0:0",
        };
        let client = UdpSocket::bind(local).unwrap();
        client.connect((address, port)).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    #[test]
    fn the_answer_comes_from_the_address_that_was_asked() {
        for (listen, asked) in [
            ("0.0.0.0:0", "127.0.0.1"),
            ("0.0.0.0:0", "127.0.0.2"),
            ("[::]:0", "127.0.0.3"),
            ("[::]:0", "::1"),
        ] {
            let (mut server, port) = server(listen);
            let client = connected(asked, port);
            client.send(b"Hello").unwrap();
            let mut buffer = [0; 64];
            let request = receive(&mut server, &mut buffer);
            assert_eq!(&buffer[..request.length], b"Hello");
            server.answer(&request, b"answer").unwrap();
            let length = client.recv(&mut buffer).expect(asked);
            assert_eq!(&buffer[..length], b"answer", "{listen} asked at {asked}");
        }
    }

    #[test]
    fn empty_and_oversized_datagrams_are_taken() {
        let (mut server, port) = server("127.0.0.1:0");
        let client = connected("127.0.0.1", port);
        let mut buffer = [0; 64];
        client.send(b"").unwrap();
        assert_eq!(receive(&mut server, &mut buffer).length, 0);
        client.send(&[7; 2_000]).unwrap();
        assert_eq!(receive(&mut server, &mut buffer).length, 64);
    }
}
