//! Changes that come into force together or not at all, in tables of ours.

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests;

use std::borrow::Cow;

use super::expression::{DATA_VALUE, EXPR_DATA, EXPR_NAME};
use super::message::{Kind, Messages, NLM_F_ACK, NLM_F_CREATE, TableFamily};
use super::object::{Hook, MapValue, PRIORITY, Rule, TYPE_MARK, TableId, own_byte_order, userdata};
use crate::netlink::attribute::{self, Attributes};

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
