//! What lb decides about one packet, with every step that leads there.

use std::fmt;

use lb_core::fast::{Why, lane_of};
use lb_core::frag::{Fragments, Time};
use lb_core::hash::{Hash, Slot};
use lb_core::key::Key;
use lb_core::target::Mark;
use lb_core::tier::Way;
use lb_core::walk::{Class, Decision, Policy, Reason, Walked, follow, keyed};
use lb_core::wire::Packet;
use serde_json::{Map, Value, json};

use super::Tables;
use super::headers::{Headers, Last};
use crate::columns::{Align, aligned};

pub struct Explanation {
    pub walked: Walked,
    headers: Vec<String>,
    found: Option<Found>,
    /// Why not the kernel but the queue decides, with `lb --fast`; none if the kernel does.
    queued: Option<Queued>,
    /// Where the tier sends it, if it is a fragment and there is a tier.
    way: Option<Way>,
}

/// What keeps a packet from the fast plane.
enum Queued {
    /// Something in the packet.
    Packet(Why),
    /// The kernel's map has nothing for its slot.
    EmptySlot,
}

/// What the key of a packet leads to.
struct Found {
    key: Key,
    /// Which fields of the packet the key is made of.
    parts: Vec<&'static str>,
    /// The packet is an ICMP error: the key is that of the packet it quotes, the other way round.
    quoted: bool,
    hash: Hash,
    slot: Slot,
    /// What the slot holds.
    held: Option<Mark>,
}

impl Explanation {
    /// `fragments` remembers what was decided about the packets before.
    pub fn of(
        packet: Packet<'_>,
        tables: &Tables<'_>,
        policy: &Policy,
        fragments: &mut Fragments,
    ) -> Self {
        let Tables { table, tier } = tables;
        let config = table.config();
        let Headers { texts, last, .. } = Headers::of(packet, &config.modes);
        let (class, key) = keyed(packet, config);
        let found = key.map(|key| {
            let hash = key.hash(config.seed);
            let slot = hash.slot(config.slots);
            let parts = parts(&key, last);
            Found {
                key,
                parts,
                quoted: class == Class::IcmpError,
                hash,
                slot,
                held: table.mark(slot),
            }
        });
        // As `walk` does with the key, but the slot is read once: the table may change meanwhile.
        let decision = match &found {
            Err(reason) => Decision::Drop(*reason),
            Ok(found) => match found.held.or(policy.no_targets_mark) {
                Some(mark) => Decision::Mark(mark),
                None => Decision::Drop(Reason::NoTarget),
            },
        };
        let queued = match lane_of(packet, &config.modes) {
            Err(why) => Some(Queued::Packet(why)),
            Ok(_) => match decision {
                Decision::Mark(_) => None,
                Decision::Drop(_) | Decision::Hold | Decision::Relay(_) => Some(Queued::EmptySlot),
            },
        };
        let mut walked = Walked { class, decision };
        let way = tier.as_ref().and_then(|tier| tier.way_of(packet));
        if let Some(router) = way.and_then(|way| way.other) {
            walked.decision = Decision::Relay(router);
        } else if class == Class::Fragment {
            // No time passes here: what is explained is not how long lb remembers.
            walked.decision = follow(packet, walked, fragments, Time(0));
        }
        Explanation { walked, headers: texts, found: found.ok(), queued, way }
    }

    pub fn json(&self) -> Map<String, Value> {
        let found = self.found.as_ref();
        let key = found.map(|found| {
            json!({
                "of": if found.quoted { "quoted packet" } else { "packet" },
                "parts": found.parts,
                "words": words(&found.key),
            })
        });
        let tier = self.way.map(|way| {
            json!({
                "hash": way.hash.0,
                "slot": way.slot.0,
                "slot_mark": way.held.map(Mark::get),
                "handled": if way.other.is_some() { "elsewhere" } else { "here" },
            })
        });
        let (mark, dropped, reason) = match self.walked.decision {
            Decision::Mark(mark) | Decision::Relay(mark) => (Some(mark.get()), None, None),
            Decision::Drop(reason) => (None, Some(reason.name()), Some(reason.to_string())),
            Decision::Hold => (None, None, None),
        };
        let pairs = [
            ("class", json!(self.walked.class.name())),
            ("headers", json!(self.headers)),
            ("key", json!(key)),
            ("hash", json!(found.map(|found| found.hash.0))),
            ("slot", json!(found.map(|found| found.slot.0))),
            ("slot_mark", json!(found.and_then(|found| found.held).map(Mark::get))),
            ("mark", json!(mark)),
            ("dropped", json!(dropped)),
            ("reason", json!(reason)),
            ("plane", json!(if self.queued.is_some() { "slow" } else { "fast" })),
            ("queued_because", json!(self.queued.as_ref().map(Queued::to_string))),
            ("tier", json!(tier)),
        ];
        pairs.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
    }

