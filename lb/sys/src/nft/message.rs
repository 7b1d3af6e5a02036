//! Netlink messages of nf_tables (linux/netfilter/nf_tables.h) as bytes: written here, and taken apart.
//!
//! Lengths and types are in the machine's byte order, numbers in the network's.

use crate::netlink::attribute::{Attributes, attributes, text};

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

/// Which packets a table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TableFamily {
    /// Those of IPv4 and IPv6.
    Inet = 1,
    /// Those of IPv4.
    Ip = 2,
    /// All that come in by devices, before anything else looks at them.
    Netdev = 5,
    /// Those of IPv6.
    Ip6 = 10,
}

impl TableFamily {
    /// The word that nft has for it.
    pub fn name(self) -> &'static str {
        match self {
            TableFamily::Inet => "inet",
            TableFamily::Ip => "ip",
            TableFamily::Netdev => "netdev",
            TableFamily::Ip6 => "ip6",
        }
    }
}

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
        (kind, family): (Kind, TableFamily),
        flags: u16,
        sequence: u32,
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) {
        let kind = SUBSYSTEM_NFTABLES << 8 | kind as u16;
        self.header(kind, flags | NLM_F_REQUEST, sequence, [family as u8, 0], 0, attributes);
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
        attributes(&mut Attributes::behind(&mut self.0));
        let len = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        self.0[start..start + 4].copy_from_slice(&len.to_ne_bytes());
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
        messages.push((Kind::GetTable, TableFamily::Inet), NLM_F_ACK, 5, |attributes| {
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
