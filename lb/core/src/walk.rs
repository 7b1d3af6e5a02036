//! The whole way of a packet on one screen: bytes → headers → key → slot → mark → decision.

use thiserror::Error;

use crate::frag::{DatagramKey, Datagrams, Part, Time};
use crate::hash::{Hash, Seed};
use crate::key::{Key, KeyModes};
use crate::table::{Config, Table};
use crate::target::Mark;
use crate::tier::Tier;
use crate::wire::{Packet, WireError, icmp, ip, l4, protocol};

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It goes on with this mark.
    Mark(Mark),
    /// It is a fragment and goes with this mark to another router of the tier, which decides.
    Relay(Mark),
    /// It ends here.
    Drop(Reason),
    /// A copy waits for the first fragment of its datagram; the original ends here.
    Hold,
}

/// What a packet is, for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// SCTP in UDP.
    SctpInUdp,
    /// ICMP or ICMPv6 echo request or reply.
    Echo,
    /// An ICMP or ICMPv6 error.
    IcmpError,
    /// Any other ICMP or ICMPv6 message.
    Icmp,
    /// Any other protocol.
    Other,
    /// A part of a datagram, of whatever protocol.
    Fragment,
    /// A packet whose headers could not be read.
    Unreadable,
}

/// Why a packet is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Reason {
    /// No target is active.
    #[error("no target is active")]
    NoTarget,
    /// A fragment that is not the first, and the first has not come; it could not be held.
    #[error("the first fragment of its datagram has not come, and nothing can be held")]
    EarlyFragment,
    /// The same, and all buffers hold what may still go.
    #[error("the first fragment of its datagram has not come, and all buffers are in use")]
    HeldFull,
    /// The same, and its source has its share of the buffers.
    #[error("the first fragment of its datagram has not come, and its source has all its buffers")]
    SourceFull,
    /// The same, and it was not copied whole or is longer than a buffer.
    #[error("the first fragment of its datagram has not come, and it is too long to be held")]
    TooLongToHold,
    /// A fragment whose first fragment was dropped.
    #[error("the first fragment of its datagram was dropped")]
    FirstDropped,
    /// A first fragment that ends before its ports do.
    #[error("it is a first fragment that ends before the ports")]
    FirstTooShort,
    /// An ICMP error about a later fragment, which has no ports.
    #[error("it is an ICMP error about a fragment that is not the first")]
    QuotedFragment,
    /// The packet ends inside a header.
    #[error("{}", WireError::Truncated)]
    Truncated,
    /// A header lies beyond the queue's copy range.
    #[error("{}", WireError::NotCopied)]
    NotCopied,
    /// A header field contradicts the format.
    #[error("{}", WireError::Malformed)]
    Malformed,
    /// Too many IPv6 extension headers.
    #[error("{}", WireError::ChainTooLong)]
    ChainTooLong,
}

/// What the table does not say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// The mark of packets while no target is active; without one they are dropped.
    pub no_targets_mark: Option<Mark>,
}

/// A packet's class with its decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// What it is.
    pub class: Class,
    /// What happens to it.
    pub decision: Decision,
}

/// Decides about a packet. Fragments go to the router of the tier that is to handle them, if there is a tier;
/// here they follow the first of their datagram, in whatever order they come.
#[inline(always)]
pub fn walk_with(
    packet: Packet<'_>,
    table: &Table<'_>,
    policy: &Policy,
    tier: Option<&Tier<'_>>,
    fragments: &mut impl Datagrams,
    now: Time,
) -> Walked {
    match keyed_unless_fragment(packet, table.config(), &Hashed(table.config().seed)) {
        (Class::Fragment, _) => match relay(packet, tier) {
            Some(router) => Walked { class: Class::Fragment, decision: Decision::Relay(router) },
            None => {
                let walked = walk_fragment(packet, table, policy);
                Walked { decision: follow(packet, walked, fragments, now), ..walked }
            }
        },
        (class, hash) => Walked { class, decision: decide(hash, table, policy) },
    }
}

/// Decides about a packet by itself. Of fragments only the first can be decided so.
#[inline(always)]
pub fn walk(packet: Packet<'_>, table: &Table<'_>, policy: &Policy) -> Walked {
    match keyed_unless_fragment(packet, table.config(), &Hashed(table.config().seed)) {
        (Class::Fragment, _) => walk_fragment(packet, table, policy),
        (class, hash) => Walked { class, decision: decide(hash, table, policy) },
    }
}

