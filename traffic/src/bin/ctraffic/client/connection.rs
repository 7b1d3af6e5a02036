//! One connection: what it sends, reads, and remembers.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use socket2::{Domain, Socket, Type};
use traffic::events::{Interest, is_transient};
use traffic::pace::Pace;
use traffic::tcp;

use super::flight::{Answer, Flight};
use traffic::packet::{self, HEADER, LABEL, Label};

/// A connection that stands, or is about to.
pub struct Connection {
    socket: Socket,
    udp: bool,
    /// What the engine waits for on the socket.
    pub watched: Interest,
    pub stage: Stage,
    pub flight: Flight,
    cookie: u64,
    /// Bytes of the last packet that TCP has not taken yet.
    unsent: usize,
    answer: PartialAnswer,
    /// Who answered last.
    host: String,
}

pub enum Stage {
    Connecting,
    Open {
        pace: Pace,
        /// A packet is due, and waits for the answer to another one.
        is_held_back: bool,
    },
}

/// What a read brought.
pub enum Heard {
    Answer(Answer),
    /// A datagram that is no answer of the server.
    Invalid,
    /// The name of the host that answers, when it is first known or another.
    Host(String),
}

/// The answer of a stream, as far as it was read.
#[derive(Default)]
struct PartialAnswer {
    length: usize,
    /// The beginning, of the first answer alone.
    header: Vec<u8>,
    label: [u8; LABEL],
    is_later: bool,
}

