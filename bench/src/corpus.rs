//! Packets of the kinds that are measured: many flows of each, so that neither the processor's cache
//! nor its branch prediction sees the same one again soon.

/// Flows of each kind.
const FLOWS: u32 = 4096;

/// Packets of one kind.
pub struct Kind {
    /// What they are.
    pub name: &'static str,
    /// One packet of every flow, or its fragments.
    pub packets: Vec<Vec<u8>>,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const ICMP: u8 = 1;

/// Every kind.
pub fn kinds() -> Vec<Kind> {
    let hop_by_hop_and_options = [[60u8, 0, 1, 4, 0, 0, 0, 0], [UDP, 0, 1, 4, 0, 0, 0, 0]].concat();
    let five_headers = [
        [43u8, 0, 1, 4, 0, 0, 0, 0],
        [60, 0, 0, 0, 0, 0, 0, 0],
        [51, 0, 1, 4, 0, 0, 0, 0],
        [44, 0, 0, 0, 0, 0, 0, 1],
        [TCP, 0, 0, 0, 0, 0, 0, 5],
    ]
    .concat();
    vec![
        kind("IPv4 TCP", |flow| v4(flow, 0, TCP, &l4(flow))),
        kind("IPv4 UDP, 20 bytes of options", |flow| v4(flow, 20, UDP, &l4(flow))),
        kind("IPv4 SCTP, ports mode", |flow| v4(flow, 0, SCTP, &l4(flow))),
        kind("IPv4 SCTP, INITs", |flow| v4(flow, 0, SCTP, &init(flow))),
        kind("IPv4 echo", |flow| v4(flow, 0, ICMP, &echo(flow))),
        kind("IPv6 TCP", |flow| v6(flow, TCP, &[], &l4(flow))),
        kind("IPv6 UDP, 2 extension headers", |flow| {
            v6(flow, 0, &hop_by_hop_and_options, &l4(flow))
        }),
        kind("IPv6 TCP, 5 extension headers", |flow| v6(flow, 0, &five_headers, &l4(flow))),
        kind("IPv4, cut inside the ports", |flow| v4(flow, 0, TCP, &l4(flow)[..3])),
        kind_of("IPv4 UDP, in two fragments", fragments),
    ]
}

fn kind(name: &'static str, packet: impl Fn(u32) -> Vec<u8>) -> Kind {
    kind_of(name, |flow| [packet(flow)])
}

/// Several packets of every flow.
fn kind_of<const N: usize>(name: &'static str, packets: impl Fn(u32) -> [Vec<u8>; N]) -> Kind {
    Kind { name, packets: (0..FLOWS).flat_map(packets).collect() }
}

/// The fragments of a datagram in order.
fn fragments(flow: u32) -> [Vec<u8>; 2] {
    [[0x20, 0], [0, 2]].map(|flags_offset| {
        let mut packet = v4(flow, 0, UDP, &l4(flow)[..16]);
        packet[6..8].copy_from_slice(&flags_offset);
        packet
    })
}

/// 20 bytes that begin with ports, as TCP has them.
fn l4(flow: u32) -> Vec<u8> {
    let [_, _, high, low] = flow.wrapping_mul(40_503).to_be_bytes();
    let mut bytes = vec![high | 0x80, low, 0, 80];
    bytes.resize(20, 0);
    bytes
}

/// An SCTP header, and the type of the first chunk.
fn init(flow: u32) -> Vec<u8> {
    let mut bytes = l4(flow);
    bytes[12] = 1;
    bytes
}

fn echo(flow: u32) -> Vec<u8> {
    let [_, _, high, low] = flow.to_be_bytes();
    vec![8, 0, 0, 0, high, low, 0, 1]
}

fn v4(flow: u32, options: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header_len = 20 + options;
    let len = u16::from(header_len) + u16::try_from(payload.len()).unwrap_or(0);
    let [len_high, len_low] = len.to_be_bytes();
    let [_, a, b, c] = flow.wrapping_mul(2_654_435).to_be_bytes();
    let mut bytes =
        vec![0x40 | (header_len / 4), 0, len_high, len_low, 0, 0, 0x40, 0, 64, protocol];
    bytes.extend([0, 0, 20, a, b, c, 10, 0, 0, 0]);
    bytes.resize(usize::from(header_len), 1);
    bytes.extend(payload);
    bytes
}

fn v6(flow: u32, next_header: u8, extensions: &[u8], payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(extensions.len() + payload.len()).unwrap_or(0).to_be_bytes();
    let mut bytes = vec![0x60, 0, 0, 0, len[0], len[1], next_header, 64];
    bytes.extend([0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    bytes.extend(flow.wrapping_mul(2_654_435).to_be_bytes());
    bytes.extend([0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(extensions);
    bytes.extend(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_core::table::Config;
    use lb_core::walk::{Reason, keyed};
    use lb_core::wire::Packet;
    use std::collections::HashSet;

    #[test]
    fn every_kind_has_keys_of_its_own_but_the_one_that_is_cut() {
        for kind in kinds() {
            let keys: Vec<_> = kind
                .packets
                .iter()
                .map(|bytes| keyed(Packet::whole(bytes), &Config::default()).1)
                .collect();
            if kind.name.contains("cut") {
                assert!(keys.iter().all(|key| *key == Err(Reason::Truncated)));
                continue;
            }
            let has_ports = |key: &&Result<_, _>| **key != Err(Reason::EarlyFragment);
            let distinct: HashSet<_> = keys
                .iter()
                .filter(has_ports)
                .map(|key| key.expect(kind.name).words().to_vec())
                .collect();
            assert!(distinct.len() > 4000, "{}: {} keys", kind.name, distinct.len());
        }
    }
}
