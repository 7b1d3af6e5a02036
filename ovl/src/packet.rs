//! Whole IP packets of a flow, as bytes, with headers that sockets do not send.

use std::net::IpAddr;

use crate::flow::{Flow, Transport};

/// What an IP header says besides addresses, and what stands between it and the transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extras {
    None,
    /// IPv4 options or IPv6 extension headers.
    Some,
    /// The packet is the first of several fragments.
    FirstFragment,
    /// The packet is the last of several fragments.
    LastFragment,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// An IPv6 extension header: its number, and what follows its first byte, which names the next.
type Extension = (u8, &'static [u8]);

/// No authentication header: nftables takes that for the transport.
const EXTENSIONS: [Extension; 4] = [
    // Hop by hop: length in units of 8 bytes beyond the first 8, padding.
    (0, &[0, 1, 4, 0, 0, 0, 0]),
    // Destination options, twice as long.
    (60, &[1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    // Routing: an experimental type without segments left.
    (43, &[0, 253, 0, 0, 0, 0, 0]),
    // Fragment: the first one and the last one, so the packet is whole.
    (44, &[0, 0, 0, 0, 0, 0, 7]),
];

/// Offset 0, more to come.
const FIRST_FRAGMENT: [Extension; 1] = [(44, &[0, 0, 1, 0, 0, 0, 7])];

/// Offset 1,448, nothing to come.
const LAST_FRAGMENT: [Extension; 1] = [(44, &[0, 0x05, 0xa8, 0, 0, 0, 7])];

/// The packet that opens a flow.
///
/// The transport checksum is wrong on purpose, here and below: who gets the packet drops it
/// silently, and so nothing comes back that would be counted as well.
pub fn first_packet(flow: &Flow, extras: Extras) -> Vec<u8> {
    Path::there(flow).packet(flow.transport, extras, &request(flow))
}

/// A packet of a flow that ends within the ports, or in the last byte of an echo's header.
pub fn cut_packet(flow: &Flow) -> Vec<u8> {
    let len = if flow.transport == Transport::Icmp { 7 } else { 3 };
    Path::there(flow).packet(flow.transport, Extras::None, &request(flow)[..len])
}

/// What a server sends to the source of a flow.
pub fn reply(flow: &Flow, extras: Extras) -> Vec<u8> {
    Path::back(flow).packet(flow.transport, extras, &answer(flow))
}

/// The first packet of an SCTP flow inside UDP.
pub fn encapsulated(flow: &Flow, from: u16, to: u16) -> Vec<u8> {
    Path::there(flow).packet(Transport::Udp, Extras::None, &in_udp(from, to, &request(flow)))
}

/// A packet of an SCTP flow whose first chunk is of this type.
pub fn chunk(flow: &Flow, kind: u8) -> Vec<u8> {
    Path::there(flow).packet(flow.transport, Extras::None, &with_chunk(flow, kind))
}

/// The same in UDP to a port, from the same one.
pub fn in_udp_port(flow: &Flow, kind: u8, port: u16) -> Vec<u8> {
    let segment = in_udp(port, port, &with_chunk(flow, kind));
    Path::there(flow).packet(Transport::Udp, Extras::None, &segment)
}

fn with_chunk(flow: &Flow, kind: u8) -> Vec<u8> {
    // Behind ports, tag and checksum.
    const TYPE: usize = 12;
    let mut segment = request(flow);
    segment[TYPE] = kind;
    segment
}

/// What a server sends to the source of an SCTP flow inside UDP; the ports are those of the flow's
/// direction.
pub fn encapsulated_reply(flow: &Flow, from: u16, to: u16, extras: Extras) -> Vec<u8> {
    Path::back(flow).packet(Transport::Udp, extras, &in_udp(to, from, &answer(flow)))
}

/// A router's message about a packet that a server sent, of which it quotes the first bytes.
///
/// The message is a flow of its own: its source is the router, its port type and code.
pub fn icmp_error(message: &Flow, quoted: &[u8]) -> Vec<u8> {
    let [kind, code] = message.source.port().to_be_bytes();
    // Checksum; what differs from type to type, an MTU in some.
    let mut segment = vec![kind, code, 0xde, 0xad, 0, 0, 5, 20];
    segment.extend(in_full_length(quoted));
    Path::there(message).packet(message.transport, Extras::None, &segment)
}

/// The quoted packet was larger than what is quoted of it, and says so.
fn in_full_length(quoted: &[u8]) -> Vec<u8> {
    const LENGTH: [u8; 2] = 1500_u16.to_be_bytes();
    let mut quoted = quoted.to_vec();
    // Total length, or for IPv6 the length behind the header.
    let at = if quoted[0] >> 4 == 4 { 2 } else { 4 };
    quoted[at..at + 2].copy_from_slice(&LENGTH);
    quoted
}

/// From where to where a packet goes.
struct Path {
    source: IpAddr,
    destination: IpAddr,
}

impl Path {
    fn there(flow: &Flow) -> Self {
        Self { source: flow.source.ip(), destination: flow.destination().ip() }
    }

    fn back(flow: &Flow) -> Self {
        let Self { source, destination } = Self::there(flow);
        Self { source: destination, destination: source }
    }

    fn packet(&self, transport: Transport, extras: Extras, segment: &[u8]) -> Vec<u8> {
        let protocol = |icmp| match transport {
            Transport::Tcp => TCP,
            Transport::Udp => UDP,
            Transport::Sctp => SCTP,
            Transport::Icmp => icmp,
        };
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                ipv4(source.octets(), destination.octets(), protocol(1), extras, segment)
            }
            (source, destination) => {
                ipv6(octets(source), octets(destination), protocol(58), extras, segment)
            }
        }
    }
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The first segment of a flow.
fn request(flow: &Flow) -> Vec<u8> {
    segment(flow.transport, flow.source.port(), flow.destination().port())
}

/// A segment in the other direction.
fn answer(flow: &Flow) -> Vec<u8> {
    let from = match flow.transport {
        Transport::Icmp => u16::from_be_bytes([flow.family().echo_reply(), 0]),
        _ => flow.destination().port(),
    };
    segment(flow.transport, from, flow.source.port())
}

fn segment(transport: Transport, from: u16, to: u16) -> Vec<u8> {
    let mut segment = Vec::from(from.to_be_bytes());
    if transport == Transport::Icmp {
        // Checksum, identifier, sequence number.
        segment.extend([0xde, 0xad, 1, 2, 0, 1]);
        return segment;
    }
    segment.extend(to.to_be_bytes());
    match transport {
        // Sequence and acknowledgement number; 5 words, SYN, window; checksum, urgent pointer.
        Transport::Tcp => {
            segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0x20, 0, 0xde, 0xad, 0, 0])
        }
        // Length, checksum, data.
        Transport::Udp => segment.extend([0, 12, 0xde, 0xad, b't', b'e', b's', b't']),
        // Tag, checksum; a chunk of type DATA: length, number, stream, its number, protocol, data.
        Transport::Sctp => {
            segment.extend([0, 0, 0, 1, 0xde, 0xad, 0xde, 0xad, 0, 3, 0, 20, 0, 0, 0, 1]);
            segment.extend([0, 0, 0, 0, 0, 0, 0, 0, b't', b'e', b's', b't']);
        }
        Transport::Icmp => {}
    }
    segment
}

