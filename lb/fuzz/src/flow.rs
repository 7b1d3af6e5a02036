//! Packets of which it is known what their key must be.

use lb_core::key::{Key, KeyModes};
use lb_core::table::Config;
use lb_core::walk::{Class, Reason, keyed};
use lb_core::wire::ip::Addresses;
use lb_core::wire::{Packet, protocol};

use crate::choices::Choices;

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let config = Config { modes: choices.modes(), ..Config::default() };
    let flow = Flow::chosen(&mut choices, &config.modes);
    let (class, key) = flow.expected(&config.modes);

    let payload = flow.payload();
    let (packet, payload_at) = flow.ends.packet(flow.protocol, &payload, None, &mut choices);
    assert_eq!(keyed(Packet::whole(&packet), &config), (class, Ok(key)));

    // Nothing behind the ports counts, not even whether it is there.
    let end = payload_at + flow.deciding_len(&config.modes);
    let mut other = packet.clone();
    other[end..].iter_mut().for_each(|byte| *byte = !*byte);
    assert_eq!(keyed(Packet::whole(&other), &config), (class, Ok(key)));
    let copied = Packet::copied(&packet[..end], packet.len());
    assert_eq!(keyed(copied, &config), (class, Ok(key)));

    let first = Some(Part { offset: 0, more: true });
    let (first, _) = flow.ends.packet(flow.protocol, &payload, first, &mut choices);
    assert_eq!(keyed(Packet::whole(&first), &config), (Class::Fragment, Ok(key)));
    let offset = (choices.u16() & 0x1fff).max(1);
    let (later, _) =
        flow.ends.packet(flow.protocol, &payload, Some(Part { offset, more: true }), &mut choices);
    let early = (Class::Fragment, Err(Reason::EarlyFragment));
    assert_eq!(keyed(Packet::whole(&later), &config), early);

    check_errors(&flow, key, &config, &mut choices);
}

/// Errors about the answers belong to the flow; about their later fragments they have no key.
fn check_errors(flow: &Flow, key: Key, config: &Config, choices: &mut Choices<'_>) {
    let answer = flow.answer(choices.bool());
    let payload = answer.payload();
    let first = choices.bool().then_some(Part { offset: 0, more: true });
    let (packet, payload_at) = answer.ends.packet(answer.protocol, &payload, first, choices);
    let end = payload_at + flow.deciding_len(&config.modes);
    for quoted in [&packet[..], &packet[..end]] {
        let error = flow.ends.error_about(quoted, choices);
        assert_eq!(keyed(Packet::whole(&error), config), (Class::IcmpError, Ok(key)));
    }

    let later = Part { offset: (choices.u16() & 0x1fff).max(1), more: choices.bool() };
    let (packet, _) = answer.ends.packet(answer.protocol, &payload, Some(later), choices);
    let error = flow.ends.error_about(&packet, choices);
    let refused = (Class::IcmpError, Err(Reason::QuotedFragment));
    assert_eq!(keyed(Packet::whole(&error), config), refused);
}

/// Source and destination address.
#[derive(Clone, Copy)]
enum Ends {
    V4([u8; 8]),
    V6([u8; 32]),
}

/// What all packets in one direction have in common.
struct Flow {
    ends: Ends,
    protocol: u8,
    start: Start,
    behind: Vec<u8>,
}

/// How a payload begins.
#[derive(Clone, Copy)]
enum Start {
    /// Ports.
    Ports([u8; 4]),
    /// Ports of UDP, the rest of its header, and perhaps ports of SCTP.
    Udp([u8; 4], [u8; 4], [u8; 4]),
    /// Type, code, checksum, identifier, number.
    Echo(u8, [u8; 3], [u8; 2], [u8; 2]),
    /// Anything.
    Other,
}

/// Which part of a datagram a fragment carries.
#[derive(Clone, Copy)]
struct Part {
    /// In units of eight bytes.
    offset: u16,
    more: bool,
}

