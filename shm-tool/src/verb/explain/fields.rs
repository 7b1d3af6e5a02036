//! A packet that is given by its fields.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use lb_core::wire::{ipv6, protocol};

/// An address, perhaps with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    address: IpAddr,
    port: Option<u16>,
}

/// A protocol by its number; `icmp` is one of two by the version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Number(u8),
    Echo,
}

/// All that a packet needs to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    addresses: Pair,
    content: Content,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pair {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Ports { protocol: u8, source: u16, destination: u16 },
    Echo { id: u16 },
    Nothing { protocol: u8 },
}

impl Protocol {
    pub const TCP: Protocol = Protocol::Number(protocol::TCP);
}

impl FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse() {
            return Ok(Endpoint { address, port: None });
        }
        let with_port: SocketAddr =
            text.parse().map_err(|_| "not of the form ADDRESS:PORT, [IPV6]:PORT or ADDRESS")?;
        Ok(Endpoint { address: with_port.ip(), port: Some(with_port.port()) })
    }
}

impl FromStr for Protocol {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Protocol::TCP),
            "udp" => Ok(Protocol::Number(protocol::UDP)),
            "sctp" => Ok(Protocol::Number(protocol::SCTP)),
            "icmp" => Ok(Protocol::Echo),
            digits if digits.starts_with(|first: char| first.is_ascii_digit()) => {
                let number = digits.parse().map_err(|_| "not a protocol number from 0 to 255")?;
                Ok(Protocol::Number(number))
            }
            _ => Err("not tcp, udp, sctp, icmp or a protocol number from 0 to 255"),
        }
    }
}

impl Fields {
    /// The fields, if they fit together.
    pub fn new(
        src: Endpoint,
        dst: Endpoint,
        protocol: Protocol,
        id: Option<u16>,
    ) -> Result<Self, &'static str> {
        let addresses = match (src.address, dst.address) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Pair::V4(src, dst),
            (IpAddr::V6(src), IpAddr::V6(dst)) => Pair::V6(src, dst),
            _ => {
                return Err(
                    "--src and --dst are of different families: one is IPv4, the other IPv6",
                );
            }
        };
        let protocol = match (protocol, addresses) {
            (Protocol::Number(protocol::ICMP), Pair::V4(..))
            | (Protocol::Number(protocol::ICMPV6), Pair::V6(..)) => Protocol::Echo,
            (Protocol::Number(number), Pair::V6(..)) if ipv6::is_extension(number) => {
                return Err(
                    "that is the number of an IPv6 extension header; give the packet as --hex",
                );
            }
            _ => protocol,
        };
        let content = match (protocol, src.port, dst.port, id) {
            (Protocol::Echo, None, None, Some(id)) => Content::Echo { id },
            (Protocol::Echo, None, None, None) => {
                return Err("an ICMP echo needs its identifier: --id N");
            }
            (Protocol::Number(_), .., Some(_)) => return Err("--id is for --proto icmp only"),
            (Protocol::Number(protocol), source, destination, None) if has_ports(protocol) => {
                let (Some(source), Some(destination)) = (source, destination) else {
                    return Err(
                        "TCP, UDP and SCTP need the ports of --src and --dst: ADDRESS:PORT",
                    );
                };
                Content::Ports { protocol, source, destination }
            }
            (Protocol::Number(protocol), None, None, None) => Content::Nothing { protocol },
            _ => return Err("this protocol has no ports: give --src and --dst without"),
        };
        Ok(Fields { addresses, content })
    }

    /// The destination port if it is a UDP packet.
    pub fn udp_destination(&self) -> Option<u16> {
        match self.content {
            Content::Ports { protocol: protocol::UDP, destination, .. } => Some(destination),
            _ => None,
        }
    }

    /// A packet with these fields. What lb does not look at, such as check sums, is zero.
    pub fn packet(&self) -> Vec<u8> {
        let (icmp, echo_request) = match self.addresses {
            Pair::V4(..) => (protocol::ICMP, 8),
            Pair::V6(..) => (protocol::ICMPV6, 128),
        };
        let (protocol, payload) = match self.content {
            Content::Nothing { protocol } => (protocol, vec![]),
            Content::Echo { id } => {
                let [high, low] = id.to_be_bytes();
                (icmp, vec![echo_request, 0, 0, 0, high, low, 0, 1])
            }
            Content::Ports { protocol, source, destination } => {
                let header_len = match protocol {
                    protocol::TCP => 20,
                    protocol::UDP => 8,
                    _ => 12,
                };
                let mut payload = [source.to_be_bytes(), destination.to_be_bytes()].concat();
                payload.resize(header_len, 0);
                (protocol, payload)
            }
        };
        let mut packet = self.ip_header(protocol, payload.len());
        packet.extend(payload);
        packet
    }

    fn ip_header(&self, protocol: u8, payload_len: usize) -> Vec<u8> {
        const TIME_TO_LIVE: u8 = 64;
        let len = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes();
        match self.addresses {
            Pair::V4(source, destination) => {
                let [high, low] = len(20 + payload_len);
                let mut header = vec![0x45, 0, high, low, 0, 0, 0, 0, TIME_TO_LIVE, protocol, 0, 0];
                header.extend(source.octets());
                header.extend(destination.octets());
                header
            }
            Pair::V6(source, destination) => {
                let [high, low] = len(payload_len);
                let mut header = vec![0x60, 0, 0, 0, high, low, protocol, TIME_TO_LIVE];
                header.extend(source.octets());
                header.extend(destination.octets());
                header
            }
        }
    }
}

