//! The headers of a packet in short, in the order in which lb walks over them and up to where it can.

use lb_core::key::KeyModes;
use lb_core::wire::ip::{Addresses, Fragment, Ip, LengthField};
use lb_core::wire::{Packet, WireError, icmp, ipv4, ipv6, l4, protocol};

pub struct Headers {
    pub texts: Vec<String>,
    pub last: Last,
    direction: Direction,
}

/// What the last header has to tell one flow from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    Ports,
    /// Of SCTP in UDP.
    PortsInUdp,
    Identifier,
    Other,
}

/// Which way a packet goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// That of the packet at hand.
    This,
    /// What an error quotes went the other way.
    Other,
}

impl Headers {
    pub fn of(packet: Packet<'_>, modes: &KeyModes) -> Self {
        let mut headers =
            Headers { texts: Vec::new(), last: Last::Other, direction: Direction::This };
        headers.packet(packet, modes);
        headers
    }

    fn packet(&mut self, packet: Packet<'_>, modes: &KeyModes) {
        let Some(ip) = self.ip(packet) else {
            return;
        };
        if ip.fragment.is_some_and(|fragment| fragment.offset > 0) {
            return;
        }
        match (ip.protocol, ip.addresses) {
            (protocol::ICMP, Addresses::V4(_)) => {
                self.icmp("ICMP", icmp::Version::V4, ip.payload, modes);
            }
            (protocol::ICMPV6, Addresses::V6(_)) => {
                self.icmp("ICMPv6", icmp::Version::V6, ip.payload, modes);
            }
            (protocol::TCP, _) => self.ports("TCP", ip.payload),
            (protocol::SCTP, _) => self.ports("SCTP", ip.payload),
            (protocol::UDP, _) => self.udp(ip.payload, modes),
            (other, _) => self.push(format!("protocol {other}")),
        }
    }

    fn ip<'a>(&mut self, packet: Packet<'a>) -> Option<Ip<'a>> {
        match packet.read(0).map(|[first]: &[u8; 1]| first >> 4) {
            Ok(4) => self.ipv4(packet),
            Ok(6) => self.ipv6(packet),
            Ok(version) => {
                self.push(format!("{}IP version {version}", self.quoted()));
                None
            }
            Err(error) => self.failed(&format!("{}IP", self.quoted()), error),
        }
    }

    fn ipv4<'a>(&mut self, packet: Packet<'a>) -> Option<Ip<'a>> {
        let ip = match ipv4::Header::parse(packet, self.length()) {
            Ok(header) => header.ip(),
            Err(error) => return self.failed(&format!("{}IPv4", self.quoted()), error),
        };
        self.push(format!("{}IPv4 {}", self.quoted(), ip.addresses));
        if let Some(fragment) = ip.fragment {
            self.fragment(fragment);
        }
        Some(ip)
    }

    fn ipv6<'a>(&mut self, packet: Packet<'a>) -> Option<Ip<'a>> {
        let mut ip = match ipv6::parse_fixed(packet, self.length()) {
            Ok(ip) => ip,
            Err(error) => return self.failed(&format!("{}IPv6", self.quoted()), error),
        };
        self.push(format!("{}IPv6 {}", self.quoted(), ip.addresses));
        for _ in 0..ipv6::MAX_EXTENSION_HEADERS {
            if !ipv6::is_before_extension(&ip) {
                return Some(ip);
            }
            let (extension, before) = (ip.protocol, ip.fragment);
            let name = extension_name(extension);
            if let Err(error) = ipv6::step_over_extension(&mut ip) {
                return self.failed(name, error);
            }
            match ip.fragment {
                Some(fragment) if ip.fragment != before => self.fragment(fragment),
                _ if extension == protocol::FRAGMENT => self.push("atomic fragment".into()),
                _ => self.push(name.into()),
            }
        }
        match ipv6::is_before_extension(&ip) {
            true => self.failed("IPv6", WireError::ChainTooLong),
            false => Some(ip),
        }
    }

    fn icmp(&mut self, name: &str, version: icmp::Version, payload: Packet<'_>, modes: &KeyModes) {
        let message = match icmp::parse(version, payload) {
            Ok(message) => message,
            Err(error) => return self.failed(name, error).unwrap_or_default(),
        };
        let [kind, code] = payload.read(0).copied().unwrap_or_default();
        match message {
            icmp::Message::Echo(id) => {
                self.push(format!("{name} echo, identifier {}", u16::from_be_bytes(id)));
                self.last = Last::Identifier;
            }
            icmp::Message::Error(quoted) if self.direction == Direction::This => {
                self.push(format!("{name} error {kind} code {code}"));
                self.direction = Direction::Other;
                self.packet(quoted, modes);
            }
            icmp::Message::Error(_) | icmp::Message::Other => {
                self.push(format!("{name} type {kind} code {code}"));
            }
        }
    }

    fn udp(&mut self, payload: Packet<'_>, modes: &KeyModes) {
        self.ports("UDP", payload);
        let Ok(ports) = l4::ports(payload) else {
            return;
        };
        let ports = match self.direction {
            Direction::This => ports,
            Direction::Other => l4::swapped(ports),
        };
        if modes.sctp_encap.contains(l4::destination(ports)) {
            match payload.after(l4::UDP_HEADER_LEN) {
                Ok(inside) => self.ports("SCTP", inside),
                Err(error) => return self.failed("SCTP", error).unwrap_or_default(),
            }
            self.last = Last::PortsInUdp;
        }
    }

    fn ports(&mut self, name: &str, payload: Packet<'_>) {
        match l4::ports(payload) {
            Ok([s0, s1, d0, d1]) => {
                let [source, destination] = [[s0, s1], [d0, d1]].map(u16::from_be_bytes);
                self.push(format!("{name} {source} -> {destination}"));
                self.last = Last::Ports;
            }
            Err(error) => self.failed(name, error).unwrap_or_default(),
        }
    }

    fn quoted(&self) -> &'static str {
        match self.direction {
            Direction::This => "",
            Direction::Other => "quoted ",
        }
    }

    fn length(&self) -> LengthField {
        match self.direction {
            Direction::This => LengthField::Bounds,
            Direction::Other => LengthField::Ignored,
        }
    }

    fn fragment(&mut self, Fragment { id, offset, more }: Fragment) {
        let place = if more { "" } else { ", the last" };
        self.push(format!("fragment {id:#x} at {offset}{place}"));
    }

    /// The walk ends at this header.
    fn failed<T>(&mut self, name: &str, error: WireError) -> Option<T> {
        self.push(format!("{name}: {error}"));
        None
    }

    fn push(&mut self, text: String) {
        self.texts.push(text);
    }
}

