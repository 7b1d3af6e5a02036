//! Rules and maps of nftables: one table of ours, changed in transactions, read back to be checked.
//!
//! The messages are built here, without a library: see docs/fast-plane.md for the reasons.

mod expression;
mod found;
mod load;
mod message;
mod object;
mod survey;
mod transaction;

pub use expression::{Base, Comparison, Expression, Meta, Queues, Register};
pub use found::{ChainInfo, CounterInfo, Entry, MapInfo, MarkCount, RuleInfo, TableInfo};
pub use message::TableFamily;
pub use object::{Hook, MapValue, PRIORITY, Rule, TableId};
pub use survey::{Spread, Step, Survey, SurveyedChain, SurveyedRule};
pub use transaction::Transaction;

use std::io;

use thiserror::Error;

use crate::netlink::Socket;
use crate::netlink::attribute::{Attributes, attribute, attributes, long_number, number, text};
use message::{Answer, Kind, Messages, NLM_F_DUMP};
use transaction::Refused;

/// Why the kernel did not do what it was asked for.
#[derive(Debug, Error)]
pub enum NftError {
    /// The process lacks the right.
    #[error("not permitted; CAP_NET_ADMIN over this network namespace is needed")]
    NotPermitted,
    /// A part of a transaction was refused, so nothing of it came into force.
    #[error("{what}{}: {cause}{}", of_expression(.expression), in_words(.said))]
    Refused {
        /// Which part.
        what: String,
        /// Which step of a rule.
        expression: Option<String>,
        /// In a table of which family; none if it was the whole that was refused.
        family: Option<TableFamily>,
        /// Why.
        cause: io::Error,
        /// What the kernel says about it.
        said: Option<String>,
    },
    /// The system refused.
    #[error("{operation}: {cause}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why.
        cause: io::Error,
    },
    /// The kernel did not answer.
    #[error("{0}: the kernel did not answer")]
    NoAnswer(&'static str),
    /// Others changed nftables faster than they could be read.
    #[error("{0}: changed by others at every attempt")]
    Busy(&'static str),
}

impl NftError {
    /// The step of a rule that the kernel does not take.
    pub fn expression(&self) -> Option<&str> {
        match self {
            NftError::Refused { expression, .. } => expression.as_deref(),
            _ => None,
        }
    }

    /// Whether a table of this family is what the kernel does not take.
    pub fn is_about(&self, of: TableFamily) -> bool {
        matches!(self, NftError::Refused { family, .. } if *family == Some(of))
    }

    /// Whether it is about something that is not there.
    pub fn is_missing(&self) -> bool {
        match self {
            NftError::Refused { cause, .. } | NftError::Io { cause, .. } => {
                cause.raw_os_error() == Some(libc::ENOENT)
            }
            _ => false,
        }
    }
}

/// A connection to nftables of this network namespace.
#[derive(Debug)]
pub struct Nft {
    socket: Socket,
    buffer: Vec<u8>,
}

/// The kernel's limit is on what waits in a socket, and a transaction is one message: 88 bytes a slot.
const MOST_BYTES: usize = 1 << 30;
/// Larger than what the kernel gives at once of a dump.
const BUFFER: usize = 64 * 1024;
/// Room for the answers to a request about many elements, each a datagram of its own.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Keys asked for at once, and when some are known to be missing.
const MOST_KEYS: u32 = 1000;
const FEW_KEYS: u32 = 16;
/// Attempts to get a dump that nobody disturbs.
const ATTEMPTS: u32 = 10;

impl Nft {
    /// Opens it. This is the only call that needs a new socket.
    pub fn open() -> Result<Self, NftError> {
        let open = || {
            let socket = Socket::open()?;
            socket.explain_errors()?;
            socket.set_send_buffer(MOST_BYTES)?;
            socket.set_receive_buffer(RECEIVE_BUFFER)?;
            Ok(Nft { socket, buffer: vec![0; BUFFER] })
        };
        open().map_err(failed("open nftables"))
    }

    /// Puts a transaction into force.
    pub fn commit(&mut self, mut transaction: Transaction) -> Result<(), NftError> {
        if transaction.is_empty() {
            return Ok(());
        }
        const OPERATION: &str = "commit a transaction";
        let sequence = transaction.sequence();
        transaction.finish();
        self.request(OPERATION, &transaction.messages)?;
        let (mut done, mut refused) = (false, None);
        self.each_answer(OPERATION, |answered, answer| match answer {
            Answer::Done if answered == sequence => done = true,
            Answer::Refused { errno, said, offset } if refused.is_none() => {
                let part = transaction.refused(answered, offset);
                refused = Some(refusal(part, errno, said));
            }
            Answer::Done | Answer::Refused { .. } | Answer::Object { .. } => {}
        })?;
        match refused {
            Some(error) => Err(error),
            None if done => Ok(()),
            None => Err(NftError::NoAnswer(OPERATION)),
        }
    }

    /// A number that goes up by one with every transaction of anybody.
    pub fn generation(&mut self) -> Result<u32, NftError> {
        const ID: u16 = 1;
        let found = self.get(
            "read the generation",
            (Kind::GetGeneration, TableFamily::Inet),
            0,
            |_| {},
            |object| attribute(object, ID).and_then(number),
        )?;
        found.first().copied().ok_or(NftError::NoAnswer("read the generation"))
    }

    /// A table, if it is there.
    pub fn table(&mut self, table: &TableId) -> Result<Option<TableInfo>, NftError> {
        const DORMANT: u32 = 1;
        let found = self.get(
            "read a table",
            (Kind::GetTable, table.family),
            0,
            |attributes| attributes.text(1, &table.name),
            |object| {
                let flags = attribute(object, 2).and_then(number).unwrap_or(0);
                let comment = attribute(object, 6).and_then(object::comment);
                let comment = comment.map(String::from);
                Some(TableInfo { comment, dormant: flags & DORMANT != 0 })
            },
        );
        match found {
            Ok(found) => Ok(found.into_iter().next()),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The chains of a table.
    pub fn chains(&mut self, table: &TableId) -> Result<Vec<ChainInfo>, NftError> {
        self.get(
            "list chains",
            (Kind::GetChain, table.family),
            NLM_F_DUMP,
            |_| {},
            |object| {
                (named(object, 1)? == table.name).then_some(())?;
                Some(ChainInfo { name: named(object, 3)?.into(), entry: entry(object) })
            },
        )
    }

    /// The rules of a table in their order.
    pub fn rules(&mut self, table: &TableId) -> Result<Vec<RuleInfo>, NftError> {
        self.get(
            "list rules",
            (Kind::GetRule, table.family),
            NLM_F_DUMP,
            |attributes| attributes.text(1, &table.name),
            |object| {
                (named(object, 1)? == table.name).then_some(())?;
                let comment = attribute(object, 7).and_then(object::comment);
                let comment = comment.map(String::from);
                Some(RuleInfo { chain: named(object, 2)?.into(), comment })
            },
        )
    }

    /// The sets and maps of a table.
    pub fn maps(&mut self, table: &TableId) -> Result<Vec<MapInfo>, NftError> {
        self.get(
            "list maps",
            (Kind::GetSet, table.family),
            NLM_F_DUMP,
            |attributes| attributes.text(1, &table.name),
            |object| {
                (named(object, 1)? == table.name).then_some(())?;
                let description = attribute(object, 9);
                let size = description.and_then(|inside| attribute(inside, 1)).and_then(number);
                Some(MapInfo { name: named(object, 2)?.into(), size })
            },
        )
    }

    /// What a map has for the keys from `first` to before `end`. To list the whole map at once would take
    /// the kernel a time that grows with the square of its size.
    pub fn elements(
        &mut self,
        table: &TableId,
        map: &str,
        first: u32,
        end: u32,
    ) -> Result<Vec<(u32, u32)>, NftError> {
        const OPERATION: &str = "read a map";
        let (mut found, mut next, mut many) = (Vec::new(), first, MOST_KEYS);
        while next < end {
            let last = end.min(next.saturating_add(many));
            let mut messages = Messages::default();
            messages.push((Kind::GetElements, table.family), 0, 1, |attributes| {
                transaction::write_keys(attributes, &table.name, map, next..last);
            });
            self.request(OPERATION, &messages)?;
            let (before, mut refused) = (found.len(), None);
            self.each_answer(OPERATION, |_, answer| match answer {
                Answer::Object { attributes, .. } => found.extend(pairs(attributes)),
                Answer::Refused { errno, .. } => refused = Some(errno),
                Answer::Done => {}
            })?;
            match refused {
                None => {
                    next = last;
                    many = MOST_KEYS.min(many * 2);
                }
                // The kernel stops at the first key that is not there.
                Some(libc::ENOENT) => {
                    let there = u32::try_from(found.len() - before).unwrap_or(u32::MAX);
                    next = next.saturating_add(there).saturating_add(1);
                    many = FEW_KEYS;
                }
                Some(errno) => {
                    return Err(failed(OPERATION)(io::Error::from_raw_os_error(errno)));
                }
            }
        }
        Ok(found)
    }

    /// All that a map of few elements has, as bytes, in ascending order of the keys.
    pub fn values(&mut self, table: &TableId, map: &str) -> Result<Vec<(u32, Vec<u8>)>, NftError> {
        fn value(element: &[u8]) -> Option<(u32, Vec<u8>)> {
            Some((word(element, 1)?, bytes(element, 2)?.to_vec()))
        }
        let mut values = self.all_elements("read a small map", table, map, value)?;
        values.sort_unstable();
        Ok(values)
    }

    /// The counters of a table.
    pub fn counters(&mut self, table: &TableId) -> Result<Vec<CounterInfo>, NftError> {
        self.get(
            "read counters",
            (Kind::GetObject, table.family),
            NLM_F_DUMP,
            |attributes| attributes.text(1, &table.name),
            |object| {
                (named(object, 1)? == table.name).then_some(())?;
                let data = attribute(object, 4)?;
                let count = |kind| attribute(data, kind).and_then(long_number);
                let name = named(object, 2)?.into();
                Some(CounterInfo { name, packets: count(2)?, bytes: count(1)? })
            },
        )
    }

    /// What the elements of a set have counted, in ascending order.
    pub fn counters_by_mark(
        &mut self,
        table: &TableId,
        set: &str,
    ) -> Result<Vec<MarkCount>, NftError> {
        let mut counts = self.all_elements("read counters of a set", table, set, mark_count)?;
        counts.sort_unstable_by_key(|count| count.mark);
        Ok(counts)
    }

    fn all_elements<T>(
        &mut self,
        operation: &'static str,
        table: &TableId,
        set: &str,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NftError> {
        let found = self.get(
            operation,
            (Kind::GetElements, table.family),
            NLM_F_DUMP,
            |attributes| {
                attributes.text(1, &table.name);
                attributes.text(2, set);
            },
            |object| Some(elements(object).filter_map(&read).collect::<Vec<_>>()),
        )?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Asks for objects; `read` takes from each what is wanted.
    fn get<T>(
        &mut self,
        operation: &'static str,
        kind: (Kind, TableFamily),
        flags: u16,
        attributes: impl Fn(&mut Attributes<'_>),
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NftError> {
        const SEQUENCE: u32 = 1;
        for _ in 0..ATTEMPTS {
            let mut messages = Messages::default();
            messages.push(kind, flags, SEQUENCE, &attributes);
            self.request(operation, &messages)?;
            let (mut found, mut mixed, mut errno) = (Vec::new(), false, None);
            self.each_answer(operation, |_, answer| match answer {
                Answer::Object { interrupted, attributes } => {
                    mixed |= interrupted;
                    found.extend(read(attributes));
                }
                Answer::Refused { errno: refused, .. } => errno = Some(refused),
                Answer::Done => {}
            })?;
            match errno {
                Some(libc::EINTR) => {}
                Some(errno) => {
                    return Err(failed(operation)(io::Error::from_raw_os_error(errno)));
                }
                None if !mixed => return Ok(found),
                None => {}
            }
        }
        Err(NftError::Busy(operation))
    }

    fn request(&mut self, operation: &'static str, messages: &Messages) -> Result<(), NftError> {
        // Whatever an earlier request left behind.
        self.each_answer(operation, |_, _| {})?;
        self.socket.send(messages.bytes()).map_err(failed(operation))
    }

    /// Takes all answers that wait. The kernel works on a request within the call that sends it, and
    /// on the next part of a dump within the call that takes one: no answer is still to come.
    fn each_answer(
        &mut self,
        operation: &'static str,
        mut take: impl FnMut(u32, Answer<'_>),
    ) -> Result<(), NftError> {
        loop {
            match self.socket.receive_waiting(&mut self.buffer) {
                Ok(Some(len)) => {
                    let datagram = self.buffer.get(..len).unwrap_or_default();
                    message::answers(datagram)
                        .for_each(|(sequence, answer)| take(sequence, answer));
                }
                Ok(None) => return Ok(()),
                Err(error) => return Err(failed(operation)(error)),
            }
        }
    }
}

/// Keys and values in a message about elements.
fn pairs(object: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    elements(object).filter_map(|element| Some((word(element, 1)?, word(element, 2)?)))
}

fn elements(object: &[u8]) -> impl Iterator<Item = &[u8]> {
    const ELEMENTS: u16 = 3;
    attributes(attribute(object, ELEMENTS).unwrap_or_default()).map(|(_, element)| element)
}

fn word(element: &[u8], kind: u16) -> Option<u32> {
    bytes(element, kind)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn bytes(element: &[u8], kind: u16) -> Option<&[u8]> {
    attribute(attribute(element, kind)?, expression::DATA_VALUE)
}

fn mark_count(element: &[u8]) -> Option<MarkCount> {
    const EXPRESSION: u16 = 7;
    let data = attribute(attribute(element, EXPRESSION)?, expression::EXPR_DATA)?;
    let count = |kind| attribute(data, kind).and_then(long_number);
    Some(MarkCount { mark: word(element, 1)?, packets: count(2)?, bytes: count(1)? })
}

fn named(object: &[u8], kind: u16) -> Option<&str> {
    attribute(object, kind).and_then(text)
}

fn entry(chain: &[u8]) -> Entry {
    const HOOK: u16 = 4;
    const POLICY: u16 = 5;
    const TYPE: u16 = 7;
    const ACCEPT: u32 = 1;
    let Some(hook) = attribute(chain, HOOK) else { return Entry::None };
    let known = || {
        let hook_number = attribute(hook, 1).and_then(number)?;
        let priority = i32::from_be_bytes(*attribute(hook, 2)?.first_chunk()?);
        let accepts = attribute(chain, POLICY).and_then(number)? == ACCEPT;
        Hook::of(hook_number, priority, named(chain, TYPE)?, named(hook, 3)).filter(|_| accepts)
    };
    known().map_or(Entry::Other, Entry::Hook)
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> NftError {
    move |cause| match cause.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => NftError::NotPermitted,
        _ => NftError::Io { operation, cause },
    }
}

fn refusal(part: Refused, errno: i32, said: Option<&str>) -> NftError {
    let Refused { what, expression, family } = part;
    match errno {
        libc::EPERM => NftError::NotPermitted,
        _ => NftError::Refused {
            what,
            expression,
            family,
            cause: io::Error::from_raw_os_error(errno),
            said: said.map(String::from),
        },
    }
}

fn of_expression(expression: &Option<String>) -> String {
    expression.as_ref().map(|name| format!(", its '{name}' part")).unwrap_or_default()
}

fn in_words(said: &Option<String>) -> String {
    said.as_ref().map(|said| format!(" ({said})")).unwrap_or_default()
}