impl Flow {
    fn chosen(choices: &mut Choices<'_>, modes: &KeyModes) -> Self {
        let ends =
            if choices.bool() { Ends::V6(choices.array()) } else { Ends::V4(choices.array()) };
        let (protocol, start) = match choices.below(6) {
            0 => (protocol::TCP, Start::Ports(choices.array())),
            1 => (protocol::SCTP, Start::Ports(choices.array())),
            2 => (protocol::UDP, Start::Udp(choices.array(), choices.array(), choices.array())),
            3 => {
                let [high, low] = choices.one_of(modes.sctp_encap.0).to_be_bytes();
                let ports = [choices.u8(), choices.u8(), high, low];
                (protocol::UDP, Start::Udp(ports, choices.array(), choices.array()))
            }
            4 => {
                let reply = choices.bool();
                let echo = Start::Echo(
                    ends.echo_type(reply),
                    choices.array(),
                    choices.array(),
                    choices.array(),
                );
                (ends.icmp(), echo)
            }
            _ => (choices.one_of([2, 4, 41, 47, 50, 89, 103, 253]), Start::Other),
        };
        let behind = choices.below(64);
        Flow { ends, protocol, start, behind: choices.bytes(behind).to_vec() }
    }

    /// The flow of the packets in the other direction.
    fn answer(&self, reply: bool) -> Self {
        let swapped = |[a, b, c, d]: [u8; 4]| [c, d, a, b];
        let start = match self.start {
            Start::Ports(ports) => Start::Ports(swapped(ports)),
            Start::Udp(outer, rest, inner) => Start::Udp(swapped(outer), rest, swapped(inner)),
            Start::Echo(_, rest, id, number) => {
                Start::Echo(self.ends.echo_type(reply), rest, id, number)
            }
            Start::Other => Start::Other,
        };
        let ends = match self.ends {
            Ends::V4([a, b, c, d, rest @ ..]) => {
                let [e, f, g, h] = rest;
                Ends::V4([e, f, g, h, a, b, c, d])
            }
            Ends::V6(mut both) => {
                both.rotate_left(16);
                Ends::V6(both)
            }
        };
        Flow { ends, start, behind: self.behind.clone(), ..*self }
    }

    fn payload(&self) -> Vec<u8> {
        let mut payload = match self.start {
            Start::Ports(ports) => ports.to_vec(),
            Start::Udp(outer, rest, inner) => [outer, rest, inner].concat(),
            Start::Echo(kind, [code, c0, c1], [i0, i1], [n0, n1]) => {
                vec![kind, code, c0, c1, i0, i1, n0, n1]
            }
            Start::Other => Vec::new(),
        };
        payload.extend(&self.behind);
        payload
    }

    fn is_encapsulated(&self, modes: &KeyModes) -> bool {
        matches!(self.start, Start::Udp([_, _, high, low], ..)
            if modes.sctp_encap.contains(u16::from_be_bytes([high, low])))
    }

    /// How much of the payload is needed.
    fn deciding_len(&self, modes: &KeyModes) -> usize {
        match self.start {
            Start::Udp(..) if self.is_encapsulated(modes) => 12,
            Start::Ports(_) | Start::Udp(..) => 4,
            Start::Echo(..) => 8,
            Start::Other => 0,
        }
    }

    fn expected(&self, modes: &KeyModes) -> (Class, Key) {
        let addresses = self.ends.view();
        let transport = |protocol, ports| Key::transport(addresses, protocol, ports, modes);
        match self.start {
            Start::Udp(_, _, inner) if self.is_encapsulated(modes) => {
                (Class::SctpInUdp, transport(protocol::SCTP, inner))
            }
            Start::Udp(ports, ..) => (Class::Udp, transport(protocol::UDP, ports)),
            Start::Ports(ports) => {
                let class = if self.protocol == protocol::TCP { Class::Tcp } else { Class::Sctp };
                (class, transport(self.protocol, ports))
            }
            Start::Echo(_, _, [i0, i1], _) => {
                (Class::Echo, Key::tuple(addresses, self.protocol, [i0, i1, 0, 0]))
            }
            Start::Other => (Class::Other, Key::tuple(addresses, self.protocol, [0; 4])),
        }
    }
}