impl Connection {
    pub fn connect(
        target: SocketAddr,
        source: Option<SocketAddr>,
        udp: bool,
        cookie: u64,
    ) -> io::Result<Self> {
        let kind = match udp {
            true => Type::DGRAM,
            false => Type::STREAM,
        };
        let socket = Socket::new(Domain::for_address(target), kind.nonblocking(), None)?;
        if !udp {
            socket.set_tcp_nodelay(true)?;
            // Close by a reset: tens of thousands of connections in TIME_WAIT
            // would use up the ports.
            socket.set_linger(Some(Duration::ZERO))?;
        }
        if let Some(source) = source {
            tcp::bind_source(&socket, source)?;
        }
        match socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => {
                return Err(error);
            }
            _ => {}
        }
        Ok(Self {
            socket,
            udp,
            watched: Interest::EPOLLOUT,
            stage: Stage::Connecting,
            flight: Flight::default(),
            cookie,
            unsent: 0,
            answer: PartialAnswer::default(),
            host: String::new(),
        })
    }

    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Whether the connect came to a good end.
    pub fn is_connected(&self) -> io::Result<bool> {
        match self.socket.take_error()? {
            Some(error) => Err(error),
            None => Ok(self.socket.peer_addr().is_ok()),
        }
    }

    pub fn local(&self) -> SocketAddr {
        let address = self.socket.local_addr().ok().and_then(|address| address.as_socket());
        address.unwrap_or_else(|| SocketAddr::new(IpAddr::from([0, 0, 0, 0]), 0))
    }

    pub fn retransmits(&self) -> u64 {
        traffic_sys::retransmits(&self.socket).map_or(0, u64::from)
    }

    pub fn interest(&self) -> Interest {
        match (&self.stage, self.unsent) {
            (Stage::Connecting, _) => Interest::EPOLLOUT,
            (Stage::Open { .. }, 0) => Interest::EPOLLIN,
            (Stage::Open { .. }, _) => Interest::EPOLLIN | Interest::EPOLLOUT,
        }
    }

    /// Whether the stream takes another packet.
    pub fn can_send(&self) -> bool {
        self.unsent == 0
    }

    /// Sends a packet on a stream, as far as there is room. `packet` is a
    /// buffer of its size.
    pub fn send_on_stream(&mut self, packet: &mut [u8], now: Instant) -> io::Result<u64> {
        let number = self.flight.depart(now);
        self.unsent = packet.len();
        self.flush(packet, number)?;
        Ok(number)
    }

    /// Sends more of a packet that did not fit.
    pub fn send_rest(&mut self, packet: &mut [u8]) -> io::Result<()> {
        match (self.unsent, self.flight.newest()) {
            (0, _) | (_, None) => Ok(()),
            (_, Some(number)) => self.flush(packet, number),
        }
    }

    fn flush(&mut self, packet: &mut [u8], number: u64) -> io::Result<()> {
        self.fill(packet, number);
        match self.socket.write(&packet[packet.len() - self.unsent..]) {
            Ok(sent) => self.unsent -= sent,
            Err(error) if is_transient(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Sends a datagram. It counts as sent even if the host refuses it: a
    /// refusal is a loss to be seen. The number comes back in any case.
    pub fn send_datagram(&mut self, packet: &mut [u8], now: Instant) -> (u64, io::Result<()>) {
        let number = self.flight.depart(now);
        self.fill(packet, number);
        // An error may be about a former datagram, and this one did not go.
        let sent = match self.socket.send(packet) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.socket.send(packet)
            }
            other => other,
        };
        (number, sent.map(drop))
    }

    fn fill(&self, packet: &mut [u8], number: u64) {
        if has_label(packet.len()) {
            Label { cookie: self.cookie, number }.put(packet);
        }
    }

    /// Reads once. An error is the end of a stream, and the loss of a datagram.
    pub fn hear(
        &mut self,
        buffer: &mut [u8],
        packet_size: usize,
        now: Instant,
        heard: &mut Vec<Heard>,
    ) -> io::Result<()> {
        let length = match self.socket.read(buffer) {
            Ok(0) if !self.udp => return Err(io::Error::other("closed by the server")),
            Ok(length) => length,
            Err(error) if is_transient(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        match self.udp {
            true => self.hear_datagram(&buffer[..length], packet_size, now, heard),
            false => self.hear_stream(&buffer[..length], packet_size, now, heard)?,
        }
        Ok(())
    }

    fn hear_datagram(
        &mut self,
        answer: &[u8],
        packet_size: usize,
        now: Instant,
        heard: &mut Vec<Heard>,
    ) {
        match Label::of(answer) {
            Some(label) if answer.len() == packet_size && label.cookie == self.cookie => {
                if !packet::is_from(answer, &self.host) {
                    self.host = packet::host_name(answer);
                    heard.push(Heard::Host(self.host.clone()));
                }
                heard.push(Heard::Answer(self.flight.answer(label.number, now)));
            }
            _ => heard.push(Heard::Invalid),
        }
    }

    fn hear_stream(
        &mut self,
        mut bytes: &[u8],
        packet_size: usize,
        now: Instant,
        heard: &mut Vec<Heard>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(bytes.len().min(packet_size - self.answer.length));
            self.answer.take(part, packet_size);
            bytes = rest;
            if self.answer.length < packet_size {
                continue;
            }
            let Some(number) = self.flight.oldest() else {
                return Err(io::Error::other("an answer without a question"));
            };
            let expected = Label { cookie: self.cookie, number };
            if has_label(packet_size) && Label::read(self.answer.label) != expected {
                return Err(io::Error::other("an answer that is not what was sent"));
            }
            if !self.answer.is_later {
                self.host = packet::host_name(&self.answer.header);
                heard.push(Heard::Host(self.host.clone()));
            }
            self.answer = PartialAnswer { is_later: true, ..PartialAnswer::default() };
            heard.push(Heard::Answer(self.flight.answer(number, now)));
        }
        Ok(())
    }
}

/// Whether there is room for a label behind the server's name.
fn has_label(packet_size: usize) -> bool {
    packet_size >= HEADER + LABEL
}

impl PartialAnswer {
    /// Takes bytes that are not beyond the end of the answer.
    fn take(&mut self, bytes: &[u8], size: usize) {
        if !self.is_later {
            let missing = HEADER - self.header.len();
            self.header.extend_from_slice(&bytes[..bytes.len().min(missing)]);
        }
        let label_begin = size - LABEL;
        let end = self.length + bytes.len();
        if end > label_begin {
            let skipped = label_begin.saturating_sub(self.length);
            let place = self.length.saturating_sub(label_begin);
            let part = &bytes[skipped..];
            self.label[place..place + part.len()].copy_from_slice(part);
        }
        self.length = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_may_come_in_any_pieces() {
        let mut packet = [0; 80];
        packet[..3].copy_from_slice(b"vm\0");
        let label = Label { cookie: 7, number: 9 };
        label.put(&mut packet);
        for cut in 1..80 {
            let mut answer = PartialAnswer::default();
            answer.take(&packet[..cut], 80);
            answer.take(&packet[cut..], 80);
            assert_eq!(answer.length, 80);
            assert_eq!(Label::read(answer.label), label, "{cut}");
            assert_eq!(packet::host_name(&answer.header), "vm");
        }
    }
}
