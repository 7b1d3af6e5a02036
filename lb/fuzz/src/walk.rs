//! Any bytes as a packet.

use lb_core::fast::{Lane, lane_of};
use lb_core::frag::{FragConfig, Fragments, Secret, Time};
use lb_core::hash::Slot;
use lb_core::key::{Affinity, Key, KeyModes, SctpHash};
use lb_core::table::Config;
use lb_core::tier::Tier;
use lb_core::walk::{Class, Decision, Policy, Reason, keyed, walk, walk_with};
use lb_core::wire::{Packet, protocol};

use crate::choices::Choices;
use crate::memory::Memory;

type Keyed = (Class, Result<Key, Reason>);

/// Longest packet that can be quoted whole, whatever the version.
const MAX_QUOTED: usize = 65_000;

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let modes = choices.modes();
    let slots = choices.u32().max(1);
    let targets = choices.bytes(3);
    let not_copied = usize::from(choices.u16()) * choices.one_of([0, 1, 4]);
    let bytes = choices.rest();

    let config = Config { slots: 7, targets: 3, modes, ..Config::default() };
    let whole = keyed(Packet::whole(bytes), &config);
    if let (class, Ok(key)) = &whole {
        assert!(key.hash(config.seed).slot(slots) < Slot(slots));
        assert!(fits(*class, key, &modes), "{class:?} with {key:?}");
    }
    if let Ok((lane, key)) = lane_of(Packet::whole(bytes), &modes) {
        assert!(whole == (class_of(&lane), Ok(key)), "{lane:?} with {key:?}, {whole:?}");
    }
    check_copied(bytes, not_copied, whole, &config);
    check_cuts(bytes, whole, &config);
    check_later_fragment(bytes, &config);
    check_quoted(bytes, whole, &config);
    check_walk(bytes, whole, targets, &config);
    check_tier(bytes, targets, &config);
}

/// The class of packets that the kernel decides by itself.
fn class_of(lane: &Lane) -> Class {
    match lane.protocol {
        protocol::TCP => Class::Tcp,
        protocol::UDP => Class::Udp,
        protocol::SCTP => Class::Sctp,
        _ => Class::Echo,
    }
}

/// Whether a packet of this class may have a key of this kind.
fn fits(class: Class, key: &Key, modes: &KeyModes) -> bool {
    let (ports, client) = (modes.sctp_hash == SctpHash::Ports, modes.affinity == Affinity::Client);
    let ports_alone = matches!(key, Key::Ports(_));
    let client_alone = matches!(key, Key::ClientV4(_) | Key::ClientV6(_));
    match class {
        Class::Tcp | Class::Udp => !ports_alone && client_alone == client,
        Class::Sctp | Class::SctpInUdp => !client_alone && ports_alone == ports,
        Class::IcmpError => (!ports_alone || ports) && (!client_alone || client),
        Class::Echo | Class::Icmp | Class::Other => !ports_alone && !client_alone,
        // The first, of any class.
        Class::Fragment => (!ports_alone || ports) && (!client_alone || client),
        Class::Unreadable => false,
    }
}

/// What was not copied is either not needed, or said to be needed. Headers without a length make the
/// answer depend on the length of packets above 64 KiB.
fn check_copied(bytes: &[u8], not_copied: usize, whole: Keyed, config: &Config) {
    let full_len = bytes.len() + not_copied;
    let copied = keyed(Packet::copied(bytes, full_len), config);
    if full_len <= usize::from(u16::MAX) {
        let missing = is_cut_short(whole.1) && copied.1 == Err(Reason::NotCopied);
        assert!(copied == whole || copied.0 == whole.0 && missing, "{copied:?}, {whole:?}");
    }
}

fn is_cut_short(key: Result<Key, Reason>) -> bool {
    matches!(key, Err(Reason::Truncated | Reason::FirstTooShort))
}

/// A packet cut short has the answer of the whole packet, or one that says what is missing.
fn check_cuts(bytes: &[u8], whole: Keyed, config: &Config) {
    for len in 0..bytes.len() {
        let (class, cut) = keyed(Packet::whole(&bytes[..len]), config);
        assert!(is_cut_short(cut) || (class, cut) == whole, "{len}: {cut:?}, {whole:?}");
        let (class, copied) = keyed(Packet::copied(&bytes[..len], bytes.len()), config);
        let not_copied = copied == Err(Reason::NotCopied);
        assert!(not_copied || (class, copied) == whole, "{len}: {copied:?}, {whole:?}");
    }
}

