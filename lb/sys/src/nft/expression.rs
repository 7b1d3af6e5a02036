//! What a rule is made of: steps that load, compare and decide, each with registers of four bytes.

use crate::netlink::attribute::Attributes;

/// A register of four bytes; what is longer goes on in the next ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Register(pub u8);

/// Where an offset into a packet counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Base {
    /// The Ethernet header; packets of other devices have none.
    Link,
    /// The IP header.
    Network,
    /// What follows it.
    Transport,
}

/// What is known of a packet beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meta {
    /// The fwmark.
    Mark,
    /// The device it came in by: a name in 16 bytes.
    InputDevice,
    /// 2 for IPv4, 10 for IPv6.
    Family,
    /// A byte: 0 if the frame was for this machine alone.
    Addressee,
}

/// How a register must stand to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// Equal.
    Equal,
    /// Anything else.
    NotEqual,
    /// Below; both in network order.
    Less,
    /// Above; both in network order.
    Greater,
}

/// Queues of the kernel, and what happens while nobody serves them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Queues {
    /// The first.
    pub first: u16,
    /// How many.
    pub count: u16,
    /// Whether packets go on while there is no consumer; they are dropped otherwise.
    pub bypass: bool,
}

/// A step of a rule. One that does not hold ends the rule, and the next rule goes on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expression {
    /// Bytes of the packet into a register. Ends the rule where the packet does not have them.
    Payload {
        /// Where the offset counts from.
        base: Base,
        /// Where the bytes begin.
        offset: u32,
        /// How many.
        len: u32,
        /// Where they go.
        to: Register,
    },
    /// Something else into a register.
    Meta {
        /// What.
        key: Meta,
        /// Where it goes.
        to: Register,
    },
    /// A register into the fwmark.
    SetMark {
        /// Which.
        from: Register,
    },
    /// Compares a register with bytes.
    Compare {
        /// The register.
        register: Register,
        /// What must hold.
        comparison: Comparison,
        /// The bytes, as they stand in the packet.
        value: Vec<u8>,
    },
    /// Clears the bits of a register that the mask does not have.
    And {
        /// The register.
        register: Register,
        /// The bits that stay.
        mask: Vec<u8>,
    },
    /// Jenkins' hash of registers, scaled to a number below `modulus`.
    Hash {
        /// The first register.
        from: Register,
        /// How many bytes.
        len: u32,
        /// Initial value.
        seed: u32,
        /// What the result is below.
        modulus: u32,
        /// Where it goes.
        to: Register,
    },
    /// What a map has for a register. Ends the rule if there is nothing.
    Lookup {
        /// The map.
        map: String,
        /// The key.
        key: Register,
        /// Where the value goes.
        to: Register,
    },
    /// Counts the packet in the element of a set. Ends the rule if there is none.
    CountIn {
        /// The set, whose elements have counters.
        set: String,
        /// The element.
        key: Register,
    },
    /// Counts the packet in a counter that has a name.
    Count {
        /// Its name.
        counter: String,
    },
    /// Ends the rule for packets beyond a rate.
    Limit {
        /// Packets in a second.
        rate: u32,
        /// How many of them may come at once.
        burst: u32,
    },
    /// Keeps the packet from connection tracking.
    NoTrack,
    /// To user space, by nftables' own means.
    Queue(Queues),
    /// To user space by the target of iptables, where the kernel does not have the other.
    QueueTarget(Queues),
    /// Sends the packet to a neighbour, with one hop less to live. Only in tables of devices.
    Forward {
        /// 2 for IPv4, 10 for IPv6.
        family: u8,
        /// Has the index of the device.
        device: Register,
        /// Has the neighbour's address.
        address: Register,
    },
    /// Ends this chain; the packet goes on.
    Accept,
    /// Goes on with another chain and does not come back.
    Goto(String),
}

