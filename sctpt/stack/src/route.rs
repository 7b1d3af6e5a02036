//! What the routing table says.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

/// Fails if this host has a route to none of these.
pub(crate) fn check_reachable(peers: &[IpAddr]) -> io::Result<()> {
    let mut last = Ok(());
    for peer in peers {
        match source(*peer) {
            Ok(_) => return Ok(()),
            Err(error) => last = Err(error),
        }
    }
    last
}

/// The longest packet that goes out to `to` unfragmented.
pub(crate) fn mtu(to: Ipv4Addr) -> io::Result<u32> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((to, 9))?;
    let (mut mtu, mut length) = (0u32, 4);
    let place = (&raw mut mtu).cast();
    let fd = socket.as_raw_fd();
    // SAFETY: `place` is valid for `length`.
    match unsafe { libc::getsockopt(fd, libc::IPPROTO_IP, libc::IP_MTU, place, &raw mut length) } {
        0 => Ok(mtu),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The address that the routing table gives for sending to `to`.
pub(crate) fn source(to: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // A UDP socket that is connected has been given its source; nothing is sent.
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(SocketAddr::new(to, 9))?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_reaches_itself() {
        let here: IpAddr = [127, 0, 0, 1].into();
        assert_eq!(source(here).unwrap(), here);
        assert!(mtu([127, 0, 0, 1].into()).unwrap() >= 576);
        check_reachable(&["255.255.255.255".parse().unwrap(), here]).unwrap();
        assert!(check_reachable(&["255.255.255.255".parse().unwrap()]).is_err());
    }
}
