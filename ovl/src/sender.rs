//! The hidden verb that sends raw IP packets from a node.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

/// Sends what standard input lists: a packet a line, in hex digits.
pub fn run() -> Result<ExitCode> {
    let sockets = Sockets::open()?;
    for line in io::stdin().lines() {
        sockets.send(&from_hex(line.context("read packet")?.trim())?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens a socket of the kernel's SCTP, one that takes associations, and another that makes one to it.
pub fn open_sctp() -> Result<ExitCode> {
    let open = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::SCTP));
    let server = open().context("open SCTP socket")?;
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    server.bind(&loopback.into()).context("bind SCTP socket")?;
    server.listen(1).context("listen on SCTP socket")?;
    let address = server.local_addr().context("find port of SCTP socket")?;
    open().and_then(|client| client.connect(&address)).context("connect by SCTP")?;
    Ok(ExitCode::SUCCESS)
}

/// A packet as a line that [`run`] reads.
pub fn to_hex(packet: &[u8]) -> String {
    packet.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Raw sockets of both families.
pub struct Sockets {
    v4: Socket,
    v6: Socket,
}

impl Sockets {
    pub fn open() -> Result<Self> {
        // IPPROTO_RAW: the data begins with the IP header.
        let open = |domain| Socket::new(domain, Type::RAW, Some(Protocol::from(255)));
        let v4 = open(Domain::IPV4).context("open raw IPv4 socket")?;
        let v6 = open(Domain::IPV6).context("open raw IPv6 socket")?;
        Ok(Self { v4, v6 })
    }

    /// Sends a packet that begins with its IP header.
    pub fn send(&self, packet: &[u8]) -> Result<()> {
        let destination = destination(packet).context("send packet: no IP header")?;
        let socket = match destination {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        socket
            .send_to(packet, &SocketAddr::new(destination, 0).into())
            .with_context(|| format!("send packet to {destination}"))?;
        Ok(())
    }
}

fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => {
            let octets: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            Some(Ipv4Addr::from(octets).into())
        }
        6 => {
            let octets: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

fn from_hex(digits: &str) -> Result<Vec<u8>> {
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| {
            let text = std::str::from_utf8(pair)?;
            anyhow::ensure!(pair.len() == 2, "{text:?} is half a byte");
            Ok(u8::from_str_radix(text, 16)?)
        })
        .collect::<Result<_>>()
        .with_context(|| format!("read packet {digits:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_both_ways() {
        assert_eq!(to_hex(&[0x45, 0, 0xff]), "4500ff");
        assert_eq!(from_hex("4500ff").unwrap(), [0x45, 0, 0xff]);
        assert!(from_hex("450").is_err());
        assert!(from_hex("4x").is_err());
    }

    #[test]
    fn the_destination_is_in_the_header() {
        let mut packet = vec![0x45; 20];
        packet[16..].copy_from_slice(&[10, 0, 0, 1]);
        assert_eq!(destination(&packet), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(destination(&packet[..19]), None);
        assert_eq!(destination(&[0x60; 39]), None);
        assert_eq!(destination(&[]), None);
    }
}