impl Expression {
    /// The kernel's name for it.
    pub fn name(&self) -> &'static str {
        match self {
            Expression::Payload { .. } => "payload",
            Expression::Meta { .. } | Expression::SetMark { .. } => "meta",
            Expression::Compare { .. } => "cmp",
            Expression::And { .. } => "bitwise",
            Expression::Hash { .. } => "hash",
            Expression::Lookup { .. } | Expression::CountIn { .. } => "lookup",
            Expression::Count { .. } => "objref",
            Expression::Limit { .. } => "limit",
            Expression::NoTrack => "notrack",
            Expression::Queue(_) => "queue",
            Expression::QueueTarget(_) => "target",
            Expression::Forward { .. } => "fwd",
            Expression::Accept | Expression::Goto(_) => "immediate",
        }
    }

    /// An element of a list of expressions.
    pub(super) fn write(&self, list: &mut Attributes<'_>) {
        const LIST_ELEM: u16 = 1;
        list.nested(LIST_ELEM, |element| {
            element.text(EXPR_NAME, self.name());
            element.nested(EXPR_DATA, |data| self.write_data(data));
        });
    }

    fn write_data(&self, data: &mut Attributes<'_>) {
        match self {
            Expression::Payload { base, offset, len, to } => {
                data.u32(1, to.number());
                data.u32(2, base.number());
                data.u32(3, *offset);
                data.u32(4, *len);
            }
            Expression::Meta { key, to } => {
                data.u32(1, to.number());
                data.u32(2, key.number());
            }
            Expression::SetMark { from } => {
                data.u32(2, Meta::Mark.number());
                data.u32(3, from.number());
            }
            Expression::Compare { register, comparison, value } => {
                data.u32(1, register.number());
                data.u32(2, comparison.number());
                data.nested(3, |data| data.bytes(DATA_VALUE, value));
            }
            Expression::And { register, mask } => {
                data.u32(1, register.number());
                data.u32(2, register.number());
                data.u32(3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
                data.nested(4, |data| data.bytes(DATA_VALUE, mask));
                data.nested(5, |data| data.bytes(DATA_VALUE, &vec![0; mask.len()]));
            }
            Expression::Hash { from, len, seed, modulus, to } => {
                const JENKINS: u32 = 0;
                data.u32(1, from.number());
                data.u32(2, to.number());
                data.u32(3, *len);
                data.u32(4, *modulus);
                data.u32(5, *seed);
                data.u32(7, JENKINS);
            }
            Expression::Lookup { map, key, to } => {
                data.text(1, map);
                data.u32(2, key.number());
                data.u32(3, to.number());
            }
            Expression::CountIn { set, key } => {
                data.text(1, set);
                data.u32(2, key.number());
            }
            Expression::Count { counter } => {
                const OBJECT_COUNTER: u32 = 1;
                data.u32(1, OBJECT_COUNTER);
                data.text(2, counter);
            }
            Expression::Limit { rate, burst } => {
                const SECONDS: u64 = 1;
                const PACKETS: u32 = 0;
                data.u64(1, u64::from(*rate));
                data.u64(2, SECONDS);
                data.u32(3, *burst);
                data.u32(4, PACKETS);
            }
            Expression::NoTrack => {}
            Expression::Queue(queues) => {
                data.u16(1, queues.first);
                data.u16(2, queues.count);
                data.u16(3, u16::from(queues.bypass));
            }
            Expression::QueueTarget(queues) => {
                const REVISION: u32 = 3;
                data.text(1, "NFQUEUE");
                data.u32(2, REVISION);
                // A struct of the C world, in the machine's byte order and aligned to 8 bytes.
                let mut info = [0; 8];
                info[..2].copy_from_slice(&queues.first.to_ne_bytes());
                info[2..4].copy_from_slice(&queues.count.to_ne_bytes());
                info[4..6].copy_from_slice(&u16::from(queues.bypass).to_ne_bytes());
                data.bytes(3, &info);
            }
            Expression::Forward { family, device, address } => {
                data.u32(1, device.number());
                data.u32(2, address.number());
                data.u32(3, u32::from(*family));
            }
            Expression::Accept => write_verdict(data, VERDICT_ACCEPT, None),
            Expression::Goto(chain) => write_verdict(data, VERDICT_GOTO, Some(chain)),
        }
    }
}

pub(super) const EXPR_NAME: u16 = 1;
pub(super) const EXPR_DATA: u16 = 2;
pub(super) const DATA_VALUE: u16 = 1;
const VERDICT_ACCEPT: u32 = 1;
/// -4.
const VERDICT_GOTO: u32 = 0xffff_fffc;

fn write_verdict(data: &mut Attributes<'_>, code: u32, chain: Option<&str>) {
    const VERDICT_REGISTER: u32 = 0;
    const DATA_VERDICT: u16 = 2;
    data.u32(1, VERDICT_REGISTER);
    data.nested(2, |data| {
        data.nested(DATA_VERDICT, |verdict| {
            verdict.u32(1, code);
            if let Some(chain) = chain {
                verdict.text(2, chain);
            }
        });
    });
}

impl Register {
    /// The registers of four bytes begin at 8; those before are an older view of the same bytes.
    fn number(self) -> u32 {
        8 + u32::from(self.0)
    }
}

impl Base {
    fn number(self) -> u32 {
        match self {
            Base::Link => 0,
            Base::Network => 1,
            Base::Transport => 2,
        }
    }
}

impl Meta {
    fn number(self) -> u32 {
        match self {
            Meta::Mark => 3,
            Meta::InputDevice => 6,
            Meta::Family => 15,
            Meta::Addressee => 19,
        }
    }
}

impl Comparison {
    fn number(self) -> u32 {
        match self {
            Comparison::Equal => 0,
            Comparison::NotEqual => 1,
            Comparison::Less => 2,
            Comparison::Greater => 4,
        }
    }
}