impl Ends {
    fn view(&self) -> Addresses<'_> {
        match self {
            Ends::V4(both) => Addresses::V4(both),
            Ends::V6(both) => Addresses::V6(both),
        }
    }

    fn icmp(&self) -> u8 {
        match self {
            Ends::V4(_) => protocol::ICMP,
            Ends::V6(_) => protocol::ICMPV6,
        }
    }

    fn echo_type(&self, reply: bool) -> u8 {
        match (self, reply) {
            (Ends::V4(_), false) => 8,
            (Ends::V4(_), true) => 0,
            (Ends::V6(_), false) => 128,
            (Ends::V6(_), true) => 129,
        }
    }

    /// A packet with whatever headers in between, and where its payload begins. Padding of the link
    /// may follow.
    fn packet(
        &self,
        protocol: u8,
        payload: &[u8],
        part: Option<Part>,
        choices: &mut Choices<'_>,
    ) -> (Vec<u8>, usize) {
        let mut bytes = match self {
            Ends::V4(both) => v4_header(both, protocol, payload.len(), part, choices),
            Ends::V6(both) => v6_headers(both, protocol, payload.len(), part, choices),
        };
        let payload_at = bytes.len();
        bytes.extend(payload);
        let padding = choices.below(8);
        bytes.extend(choices.bytes(padding));
        (bytes, payload_at)
    }

    /// An error from a router on the way to the source of the quoted packet.
    fn error_about(&self, quoted: &[u8], choices: &mut Choices<'_>) -> Vec<u8> {
        let kind = match self {
            Ends::V4(_) => choices.one_of([3, 4, 5, 11, 12]),
            Ends::V6(_) => choices.one_of([1, 2, 3, 4]),
        };
        let mut message = vec![kind];
        message.extend(choices.array::<7>());
        message.extend(quoted);
        let from = match self {
            Ends::V4(_) => Ends::V4(choices.array()),
            Ends::V6(_) => Ends::V6(choices.array()),
        };
        from.packet(self.icmp(), &message, None, choices).0
    }
}

fn v4_header(
    both: &[u8; 8],
    protocol: u8,
    payload_len: usize,
    part: Option<Part>,
    choices: &mut Choices<'_>,
) -> Vec<u8> {
    let options = choices.below(11);
    let mut flags = choices.u16() & 0xc000;
    if let Some(Part { offset, more }) = part {
        flags |= offset | if more { 0x2000 } else { 0 };
    }
    let total_len = u16::try_from(20 + options * 4 + payload_len).unwrap();
    let mut header = vec![0x45 + u8::try_from(options).unwrap(), choices.u8()];
    header.extend(total_len.to_be_bytes());
    header.extend(choices.array::<2>());
    header.extend(flags.to_be_bytes());
    header.extend([choices.u8(), protocol]);
    header.extend(choices.array::<2>());
    header.extend(both);
    for _ in 0..options {
        header.extend(choices.array::<4>());
    }
    header
}

fn v6_headers(
    both: &[u8; 32],
    protocol: u8,
    payload_len: usize,
    part: Option<Part>,
    choices: &mut Choices<'_>,
) -> Vec<u8> {
    let mut kinds = vec![];
    for _ in 0..choices.below(6) {
        kinds.push(choices.one_of([
            protocol::HOP_BY_HOP,
            protocol::ROUTING,
            protocol::DESTINATION_OPTIONS,
            protocol::AUTHENTICATION,
            protocol::FRAGMENT,
        ]));
    }
    // Among fragment headers that say nothing, one that does.
    let parted = part.map(|_| choices.below(kinds.len() + 1));
    if let Some(at) = parted {
        kinds.insert(at, protocol::FRAGMENT);
    }
    let mut chain = Vec::new();
    let mut data_at = usize::MAX;
    for (at, &kind) in kinds.iter().enumerate() {
        let next = kinds.get(at + 1).copied().unwrap_or(protocol);
        let part = part.filter(|_| parted == Some(at));
        chain.extend(extension(kind, next, part, choices));
        if part.is_some_and(|part| part.offset > 0) {
            data_at = chain.len();
        }
    }
    // What follows in a later part is data, whatever it looks like.
    chain.iter_mut().skip(data_at).for_each(|byte| *byte = !*byte);
    let first = kinds.first().copied().unwrap_or(protocol);
    let mut header = vec![0x60 | choices.u8() >> 4];
    header.extend(choices.array::<3>());
    header.extend(u16::try_from(chain.len() + payload_len).unwrap().to_be_bytes());
    header.extend([first, choices.u8()]);
    header.extend(both);
    header.extend(chain);
    header
}

fn extension(kind: u8, next: u8, part: Option<Part>, choices: &mut Choices<'_>) -> Vec<u8> {
    let mut header = vec![next];
    if kind == protocol::FRAGMENT {
        let Part { offset, more } = part.unwrap_or(Part { offset: 0, more: false });
        header.push(choices.u8());
        header.extend((offset << 3 | u16::from(choices.u8() & 6) | u16::from(more)).to_be_bytes());
        header.extend(choices.array::<4>());
        return header;
    }
    let units = choices.below(4);
    header.push(u8::try_from(units).unwrap());
    let len = if kind == protocol::AUTHENTICATION { (units + 2) * 4 } else { (units + 1) * 8 };
    let content = choices.bytes(len - 2);
    header.extend(content);
    header.resize(len, 0);
    header
}