fn extension_name(extension: u8) -> &'static str {
    match extension {
        protocol::HOP_BY_HOP => "hop-by-hop options",
        protocol::ROUTING => "routing header",
        protocol::FRAGMENT => "fragment header",
        protocol::AUTHENTICATION => "authentication header",
        _ => "destination options",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_core::key::{Affinity, EncapPorts, Key, SctpHash};
    use lb_core::table::Config;
    use lb_core::walk::{Class, Reason, keyed};
    use proptest::prelude::*;

    const MODES: KeyModes = KeyModes {
        sctp_hash: SctpHash::Tuple,
        affinity: Affinity::Flow,
        sctp_encap: EncapPorts([9899, 0]),
    };
    /// Port 4000 to port 80.
    const FLOW: [u8; 4] = [0x0f, 0xa0, 0, 80];

    /// 10.0.0.1 -> 10.0.0.2
    fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
        let header = [0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        [&header, payload].concat()
    }

    /// 1000::1 -> 1000::2
    fn v6(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![0x60, 0, 0, 0, high, low, next_header, 64];
        for last in [1, 2] {
            bytes.extend([0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        [bytes.as_slice(), payload].concat()
    }

    fn error(kind: u8, quoted: &[u8]) -> Vec<u8> {
        let message = [&[kind, 4, 0, 0, 0, 0, 5, 0], quoted].concat();
        if quoted[0] >> 4 == 4 { v4(1, &message) } else { v6(58, &message) }
    }

    fn corpus() -> Vec<(Vec<u8>, &'static str)> {
        let echo = [8, 0, 0, 0, 0, 7, 0, 1];
        let chain = [
            [43u8, 0, 1, 4, 0, 0, 0, 0],
            [60, 0, 0, 0, 0, 0, 0, 0],
            [51, 0, 1, 4, 0, 0, 0, 0],
            [44, 0, 0, 0, 0, 0, 0, 1],
            [6, 0, 0, 0, 0, 0, 0, 5],
        ];
        let chain = [chain.concat().as_slice(), &FLOW].concat();
        let encapsulated = [0x12, 0x34, 0x26, 0xab, 0, 12, 0, 0, 0x0f, 0xa0, 0, 80];
        let answered = [0x26, 0xab, 0x12, 0x34, 0, 12, 0, 0, 0, 80, 0x0f, 0xa0];
        let mut later = v4(17, &FLOW);
        later[6..8].copy_from_slice(&[0, 2]);
        vec![
            (v4(6, &FLOW), "IPv4 10.0.0.1 -> 10.0.0.2, TCP 4000 -> 80"),
            (v6(132, &FLOW), "IPv6 1000::1 -> 1000::2, SCTP 4000 -> 80"),
            (v4(17, &encapsulated), "IPv4 10.0.0.1 -> 10.0.0.2, UDP 4660 -> 9899, SCTP 4000 -> 80"),
            (v4(1, &echo), "IPv4 10.0.0.1 -> 10.0.0.2, ICMP echo, identifier 7"),
            (
                v6(58, &[133, 0, 0, 0, 0, 0, 0, 0]),
                "IPv6 1000::1 -> 1000::2, ICMPv6 type 133 code 0",
            ),
            (v4(47, &[]), "IPv4 10.0.0.1 -> 10.0.0.2, protocol 47"),
            (later, "IPv4 10.0.0.1 -> 10.0.0.2, fragment 0x0 at 16, the last"),
            (
                v6(44, &[17, 0, 0, 1, 0, 0, 0x12, 0x34, 0x0f, 0xa0, 0, 80]),
                "IPv6 1000::1 -> 1000::2, fragment 0x1234 at 0, UDP 4000 -> 80",
            ),
            (
                v6(0, &chain),
                "IPv6 1000::1 -> 1000::2, hop-by-hop options, routing header, destination options, \
                 authentication header, atomic fragment, TCP 4000 -> 80",
            ),
            (
                error(3, &v4(17, &answered)),
                "IPv4 10.0.0.1 -> 10.0.0.2, ICMP error 3 code 4, quoted IPv4 10.0.0.1 -> 10.0.0.2, \
                 UDP 9899 -> 4660, SCTP 80 -> 4000",
            ),
            (
                error(2, &v6(58, &[128, 0, 0, 0, 0, 7, 0, 1])),
                "IPv6 1000::1 -> 1000::2, ICMPv6 error 2 code 4, quoted IPv6 1000::1 -> 1000::2, \
                 ICMPv6 echo, identifier 7",
            ),
            (
                error(3, &error(3, &v4(6, &FLOW))),
                "IPv4 10.0.0.1 -> 10.0.0.2, ICMP error 3 code 4, quoted IPv4 10.0.0.1 -> 10.0.0.2, \
                 ICMP type 3 code 4",
            ),
            (vec![0x50; 20], "IP version 5"),
        ]
    }

    #[test]
    fn headers_in_the_order_of_the_walk() {
        for (packet, expected) in corpus() {
            let headers = Headers::of(Packet::whole(&packet), &MODES);
            assert_eq!(headers.texts.join(", "), expected);
        }
    }

    #[test]
    fn the_walk_ends_where_a_header_does_not() {
        for (packet, expected) in [
            (vec![], "IP: the packet ends inside a header"),
            (vec![0x45; 19], "IPv4: the packet ends inside a header"),
            (v4(6, &[1, 2, 3]), "IPv4 10.0.0.1 -> 10.0.0.2, TCP: the packet ends inside a header"),
            (
                v6(0, &[6, 9, 0, 0]),
                "IPv6 1000::1 -> 1000::2, hop-by-hop options: the packet ends inside a header",
            ),
            (
                v6(60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(70)),
                &["IPv6 1000::1 -> 1000::2", &", destination options".repeat(64)].concat(),
            ),
            (
                error(3, &v4(6, &[])[..12]),
                "IPv4 10.0.0.1 -> 10.0.0.2, ICMP error 3 code 4, \
                 quoted IPv4: the packet ends inside a header",
            ),
        ] {
            let texts = Headers::of(Packet::whole(&packet), &MODES).texts.join(", ");
            let rest = texts.strip_prefix(expected);
            assert!(
                rest == Some("") || rest == Some(", IPv6: too many IPv6 extension headers"),
                "{texts}"
            );
        }
    }

    /// The headers that are told and the key that is made come from one walk.
    fn check(packet: Packet<'_>) -> Result<(), TestCaseError> {
        let config = Config { modes: MODES, ..Config::default() };
        let headers = Headers::of(packet, &MODES);
        let (class, key) = keyed(packet, &config);
        let end = headers.texts.last().cloned().unwrap_or_default();
        let faults = [WireError::Truncated, WireError::NotCopied, WireError::ChainTooLong];
        let fault = faults.iter().find(|fault| end.ends_with(&fault.to_string()));
        match key {
            Ok(Key::V4([.., last]) | Key::V6([.., last])) => {
                prop_assert_eq!(fault, None);
                prop_assert!(headers.last != Last::Other || last == 0, "{}", end);
            }
            Ok(_) => prop_assert_eq!(fault, None),
            Err(Reason::Truncated | Reason::NotCopied | Reason::ChainTooLong) => {
                prop_assert_eq!(fault.map(|fault| Reason::from(*fault)), key.err());
            }
            Err(_) => prop_assert!(class == Class::Fragment || fault.is_none(), "{}", end),
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn headers_and_key_agree_on_any_bytes(bytes: Vec<u8>, more in 0usize..200) {
            check(Packet::copied(&bytes, bytes.len() + more))?;
        }

        #[test]
        fn headers_and_key_agree_on_any_change(
            which in 0usize..13, len in 0usize..120, more in 0usize..200,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let (mut bytes, _) = corpus()[which].clone();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let bytes = &bytes[..len.min(bytes.len())];
            check(Packet::copied(bytes, bytes.len() + more))?;
        }
    }
}
