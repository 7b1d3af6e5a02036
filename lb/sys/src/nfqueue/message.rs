//! The messages of nfnetlink_queue (linux/netfilter/nfnetlink_queue.h) as bytes.
//!
//! Lengths and types are in the machine's byte order, values in the network's.

use super::QueueConfig;

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const HEADER_LEN: usize = 16;
const NFGENMSG_LEN: usize = 4;
const ATTRIBUTE_LEN: usize = 4;

const SUBSYSTEM_QUEUE: u16 = 3 << 8;
const MSG_PACKET: u16 = SUBSYSTEM_QUEUE;
const MSG_VERDICT: u16 = SUBSYSTEM_QUEUE | 1;
const MSG_CONFIG: u16 = SUBSYSTEM_QUEUE | 2;

const NFQA_PACKET_HDR: u16 = 1;
const NFQA_VERDICT_HDR: u16 = 2;
const NFQA_MARK: u16 = 3;
const NFQA_PAYLOAD: u16 = 10;
const NFQA_CAP_LEN: u16 = 13;

const NFQA_CFG_CMD: u16 = 1;
const NFQA_CFG_PARAMS: u16 = 2;
const NFQA_CFG_QUEUE_MAXLEN: u16 = 3;
const NFQA_CFG_MASK: u16 = 4;
const NFQA_CFG_FLAGS: u16 = 5;
const CMD_BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
const FLAG_FAIL_OPEN: u32 = 1;
const FLAG_GSO: u32 = 4;

const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NF_REPEAT: u32 = 4;

/// Sequence number of the set-up request; verdicts have 0.
pub(super) const SETUP: u32 = 1;

/// The kernel's number of a waiting packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketId(pub u32);

/// A packet that waits for its verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The kernel's number.
    pub id: PacketId,
    /// The fwmark that it carries.
    pub mark: u32,
    /// The bytes from the IP header on, as many as the copy range allows. None before the queue is
    /// set up.
    pub payload: Option<&'a [u8]>,
    /// How long it really is.
    pub full_len: usize,
}

/// What is to happen to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on with this fwmark.
    Accept {
        /// The fwmark, whole.
        mark: u32,
    },
    /// It ends here.
    Drop,
    /// It passes the rules once more, from this chain on.
    Repeat,
}

/// Something that the kernel said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A packet waits.
    Packet(Packet<'a>),
    /// The answer to a request.
    Answer {
        /// The number that the request had.
        sequence: u32,
        /// Why it was refused; 0 is success.
        errno: i32,
    },
}

/// One request that binds the queue and configures it, so that there is no packet in between that
/// knows only half of it.
pub(super) fn setup(config: &QueueConfig) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(96);
    let flags = FLAG_GSO | if config.fail_open { FLAG_FAIL_OPEN } else { 0 };
    let [r0, r1, r2, r3] = config.copy_range.to_be_bytes();
    message(&mut bytes, MSG_CONFIG, NLM_F_REQUEST | NLM_F_ACK, SETUP, config.number, |bytes| {
        attribute(bytes, NFQA_CFG_CMD, &[CMD_BIND, 0, 0, 0]);
        attribute(bytes, NFQA_CFG_PARAMS, &[r0, r1, r2, r3, COPY_PACKET]);
        attribute(bytes, NFQA_CFG_QUEUE_MAXLEN, &config.length.to_be_bytes());
        attribute(bytes, NFQA_CFG_MASK, &(FLAG_GSO | FLAG_FAIL_OPEN).to_be_bytes());
        attribute(bytes, NFQA_CFG_FLAGS, &flags.to_be_bytes());
    });
    bytes
}

/// A request that asks for nothing.
pub(super) fn no_change() -> Vec<u8> {
    let mut bytes = Vec::new();
    message(&mut bytes, MSG_CONFIG, NLM_F_REQUEST, SETUP, 0, |_| {});
    bytes
}

/// Verdicts on many packets in one datagram.
#[derive(Debug)]
pub(super) struct VerdictBatch {
    queue: u16,
    bytes: Vec<u8>,
}

impl VerdictBatch {
    const VERDICT_LEN: usize = HEADER_LEN + NFGENMSG_LEN + 12 + 8;