#[inline(always)]
fn decide(hash: Result<Hash, Reason>, table: &Table<'_>, policy: &Policy) -> Decision {
    match hash {
        Err(reason) => Decision::Drop(reason),
        Ok(hash) => match table.mark(hash.slot(table.config().slots)).or(policy.no_targets_mark) {
            Some(mark) => Decision::Mark(mark),
            None => Decision::Drop(Reason::NoTarget),
        },
    }
}

#[cold]
#[inline(never)]
fn walk_fragment(packet: Packet<'_>, table: &Table<'_>, policy: &Policy) -> Walked {
    let (class, hash) = fragment_keyed(packet, table.config(), &Hashed(table.config().seed));
    Walked { class, decision: decide(hash, table, policy) }
}

/// The other router that a fragment is for.
#[cold]
#[inline(never)]
fn relay(packet: Packet<'_>, tier: Option<&Tier<'_>>) -> Option<Mark> {
    tier?.way_of(packet)?.other
}

/// What happens to a fragment after [`walk`] decided about it by itself: the first is remembered, and a
/// later one follows it.
#[cold]
#[inline(never)]
pub fn follow(
    packet: Packet<'_>,
    walked: Walked,
    fragments: &mut impl Datagrams,
    now: Time,
) -> Decision {
    let Ok(ip::Ip { addresses, protocol, fragment: Some(fragment), payload }) = ip::parse(packet)
    else {
        return walked.decision;
    };
    let key = DatagramKey::new(addresses, protocol, fragment);
    let part = Part { start: fragment.offset, len: payload.full_len(), more: fragment.more };
    fragments.with(key, |fragments| {
        if fragment.offset > 0 {
            return fragments.later(key, part, packet, now);
        }
        fragments.first(key, part, walked.decision, now);
        walked.decision
    })
}

/// The class of a packet, and its key or the reason why it has none.
pub fn keyed(packet: Packet<'_>, config: &Config) -> (Class, Result<Key, Reason>) {
    match keyed_unless_fragment(packet, config, &Itself) {
        (Class::Fragment, _) => fragment_keyed(packet, config, &Itself),
        keyed => keyed,
    }
}

/// What is wanted of a key. Where a key is made its kind is known, so a hash made there needs no way
/// through memory, which is a third of the whole walk.
trait Wanted {
    type Of;
    fn of(&self, key: Key) -> Self::Of;
}

struct Itself;
struct Hashed(Seed);

impl Wanted for Itself {
    type Of = Key;
    #[inline(always)]
    fn of(&self, key: Key) -> Key {
        key
    }
}

impl Wanted for Hashed {
    type Of = Hash;
    #[inline(always)]
    fn of(&self, key: Key) -> Hash {
        key.hash(self.0)
    }
}

/// The class of a packet with its key, and of a fragment the class alone: what is done about it would
/// cost the packets that are many.
#[inline(always)]
fn keyed_unless_fragment<W: Wanted>(
    packet: Packet<'_>,
    config: &Config,
    wanted: &W,
) -> (Class, Result<W::Of, Reason>) {
    let ip = match ip::parse(packet) {
        Ok(ip) => ip,
        Err(error) => return (Class::Unreadable, Err(error.into())),
    };
    if ip.fragment.is_some() {
        return (Class::Fragment, Err(Reason::EarlyFragment));
    }
    whole_keyed(packet, &ip, config, wanted)
}

/// The same of a packet whose IP header is read and that starts with a transport header.
#[inline(always)]
fn whole_keyed<W: Wanted>(
    packet: Packet<'_>,
    ip: &ip::Ip<'_>,
    config: &Config,
    wanted: &W,
) -> (Class, Result<W::Of, Reason>) {
    if icmp_version(ip).is_some() {
        return icmp_keyed(packet, config, wanted);
    }
    flow_keyed(ip.addresses, ip.protocol, ip.payload, |ports| ports, &config.modes, wanted)
}

/// The key of a packet of a flow, seen in the direction that `order` gives its ports.
#[inline(always)]
fn flow_keyed<W: Wanted>(
    addresses: ip::Addresses<'_>,
    protocol: u8,
    payload: Packet<'_>,
    order: impl Fn(l4::Ports) -> l4::Ports,
    modes: &KeyModes,
    wanted: &W,
) -> (Class, Result<W::Of, Reason>) {
    let class = match protocol {
        protocol::TCP => Class::Tcp,
        protocol::UDP => Class::Udp,
        protocol::SCTP => Class::Sctp,
        _ => return (Class::Other, Ok(wanted.of(Key::tuple(addresses, protocol, [0; 4])))),
    };
    let ports = match l4::ports(payload) {
        Ok(ports) => order(ports),
        Err(error) => return (class, Err(error.into())),
    };
    if class == Class::Udp && modes.sctp_encap.contains(l4::destination(ports)) {
        // The only second look: the ports that count are those of SCTP, inside.
        let inside = payload.after(l4::UDP_HEADER_LEN).and_then(l4::ports).map(order);
        let key = |ports| wanted.of(Key::transport(addresses, protocol::SCTP, ports, modes));
        return (Class::SctpInUdp, inside.map(key).map_err(Reason::from));
    }
    (class, Ok(wanted.of(Key::transport(addresses, protocol, ports, modes))))
}