fn in_udp(from: u16, to: u16, inside: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + inside.len()).unwrap_or(u16::MAX);
    let words = [from, to, length, 0xdead];
    let header = words.iter().flat_map(|word| word.to_be_bytes());
    header.chain(inside.iter().copied()).collect()
}

fn ipv4(
    source: [u8; 4],
    destination: [u8; 4],
    protocol: u8,
    extras: Extras,
    segment: &[u8],
) -> Vec<u8> {
    // No operation, then an empty record route of one address.
    const OPTIONS: [u8; 8] = [1, 7, 7, 4, 0, 0, 0, 0];
    let (options, header_words): (&[u8], u8) = match extras {
        Extras::Some => (&OPTIONS, 7),
        _ => (&[], 5),
    };
    // More to come; an offset in units of 8 bytes.
    let [high, low] = match extras {
        Extras::FirstFragment => [0x20, 0],
        Extras::LastFragment => [0, 181],
        _ => [0, 0],
    };
    // The kernel fills in total length, identification and checksum.
    let mut packet = vec![0x40 | header_words, 0, 0, 0, 0, 0, high, low, 64, protocol, 0, 0];
    packet.extend(source);
    packet.extend(destination);
    packet.extend(options);
    packet.extend(segment);
    packet
}

fn ipv6(
    source: [u8; 16],
    destination: [u8; 16],
    protocol: u8,
    extras: Extras,
    segment: &[u8],
) -> Vec<u8> {
    let mut extensions: &[Extension] = match extras {
        Extras::None => &[],
        Extras::Some => &EXTENSIONS,
        Extras::FirstFragment => &FIRST_FRAGMENT,
        Extras::LastFragment => &LAST_FRAGMENT,
    };
    let first = extensions.first().map_or(protocol, |(number, _)| *number);
    let mut chain = Vec::new();
    while let [(_, body), rest @ ..] = extensions {
        chain.push(rest.first().map_or(protocol, |(number, _)| *number));
        chain.extend(*body);
        extensions = rest;
    }
    let length = u16::try_from(chain.len() + segment.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([first, 64]);
    packet.extend(source);
    packet.extend(destination);
    packet.extend(chain);
    packet.extend(segment);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Family;
    use crate::flow;

    fn flow_of(family: Family, transport: Transport) -> Flow {
        flow::list(family, transport, 1)[0]
    }

    #[test]
    fn udp_over_ipv4() {
        assert_eq!(
            first_packet(&flow_of(Family::V4, Transport::Udp), Extras::None),
            [
                0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 20, 0, 0, 1, 10, 0, 0, 0, // IPv4
                4, 0, 0, 9, 0, 12, 0xde, 0xad, b't', b'e', b's', b't', // UDP
            ]
        );
    }

    #[test]
    fn ipv4_options_lengthen_the_header() {
        let packet = first_packet(&flow_of(Family::V4, Transport::Tcp), Extras::Some);
        assert_eq!(packet[0], 0x47);
        assert_eq!(packet.len(), 28 + 20);
        assert_eq!(packet[28..32], [4, 0, 0, 9]);
    }

    #[test]
    fn ipv6_headers_are_chained() {
        let packet = first_packet(&flow_of(Family::V6, Transport::Udp), Extras::Some);
        assert_eq!(packet[4..7], [0, 8 + 16 + 8 + 8 + 12, 0]);
        // Where each header is, and the one that it names as its next.
        let next = [(40, 60), (48, 43), (64, 44), (72, UDP)];
        assert!(next.iter().all(|(at, number)| packet[*at] == *number));
        assert_eq!(packet[80..84], [4, 0, 0, 9]);
    }

    #[test]
    fn a_cut_packet_ends_within_the_ports() {
        assert_eq!(cut_packet(&flow_of(Family::V4, Transport::Tcp)).len(), 20 + 3);
    }

    #[test]
    fn an_error_quotes_what_a_server_sent() {
        let flow = flow_of(Family::V4, Transport::Udp);
        let router = Flow { transport: Transport::Icmp, source: "20.0.9.9:772".parse().unwrap() };
        let packet = icmp_error(&router, &reply(&flow, Extras::None)[..28]);
        assert_eq!(packet[9..20], [1, 0, 0, 20, 0, 9, 9, 10, 0, 0, 0]);
        assert_eq!(packet[20..28], [3, 4, 0xde, 0xad, 0, 0, 5, 20]);
        assert_eq!(packet[28..32], [0x45, 0, 0x05, 0xdc]);
        // From the VIP's port to the flow's.
        assert_eq!(packet[40..52], [10, 0, 0, 0, 20, 0, 0, 1, 0, 9, 4, 0]);
        assert_eq!(packet.len(), 20 + 8 + 28);
    }

    #[test]
    fn sctp_is_put_into_udp() {
        let flow = flow_of(Family::V6, Transport::Sctp);
        let there = encapsulated(&flow, 7000, 9899);
        assert_eq!((there[6], &there[40..44]), (UDP, &[0x1b, 0x58, 0x26, 0xab][..]));
        assert_eq!(there[48..52], [4, 0, 0, 9]);
        let back = encapsulated_reply(&flow, 7000, 9899, Extras::None);
        assert_eq!(back[40..44], [0x26, 0xab, 0x1b, 0x58]);
        assert_eq!(back[48..52], [0, 9, 4, 0]);
    }

    #[test]
    fn fragments_say_so() {
        let flow = |family| flow_of(family, Transport::Tcp);
        assert_eq!(reply(&flow(Family::V4), Extras::FirstFragment)[6..8], [0x20, 0]);
        assert_eq!(reply(&flow(Family::V4), Extras::LastFragment)[6..8], [0, 181]);
        assert_eq!(reply(&flow(Family::V6), Extras::FirstFragment)[40..44], [TCP, 0, 0, 1]);
        assert_eq!(reply(&flow(Family::V6), Extras::LastFragment)[40..44], [TCP, 0, 0x05, 0xa8]);
    }
}
