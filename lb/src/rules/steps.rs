//! Steps that rules of several planes have in common.

use lb_core::fast::{Content, Family, Lane, Shape};
use lb_core::table::Config;
use lb_core::wire::{protocol, sctp};
use lb_sys::nft::{Base, Comparison, Expression, Register};

use super::Map;
use crate::cidr::Cidr;

/// Where the rules work. Packets of both versions of IP use the same registers, as far as they go.
pub const FIRST: Register = Register(0);

/// The numbers of IPv4 and IPv6 among protocol families.
pub const NFPROTO_IPV4: u8 = 2;
pub const NFPROTO_IPV6: u8 = 10;

/// Whether the destination has this prefix.
pub fn is_vip(vip: &Cidr, family: Family) -> Vec<Expression> {
    let (offset, len) = match family {
        Family::V4 => (16, 4),
        Family::V6 => (24, 16),
    };
    let mut expressions = vec![network(offset, len, FIRST)];
    if let Some(bytes) = vip.whole_bytes() {
        // A mask would be another step.
        expressions.push(equal(FIRST, &bytes));
    } else {
        expressions.push(Expression::And { register: FIRST, mask: vip.mask() });
        expressions.push(equal(FIRST, &vip.octets()));
    }
    expressions
}

pub fn protocol_offset(family: Family) -> u32 {
    match family {
        Family::V4 => 9,
        Family::V6 => 6,
    }
}

/// Whether it is of the lane's protocol. The number stays where the key has it.
pub fn is_protocol(lane: &Lane) -> [Expression; 2] {
    let [protocol, ..] = behind_addresses(lane.family);
    [network(protocol_offset(lane.family), 1, protocol), equal(protocol, &[lane.protocol])]
}

/// Registers behind two addresses: for the protocol, the ports, the slot and the mark.
pub fn behind_addresses(family: Family) -> [Register; 4] {
    let place = match family {
        Family::V4 => 2,
        Family::V6 => 8,
    };
    [0, 1, 2, 3].map(|after| Register(place + after))
}

/// From the ports or the identifier to the mark, and the register that has it. Addresses, protocol and these go
/// into registers side by side, as they stand in a key.
pub fn find_mark(lane: &Lane, config: &Config, map: &Map) -> (Vec<Expression>, Register) {
    let (address_at, address_len) = match lane.family {
        Family::V4 => (12, 4),
        Family::V6 => (8, 16),
    };
    let [_, last, slot, mark] = behind_addresses(lane.family);
    let mut expressions = Vec::new();
    let shape = match lane.content {
        // Where they are missing the walk has to say so, whatever the key is.
        Content::Ports(shape) => {
            expressions.push(transport(0, 4, last));
            shape
        }
        // With the sequence number, because the walk wants the header to its end.
        Content::Echo(request) => {
            expressions.extend([
                transport(0, 1, last),
                equal(last, &[request]),
                transport(4, 4, last),
                Expression::And { register: last, mask: vec![0xff, 0xff, 0, 0] },
            ]);
            Shape::Tuple
        }
    };
    let (from, len) = match shape {
        Shape::Ports => (last, 4),
        Shape::Client => (FIRST, address_len),
        Shape::Tuple => (FIRST, 2 * address_len + 8),
    };
    match (shape, lane.family) {
        (Shape::Ports, _) => {}
        (Shape::Client, _) => expressions.push(network(address_at, address_len, FIRST)),
        // Words are loaded faster than anything else.
        (Shape::Tuple, Family::V4) => {
            expressions.extend([network(12, 4, FIRST), network(16, 4, Register(1))]);
        }
        (Shape::Tuple, Family::V6) => expressions.push(network(8, 32, FIRST)),
    }
    expressions.extend([
        Expression::Hash { from, len, seed: config.seed.0, modulus: config.slots, to: slot },
        Expression::Lookup { map: map.name.clone(), key: slot, to: mark },
    ]);
    (expressions, mark)
}

/// The type of the first chunk of SCTP.
pub fn first_chunk(to: Register) -> Expression {
    transport(u32::from(sctp::HEADER_LEN), 1, to)
}

pub fn protocol_name(lane: &Lane) -> &'static str {
    match lane.protocol {
        protocol::TCP => "TCP",
        protocol::UDP => "UDP",
        protocol::SCTP => "SCTP",
        _ => "echo",
    }
}

pub fn transport(offset: u32, len: u32, to: Register) -> Expression {
    Expression::Payload { base: Base::Transport, offset, len, to }
}

pub fn network(offset: u32, len: u32, to: Register) -> Expression {
    Expression::Payload { base: Base::Network, offset, len, to }
}

pub fn equal(register: Register, value: &[u8]) -> Expression {
    Expression::Compare { register, comparison: Comparison::Equal, value: value.to_vec() }
}

pub fn not_equal(register: Register, value: &[u8]) -> Expression {
    Expression::Compare { register, comparison: Comparison::NotEqual, value: value.to_vec() }
}
