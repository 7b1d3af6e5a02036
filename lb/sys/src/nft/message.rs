//! Netlink messages of nf_tables (linux/netfilter/nf_tables.h) as bytes: written here, and taken apart.
//!
//! Lengths and types are in the machine's byte order, numbers in the network's.

pub(super) const NLM_F_REQUEST: u16 = 0x1;
pub(super) const NLM_F_ACK: u16 = 0x4;
pub(super) const NLM_F_DUMP: u16 = 0x300;
pub(super) const NLM_F_CREATE: u16 = 0x400;
/// The dump is mixed: something changed meanwhile.
pub(super) const NLM_F_DUMP_INTR: u16 = 0x10;
/// An error is followed by attributes.
const NLM_F_ACK_TLVS: u16 = 0x200;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SUBSYSTEM_NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

const HEADER_LEN: usize = 16;
const NFGENMSG_LEN: usize = 4;
const ATTRIBUTE_LEN: usize = 4;
const NESTED: u16 = 0x8000;

/// IPv4 and IPv6 together.
const NFPROTO_INET: u8 = 1;

/// Kinds of messages (`nf_tables_msg_types`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    NewTable = 0,
    GetTable = 1,
    DelTable = 2,
    NewChain = 3,
    GetChain = 4,
    DelChain = 5,
    NewRule = 6,
    GetRule = 7,
    DelRule = 8,
    NewSet = 9,
    GetSet = 10,
    DelSet = 11,
    NewElements = 12,
    GetElements = 13,
    DelElements = 14,
    GetGeneration = 16,
    NewObject = 18,
    GetObject = 19,
}

/// Writes messages one behind the other, as the kernel wants a transaction.
#[derive(Debug, Default)]
pub(super) struct Messages(Vec<u8>);

impl Messages {
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn begin_batch(&mut self, sequence: u32) {
        self.header(BATCH_BEGIN, NLM_F_REQUEST, sequence, [0, 0], SUBSYSTEM_NFTABLES, |_| {});
    }

    pub fn end_batch(&mut self, sequence: u32) {
        self.header(BATCH_END, NLM_F_REQUEST, sequence, [0, 0], SUBSYSTEM_NFTABLES, |_| {});
    }

    pub fn push(
        &mut self,
        kind: Kind,
        flags: u16,
        sequence: u32,
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) {
        let kind = SUBSYSTEM_NFTABLES << 8 | kind as u16;
        self.header(kind, flags | NLM_F_REQUEST, sequence, [NFPROTO_INET, 0], 0, attributes);
    }

    /// Adds flags to the message that begins at `start`.
    pub fn add_flags(&mut self, start: usize, flags: u16) {
        if let Some(field) = self.0.get_mut(start + 6..).and_then(|rest| rest.first_chunk_mut()) {
            *field = (u16::from_ne_bytes(*field) | flags).to_ne_bytes();
        }
    }

    fn header(
        &mut self,
        kind: u16,
        flags: u16,
        sequence: u32,
        family_version: [u8; 2],
        resource: u16,
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.0.len();
        self.0.extend([0; 4]);
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(flags.to_ne_bytes());
        self.0.extend(sequence.to_ne_bytes());
        self.0.extend([0; 4]);
        self.0.extend(family_version);
        self.0.extend(resource.to_be_bytes());
        attributes(&mut Attributes(&mut self.0));
        let len = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        self.0[start..start + 4].copy_from_slice(&len.to_ne_bytes());
    }
}

