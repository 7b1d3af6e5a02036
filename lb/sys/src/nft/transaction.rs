//! Changes that come into force together or not at all, in tables of ours.

use std::borrow::Cow;
use std::fmt;

use super::expression::{DATA_VALUE, EXPR_DATA, EXPR_NAME, Expression};
use super::message::{Kind, Messages, NLM_F_ACK, NLM_F_CREATE, TableFamily};
use crate::netlink::attribute::{self, Attributes};

/// A table: the same name may be there once in each family.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableId {
    /// Which packets it is for.
    pub family: TableFamily,
    /// Its name.
    pub name: String,
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family.name(), self.name)
    }
}

/// Where packets enter a chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// All packets that come in.
    Prerouting,
    /// Packets of this machine; they are routed anew when their mark changes.
    Output,
    /// What comes in by this device, before anything else looks at it.
    Ingress(String),
}

/// What a map has for a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MapValue {
    /// A mark.
    Mark,
    /// The index of a device and an address of IPv4.
    NextHop4,
    /// The index of a device and an address of IPv6.
    NextHop6,
}

/// A rule with a comment by which it is known again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Up to 250 bytes.
    pub comment: String,
    /// What it does.
    pub expressions: Vec<Expression>,
}

/// Before the kernel puts fragments together (-400) and tracks connections.
pub const PRIORITY: i32 = -450;

/// Changes of tables. Nothing is sent before [`super::Nft::commit`].
#[derive(Debug)]
pub struct Transaction {
    pub(super) messages: Messages,
    table: TableId,
    parts: Vec<Part>,
}

/// A message of the transaction, to tell which one was refused.
#[derive(Debug)]
struct Part {
    start: usize,
    what: Cow<'static, str>,
    family: TableFamily,
}

/// The type that nft lists as `mark`: four bytes in the machine's order.
const TYPE_MARK: u32 = 19;
/// Types that are put together.
const TYPE_DEVICE: u32 = 20;
const TYPE_ADDRESS4: u32 = 7;
const TYPE_ADDRESS6: u32 = 8;
const TYPE_BITS: u32 = 6;
/// Bytes that a nested attribute may hold.
const MOST_NESTED: usize = 65_535 - 4;
/// Bytes of an element beside its value: the key, each of them an attribute in an attribute, nested.
const ELEMENT_LEN: usize = 24;

impl Transaction {
    /// An empty one, to begin with this table.
    pub fn new(table: &TableId) -> Self {
        let mut messages = Messages::default();
        messages.begin_batch(0);
        Transaction { messages, table: table.clone(), parts: Vec::new() }
    }

    /// From here on it is about this table.
    pub fn go_to(&mut self, table: &TableId) {
        self.table = table.clone();
    }

    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Makes the table, unless it is there.
    pub fn add_table(&mut self, comment: &str) {
        let table = self.table.name.clone();
        self.push(Kind::NewTable, NLM_F_CREATE, "add table", |attributes| {
            attributes.text(1, &table);
            attributes.bytes(6, &userdata(comment));
        });
    }

    /// Removes the table with all that is in it.
    pub fn delete_table(&mut self) {
        let table = self.table.name.clone();
        self.push(Kind::DelTable, 0, "delete table", |attributes| attributes.text(1, &table));
    }

    /// Makes a chain, unless it is there.
    pub fn add_chain(&mut self, name: &str, hook: Option<&Hook>) {
        const ACCEPT: u32 = 1;
        let table = self.table.name.clone();
        self.push(Kind::NewChain, NLM_F_CREATE, format!("add chain {name}"), |attributes| {
            attributes.text(1, &table);
            attributes.text(3, name);
            if let Some(hook) = hook {
                attributes.nested(4, |attributes| {
                    attributes.u32(1, hook.number());
                    attributes.bytes(2, &PRIORITY.to_be_bytes());
                    if let Hook::Ingress(device) = hook {
                        attributes.text(3, device);
                    }
                });
                attributes.u32(5, ACCEPT);
                attributes.text(7, hook.chain_type());
            }
        });
    }

    /// Removes a chain, to which nothing may refer any more.
    pub fn delete_chain(&mut self, name: &str) {
        let table = self.table.name.clone();
        self.push(Kind::DelChain, 0, format!("delete chain {name}"), |attributes| {
            attributes.text(1, &table);
            attributes.text(3, name);
        });
    }