    /// Room for the verdicts of a batch, allocated once.
    pub fn new(queue: u16, verdicts: usize) -> Self {
        VerdictBatch { queue, bytes: Vec::with_capacity(verdicts * Self::VERDICT_LEN) }
    }

    pub fn push(&mut self, id: PacketId, verdict: Verdict) {
        let (code, mark) = match verdict {
            Verdict::Accept { mark } => (NF_ACCEPT, Some(mark)),
            Verdict::Drop => (NF_DROP, None),
            Verdict::Repeat => (NF_REPEAT, None),
        };
        let mut header = [0; 8];
        header[..4].copy_from_slice(&code.to_be_bytes());
        header[4..].copy_from_slice(&id.0.to_be_bytes());
        message(&mut self.bytes, MSG_VERDICT, NLM_F_REQUEST, 0, self.queue, |bytes| {
            attribute(bytes, NFQA_VERDICT_HDR, &header);
            if let Some(mark) = mark {
                attribute(bytes, NFQA_MARK, &mark.to_be_bytes());
            }
        });
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
    }
}

fn message(
    bytes: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    queue: u16,
    attributes: impl FnOnce(&mut Vec<u8>),
) {
    let start = bytes.len();
    bytes.extend([0; 4]);
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    // nfgenmsg: any family, version 0, the queue.
    bytes.extend([0, 0]);
    bytes.extend(queue.to_be_bytes());
    attributes(bytes);
    let len = u32::try_from(bytes.len() - start).unwrap_or(u32::MAX);
    bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
}

fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(ATTRIBUTE_LEN + value.len()).unwrap_or(u16::MAX);
    bytes.extend(len.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// What a datagram from the kernel says. Messages of other kinds and what cannot be read are passed
/// over.
pub fn events(datagram: &[u8]) -> impl Iterator<Item = Event<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let (kind, body, behind) = next_message(rest)?;
        rest = behind;
        Some((kind, body))
    })
    .filter_map(|(kind, body)| match kind {
        MSG_PACKET => packet(body).map(Event::Packet),
        NLMSG_ERROR => {
            let errno = i32::from_ne_bytes(*body.first_chunk()?);
            let sequence = u32::from_ne_bytes(*body.get(4 + 8..)?.first_chunk()?);
            Some(Event::Answer { sequence, errno: errno.checked_neg()? })
        }
        _ => None,
    })
}

/// The kind of the first message, its body, and what lies behind it.
fn next_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let body = bytes.get(HEADER_LEN..len.min(bytes.len()))?;
    let behind = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, behind))
}

fn packet(body: &[u8]) -> Option<Packet<'_>> {
    let mut rest = body.get(NFGENMSG_LEN..)?;
    let mut id = None;
    let (mut mark, mut payload, mut cap_len) = (0, None, None);
    while let Some((kind, value, behind)) = next_attribute(rest) {
        match kind {
            NFQA_PACKET_HDR => id = value.first_chunk().copied().map(u32::from_be_bytes),
            NFQA_MARK => mark = u32::from_be_bytes(*value.first_chunk()?),
            NFQA_PAYLOAD => payload = Some(value),
            NFQA_CAP_LEN => cap_len = value.first_chunk().copied().map(u32::from_be_bytes),
            _ => {}
        }
        rest = behind;
    }
    let copied = payload.map_or(0, <[u8]>::len);
    let full_len = cap_len.map_or(copied, |len| copied.max(len as usize));
    Some(Packet { id: PacketId(id?), mark, payload, full_len })
}

