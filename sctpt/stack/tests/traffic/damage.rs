//! Bytes that are no SCTP, or a damaged kind of it.

use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::network::{FAR, NEAR, Net, PORT, message, on_both_stacks};

on_both_stacks!(random_bytes_do_no_harm);

/// Packets with right checksums and ports, and nonsense behind.
fn random_bytes_do_no_harm(net: &mut Net) {
    const COUNT: u32 = 20_000;
    let mut peer = net.peer();
    peer.echo(&FAR.join(","));
    let association = net.connect(&NEAR.join(","), &FAR.join(",")).unwrap();
    let port = association.local_addresses().unwrap()[0].port();
    // To the peer from a stranger, and to this process itself as if from the peer.
    let targets =
        [(FAR[0], PORT, 5), (FAR[2], PORT, 5), (NEAR[0], port, PORT), (NEAR[2], port, PORT)];
    let mut random = Random(1);
    for number in 0..COUNT {
        let (to, to_port, from_port) = targets[usize::try_from(number).unwrap() % 4];
        let to: IpAddr = to.parse().unwrap();
        let packet = nonsense(&mut random, from_port, to_port);
        let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(132))).unwrap();
        let _ = socket.send_to(&packet, &SockAddr::from(SocketAddr::new(to, 0)));
    }
    assert!(peer.is_alive());
    association.send(&[1; 7], 0).unwrap();
    assert_eq!(message(&*association, &mut vec![0; 1_000]), 7);
    let another = net.connect(NEAR[0], FAR[0]).unwrap();
    another.send(&[1; 7], 0).unwrap();
    assert_eq!(message(&*another, &mut vec![0; 1_000]), 7);
}

/// Sometimes chunks of known types and lengths, sometimes anything.
fn nonsense(random: &mut Random, from: u16, to: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend(from.to_be_bytes());
    packet.extend(to.to_be_bytes());
    // An INIT has no tag.
    let tag = if random.below(2) == 0 { 0 } else { random.next() };
    packet.extend(tag.to_be_bytes());
    packet.extend([0; 4]);
    for _ in 0..=random.below(4) {
        let length = random.below(80);
        packet.push(u8::try_from(random.below(16)).unwrap());
        packet.push(u8::try_from(random.below(8)).unwrap());
        let claimed = if random.below(4) == 0 { random.below(65_536) } else { length + 4 };
        packet.extend(u16::try_from(claimed.min(65_535)).unwrap().to_be_bytes());
        // Parameters of addresses and others, of short lengths.
        while packet.len() % 4 != 0 || random.below(20) != 0 && packet.len() < 1_400 {
            packet.push(match random.below(3) {
                0 => 0,
                1 => u8::try_from(random.below(16)).unwrap(),
                _ => random.next().to_be_bytes()[0],
            });
        }
    }
    packet.truncate(12 + usize::try_from(random.below(1_400)).unwrap());
    // One in eight keeps a wrong checksum.
    if random.below(8) != 0 {
        let sum = crc32c(&packet);
        packet[8..12].copy_from_slice(&sum.to_le_bytes());
    }
    packet
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut sum = !0u32;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 0 { sum >> 1 } else { (sum >> 1) ^ 0x82f6_3b78 };
        }
    }
    !sum
}

/// The same numbers every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 32).unwrap()
    }

    fn below(&mut self, limit: u32) -> u32 {
        self.next() % limit
    }
}

#[test]
fn the_checksum_is_that_of_sctp() {
    // RFC 3720, B.4: 32 bytes of zeros.
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
}
