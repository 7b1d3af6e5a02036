//! Whole IP packets of a flow, as bytes, with headers that sockets do not send.

use std::net::IpAddr;

use crate::flow::{Flow, Transport};

/// What stands between the IP header and the transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extras {
    None,
    /// IPv4 options or IPv6 extension headers.
    Some,
}

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The extension headers of a packet: number, and what follows its first byte, which names the
/// next header. No authentication header: nftables takes that for the transport.
const EXTENSIONS: [(u8, &[u8]); 4] = [
    // Hop by hop: length in units of 8 bytes beyond the first 8, padding.
    (0, &[0, 1, 4, 0, 0, 0, 0]),
    // Destination options, twice as long.
    (60, &[1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    // Routing: an experimental type without segments left.
    (43, &[0, 253, 0, 0, 0, 0, 0]),
    // Fragment: the first one and the last one, so the packet is whole.
    (44, &[0, 0, 0, 0, 0, 0, 7]),
];

/// The packet that opens a flow.
///
/// The transport checksum is wrong on purpose: a server drops the packet silently, and so nothing
/// comes back that would be counted as well.
pub fn first_packet(flow: &Flow, extras: Extras) -> Vec<u8> {
    packet(flow, extras, &transport_segment(flow))
}

/// A packet of a flow that ends within the ports.
pub fn cut_packet(flow: &Flow) -> Vec<u8> {
    packet(flow, Extras::None, &transport_segment(flow)[..3])
}

fn packet(flow: &Flow, extras: Extras, segment: &[u8]) -> Vec<u8> {
    let protocol = match flow.transport {
        Transport::Tcp => TCP,
        Transport::Udp => UDP,
    };
    match (flow.source.ip(), flow.destination().ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ipv4(source.octets(), destination.octets(), protocol, extras, segment)
        }
        (source, destination) => {
            ipv6(octets(source), octets(destination), protocol, extras, segment)
        }
    }
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn transport_segment(flow: &Flow) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(flow.source.port().to_be_bytes());
    segment.extend(flow.destination().port().to_be_bytes());
    match flow.transport {
        // Sequence and acknowledgement number; 5 words, SYN, window; checksum, urgent pointer.
        Transport::Tcp => {
            segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0x20, 0, 0xde, 0xad, 0, 0])
        }
        // Length, checksum, data.
        Transport::Udp => segment.extend([0, 12, 0xde, 0xad, b't', b'e', b's', b't']),
    }
    segment
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
    let options: &[u8] = match extras {
        Extras::None => &[],
        Extras::Some => &OPTIONS,
    };
    let header_words = match extras {
        Extras::None => 5,
        Extras::Some => 7,
    };
    // The kernel fills in total length, identification and checksum.
    let mut packet = vec![0x40 | header_words, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
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
    let mut extensions: &[(u8, &[u8])] = match extras {
        Extras::None => &[],
        Extras::Some => &EXTENSIONS,
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
}