    /// Removes all rules of a chain.
    pub fn clear_chain(&mut self, name: &str) {
        let table = self.table.name.clone();
        self.push(Kind::DelRule, 0, format!("clear chain {name}"), |attributes| {
            attributes.text(1, &table);
            attributes.text(2, name);
        });
    }

    /// Adds a rule at the end of a chain.
    pub fn add_rule(&mut self, chain: &str, rule: &Rule) {
        const APPEND: u16 = 0x800;
        let table = self.table.name.clone();
        let what = format!("add rule '{}'", rule.comment);
        self.push(Kind::NewRule, NLM_F_CREATE | APPEND, what, |attributes| {
            attributes.text(1, &table);
            attributes.text(2, chain);
            attributes.nested(4, |list| {
                rule.expressions.iter().for_each(|expression| expression.write(list));
            });
            attributes.bytes(7, &userdata(&rule.comment));
        });
    }

    /// Makes a counter, unless it is there.
    pub fn add_counter(&mut self, name: &str) {
        const OBJECT_COUNTER: u32 = 1;
        let table = self.table.name.clone();
        self.push(Kind::NewObject, NLM_F_CREATE, format!("add counter {name}"), |attributes| {
            attributes.text(1, &table);
            attributes.text(2, name);
            attributes.u32(3, OBJECT_COUNTER);
            attributes.nested(4, |_| {});
        });
    }

    /// Makes a map from numbers to something, with room for so many.
    pub fn add_map(&mut self, name: &str, size: u32, value: MapValue) {
        const MAP: u32 = 8;
        let (value_type, len) = value.type_and_length();
        self.add_set("add map", name, size, |attributes| {
            attributes.u32(3, MAP);
            attributes.u32(6, value_type);
            attributes.u32(7, len);
        });
    }

    /// Makes a set of marks with a counter each, with room for so many.
    pub fn add_counters_by_mark(&mut self, name: &str, size: u32) {
        self.add_set("add set", name, size, |attributes| {
            attributes.nested(17, |expression| {
                expression.text(EXPR_NAME, "counter");
                expression.nested(EXPR_DATA, |_| {});
            });
        });
    }

    fn add_set(
        &mut self,
        what: &str,
        name: &str,
        size: u32,
        kind: impl FnOnce(&mut Attributes<'_>),
    ) {
        let table = self.table.name.clone();
        // Any number that no other set of the transaction has.
        let id = self.sequence().saturating_add(1);
        self.push(Kind::NewSet, NLM_F_CREATE, format!("{what} {name}"), |attributes| {
            attributes.text(1, &table);
            attributes.text(2, name);
            attributes.u32(4, TYPE_MARK);
            attributes.u32(5, 4);
            attributes.nested(9, |description| description.u32(1, size));
            attributes.u32(10, id);
            attributes.bytes(13, &own_byte_order());
            kind(attributes);
        });
    }

    /// Removes a map or set, to which no rule may refer any more.
    pub fn delete_map(&mut self, name: &str) {
        let table = self.table.name.clone();
        self.push(Kind::DelSet, 0, format!("delete map {name}"), |attributes| {
            attributes.text(1, &table);
            attributes.text(2, name);
        });
    }

    /// Adds elements, none of which may be there with another value (unless this transaction deletes
    /// it first).
    pub fn add_elements(
        &mut self,
        map: &str,
        value: MapValue,
        elements: &[(u32, impl AsRef<[u8]>)],
    ) {
        let len = ELEMENT_LEN + value.type_and_length().1 as usize;
        let write = |element: &mut Attributes<'_>, (key, value): &(u32, _)| {
            write_key(element, key);
            element.nested(2, |data| data.bytes(DATA_VALUE, AsRef::as_ref(value)));
        };
        self.elements(
            Kind::NewElements,
            NLM_F_CREATE,
            "add elements to map",
            map,
            (elements, len),
            write,
        );
    }

    /// Adds elements without a value. Those that are there stay as they are, with what they have counted.
    pub fn add_keys(&mut self, set: &str, keys: &[u32]) {
        const WHAT: &str = "add elements to set";
        let keys = (keys, ELEMENT_LEN);
        self.elements(Kind::NewElements, NLM_F_CREATE, WHAT, set, keys, write_key);
    }

