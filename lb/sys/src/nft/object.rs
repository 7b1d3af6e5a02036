//! What tables are made of, as transactions write it.

use std::fmt;

use super::expression::Expression;
use super::message::TableFamily;
use crate::netlink::attribute;

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

/// The type that nft lists as `mark`: four bytes in the machine's order.
pub(super) const TYPE_MARK: u32 = 19;
/// Types that are put together.
const TYPE_DEVICE: u32 = 20;
const TYPE_ADDRESS4: u32 = 7;
const TYPE_ADDRESS6: u32 = 8;
const TYPE_BITS: u32 = 6;

impl Hook {
    pub(super) fn number(&self) -> u32 {
        match self {
            Hook::Prerouting | Hook::Ingress(_) => 0,
            Hook::Output => 3,
        }
    }

    pub(super) fn chain_type(&self) -> &'static str {
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
    pub(super) fn type_and_length(self) -> (u32, u32) {
        match self {
            MapValue::Mark => (TYPE_MARK, 4),
            MapValue::NextHop4 => (TYPE_DEVICE << TYPE_BITS | TYPE_ADDRESS4, 4 + 4),
            MapValue::NextHop6 => (TYPE_DEVICE << TYPE_BITS | TYPE_ADDRESS6, 4 + 16),
        }
    }
}

/// A comment as nft keeps it: type, length, text.
pub(super) fn userdata(comment: &str) -> Vec<u8> {
    const COMMENT: u8 = 0;
    let len = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    let mut bytes = vec![COMMENT, len];
    bytes.extend(comment.as_bytes().iter().take(usize::from(len) - 1));
    bytes.push(0);
    bytes
}

/// What tells nft that keys and values of a map are in the machine's byte order: two numbers, each with
/// type and length before.
pub(super) fn own_byte_order() -> Vec<u8> {
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
mod tests {
    use super::*;

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
