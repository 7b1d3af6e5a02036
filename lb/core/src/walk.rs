//! The whole way of a packet on one screen: bytes → headers → key → slot → mark → decision.

use thiserror::Error;

use crate::key::Key;
use crate::table::{Config, Table};
use crate::target::Mark;
use crate::wire::{Packet, WireError, icmp, ip, l4, protocol};

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It goes on with this mark.
    Mark(Mark),
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
    /// ICMP or ICMPv6 echo request or reply.
    Echo,
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
    /// Fragments are not handled yet.
    #[error("it is a fragment")]
    Fragment,
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

/// Decides about a packet.
#[inline]
pub fn walk(packet: Packet<'_>, table: &Table<'_>, policy: &Policy) -> Walked {
    let config = table.config();
    let (class, key) = keyed(packet, config);
    let decision = match key {
        Err(reason) => Decision::Drop(reason),
        Ok(key) => {
            let slot = key.hash(config.seed).slot(config.slots);
            match table.mark(slot).or(policy.no_targets_mark) {
                Some(mark) => Decision::Mark(mark),
                None => Decision::Drop(Reason::NoTarget),
            }
        }
    };
    Walked { class, decision }
}

/// The class of a packet, and its key or the reason why it has none.
#[inline]
pub fn keyed(packet: Packet<'_>, config: &Config) -> (Class, Result<Key, Reason>) {
    let ip = match ip::parse(packet) {
        Ok(ip) => ip,
        Err(error) => return (Class::Unreadable, Err(error.into())),
    };
    if ip.fragment.is_some() {
        return (Class::Fragment, Err(Reason::Fragment));
    }
    let tuple = |last| Key::tuple(ip.addresses, ip.protocol, last);
    let by_ports = || match l4::ports(ip.payload) {
        Ok(ports) => Ok(Key::transport(
            ip.addresses,
            ip.protocol,
            ports,
            config.sctp_hash,
        )),
        Err(error) => Err(error.into()),
    };
    match (ip.protocol, ip.addresses) {
        (protocol::TCP, _) => (Class::Tcp, by_ports()),
        (protocol::UDP, _) => (Class::Udp, by_ports()),
        (protocol::SCTP, _) => (Class::Sctp, by_ports()),
        (protocol::ICMP, ip::Addresses::V4(_)) => icmp_keyed(icmp::Version::V4, ip.payload, tuple),
        (protocol::ICMPV6, ip::Addresses::V6(_)) => {
            icmp_keyed(icmp::Version::V6, ip.payload, tuple)
        }
        _ => (Class::Other, Ok(tuple([0; 4]))),
    }
}

fn icmp_keyed(
    version: icmp::Version,
    payload: Packet<'_>,
    tuple: impl Fn([u8; 4]) -> Key,
) -> (Class, Result<Key, Reason>) {
    match icmp::parse(version, payload) {
        Ok(icmp::Message::Echo([id0, id1])) => (Class::Echo, Ok(tuple([id0, id1, 0, 0]))),
        Ok(icmp::Message::Other) => (Class::Icmp, Ok(tuple([0; 4]))),
        Err(error) => (Class::Icmp, Err(error.into())),
    }
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