    /// Removes elements, all of which must be there.
    pub fn delete_elements(&mut self, map: &str, keys: &[u32]) {
        let keys = (keys, ELEMENT_LEN);
        self.elements(Kind::DelElements, 0, "delete elements of", map, keys, write_key);
    }

    /// Removes all elements.
    pub fn clear_map(&mut self, map: &str) {
        let table = self.table.name.clone();
        self.push(Kind::DelElements, 0, format!("clear map {map}"), |attributes| {
            attributes.text(1, &table);
            attributes.text(2, map);
        });
    }

    fn elements<T>(
        &mut self,
        kind: Kind,
        flags: u16,
        what: &'static str,
        map: &str,
        (elements, element_len): (&[T], usize),
        write: impl Fn(&mut Attributes<'_>, &T),
    ) {
        let table = self.table.name.clone();
        for elements in elements.chunks(MOST_NESTED / element_len) {
            self.push(kind, flags, what, |attributes| {
                write_elements(attributes, &table, map, elements, &write);
            });
        }
    }

    fn push(
        &mut self,
        kind: Kind,
        flags: u16,
        what: impl Into<Cow<'static, str>>,
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) {
        let family = self.table.family;
        self.parts.push(Part { start: self.messages.bytes().len(), what: what.into(), family });
        self.messages.push((kind, family), flags, self.sequence(), attributes);
    }

    /// That of the message pushed last; they count from one.
    pub(super) fn sequence(&self) -> u32 {
        u32::try_from(self.parts.len()).unwrap_or(u32::MAX)
    }

    /// Asks for an answer to the last message, which tells that all is done.
    pub(super) fn finish(&mut self) {
        if let Some(last) = self.parts.last() {
            self.messages.add_flags(last.start, NLM_F_ACK);
        }
        self.messages.end_batch(0);
    }

    /// What was refused.
    pub(super) fn refused(&self, sequence: u32, offset: Option<usize>) -> Refused {
        let place = usize::try_from(sequence).unwrap_or(usize::MAX).wrapping_sub(1);
        let Some(part) = self.parts.get(place) else {
            return Refused { what: "commit".into(), expression: None, family: None };
        };
        let bytes = self.messages.bytes().get(part.start..).unwrap_or_default();
        let expression = offset.filter(|_| part.what.starts_with("add rule")).and_then(|offset| {
            let (_, element) = attribute::attributes(bytes.get(offset..)?).next()?;
            attribute::text(attribute::attribute(element, EXPR_NAME)?).map(String::from)
        });
        Refused { what: part.what.to_string(), expression, family: Some(part.family) }
    }
}

/// The part of a transaction that was refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// In words.
    pub what: String,
    /// Of a rule which of its steps.
    pub expression: Option<String>,
    /// In which table; none if it was the whole that was refused.
    pub family: Option<TableFamily>,
}

/// A request for elements.
pub(super) fn write_keys(
    attributes: &mut Attributes<'_>,
    table: &str,
    map: &str,
    keys: std::ops::Range<u32>,
) {
    write_elements(attributes, table, map, keys, |element, key| write_key(element, &key));
}

fn write_key(element: &mut Attributes<'_>, key: &u32) {
    element.nested(1, |data| data.bytes(DATA_VALUE, &key.to_ne_bytes()));
}

fn write_elements<T>(
    attributes: &mut Attributes<'_>,
    table: &str,
    map: &str,
    elements: impl IntoIterator<Item = T>,
    write: impl Fn(&mut Attributes<'_>, T),
) {
    const LIST_ELEM: u16 = 1;
    attributes.text(1, table);
    attributes.text(2, map);
    attributes.nested(3, |list| {
        for element in elements {
            list.nested(LIST_ELEM, |attributes| write(attributes, element));
        }
    });
}

impl Hook {
    fn number(&self) -> u32 {
        match self {
            Hook::Prerouting | Hook::Ingress(_) => 0,
            Hook::Output => 3,
        }
    }

    fn chain_type(&self) -> &'static str {
        match self {
            Hook::Prerouting | Hook::Ingress(_) => "filter",
            Hook::Output => "route",
        }
    }

    /// The hook that a listing tells by its number, priority, type and device, if it is as we make it.
    pub(super) fn of(number: u32, priority: i32, kind: &str, device: Option<&str>) -> Option<Self> {
        let hook = match (number, device) {
            (0, None) => Hook::Prerouting,
            (0, Some(device)) => Hook::Ingress(device.into()),
            (3, None) => Hook::Output,
            _ => return None,
        };
        (priority == PRIORITY && kind == hook.chain_type()).then_some(hook)
    }
}