#[inline(always)]
fn icmp_version(ip: &ip::Ip<'_>) -> Option<icmp::Version> {
    match (ip.protocol, ip.addresses) {
        (protocol::ICMP, ip::Addresses::V4(_)) => Some(icmp::Version::V4),
        (protocol::ICMPV6, ip::Addresses::V6(_)) => Some(icmp::Version::V6),
        _ => None,
    }
}

/// The key of a fragment: the first has that of a whole packet, a later one has no ports.
fn fragment_keyed<W: Wanted>(
    packet: Packet<'_>,
    config: &Config,
    wanted: &W,
) -> (Class, Result<W::Of, Reason>) {
    let ip = match ip::parse(packet) {
        Ok(ip) => ip,
        Err(error) => return (Class::Unreadable, Err(error.into())),
    };
    if ip.fragment.is_some_and(|fragment| fragment.offset > 0) {
        return (Class::Fragment, Err(Reason::EarlyFragment));
    }
    let (_, key) = whole_keyed(packet, &ip, config, wanted);
    let key = key.map_err(|reason| match reason {
        Reason::Truncated => Reason::FirstTooShort,
        other => other,
    });
    (Class::Fragment, key)
}

/// The key of an ICMP packet. It reads the IP header once more: handed over it would lie in memory for
/// the packets that are many, too.
#[inline(never)]
fn icmp_keyed<W: Wanted>(
    packet: Packet<'_>,
    config: &Config,
    wanted: &W,
) -> (Class, Result<W::Of, Reason>) {
    let ip = match ip::parse(packet) {
        Ok(ip) => ip,
        Err(error) => return (Class::Unreadable, Err(error.into())),
    };
    let Some(version) = icmp_version(&ip) else {
        return (Class::Unreadable, Err(Reason::Malformed));
    };
    let key = |last| wanted.of(Key::tuple(ip.addresses, ip.protocol, last));
    match icmp::parse(version, ip.payload) {
        Ok(icmp::Message::Echo(id)) => (Class::Echo, Ok(key(echo_word(id)))),
        Ok(icmp::Message::Error(quoted)) => {
            (Class::IcmpError, quoted_key(version, quoted, &config.modes).map(|key| wanted.of(key)))
        }
        Ok(icmp::Message::Other) => (Class::Icmp, Ok(key([0; 4]))),
        Err(error) => (Class::Icmp, Err(error.into())),
    }
}

/// An error quotes a packet that a target sent; it belongs where the packets go that this one
/// answered. So the key is that of the quoted packet with source and destination swapped.
#[inline(never)]
fn quoted_key(version: icmp::Version, quoted: Packet<'_>, modes: &KeyModes) -> Result<Key, Reason> {
    let ip = ip::parse_quoted(quoted)?;
    match (version, ip.addresses) {
        (icmp::Version::V4, ip::Addresses::V4(_)) | (icmp::Version::V6, ip::Addresses::V6(_)) => {}
        _ => return Err(Reason::Malformed),
    }
    if ip.fragment.is_some_and(|fragment| fragment.offset > 0) {
        return Err(Reason::QuotedFragment);
    }
    let swapped = ip.addresses.swapped();
    match icmp_version(&ip) {
        None => flow_keyed(swapped.view(), ip.protocol, ip.payload, l4::swapped, modes, &Itself).1,
        Some(version) => {
            let last = match icmp::parse(version, ip.payload)? {
                icmp::Message::Echo(id) => echo_word(id),
                icmp::Message::Error(_) | icmp::Message::Other => [0; 4],
            };
            Ok(Key::tuple(swapped.view(), ip.protocol, last))
        }
    }
}

fn echo_word([id0, id1]: [u8; 2]) -> [u8; 4] {
    [id0, id1, 0, 0]
}

impl From<WireError> for Reason {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Truncated => Reason::Truncated,
            WireError::NotCopied => Reason::NotCopied,
            WireError::Malformed => Reason::Malformed,
            WireError::ChainTooLong => Reason::ChainTooLong,
        }
    }
}

#[cfg(test)]
mod tests;