/// An attribute that was cut off is given as far as it goes: the payload comes last.
fn next_attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    /// The upper bits say "nested" and "in network order".
    const KIND: u16 = 0x3fff;
    let len = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
    let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
    let value = bytes.get(ATTRIBUTE_LEN..len.min(bytes.len()))?;
    let behind = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((kind & KIND, value, behind))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    /// A packet message as the kernel (6.18) sends it: packet header, indev, mark, timestamp left
    /// out, capture length, payload of six bytes.
    const PACKET: &[u8] = &[
        72, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // header
        2, 0, 0, 7, // AF_INET, version, queue 7
        11, 0, 1, 0, 0, 0, 0, 42, 8, 0, 0, 0, // id 42, IPv4, prerouting
        8, 0, 5, 0, 0, 0, 0, 3, // indev
        8, 0, 3, 0, 0, 0, 1, 2, // mark 0x102
        10, 0, 10, 0, 0x45, 0, 0, 60, 9, 9, 0, 0, // payload
        8, 0, 13, 0, 0, 0, 0, 60, // capture length
    ];

    fn all(datagram: &[u8]) -> Vec<Event<'_>> {
        events(datagram).collect()
    }

    #[test]
    fn a_packet() {
        let expected = Packet {
            id: PacketId(42),
            mark: 0x102,
            payload: Some(&[0x45, 0, 0, 60, 9, 9]),
            full_len: 60,
        };
        assert_eq!(all(PACKET), [Event::Packet(expected)]);
    }

    #[test]
    fn several_messages_in_one_datagram() {
        let error = [
            36, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, // header
            0xfe, 0xff, 0xff, 0xff, // -ENOENT
            40, 0, 0, 0, 1, 3, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, // the request
        ];
        let done = [16, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let datagram = [&error[..], &done, PACKET].concat();
        let seen = all(&datagram);
        assert_eq!(seen[0], Event::Answer { sequence: 5, errno: libc::ENOENT });
        assert!(matches!(seen[1], Event::Packet(Packet { id: PacketId(42), .. })));
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn a_packet_without_bytes_is_told() {
        let mut bytes = PACKET[..32].to_vec();
        bytes[0] = 32;
        let packet = Packet { id: PacketId(42), mark: 0, payload: None, full_len: 0 };
        assert_eq!(all(&bytes), [Event::Packet(packet)]);
    }

    #[test]
    fn a_cut_datagram_gives_what_there_is_and_never_panics() {
        for len in 0..PACKET.len() {
            for event in all(&PACKET[..len]) {
                assert!(matches!(event, Event::Packet(Packet { id: PacketId(42), .. })), "{len}");
            }
        }
        assert_eq!(all(&PACKET[..27]), []);
    }

    #[test]
    fn lengths_that_lie_end_the_walk() {
        for len in [0u8, 1, 15] {
            let mut bytes = PACKET.to_vec();
            bytes[0] = len;
            assert_eq!(all(&bytes), []);
        }
        for len in [0u8, 3] {
            let mut bytes = PACKET.to_vec();
            bytes[20] = len; // of the first attribute
            assert_eq!(all(&bytes), []);
        }
        assert_eq!(all(&[0xff; 64]), []);
    }

    #[test]
    fn the_setup_request() {
        let config = QueueConfig {
            number: 7,
            length: 1024,
            copy_range: 512,
            receive_buffer: 0,
            fail_open: true,
        };
        let expected = [
            64, 0, 0, 0, 2, 3, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, // headers
            8, 0, 1, 0, 1, 0, 0, 0, // bind
            9, 0, 2, 0, 0, 0, 2, 0, 2, 0, 0, 0, // copy 512 bytes of packets
            8, 0, 3, 0, 0, 0, 4, 0, // length
            8, 0, 4, 0, 0, 0, 0, 5, // mask
            8, 0, 5, 0, 0, 0, 0, 5, // fail-open and GSO
        ];
        assert_eq!(setup(&config), expected);
        let closed = setup(&QueueConfig { fail_open: false, ..config });
        assert_eq!(closed[60..], [0, 0, 0, 4]);
    }

    #[test]
    fn verdicts() {
        let mut batch = VerdictBatch::new(7, 2);
        batch.push(PacketId(42), Verdict::Accept { mark: 0x102 });
        batch.push(PacketId(43), Verdict::Drop);
        let expected = [
            40, 0, 0, 0, 1, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, // headers
            12, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0, 42, // accept 42
            8, 0, 3, 0, 0, 0, 1, 2, // mark
            32, 0, 0, 0, 1, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, // headers
            12, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 43, // drop 43
        ];
        assert_eq!(batch.bytes(), expected);
        batch.clear();
        assert!(batch.is_empty());
    }
}