/// A packet that is made a later fragment has no ports any more.
fn check_later_fragment(bytes: &[u8], config: &Config) {
    if let [first, _, _, _, _, _, _, _, ..] = bytes
        && first >> 4 == 4
    {
        let mut later = bytes.to_vec();
        later[7] |= 1;
        let (class, key) = keyed(Packet::whole(&later), config);
        assert!(matches!(class, Class::Fragment | Class::Unreadable), "{class:?}");
        assert!(key.is_err());
    }
}

/// An error about the answer to a packet has the packet's key.
fn check_quoted(bytes: &[u8], whole: Keyed, config: &Config) {
    let (class, Ok(_)) = whole else { return };
    let ports_before_end: &[usize] = match class {
        _ if bytes.len() > MAX_QUOTED => return,
        Class::Tcp | Class::Udp | Class::Sctp => &[4],
        Class::SctpInUdp => &[4, 12],
        Class::Echo | Class::Icmp | Class::Other => &[],
        Class::IcmpError | Class::Fragment | Class::Unreadable => return,
    };
    // The last bytes that the key needs are ports.
    let end = (0..=bytes.len())
        .find(|&len| keyed(Packet::copied(&bytes[..len], bytes.len()), config) == whole)
        .unwrap_or(bytes.len());
    let mut answer = bytes.to_vec();
    let v4 = bytes[0] >> 4 == 4;
    if v4 {
        answer[12..20].rotate_left(4)
    } else {
        answer[8..40].rotate_left(16)
    }
    for before_end in ports_before_end {
        answer[end - before_end..][..4].rotate_left(2);
    }
    for quoted in [&answer[..], &answer[..end]] {
        let error = error_about(v4, quoted);
        assert_eq!(keyed(Packet::whole(&error), config), (Class::IcmpError, whole.1));
    }
}

/// "Unreachable" from somewhere to somewhere.
fn error_about(v4: bool, quoted: &[u8]) -> Vec<u8> {
    let len = |len: usize| u16::try_from(len).unwrap().to_be_bytes();
    let mut error = if v4 {
        let [high, low] = len(28 + quoted.len());
        let mut header = vec![0x45, 0, high, low, 0, 0, 0, 0, 64, 1, 0, 0];
        header.extend([192, 0, 2, 1, 10, 0, 0, 2, 3, 4]);
        header
    } else {
        let [high, low] = len(8 + quoted.len());
        let mut header = vec![0x60, 0, 0, 0, high, low, 58, 64];
        header.extend([0x20; 32]);
        header.extend([1, 4]);
        header
    };
    error.extend([0; 6]);
    error.extend(quoted);
    error
}

/// The mark is that of the slot, if there is any.
/// A tier sends fragments away, or nothing, and none to where it is.
fn check_tier(bytes: &[u8], targets: &[u8], config: &Config) {
    const OWN: u32 = 1;
    let memory = Memory::new(&Config { own_mark: OWN, ..*config });
    let table = memory.view().unwrap();
    table.publish(&Choices::new(targets).targets(config.targets));
    let tier = Tier::new(*table).unwrap();
    let (packet, policy) = (Packet::whole(bytes), Policy::default());
    let walked = |tier| {
        let config = FragConfig { entries: 1, held: 0, ..FragConfig::default() };
        let mut fragments = Fragments::new(config, Secret([1, 2]));
        walk_with(packet, &table, &policy, tier, &mut fragments, Time(0))
    };
    let (alone, with_tier) = (walked(None), walked(Some(&tier)));
    assert_eq!(alone.class, with_tier.class);
    match with_tier.decision {
        Decision::Relay(router) => {
            assert_eq!(with_tier.class, Class::Fragment);
            assert_ne!(router.get(), OWN);
            assert_eq!(tier.way_of(packet).and_then(|way| way.held), Some(router));
        }
        decision => assert_eq!(decision, alone.decision),
    }
}

fn check_walk(bytes: &[u8], whole: Keyed, targets: &[u8], config: &Config) {
    let memory = Memory::new(config);
    let table = memory.view().unwrap();
    let set = Choices::new(targets).targets(config.targets);
    table.publish(&set);
    let active = set.iter().any(|(_, target)| target.weight.0 > 0);
    let walked = walk(Packet::whole(bytes), &table, &Policy::default());
    assert_eq!(walked.class, whole.0);
    match (walked.decision, whole.1) {
        (Decision::Mark(mark), Ok(key)) => {
            assert!(active);
            assert_eq!(table.mark(key.hash(config.seed).slot(config.slots)), Some(mark));
        }
        (Decision::Drop(Reason::NoTarget), Ok(_)) => assert!(!active),
        (Decision::Drop(reason), Err(expected)) => assert_eq!(reason, expected),
        (decision, _) => panic!("{decision:?} for {whole:?}"),
    }
}
