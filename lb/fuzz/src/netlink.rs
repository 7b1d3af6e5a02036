//! What the kernel says about a queue.

use std::ops::Range;

use lb_sys::nfqueue::{Event, Packet, PacketId, events};

use crate::choices::Choices;

const MESSAGE_HEADER_LEN: usize = 16;

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let mut sent = Sent::default();
    for _ in 0..choices.below(5) {
        sent.message(&mut choices);
    }
    check_sent(&sent);
    check_any(choices.rest());
}

/// Whatever the bytes: an end, and nothing from outside of them.
fn check_any(datagram: &[u8]) {
    let inside = datagram.as_ptr_range();
    for (number, event) in (1..).zip(events(datagram)) {
        assert!(number * MESSAGE_HEADER_LEN <= datagram.len());
        if let Event::Packet(packet) = event {
            let payload = packet.payload.unwrap_or_default();
            assert!(packet.full_len >= payload.len());
            if !payload.is_empty() {
                let Range { start, end } = payload.as_ptr_range();
                assert!(inside.start <= start && end <= inside.end);
            }
        }
    }
}

/// All that was sent is received; of a datagram that was cut all but the last is as it was.
fn check_sent(sent: &Sent) {
    let expected: Vec<Event<'_>> = sent.events.iter().map(Said::event).collect();
    assert!(events(&sent.bytes).eq(expected.iter().copied()));
    for len in 0..sent.bytes.len() {
        let cut: Vec<Event<'_>> = events(&sent.bytes[..len]).collect();
        let Some((last, whole)) = cut.split_last() else { continue };
        assert!(expected.starts_with(whole));
        match (last, expected[whole.len()]) {
            (Event::Packet(cut), Event::Packet(whole)) => {
                assert_eq!(cut.id, whole.id);
                assert!(
                    whole.payload.unwrap_or_default().starts_with(cut.payload.unwrap_or_default())
                );
            }
            (cut, whole) => assert_eq!(*cut, whole),
        }
    }
}

/// Messages as the kernel would write them, and what they say.
#[derive(Default)]
struct Sent {
    bytes: Vec<u8>,
    events: Vec<Said>,
}

enum Said {
    Packet { id: u32, mark: u32, payload: Option<Vec<u8>>, full_len: usize },
    Answer { sequence: u32, errno: i32 },
}

impl Said {
    fn event(&self) -> Event<'_> {
        match self {
            Said::Packet { id, mark, payload, full_len } => Event::Packet(Packet {
                id: PacketId(*id),
                mark: *mark,
                payload: payload.as_deref(),
                full_len: *full_len,
            }),
            &Said::Answer { sequence, errno } => Event::Answer { sequence, errno },
        }
    }
}

impl Sent {
    fn message(&mut self, choices: &mut Choices<'_>) {
        const ERROR: u16 = 2;
        const PACKET: u16 = 3 << 8;
        const OTHERS: [u16; 4] = [1, 3, (3 << 8) | 3, 10 << 8];
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        let said = match choices.below(3) {
            0 => {
                self.rest_of_header(PACKET, choices);
                Some(self.packet(choices))
            }
            1 => {
                self.rest_of_header(ERROR, choices);
                Some(self.answer(choices))
            }
            _ => {
                self.rest_of_header(choices.one_of(OTHERS), choices);
                let len = choices.below(40);
                self.bytes.extend(choices.bytes(len));
                None
            }
        };
        self.events.extend(said);
        let len = u32::try_from(self.bytes.len() - start).unwrap();
        self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
        self.align();
    }

    fn rest_of_header(&mut self, kind: u16, choices: &mut Choices<'_>) {
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(choices.array::<10>());
    }

    fn packet(&mut self, choices: &mut Choices<'_>) -> Said {
        const HEADER: u16 = 1;
        const MARK: u16 = 3;
        const PAYLOAD: u16 = 10;
        const CAPTURE_LEN: u16 = 13;
        const OTHERS: [u16; 4] = [2, 4, 15, 0x8000 | 11];
        self.bytes.extend(choices.array::<4>());
        let id = choices.u32();
        let [i0, i1, i2, i3] = id.to_be_bytes();
        self.attribute(HEADER, &[i0, i1, i2, i3, choices.u8(), choices.u8(), choices.u8()]);
        for _ in 0..choices.below(3) {
            let (kind, len) = (choices.one_of(OTHERS), choices.below(20));
            self.attribute(kind, choices.bytes(len));
        }
        let mark = if choices.bool() { choices.u32() } else { 0 };
        if mark != 0 {
            self.attribute(MARK, &mark.to_be_bytes());
        }
        let capture_len = match choices.below(3) {
            0 => None,
            1 => Some(choices.u8().into()),
            _ => Some(choices.u32()),
        };
        let payload = choices.bool().then(|| {
            let len = choices.below(64);
            choices.bytes(len).to_vec()
        });
        if let Some(len) = capture_len {
            self.attribute(CAPTURE_LEN, &len.to_be_bytes());
        }
        if let Some(payload) = &payload {
            self.attribute(PAYLOAD, payload);
        }
        let copied = payload.as_ref().map_or(0, Vec::len);
        let full_len = copied.max(capture_len.map_or(0, |len| len as usize));
        Said::Packet { id, mark, payload, full_len }
    }

    fn answer(&mut self, choices: &mut Choices<'_>) -> Said {
        let (sequence, errno) = (choices.u32(), (choices.u32() & 0xfff).cast_signed());
        self.bytes.extend((-errno).to_ne_bytes());
        self.bytes.extend(choices.array::<8>());
        self.bytes.extend(sequence.to_ne_bytes());
        self.bytes.extend(choices.array::<4>());
        Said::Answer { sequence, errno }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