    /// A line for each step.
    pub fn text(&self) -> String {
        let mut rows =
            vec![("headers", self.headers.join(", ")), ("class", self.walked.class.name().into())];
        if let Some(found) = &self.found {
            rows.push(("key", found.key_text()));
            rows.push(("words", words(&found.key).join(" ")));
            rows.push(("hash", found.hash.to_string()));
            rows.push(("slot", found.slot.0.to_string()));
        }
        if let Some(way) = &self.way {
            rows.push(("tier", way_text(way)));
        }
        rows.push(self.outcome());
        rows.push((
            "plane",
            match &self.queued {
                None => "fast: with lb --fast the kernel marks it".into(),
                Some(queued) => format!("slow: it goes to the queue, because {queued}"),
            },
        ));
        let rows: Vec<Vec<String>> =
            rows.into_iter().map(|(label, text)| vec![label.to_string(), text]).collect();
        aligned(&rows, &[Align::Left, Align::Left])
    }

    /// A line, and one more for the key.
    pub fn short_text(&self) -> String {
        let headers = self.headers.join(", ");
        let (label, outcome) = self.outcome();
        let plane = if self.queued.is_some() { "slow" } else { "fast" };
        let class = self.walked.class.name();
        let mut line = format!("{class}: {headers}: {label} {outcome}; {plane} plane\n");
        if let Some(way) = &self.way {
            line.push_str(&format!("    tier {}\n", way_text(way)));
        }
        match &self.found {
            None => line,
            Some(found) => {
                let (key, words) = (found.key_text(), words(&found.key).join(" "));
                let (hash, slot) = (found.hash, found.slot.0);
                format!("{line}    key {key}: {words}; hash {hash}; slot {slot}\n")
            }
        }
    }

    fn outcome(&self) -> (&'static str, String) {
        let is_held = self.found.as_ref().map(|found| found.held.is_some());
        match self.walked.decision {
            Decision::Mark(mark) => match is_held {
                Some(true) => ("mark", mark.to_string()),
                Some(false) => ("mark", format!("{mark}, because no target is active")),
                None => ("mark", format!("{mark}, that of the first fragment of its datagram")),
            },
            Decision::Relay(router) => {
                ("mark", format!("{router}, that of the router of the tier which handles it"))
            }
            Decision::Drop(reason) => ("dropped", format!("{}: {reason}", reason.name())),
            Decision::Hold => ("held", "until the first fragment of its datagram comes".into()),
        }
    }
}

impl fmt::Display for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Queued::Packet(why) => why.fmt(f),
            Queued::EmptySlot => f.write_str("no target is active"),
        }
    }
}

impl Found {
    fn key_text(&self) -> String {
        let parts = self.parts.join(", ");
        match self.quoted {
            true => format!("{parts} of the quoted packet, source and destination swapped"),
            false => parts,
        }
    }
}

fn way_text(way: &Way) -> String {
    let (hash, slot) = (way.hash, way.slot.0);
    let whose = match (way.held, way.other) {
        (_, Some(router)) => format!("which holds router {router}"),
        (Some(_), None) => "which holds this router: it is handled here".into(),
        (None, None) => "which is empty: it is handled here".into(),
    };
    format!("addresses, hash {hash}, slot {slot}, {whose}")
}

fn parts(key: &Key, last: Last) -> Vec<&'static str> {
    let ports = match last {
        Last::PortsInUdp => "ports of SCTP inside",
        _ => "ports",
    };
    match key {
        Key::Ports(_) => vec![ports],
        Key::ClientV4(_) | Key::ClientV6(_) => vec!["source"],
        Key::V4(_) | Key::V6(_) => {
            let mut parts = vec!["source", "destination", "protocol"];
            match last {
                Last::Ports | Last::PortsInUdp => parts.push(ports),
                Last::Identifier => parts.push("identifier"),
                Last::Other => {}
            }
            parts
        }
    }
}

/// The bytes of each word in the order in which they stand in packets.
fn words(key: &Key) -> Vec<String> {
    let word = |word: &u32| format!("{:08x}", u32::from_be_bytes(word.to_ne_bytes()));
    key.words().iter().map(word).collect()
}
