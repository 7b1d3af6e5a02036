//! Datagrams that come back: ICMP echoes, and UDP to an echo server.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};
use traffic::events::{Events, Interest, is_transient};
use traffic::pace::Pace;
use traffic::packet::{LABEL, Label, SHORTEST_DATAGRAM};

use crate::trials::{Outcome, PATIENCE, Run, Trials};

/// Every 10 ms.
const RATE: f64 = 100.0;

/// The header of an ICMP echo.
const ICMP_HEADER: usize = 8;

/// An ICMP echo every 10 ms.
pub fn icmp(target: IpAddr, run: Run<'_>) -> Outcome {
    let protocol = match target {
        IpAddr::V4(_) => Protocol::ICMPV4,
        IpAddr::V6(_) => Protocol::ICMPV6,
    };
    let address = SocketAddr::new(target, 0);
    // The kernel lets some users send echoes without the right to raw sockets.
    let opened = open(address, Type::RAW, Some(protocol))
        .map(|socket| (socket, true))
        .or_else(|_| open(address, Type::DGRAM, Some(protocol)).map(|socket| (socket, false)));
    match opened {
        Ok((socket, is_raw)) => {
            let wire =
                Icmp { is_ipv4: target.is_ipv4(), has_ip_header: is_raw && target.is_ipv4() };
            probe(&socket, &Wire::Icmp(wire), run)
        }
        Err(error) => Outcome::unavailable(format!("open an ICMP socket: {error}")),
    }
}

/// A datagram to a ctraffic server every 10 ms.
pub fn udp(target: SocketAddr, run: Run<'_>) -> Outcome {
    match open(target, Type::DGRAM, None) {
        Ok(socket) => probe(&socket, &Wire::Udp, run),
        Err(error) => Outcome::unavailable(format!("open a UDP socket: {error}")),
    }
}

fn open(target: SocketAddr, kind: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(target), kind.nonblocking(), protocol)?;
    // Nothing from elsewhere is heard.
    socket.connect(&target.into())?;
    Ok(socket)
}

/// What a packet looks like.
enum Wire {
    Icmp(Icmp),
    Udp,
}

struct Icmp {
    is_ipv4: bool,
    /// What is read begins with the IP header.
    has_ip_header: bool,
}

fn probe(socket: &Socket, wire: &Wire, run: Run<'_>) -> Outcome {
    match exchange(socket, wire, run) {
        Ok(outcome) => outcome,
        Err(error) => Outcome::unavailable(format!("{error:#}")),
    }
}

fn exchange(mut socket: &Socket, wire: &Wire, run: Run<'_>) -> anyhow::Result<Outcome> {
    let mut events = Events::new().context("create an epoll")?;
    events.add(socket, Interest::EPOLLIN, 0).context("watch a socket")?;
    let cookie = RandomState::new().hash_one("break-test");
    let mut pace = Pace::new(run.begin, RATE);
    let mut trials = Trials::default();
    let mut causes = BTreeMap::new();
    let mut note = |error: io::Error| *causes.entry(error.to_string()).or_default() += 1;
    let mut buffer = [0; 2_048];
    loop {
        let now = Instant::now();
        if now >= run.end() + PATIENCE || (now >= run.end() && trials.all_answered()) {
            break;
        }
        if now < run.end() && now >= pace.due() {
            pace.take(now);
            let number = trials.begin(run.since_begin(now));
            if let Err(error) = socket.send(&wire.packet(Label { cookie, number })) {
                note(error);
            }
        }
        let until = if pace.due() < run.end() { pace.due() } else { run.end() + PATIENCE };
        for _ in events.wait(Some(until.max(now))).context("wait for events")? {
            match socket.read(&mut buffer) {
                Ok(length) => {
                    let label = wire.label(&buffer[..length]).filter(|l| l.cookie == cookie);
                    if let Some(label) = label {
                        trials.answer(label.number, run.since_begin(Instant::now()));
                    }
                }
                Err(error) if is_transient(&error) => {}
                Err(error) => note(error),
            }
        }
    }
    Ok(Outcome { causes, ..trials.outcome(run.time()) })
}

impl Wire {
    fn packet(&self, label: Label) -> Vec<u8> {
        match self {
            Wire::Udp => {
                let mut packet = vec![0; SHORTEST_DATAGRAM];
                label.put(&mut packet);
                packet
            }
            Wire::Icmp(icmp) => icmp.request(label),
        }
    }

    /// The label of an answer.
    fn label(&self, answer: &[u8]) -> Option<Label> {
        match self {
            Wire::Udp => Label::of(answer),
            Wire::Icmp(icmp) => icmp.answer(answer),
        }
    }
}

impl Icmp {
    fn request(&self, label: Label) -> Vec<u8> {
        let mut packet = vec![0; ICMP_HEADER + LABEL];
        packet[0] = if self.is_ipv4 { 8 } else { 128 };
        // Identifier and sequence number, for those who look on.
        let bytes = label.bytes();
        packet[4..6].copy_from_slice(&bytes[6..8]);
        packet[6..8].copy_from_slice(&bytes[14..16]);
        label.put(&mut packet);
        if self.is_ipv4 {
            // For ICMPv6 the kernel does it, which knows the addresses.
            let checksum = checksum(&packet);
            packet[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
        packet
    }

    fn answer(&self, packet: &[u8]) -> Option<Label> {
        let message = match self.has_ip_header {
            true => packet.get(usize::from(packet.first()? & 0x0f) * 4..)?,
            false => packet,
        };
        let reply = if self.is_ipv4 { 0 } else { 129 };
        match message.first() {
            Some(kind) if *kind == reply && message.len() == ICMP_HEADER + LABEL => {
                Label::of(message)
            }
            _ => None,
        }
    }
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABEL: Label = Label { cookie: 0x0102_0304_0506_0708, number: 0x1112 };

    #[test]
    fn an_ipv4_echo_is_correct_and_its_answer_is_known() {
        let icmp = Icmp { is_ipv4: true, has_ip_header: true };
        let mut packet = icmp.request(LABEL);
        assert_eq!((packet[0], &packet[4..8]), (8, &[7, 8, 0x11, 0x12][..]));
        // A sum over all with the checksum in it is zero.
        assert_eq!(checksum(&packet), 0);
        let with_header = |message: &[u8]| {
            let mut packet = vec![0x46; 24];
            packet.extend_from_slice(message);
            packet
        };
        // Its own question, which loopback brings back.
        assert_eq!(icmp.answer(&with_header(&packet)), None);
        packet[0] = 0;
        assert_eq!(icmp.answer(&with_header(&packet)), Some(LABEL));
        for length in 0..24 + packet.len() {
            assert_eq!(icmp.answer(&with_header(&packet)[..length]), None);
        }
    }

    #[test]
    fn an_ipv6_echo_is_left_to_the_kernel_to_sum_up() {
        let icmp = Icmp { is_ipv4: false, has_ip_header: false };
        let mut packet = icmp.request(LABEL);
        assert_eq!(packet[..4], [128, 0, 0, 0]);
        packet[0] = 129;
        assert_eq!(icmp.answer(&packet), Some(LABEL));
    }

    #[test]
    fn the_checksum_is_that_of_the_rfc() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }
}
