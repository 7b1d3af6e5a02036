//! What is known of a frame: whether it is a fragment, of which datagram, and where things are.

use std::ops::Range;

/// What stands at the beginning of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    Ethernet,
    Ip,
}

/// A frame on its way.
#[derive(Clone, Debug)]
pub struct Frame {
    pub bytes: Vec<u8>,
    /// None for what is no IP packet, or none that can be read.
    pub packet: Option<Packet>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub is_v4: bool,
    /// Where the IP header is, without options and extensions.
    pub header: Range<usize>,
    /// Where that is what the IP packet carries: behind all headers of IP.
    pub payload: Range<usize>,
    /// The number of what is carried.
    pub protocol: u8,
    /// None for a packet that is no fragment.
    pub fragment: Option<Fragment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    pub datagram: Datagram,
    /// The bytes of the datagram that it has.
    pub part: Range<u32>,
    /// Whether it has the end of the datagram.
    pub is_last: bool,
}

/// What fragments of one datagram have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Datagram {
    source: [u8; 16],
    destination: [u8; 16],
    protocol: u8,
    id: u32,
}

const ETHERNET: usize = 14;
const V6_HEADER: usize = 40;

/// More extension headers than a packet of any use has.
const MOST_EXTENSIONS: usize = 8;

impl Frame {
    pub fn new(bytes: Vec<u8>, layer: Layer) -> Self {
        let packet = read(&bytes, layer);
        Self { bytes, packet }
    }

    pub fn fragment(&self) -> Option<&Fragment> {
        self.packet.as_ref()?.fragment.as_ref()
    }
}

impl Fragment {
    pub fn is_first(&self) -> bool {
        self.part.start == 0
    }
}

impl Packet {
    /// What follows the transport header: the data of which only its checksum knows.
    pub fn data(&self) -> Range<usize> {
        let is_first = self.fragment.as_ref().is_none_or(Fragment::is_first);
        let header = match self.protocol {
            _ if !is_first => 0,
            6 => 20,
            17 | 1 | 58 => 8,
            132 => 12,
            _ => 0,
        };
        (self.payload.start + header).min(self.payload.end)..self.payload.end
    }
}

fn read(bytes: &[u8], layer: Layer) -> Option<Packet> {
    let start = match layer {
        Layer::Ip => 0,
        Layer::Ethernet => match bytes.get(12..ETHERNET)? {
            [0x08, 0x00] | [0x86, 0xdd] => ETHERNET,
            _ => return None,
        },
    };
    match bytes.get(start)? >> 4 {
        4 => read_v4(bytes, start),
        6 => read_v6(bytes, start),
        _ => None,
    }
}

fn read_v4(bytes: &[u8], start: usize) -> Option<Packet> {
    let header = bytes.get(start..start + 20)?;
    let header_len = usize::from(header[0] & 0xf) * 4;
    let total = usize::from(word(header, 2));
    // A short frame is filled up, so there may be more bytes.
    let payload = start + header_len..start + total;
    if header_len < 20 || payload.start > payload.end || payload.end > bytes.len() {
        return None;
    }
    let (protocol, flags) = (header[9], word(header, 6));
    let fragment = (flags & 0x3fff != 0).then(|| Fragment {
        datagram: Datagram {
            source: padded(&header[12..16]),
            destination: padded(&header[16..20]),
            protocol,
            id: word(header, 4).into(),
        },
        part: part(flags & 0x1fff, payload.len()),
        is_last: flags & 0x2000 == 0,
    });
    Some(Packet { is_v4: true, header: start..start + 20, payload, protocol, fragment })
}

