//! What the tools ask of TCP beyond the standard library.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, TcpKeepalive};

/// Binds a TCP or UDP socket that will connect from `source`. The address need
/// not be one of this host's interfaces, and a port that is not given is chosen
/// at the connect, when it only has to be unique together with the target.
pub fn bind_source(socket: &Socket, source: SocketAddr) -> io::Result<()> {
    setsockopt(socket, sockopt::IpFreebind, &true)?;
    if source.port() != 0 {
        socket.set_reuse_address(true)?;
    }
    setsockopt(socket, sockopt::IpBindAddressNoPort, &true)?;
    socket.bind(&source.into())
}

/// A listener whose options every accepted connection inherits.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket =
        Socket::new(Domain::for_address(address), socket2::Type::STREAM.nonblocking(), None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A server can be started again while its former connections still end.
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    // A client that vanished, or whose reset was lost on the way, is found out.
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.bind(&address.into())?;
    // The kernel holds this at net.core.somaxconn.
    socket.listen(i32::MAX)?;
    Ok(socket.into())
}