impl MapValue {
    fn type_and_length(self) -> (u32, u32) {
        match self {
            MapValue::Mark => (TYPE_MARK, 4),
            MapValue::NextHop4 => (TYPE_DEVICE << TYPE_BITS | TYPE_ADDRESS4, 4 + 4),
            MapValue::NextHop6 => (TYPE_DEVICE << TYPE_BITS | TYPE_ADDRESS6, 4 + 16),
        }
    }
}

/// A comment as nft keeps it: type, length, text.
fn userdata(comment: &str) -> Vec<u8> {
    const COMMENT: u8 = 0;
    let len = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    let mut bytes = vec![COMMENT, len];
    bytes.extend(comment.as_bytes().iter().take(usize::from(len) - 1));
    bytes.push(0);
    bytes
}

/// What tells nft that keys and values of a map are in the machine's byte order: two numbers, each with
/// type and length before.
fn own_byte_order() -> Vec<u8> {
    const KEY: u8 = 0;
    const VALUE: u8 = 1;
    const OWN: u32 = 1;
    let number = |kind| [&[kind, 4], &OWN.to_ne_bytes()[..]].concat();
    [number(KEY), number(VALUE)].concat()
}

/// The comment in user data.
pub(super) fn comment(userdata: &[u8]) -> Option<&str> {
    let [0, len, rest @ ..] = userdata else { return None };
    attribute::text(rest.get(..usize::from(*len))?)
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use crate::nft::{Queues, Register};

    const QUEUES: Queues = Queues { first: 2, count: 4, bypass: true };

    fn table() -> TableId {
        TableId { family: TableFamily::Inet, name: "t".into() }
    }

    fn written(expression: &Expression) -> Vec<u8> {
        let rule = Rule { comment: String::new(), expressions: vec![expression.clone()] };
        let mut transaction = Transaction::new(&table());
        transaction.add_rule("c", &rule);
        let bytes = transaction.messages.bytes();
        let attributes = &bytes[20 + 20..];
        let list = attribute::attribute(attributes, 4).unwrap();
        let element = attribute::attribute(list, 1).unwrap();
        assert_eq!(attribute::attribute(element, EXPR_NAME).and_then(attribute::text), {
            Some(expression.name())
        });
        attribute::attribute(element, 2).unwrap().to_vec()
    }

    #[test]
    fn queues_are_written_for_both_worlds() {
        let native = [6, 0, 1, 0, 0, 2, 0, 0, 6, 0, 2, 0, 0, 4, 0, 0, 6, 0, 3, 0, 0, 1, 0, 0];
        assert_eq!(written(&Expression::Queue(QUEUES)), native);
        let target = [
            12, 0, 1, 0, b'N', b'F', b'Q', b'U', b'E', b'U', b'E', 0, // name
            8, 0, 2, 0, 0, 0, 0, 3, // revision
            12, 0, 3, 0, 2, 0, 4, 0, 1, 0, 0, 0, // numbers in the machine's order
        ];
        assert_eq!(written(&Expression::QueueTarget(QUEUES)), target);
    }

    #[test]
    fn a_hash_is_written_with_its_registers() {
        let [from, to] = [0, 4].map(Register);
        let hash = Expression::Hash { from, len: 16, seed: 7, modulus: 997, to };
        let expected = [
            8, 0, 1, 0, 0, 0, 0, 8, 8, 0, 2, 0, 0, 0, 0, 12, // registers
            8, 0, 3, 0, 0, 0, 0, 16, 8, 0, 4, 0, 0, 0, 3, 229, // length, modulus
            8, 0, 5, 0, 0, 0, 0, 7, 8, 0, 7, 0, 0, 0, 0, 0, // seed, type
        ];
        assert_eq!(written(&hash), expected);
    }

    #[test]
    fn what_was_refused_is_named() {
        let comment = "IPv4 TCP".to_string();
        let expressions = vec![Expression::NoTrack, Expression::Queue(QUEUES)];
        let mut transaction = Transaction::new(&table());
        transaction.add_table("made");
        transaction.add_rule("c", &Rule { comment, expressions });
        let start = transaction.parts[1].start;
        let message = &transaction.messages.bytes()[start..];
        let place = message.windows(6).position(|bytes| bytes == b"queue\0").unwrap();
        // The element of the list begins before the name's and its own header.
        let refused = transaction.refused(2, Some(place - 8));
        assert_eq!(refused.what, "add rule 'IPv4 TCP'");
        assert_eq!(refused.expression.as_deref(), Some("queue"));
        assert_eq!(refused.family, Some(TableFamily::Inet));
        assert_eq!(transaction.refused(1, Some(20)).what, "add table");
        for sequence in [0, 3, u32::MAX] {
            assert_eq!(transaction.refused(sequence, None).family, None);
        }
        for offset in [0, 1, 21, 100_000, usize::MAX] {
            assert_eq!(transaction.refused(2, Some(offset)).expression, None);
        }
    }

    #[test]
    fn many_elements_are_several_messages_none_too_long() {
        let mut transaction = Transaction::new(&table());
        let elements: Vec<(u32, [u8; 4])> = (0..5000).map(|slot| (slot, [1; 4])).collect();
        transaction.add_elements("m", MapValue::Mark, &elements);
        assert_eq!(transaction.sequence(), 3);
        let lengths = transaction.parts.windows(2).map(|pair| pair[1].start - pair[0].start);
        assert!(lengths.into_iter().all(|len| len < 65_535 + 40));
        transaction.delete_elements("m", &[]);
        assert_eq!(transaction.sequence(), 3);
        let hops: Vec<(u32, [u8; 20])> = (0..4000).map(|mark| (mark, [1; 20])).collect();
        transaction.add_elements("h", MapValue::NextHop6, &hops);
        transaction.go_to(&table());
        assert_eq!(transaction.sequence(), 6);
        assert!(transaction.messages.bytes().len() - transaction.parts[5].start < 65_535 + 40);
    }

    #[test]
    fn sets_of_a_transaction_have_numbers_of_their_own() {
        let mut transaction = Transaction::new(&table());
        transaction.add_map("m", 7, MapValue::Mark);
        transaction.add_counters_by_mark("s", 9);
        let ids: Vec<u32> = transaction
            .parts
            .iter()
            .map(|part| {
                let attributes = &transaction.messages.bytes()[part.start + 20..];
                attribute::attribute(attributes, 10).and_then(attribute::number).unwrap()
            })
            .collect();
        assert_eq!(ids, [1, 2]);
        let attributes = &transaction.messages.bytes()[transaction.parts[1].start + 20..];
        let counter = attribute::attribute(attributes, 17).unwrap();
        let name = attribute::attribute(counter, EXPR_NAME).and_then(attribute::text);
        assert_eq!(name, Some("counter"));
    }

    #[test]
    fn comments_are_read_back() {
        assert_eq!(comment(&userdata("some words")), Some("some words"));
        assert_eq!(comment(&userdata(&"x".repeat(300))).map(str::len), Some(254));
        for bytes in [&[][..], &[0], &[0, 5, b'a'], &[1, 2, b'a', 0], &[0, 1, 0xff]] {
            assert_eq!(comment(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_hook_is_known_again_only_as_we_make_it() {
        for hook in [Hook::Prerouting, Hook::Output, Hook::Ingress("eth0".into())] {
            let (number, kind) = (hook.number(), hook.chain_type());
            let device = if let Hook::Ingress(name) = &hook { Some(name.as_str()) } else { None };
            assert_eq!(Hook::of(number, -300, kind, device), None);
            assert_eq!(Hook::of(number, PRIORITY, "nat", device), None);
            assert_eq!(Hook::of(number, PRIORITY, kind, device), Some(hook));
        }
        assert_eq!(Hook::of(1, PRIORITY, "filter", None), None);
    }
}
