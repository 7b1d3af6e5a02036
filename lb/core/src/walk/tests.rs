use super::*;
use crate::hash::{Seed, Slot};
use crate::key::{Affinity, EncapPorts, SctpHash};
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

const PORTS: Config = Config {
    slots: 997,
    targets: 4,
    own_mark: 0,
    seed: Seed(0x1234_5678),
    modes: KeyModes {
        sctp_hash: SctpHash::Ports,
        affinity: Affinity::Flow,
        sctp_encap: EncapPorts([0, 0]),
    },
};
const TUPLE: Config =
    Config { modes: KeyModes { sctp_hash: SctpHash::Tuple, ..PORTS.modes }, ..PORTS };

/// 10.0.0.1 -> 10.0.0.2
fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![0x45, 0, len[0], len[1], 0, 0, 0, 0, 64, protocol, 0, 0];
    bytes.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend(payload);
    bytes
}

/// 1000::1 -> 1000::2
fn v6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![0x60, 0, 0, 0, len[0], len[1], next_header, 64];
    for last in [1u8, 2] {
        bytes.extend([0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    bytes.extend(payload);
    bytes
}

/// Port 4000 to port 80.
const FLOW: [u8; 4] = [0x0f, 0xa0, 0x00, 0x50];

fn key(bytes: &[u8], config: &Config) -> Key {
    keyed(Packet::whole(bytes), config).1.unwrap()
}

fn word(bytes: [u8; 4]) -> u32 {
    u32::from_ne_bytes(bytes)
}

#[test]
fn tcp_and_udp_by_addresses_protocol_and_ports() {
    for (protocol, class) in [(6u8, Class::Tcp), (17, Class::Udp)] {
        let bytes = v4(protocol, &FLOW);
        let expected =
            [word([10, 0, 0, 1]), word([10, 0, 0, 2]), word([protocol, 0, 0, 0]), word(FLOW)];
        let expected = (class, Ok(Key::V4(expected)));
        assert_eq!(keyed(Packet::whole(&bytes), &TUPLE), expected);
        let bytes = v6(protocol, &FLOW);
        let Key::V6(words) = key(&bytes, &TUPLE) else { panic!("not IPv6") };
        assert_eq!((words[0], words[7]), (word([0x10, 0, 0, 0]), word([0, 0, 0, 2])));
        assert_eq!((words[8], words[9]), (word([protocol, 0, 0, 0]), word(FLOW)));
    }
}

#[test]
fn sctp_by_ports_whatever_the_path_or_by_the_tuple() {
    let (over4, over6) = (v4(132, &FLOW), v6(132, &FLOW));
    assert_eq!(key(&over4, &PORTS), Key::Ports([word(FLOW)]));
    assert_eq!(key(&over4, &PORTS), key(&over6, &PORTS));
    assert!(matches!(key(&over4, &TUPLE), Key::V4([_, _, _, ports]) if ports == word(FLOW)));
    assert!(matches!(key(&over6, &TUPLE), Key::V6(words) if words[9] == word(FLOW)));
}

#[test]
fn echo_by_identifier_and_other_messages_by_addresses() {
    let echo = |kind, id| [kind, 0, 0, 0, 0, id, 0, 1];
    for (a, b) in
        [(v4(1, &echo(8, 7)), v4(1, &echo(8, 9))), (v6(58, &echo(128, 7)), v6(58, &echo(128, 9)))]
    {
        assert_eq!(keyed(Packet::whole(&a), &TUPLE).0, Class::Echo);
        assert_ne!(key(&a, &TUPLE), key(&b, &TUPLE));
    }
    let (a, b) = (v4(1, &echo(13, 7)), v4(1, &echo(13, 9)));
    assert_eq!(keyed(Packet::whole(&a), &TUPLE).0, Class::Icmp);
    assert_eq!(key(&a, &TUPLE), key(&b, &TUPLE));
}

#[test]
fn other_protocols_by_addresses_and_protocol() {
    let (gre, ospf) = (v4(47, &[1, 2, 3]), v4(89, &[]));
    assert_eq!(keyed(Packet::whole(&gre), &TUPLE).0, Class::Other);
    assert_eq!(key(&gre, &TUPLE), key(&v4(47, &[9]), &TUPLE));
    assert_ne!(key(&gre, &TUPLE), key(&ospf, &TUPLE));
    // ICMP of the other version is no ICMP.
    assert_eq!(keyed(Packet::whole(&v4(58, &[])), &TUPLE).0, Class::Other);
    assert_eq!(keyed(Packet::whole(&v6(1, &[])), &TUPLE).0, Class::Other);
    assert_eq!(keyed(Packet::whole(&v6(59, &[])), &TUPLE).0, Class::Other);
}

/// The C program takes extension lengths eight bytes short and drops the packet.
#[test]
fn extension_headers_do_not_change_the_key() {
    let plain = v6(17, &FLOW);
    let options = [[17u8, 0, 1, 4, 0, 0, 0, 0].as_slice(), &FLOW].concat();
    for header in [0u8, 60, 43] {
        assert_eq!(key(&v6(header, &options), &TUPLE), key(&plain, &TUPLE));
    }
}

/// The C program reads the ports of an atomic fragment, and of a first one, from the fragment header.
#[test]
fn an_atomic_fragment_is_an_ordinary_packet_and_a_first_one_has_its_key() {
    let plain = key(&v6(17, &FLOW), &TUPLE);
    let atomic = v6(44, &[[17u8, 0, 0, 0, 0, 0, 0, 9].as_slice(), &FLOW].concat());
    assert_eq!(keyed(Packet::whole(&atomic), &TUPLE), (Class::Udp, Ok(plain)));
    let first = v6(44, &[[17u8, 0, 0, 1, 0, 0, 0, 9].as_slice(), &FLOW].concat());
    assert_eq!(keyed(Packet::whole(&first), &TUPLE), (Class::Fragment, Ok(plain)));
    for payload in [&FLOW[..], &[8, 0, 0, 0, 0, 7, 0, 1]] {
        let whole = v4(if payload.len() == 4 { 132 } else { 1 }, payload);
        let mut first = whole.clone();
        first[6] = 0x20;
        let expected = (Class::Fragment, Ok(key(&whole, &PORTS)));
        assert_eq!(keyed(Packet::whole(&first), &PORTS), expected);
    }
}

#[test]
fn a_later_fragment_has_no_key() {
    let early = (Class::Fragment, Err(Reason::EarlyFragment));
    let mut last = v4(17, &FLOW);
    last[7] = 0xb9;
    assert_eq!(keyed(Packet::whole(&last), &TUPLE), early);
    let last = v6(44, &[[17u8, 0, 0x05, 0xa8, 0, 0, 0, 9].as_slice(), &FLOW].concat());
    assert_eq!(keyed(Packet::whole(&last), &TUPLE), early);
}

#[test]
fn a_first_fragment_is_too_short_or_not_copied() {
    let mut first = v4(17, &FLOW);
    first[6] = 0x20;
    for len in 20..24 {
        let short = [&first[..2], &[0, u8::try_from(len).unwrap()], &first[4..len]].concat();
        let too_short = (Class::Fragment, Err(Reason::FirstTooShort));
        assert_eq!(keyed(Packet::whole(&short), &TUPLE), too_short);
        let cut = Packet::copied(&first[..len], first.len());
        assert_eq!(keyed(cut, &TUPLE), (Class::Fragment, Err(Reason::NotCopied)));
    }
}

/// The C program refuses packets that end exactly at the header.
#[test]
fn four_port_bytes_at_the_very_end_are_enough() {
    assert!(keyed(Packet::whole(&v4(6, &FLOW)), &TUPLE).1.is_ok());
    assert!(keyed(Packet::whole(&v4(1, &[8, 0, 0, 0, 0, 1, 0, 1])), &TUPLE).1.is_ok());
    assert!(keyed(Packet::whole(&v4(253, &[])), &TUPLE).1.is_ok());
    let short = keyed(Packet::whole(&v4(6, &FLOW[..3])), &TUPLE);
    assert_eq!(short, (Class::Tcp, Err(Reason::Truncated)));
}

/// The headers of a packet with source and destination swapped: what a target sends.
fn answer(packet: &[u8]) -> Vec<u8> {
    let mut answer = packet.to_vec();
    let (addresses, len) = if packet[0] >> 4 == 4 { (12..20, 4) } else { (8..40, 16) };
    answer[addresses].rotate_left(len);
    answer
}

/// 192.0.2.1 -> 10.0.0.2, or the same in IPv6: an error that quotes `quoted`.
fn error_about(kind: u8, quoted: &[u8]) -> Vec<u8> {
    let message = [&[kind, 0, 0, 0, 0, 0, 5, 0], quoted].concat();
    let mut bytes = if quoted[0] >> 4 == 4 { v4(1, &message) } else { v6(58, &message) };
    let source = if bytes[0] >> 4 == 4 { 12 } else { 8 };
    bytes[source] ^= 0x55;
    bytes
}

#[test]
fn errors_go_where_the_packets_go_that_they_are_about() {
    let encap =
        Config { modes: KeyModes { sctp_encap: EncapPorts([9899, 9900]), ..PORTS.modes }, ..PORTS };
    let in_udp = [&[0x0f, 0xa0, 0x26, 0xab, 0, 20, 0, 0], FLOW.as_slice()].concat();
    let echo = [0, 0, 0, 0, 0, 7, 0, 1];
    for (forward, answer_payload) in [
        (v4(6, &FLOW), vec![0, 80, 0x0f, 0xa0]),
        (v4(17, &FLOW), vec![0, 80, 0x0f, 0xa0]),
        (v4(132, &FLOW), vec![0, 80, 0x0f, 0xa0]),
        (v4(47, &[1, 2]), vec![1, 2]),
        (v4(1, &[&[8], &echo[1..]].concat()), echo.to_vec()),
        (v4(17, &in_udp), [&[0x26, 0xab, 0x0f, 0xa0, 0, 20, 0, 0, 0, 80], &FLOW[..2]].concat()),
    ] {
        let quoted = answer(&v4(forward[9], &answer_payload));
        for kind in [3, 4, 5, 11, 12] {
            let error = error_about(kind, &quoted);
            for config in [&PORTS, &TUPLE, &encap] {
                let (class, found) = keyed(Packet::whole(&error), config);
                assert_eq!((class, found.unwrap()), (Class::IcmpError, key(&forward, config)));
            }
        }
    }
    let quoted = answer(&v6(6, &[0, 80, 0x0f, 0xa0]));
    for kind in [1, 2, 3, 4] {
        assert_eq!(key(&error_about(kind, &quoted), &PORTS), key(&v6(6, &FLOW), &PORTS));
    }
}

#[test]
fn quoted_extension_headers_and_first_fragments_are_walked() {
    let ports = [0, 80, 0x0f, 0xa0];
    let options = answer(&v6(60, &[[6u8, 0, 1, 4, 0, 0, 0, 0].as_slice(), &ports].concat()));
    assert_eq!(key(&error_about(2, &options), &PORTS), key(&v6(6, &FLOW), &PORTS));
    let first = answer(&v6(44, &[[6u8, 0, 0, 1, 0, 0, 0, 9].as_slice(), &ports].concat()));
    assert_eq!(key(&error_about(2, &first), &PORTS), key(&v6(6, &FLOW), &PORTS));
    let mut first = answer(&v4(17, &ports));
    first[6] = 0x20;
    assert_eq!(key(&error_about(3, &first), &PORTS), key(&v4(17, &FLOW), &PORTS));
}

#[test]
fn ports_are_never_read_from_a_later_fragment_that_is_quoted() {
    let refused = (Class::IcmpError, Err(Reason::QuotedFragment));
    let mut later = answer(&v4(17, &FLOW));
    later[7] = 0xb9;
    assert_eq!(keyed(Packet::whole(&error_about(3, &later)), &PORTS), refused);
    let later = answer(&v6(44, &[[17u8, 0, 0x05, 0xa8, 0, 0, 0, 9].as_slice(), &FLOW].concat()));
    assert_eq!(keyed(Packet::whole(&error_about(2, &later)), &PORTS), refused);
}

/// RFC 792 promises eight bytes of what follows the quoted header; the length field is that of the
/// whole packet.
#[test]
fn a_quote_may_be_shorter_than_its_length_field_says() {
    let long = v4(6, &[[0, 80, 0x0f, 0xa0].as_slice(), &[0; 1400]].concat());
    let quoted = answer(&long);
    assert_eq!(key(&error_about(3, &quoted[..28]), &PORTS), key(&v4(6, &FLOW), &PORTS));
    for len in 0..24 {
        let error = error_about(3, &[&quoted[..len.max(1)], &[]].concat());
        let truncated = (Class::IcmpError, Err(Reason::Truncated));
        assert_eq!(keyed(Packet::whole(&error), &PORTS), truncated, "{len}");
    }
}

/// Linux leaves the field zero when it joined segments to more than 64 KiB, and some routers quote it
/// with its bytes swapped or after they changed it.
#[test]
fn the_length_field_of_a_quote_does_not_matter() {
    let ports = [0, 80, 0x0f, 0xa0];
    for total_len in [0u16, 1, 20, 0x3400, u16::MAX] {
        let mut quoted = answer(&v4(6, &ports));
        quoted[2..4].copy_from_slice(&total_len.to_be_bytes());
        assert_eq!(key(&error_about(3, &quoted), &PORTS), key(&v4(6, &FLOW), &PORTS));
        let mut quoted = answer(&v6(6, &ports));
        quoted[4..6].copy_from_slice(&total_len.to_be_bytes());
        assert_eq!(key(&error_about(2, &quoted), &PORTS), key(&v6(6, &FLOW), &PORTS));
    }
}

#[test]
fn a_quote_of_the_other_version_is_malformed() {
    let (v4_quoted, v6_quoted) = (v4(6, &FLOW), v6(6, &FLOW));
    let malformed = Err(Reason::Malformed);
    let error = v4(1, &[&[3, 0, 0, 0, 0, 0, 0, 0], v6_quoted.as_slice()].concat());
    assert_eq!(keyed(Packet::whole(&error), &PORTS).1, malformed);
    let error = v6(58, &[&[1, 0, 0, 0, 0, 0, 0, 0], v4_quoted.as_slice()].concat());
    assert_eq!(keyed(Packet::whole(&error), &PORTS).1, malformed);
}

#[test]
fn sctp_in_udp_has_the_key_of_the_sctp_inside() {
    let modes = KeyModes { sctp_encap: EncapPorts([9899, 9900]), ..PORTS.modes };
    let ports = Config { modes, ..PORTS };
    let tuple = Config { modes: KeyModes { sctp_hash: SctpHash::Tuple, ..modes }, ..PORTS };
    for [high, low] in [9899u16, 9900].map(u16::to_be_bytes) {
        let encapsulated = [&[0x12, 0x34, high, low, 0, 20, 0, 0], FLOW.as_slice()].concat();
        for (packet, plain) in
            [(v4(17, &encapsulated), v4(132, &FLOW)), (v6(17, &encapsulated), v6(132, &FLOW))]
        {
            for config in [&ports, &tuple] {
                assert_eq!(keyed(Packet::whole(&packet), config).0, Class::SctpInUdp);
                assert_eq!(key(&packet, config), key(&plain, config));
            }
            // Without the mode, and from these ports instead of to them, it is plain UDP.
            assert_eq!(keyed(Packet::whole(&packet), &PORTS).0, Class::Udp);
        }
        let back = v4(17, &[&[high, low, 0x12, 0x34, 0, 20, 0, 0], FLOW.as_slice()].concat());
        assert_eq!(keyed(Packet::whole(&back), &ports).0, Class::Udp);
        let short = v4(17, &encapsulated[..11]);
        let truncated = (Class::SctpInUdp, Err(Reason::Truncated));
        assert_eq!(keyed(Packet::whole(&short), &ports), truncated);
    }
    let to_port_zero = v4(17, &[0x12, 0x34, 0, 0, 0, 20, 0, 0]);
    assert_eq!(keyed(Packet::whole(&to_port_zero), &PORTS).0, Class::Udp);
}

#[test]
fn client_affinity_is_by_source_alone() {
    let config = Config { modes: KeyModes { affinity: Affinity::Client, ..PORTS.modes }, ..PORTS };
    assert_eq!(key(&v4(6, &FLOW), &config), Key::ClientV4([word([10, 0, 0, 1])]));
    assert_eq!(key(&v4(6, &FLOW), &config), key(&v4(17, &[9, 9, 9, 9]), &config));
    let Key::ClientV6(source) = key(&v6(17, &FLOW), &config) else { panic!("not by client") };
    assert_eq!((source[0], source[3]), (word([0x10, 0, 0, 0]), word([0, 0, 0, 1])));
    // SCTP and everything else are as before.
    for packet in [v4(132, &FLOW), v4(47, &[]), v4(1, &[8, 0, 0, 0, 0, 7, 0, 1])] {
        assert_eq!(key(&packet, &config), key(&packet, &PORTS));
    }
    // An error finds the client in the destination of what it quotes.
    let quoted = answer(&v4(6, &[0, 80, 0x0f, 0xa0]));
    assert_eq!(key(&error_about(3, &quoted), &config), key(&v4(6, &FLOW), &config));
}

/// Slots of 2^32 - 1 as the kernel's nft `jhash` expression gave them for these packets (Linux 6.18);
/// the function test `hash-agrees` asks the kernel at hand.
#[test]
fn slots_of_the_kernel() {
    for (bytes, slot) in [
        (v4(17, &[0x0f, 0xa0, 0, 80]), 0x1d37_1cab),
        (v4(17, &[0x0f, 0xa1, 0, 80]), 0xaa4c_9968),
        (v4(6, &[0x0f, 0xa0, 0, 80]), 0xe9e7_9f84),
        (v4(6, &[0x0f, 0xa1, 0, 80]), 0x861a_efa6),
        (v6(17, &[0x0f, 0xa0, 0, 80]), 0x10bc_33ee),
        (v6(17, &[0x0f, 0xa1, 0, 80]), 0x2b97_3546),
        (v6(6, &[0x0f, 0xa0, 0, 80]), 0x6908_525d),
        (v6(6, &[0x0f, 0xa1, 0, 80]), 0xff91_8faa),
        (v4(132, &[0x0f, 0xa0, 0, 80]), 0x9eb3_199e),
        (v6(132, &[0x0f, 0xa1, 0, 80]), 0x7722_f0c7),
    ] {
        assert_eq!(key(&bytes, &PORTS).hash(PORTS.seed).slot(u32::MAX), Slot(slot), "{bytes:x?}");
    }
}

/// Packets of every kind that the walk knows.
fn corpus() -> Vec<Vec<u8>> {
    let echo = [8, 0, 0, 0, 0, 7, 0, 1];
    let chain = [
        [43u8, 0, 1, 4, 0, 0, 0, 0],
        [60, 0, 0, 0, 0, 0, 0, 0],
        [51, 0, 1, 4, 0, 0, 0, 0],
        [44, 0, 0, 0, 0, 0, 0, 1],
        [132, 0, 0, 0, 0, 0, 0, 5],
    ]
    .concat();
    let mut options = v4(6, &[[1u8, 1, 1, 0].as_slice(), &FLOW, &[0; 16]].concat());
    options[0] = 0x46;
    let mut fragment = v4(17, &FLOW);
    fragment[6] = 0x20;
    vec![
        v4(6, &[FLOW.as_slice(), &[0; 16]].concat()),
        v4(17, &[FLOW.as_slice(), &[0, 8, 0, 0]].concat()),
        v4(132, &[FLOW.as_slice(), &[0; 8]].concat()),
        v4(1, &echo),
        v4(47, &[0; 4]),
        options,
        fragment,
        v6(6, &[FLOW.as_slice(), &[0; 16]].concat()),
        v6(58, &[128, 0, 0, 0, 0, 7, 0, 1]),
        v6(0, &[chain.as_slice(), &FLOW, &[0; 8]].concat()),
        v6(44, &[17, 0, 0, 1, 0, 0, 0, 9, 0x0f, 0xa0, 0, 80]),
        v6(50, &[0; 8]),
        error_about(3, &v4(6, &[0; 20])),
        error_about(2, &v6(0, &[[6u8, 0, 1, 4, 0, 0, 0, 0].as_slice(), &[0; 20]].concat())),
    ]
}

/// Cutting a packet short gives either the same answer or one that says what is missing.
#[test]
fn every_truncation_of_the_corpus_has_an_answer() {
    for packet in corpus() {
        let whole = keyed(Packet::whole(&packet), &PORTS);
        for len in 0..packet.len() {
            let (_, cut) = keyed(Packet::whole(&packet[..len]), &PORTS);
            let is_short = matches!(cut, Err(Reason::Truncated | Reason::FirstTooShort));
            assert!(cut == whole.1 || is_short, "{len} of {packet:x?}");
            let (_, copied) = keyed(Packet::copied(&packet[..len], packet.len()), &PORTS);
            assert!(copied == whole.1 || copied == Err(Reason::NotCopied), "{len} of {packet:x?}");
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_walk_panic(bytes: Vec<u8>, more in 0usize..2000) {
        let _ = keyed(Packet::copied(&bytes, bytes.len() + more), &PORTS);
    }

    #[test]
    fn no_change_of_a_packet_makes_the_walk_panic(
        which in 0usize..14, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        more in 0usize..100_000,
    ) {
        let mut bytes = corpus()[which].clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = keyed(Packet::copied(&bytes, bytes.len() + more), &TUPLE);
    }
}
