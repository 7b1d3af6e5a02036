//! What is fixed when a table is made, in the words of every verb that shows it.

use lb_core::key::{Affinity, EncapPorts, SctpHash};
use lb_core::table::Config;
use serde_json::{Value, json};

/// One of the things that are fixed.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its JSON key.
    pub key: &'static str,
    /// Its name in a text.
    pub label: &'static str,
    pub text: String,
    pub value: Value,
}

/// All of them, in the order in which they are shown.
pub fn settings(config: &Config) -> [Setting; 7] {
    let Config { slots, targets, own_mark, seed, modes } = *config;
    let own_mark_text = if own_mark == 0 { "none".into() } else { own_mark.to_string() };
    let ports = ports(modes.sctp_encap);
    let ports_text = match ports[..] {
        [] => "none".into(),
        _ => format!("to port {}", joined(&ports)),
    };
    let (sctp_hash, affinity) = (sctp_hash(modes.sctp_hash), affinity(modes.affinity));
    [
        ("m", "slots (M)", slots.to_string(), json!(slots)),
        ("n", "room (N)", format!("{targets} targets"), json!(targets)),
        ("own_mark", "own mark", own_mark_text, json!(own_mark)),
        ("seed", "seed", format!("{:#010x}", seed.0), json!(seed.0)),
        ("sctp_hash", "SCTP hash", sctp_hash.into(), json!(sctp_hash)),
        ("sctp_encap", "SCTP in UDP", ports_text, json!(ports)),
        ("affinity", "affinity", affinity.into(), json!(affinity)),
    ]
    .map(|(key, label, text, value)| Setting { key, label, text, value })
}

/// A part of a whole, in percent.
pub fn percent(part: f64, whole: f64) -> String {
    format!("{:.2} %", 100.0 * part / whole)
}

/// The items with commas between them.
pub fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

fn sctp_hash(mode: SctpHash) -> &'static str {
    match mode {
        SctpHash::Ports => "ports",
        SctpHash::Tuple => "tuple",
    }
}

fn affinity(mode: Affinity) -> &'static str {
    match mode {
        Affinity::Flow => "flow",
        Affinity::Client => "client",
    }
}

fn ports(EncapPorts(ports): EncapPorts) -> Vec<u16> {
    ports.into_iter().filter(|port| *port != 0).collect()
}