fn read_v6(bytes: &[u8], start: usize) -> Option<Packet> {
    let header = bytes.get(start..start + V6_HEADER)?;
    let end = start + V6_HEADER + usize::from(word(header, 4));
    let (mut at, mut next, mut fragment) = (start + V6_HEADER, header[6], None);
    let mut extensions = 0;
    // Hop by hop, routing, destination options, fragment.
    while matches!(next, 0 | 43 | 60 | 44) && extensions < MOST_EXTENSIONS {
        let extension = bytes.get(at..at + 8)?;
        let length = match next {
            44 => 8,
            _ => 8 + usize::from(extension[1]) * 8,
        };
        at += length;
        extensions += 1;
        let is_fragment = next == 44;
        next = extension[0];
        if is_fragment {
            let flags = word(extension, 2);
            // One that has all of its datagram is no fragment to anybody.
            if flags & 0xfff9 != 0 {
                fragment = Some(Fragment {
                    datagram: Datagram {
                        source: padded(&header[8..24]),
                        destination: padded(&header[24..40]),
                        protocol: 0,
                        id: u32::from(word(extension, 4)) << 16 | u32::from(word(extension, 6)),
                    },
                    part: part(flags >> 3, end.checked_sub(at)?),
                    is_last: flags & 1 == 0,
                });
                break;
            }
        }
    }
    if at > end || end > bytes.len() {
        return None;
    }
    let header = start..start + V6_HEADER;
    Some(Packet { is_v4: false, header, payload: at..end, protocol: next, fragment })
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn padded(address: &[u8]) -> [u8; 16] {
    let mut padded = [0; 16];
    padded[..address.len()].copy_from_slice(address);
    padded
}

/// The bytes of a datagram from an offset in units of 8 bytes on.
fn part(units: u16, length: usize) -> Range<u32> {
    let start = u32::from(units) * 8;
    start..start.saturating_add(u32::try_from(length).unwrap_or(u32::MAX))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An IPv4 fragment of a UDP datagram: the bytes `part` of it.
    pub fn v4(id: u16, part: Range<u16>, is_last: bool) -> Frame {
        let more = u16::from(!is_last) << 13;
        let mut bytes = vec![0x45, 0];
        bytes.extend((20 + part.end - part.start).to_be_bytes());
        bytes.extend(id.to_be_bytes());
        bytes.extend(((part.start / 8) | more).to_be_bytes());
        bytes.extend([64, 17, 0, 0, 20, 0, 0, 1, 10, 0, 0, 0]);
        bytes.extend(part.map(|at| u8::try_from(at % 251).unwrap()));
        Frame::new(bytes, Layer::Ip)
    }

    /// The same over IPv6, behind destination options.
    pub fn v6(id: u32, part: Range<u16>, is_last: bool) -> Frame {
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend((16 + part.end - part.start).to_be_bytes());
        bytes.extend([60, 64]);
        bytes.extend([1; 16]);
        bytes.extend([2; 16]);
        bytes.extend([44, 0, 1, 4, 0, 0, 0, 0]);
        bytes.extend([17, 0]);
        bytes.extend((part.start | u16::from(!is_last)).to_be_bytes());
        bytes.extend(id.to_be_bytes());
        bytes.extend(part.map(|at| u8::try_from(at % 251).unwrap()));
        Frame::new(bytes, Layer::Ip)
    }

    #[test]
    fn fragments_of_both_families_are_read() {
        let (first, last) = (v4(7, 0..1480, false), v4(7, 1480..2056, true));
        let [a, b] = [&first, &last].map(|frame| frame.fragment().unwrap());
        assert_eq!(a.datagram, b.datagram);
        assert_eq!((&a.part, a.is_last, a.is_first()), (&(0..1480), false, true));
        assert_eq!((&b.part, b.is_last, b.is_first()), (&(1480..2056), true, false));
        assert_eq!(first.packet.as_ref().unwrap().data(), 28..1500);
        assert_eq!(last.packet.as_ref().unwrap().data(), 20..596);

        let frame = v6(0x0102_0304, 1448..2056, true);
        let packet = frame.packet.unwrap();
        assert_eq!(
            (packet.protocol, packet.payload.clone(), packet.data()),
            (17, 56..664, 56..664)
        );
        let fragment = packet.fragment.unwrap();
        assert_eq!((fragment.datagram.id, fragment.part), (0x0102_0304, 1448..2056));
    }

    #[test]
    fn whole_packets_are_no_fragments() {
        // A datagram that fits has a fragment header of its own at times.
        for frame in [v4(7, 0..100, true), v6(7, 0..100, true)] {
            assert!(frame.packet.is_some() && frame.fragment().is_none());
        }
    }

    #[test]
    fn ethernet_comes_before() {
        let inner = v4(7, 0..24, false).bytes;
        let frame = |kind: [u8; 2]| {
            let bytes = [&[0; 12][..], &kind, &inner, &[0; 9]].concat();
            Frame::new(bytes, Layer::Ethernet)
        };
        assert_eq!(frame([8, 0]).packet.unwrap().payload, 34..58);
        assert!(frame([8, 6]).packet.is_none());
    }

    #[test]
    fn whatever_is_cut_or_odd_is_no_packet() {
        for whole in [v4(7, 0..100, false).bytes, v6(7, 0..100, false).bytes] {
            for length in 0..whole.len() {
                assert!(Frame::new(whole[..length].to_vec(), Layer::Ip).packet.is_none());
            }
            let mut random = crate::chance::Random::new(3);
            for _ in 0..20_000 {
                let mut bytes = whole.clone();
                for _ in 0..3 {
                    let at = random.index(bytes.len());
                    bytes[at] = random.next().to_le_bytes()[0];
                }
                let frame = Frame::new(bytes, Layer::Ip);
                if let Some(packet) = frame.packet {
                    assert!(packet.payload.end <= frame.bytes.len());
                    assert!(packet.data().end <= frame.bytes.len());
                }
            }
        }
    }
}