/// Writes the attributes of a message.
#[derive(Debug)]
pub(super) struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(ATTRIBUTE_LEN + value.len()).unwrap_or(u16::MAX);
        self.0.extend(len.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    pub fn text(&mut self, kind: u16, text: &str) {
        let len = u16::try_from(ATTRIBUTE_LEN + text.len() + 1).unwrap_or(u16::MAX);
        self.0.extend(len.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(text.as_bytes());
        self.0.push(0);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    pub fn u16(&mut self, kind: u16, number: u16) {
        self.bytes(kind, &number.to_be_bytes());
    }

    pub fn u32(&mut self, kind: u16, number: u32) {
        self.bytes(kind, &number.to_be_bytes());
    }

    pub fn u64(&mut self, kind: u16, number: u64) {
        self.bytes(kind, &number.to_be_bytes());
    }

    /// Whatever is nested holds at most 65,531 bytes: the length is a number of 16 bits.
    pub fn nested(&mut self, kind: u16, inside: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend((kind | NESTED).to_ne_bytes());
        inside(&mut Attributes(self.0));
        let len = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
    }
}

/// A message of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// The end of a dump, or the answer to a request: success.
    Done,
    /// The request was refused.
    Refused { errno: i32, said: Option<&'a str>, offset: Option<usize> },
    /// An object, by its attributes.
    Object { interrupted: bool, attributes: &'a [u8] },
}

/// The messages of a datagram, each with the sequence number of the request that it answers.
pub(super) fn answers(datagram: &[u8]) -> impl Iterator<Item = (u32, Answer<'_>)> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
        let message = rest.get(..len)?;
        let kind = u16::from_ne_bytes(*message.get(4..)?.first_chunk()?);
        let flags = u16::from_ne_bytes(*message.get(6..)?.first_chunk()?);
        let sequence = u32::from_ne_bytes(*message.get(8..)?.first_chunk()?);
        let body = message.get(HEADER_LEN..)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        let answer = match kind {
            NLMSG_DONE => Answer::Done,
            NLMSG_ERROR => refused(body, flags)?,
            _ => Answer::Object {
                interrupted: flags & NLM_F_DUMP_INTR != 0,
                attributes: body.get(NFGENMSG_LEN..)?,
            },
        };
        Some((sequence, answer))
    })
}

/// An error message: a negative errno, the header of the request, then what else there is to say.
fn refused(body: &[u8], flags: u16) -> Option<Answer<'_>> {
    const SAID: u16 = 1;
    const OFFSET: u16 = 2;
    let errno = i32::from_ne_bytes(*body.first_chunk()?).checked_neg()?;
    if errno == 0 {
        return Some(Answer::Done);
    }
    let (mut said, mut offset) = (None, None);
    if flags & NLM_F_ACK_TLVS != 0 {
        for (kind, value) in attributes(body.get(4 + HEADER_LEN..)?) {
            match kind {
                SAID => said = text(value),
                OFFSET => offset = value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes)),
                _ => {}
            }
        }
    }
    Some(Answer::Refused { errno, said, offset: offset.map(|offset| offset as usize) })
}

/// Attributes one behind the other, as far as they make sense.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// The upper bits say "nested" and "in network order".
    const KIND: u16 = 0x3fff;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
        let value = rest.get(ATTRIBUTE_LEN..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & KIND, value))
    })
}

/// The first attribute of a kind.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

pub(super) fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
}

pub(super) fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

pub(super) fn long_number(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    /// The answer of the kernel (6.18) to a rule with an expression that it does not have.
    const REFUSED: [u8; 44] = [
        44, 0, 0, 0, 2, 0, 0, 3, 7, 0, 0, 0, 0, 0, 0,
        0, // header: error, with attributes, sequence 7
        0xfe, 0xff, 0xff, 0xff, // -ENOENT
        180, 0, 0, 0, 6, 10, 1, 12, 7, 0, 0, 0, 0, 0, 0, 0, // header of the request
        8, 0, 2, 0, 112, 0, 0, 0, // offset 112
    ];

    fn all(datagram: &[u8]) -> Vec<(u32, Answer<'_>)> {
        answers(datagram).collect()
    }

    #[test]
    fn a_message_with_nested_attributes() {
        let mut messages = Messages::default();
        messages.push(Kind::GetTable, NLM_F_ACK, 5, |attributes| {
            attributes.text(1, "ab");
            attributes.nested(4, |inside| inside.u32(2, 7));
        });
        let expected = [
            40, 0, 0, 0, 1, 10, 5, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, // headers, inet
            7, 0, 1, 0, b'a', b'b', 0, 0, // text
            12, 0, 4, 0x80, 8, 0, 2, 0, 0, 0, 0, 7, // nested
        ];
        assert_eq!(messages.bytes(), expected);
        messages.add_flags(0, NLM_F_CREATE);
        assert_eq!(messages.bytes()[6..8], [5, 4]);
    }

    #[test]
    fn a_refusal_tells_where() {
        let refused = Answer::Refused { errno: libc::ENOENT, said: None, offset: Some(112) };
        assert_eq!(all(&REFUSED), [(7, refused)]);
        let mut done = REFUSED;
        done[16..20].fill(0);
        assert_eq!(all(&done), [(7, Answer::Done)]);
        let mut bare = REFUSED;
        bare[7] = 1; // no attributes follow
        let refused = Answer::Refused { errno: libc::ENOENT, said: None, offset: None };
        assert_eq!(all(&bare), [(7, refused)]);
    }

    #[test]
    fn a_cut_datagram_is_nothing_and_lengths_that_lie_end_the_walk() {
        for len in 0..REFUSED.len() {
            assert_eq!(all(&REFUSED[..len]), [], "{len}");
        }
        for len in [0, 1, 15, 45] {
            let mut bytes = REFUSED;
            bytes[0] = len;
            assert_eq!(all(&bytes), [], "{len}");
        }
        for len in [0, 3, 9] {
            let mut bytes = REFUSED;
            bytes[36] = len; // of the attribute
            assert!(matches!(all(&bytes)[..], [(7, Answer::Refused { offset: None, .. })]));
        }
        assert_eq!(all(&[0xff; 64]), []);
        assert_eq!(attributes(&[0xff; 64]).count(), 0);
    }
}