fn has_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_core::key::{Affinity, EncapPorts, Key, KeyModes, SctpHash};
    use lb_core::table::Config;
    use lb_core::walk::{Class, keyed};
    use lb_core::wire::Packet;
    use lb_core::wire::ip::Addresses;
    use proptest::prelude::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse().unwrap()
    }

    #[test]
    fn endpoints_with_and_without_ports() {
        for (text, address, port) in [
            ("10.0.0.1:80", "10.0.0.1", Some(80)),
            ("10.0.0.1", "10.0.0.1", None),
            ("[1000::1]:80", "1000::1", Some(80)),
            ("1000::1", "1000::1", None),
            ("1000::1:80", "1000::1:80", None),
        ] {
            assert_eq!(endpoint(text), Endpoint { address: address.parse().unwrap(), port });
        }
        for text in
            ["", "80", "10.0.0.1:", "10.0.0.1:65536", "[1000::1]", "[10.0.0.1]:80", "host:80"]
        {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn protocols_by_name_or_number() {
        for (text, protocol) in [
            ("tcp", Protocol::Number(6)),
            ("UDP", Protocol::Number(17)),
            ("sctp", Protocol::Number(132)),
            ("icmp", Protocol::Echo),
            ("0", Protocol::Number(0)),
            ("255", Protocol::Number(255)),
        ] {
            assert_eq!(text.parse(), Ok(protocol), "{text}");
        }
        for text in ["", "256", "-1", "+6", "gre", "0x6", "6 "] {
            assert!(text.parse::<Protocol>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn fields_that_do_not_fit_together() {
        let new = |src, dst, protocol: &str, id| {
            Fields::new(endpoint(src), endpoint(dst), protocol.parse().unwrap(), id).map(|_| ())
        };
        for (src, dst, protocol, id, error) in [
            ("10.0.0.1:1", "[1000::1]:2", "tcp", None, "different families"),
            ("10.0.0.1", "10.0.0.2:2", "tcp", None, "need the ports"),
            ("10.0.0.1:1", "10.0.0.2", "132", None, "need the ports"),
            ("10.0.0.1", "10.0.0.2", "icmp", None, "needs its identifier"),
            ("1000::1", "1000::2", "58", None, "needs its identifier"),
            ("10.0.0.1:1", "10.0.0.2:2", "icmp", Some(7), "has no ports"),
            ("10.0.0.1:1", "10.0.0.2", "47", None, "has no ports"),
            ("10.0.0.1:1", "10.0.0.2:2", "tcp", Some(7), "for --proto icmp only"),
            ("10.0.0.1", "10.0.0.2", "47", Some(7), "for --proto icmp only"),
            ("1000::1", "1000::2", "44", None, "IPv6 extension header"),
        ] {
            let refused = new(src, dst, protocol, id).unwrap_err();
            assert!(refused.contains(error), "{src} {dst} {protocol}: {refused}");
        }
        // What extends IPv6 is a protocol like any other behind IPv4.
        assert_eq!(new("10.0.0.1", "10.0.0.2", "44", None), Ok(()));
    }

    fn both(src: IpAddr, dst: IpAddr, check: impl FnOnce(Addresses<'_>)) {
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let both = [src.octets(), dst.octets()].concat();
                check(Addresses::V4(&both.try_into().unwrap()));
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let both = [src.octets(), dst.octets()].concat();
                check(Addresses::V6(&both.try_into().unwrap()));
            }
            _ => panic!("of different families"),
        }
    }

    proptest! {
        /// The packet that is built has the key of its fields, in every mode.
        #[test]
        fn a_packet_has_the_key_of_its_fields(
            v6: bool, src: u128, dst: u128, source: u16, destination: u16, protocol: u8,
            tuple: bool, client: bool,
        ) {
            let address = |number: u128| match v6 {
                true => IpAddr::from(number.to_be_bytes()),
                false => IpAddr::from(((number & 0xffff_ffff) as u32).to_be_bytes()),
            };
            let (src, dst) = (address(src), address(dst));
            let modes = KeyModes {
                sctp_hash: if tuple { SctpHash::Tuple } else { SctpHash::Ports },
                affinity: if client { Affinity::Client } else { Affinity::Flow },
                // Not the one of this packet: there is no SCTP inside.
                sctp_encap: EncapPorts([destination.wrapping_add(1), 0]),
            };
            let config = Config { modes, ..Config::default() };
            let walked = |port_of: [Option<u16>; 2], protocol, id| {
                let [src, dst] = [(src, port_of[0]), (dst, port_of[1])]
                    .map(|(address, port)| Endpoint { address, port });
                let fields = Fields::new(src, dst, protocol, id).unwrap();
                keyed(Packet::whole(&fields.packet()), &config)
            };

            let [s0, s1] = source.to_be_bytes();
            let [d0, d1] = destination.to_be_bytes();
            for (number, class) in [(6, Class::Tcp), (17, Class::Udp), (132, Class::Sctp)] {
                let found = walked([Some(source), Some(destination)], Protocol::Number(number), None);
                both(src, dst, |both| {
                    let key = Key::transport(both, number, [s0, s1, d0, d1], &modes);
                    assert_eq!(found, (class, Ok(key)));
                });
            }

            let found = walked([None; 2], Protocol::Echo, Some(source));
            let icmp = if v6 { 58 } else { 1 };
            both(src, dst, |both| {
                assert_eq!(found, (Class::Echo, Ok(Key::tuple(both, icmp, [s0, s1, 0, 0]))));
            });

            let is_taken = [6, 17, 132, icmp].contains(&protocol);
            let is_header = v6 && ipv6::is_extension(protocol);
            if !is_taken && !is_header {
                let found = walked([None; 2], Protocol::Number(protocol), None);
                both(src, dst, |both| {
                    assert_eq!(found, (Class::Other, Ok(Key::tuple(both, protocol, [0; 4]))));
                });
            }
        }
    }
}
