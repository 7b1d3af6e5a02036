//! The cost of a packet from bytes to decision, and of building a table.

use std::hint::black_box;
use std::time::Instant;

use anyhow::ensure;
use lb_core::counters::Counts;
use lb_core::frag::{FragConfig, Fragments, Secret, Time};
use lb_core::maglev;
use lb_core::openings::{self, Openings};
use lb_core::table::{Config, Table, file_len};
use lb_core::walk::{Policy, walk_with};
use lb_core::wire::Packet;
use serde_json::{Value, json};

use crate::allocations;
use crate::corpus::{Kind, kinds};
use crate::heap_table::{HeapTable, equal_targets};
use crate::report::{Spread, print_table};

/// Numbers of slots at which packets are looked up: from the first-level cache to main memory.
const TABLES: [u32; 3] = [997, 65_537, 1_000_003];
/// Dimensions at which tables are built.
const BUILDS: [(u32, u32); 7] = [
    (997, 10),
    (65_537, 10),
    (65_537, 100),
    (65_537, 1000),
    (1_000_003, 10),
    (1_000_003, 100),
    (1_000_003, 1000),
];

/// Measures and prints.
pub fn run(rounds: u32, json: bool) -> anyhow::Result<()> {
    let packets = measure_packets(rounds)?;
    let builds = measure_builds(rounds.div_ceil(4).max(3));
    if json {
        let object = json!({ "packets": packets.json(), "builds": builds.json() });
        println!("{object}");
    } else {
        println!(
            "User-space cost of a packet (parse, hash, lookup), ns, median of {rounds} rounds:"
        );
        packets.print();
        println!("\nBuilding a table, ms:");
        builds.print();
    }
    Ok(())
}

/// Kind by table: nanoseconds a packet.
struct Packets(Vec<(&'static str, Vec<Spread>)>);

fn measure_packets(rounds: u32) -> anyhow::Result<Packets> {
    let kinds = kinds();
    let tables = TABLES
        .map(|slots| HeapTable::new(&Config { slots, targets: 100, ..Config::default() }, 100));
    let mut fragments = fragments();
    let mut nanos = vec![vec![Vec::new(); tables.len()]; kinds.len()];
    // All cases in turn in every round, so that a disturbance meets all of them.
    for round in 0..=rounds {
        for (kind, nanos) in kinds.iter().zip(&mut nanos) {
            for (table, nanos) in tables.iter().zip(nanos) {
                let view = table.view();
                let (took, allocated) =
                    allocations::during(|| nanos_per_packet(kind, &view, &mut fragments));
                ensure!(allocated.count == 0, "{}: {allocated:?}", kind.name);
                if round > 0 {
                    nanos.push(took);
                }
            }
        }
    }
    let spreads = |nanos: Vec<Vec<f64>>| nanos.into_iter().map(Spread::of).collect();
    Ok(Packets(kinds.iter().map(|kind| kind.name).zip(nanos.into_iter().map(spreads)).collect()))
}

/// What `lb` remembers of fragments, when it can send what is held round once more.
fn fragments() -> Fragments {
    Fragments::new(FragConfig::default(), Secret([1, 2]))
}

fn nanos_per_packet(kind: &Kind, table: &Table<'_>, fragments: &mut Fragments) -> f64 {
    /// Times through all packets, to make the clock's own cost vanish.
    const PASSES: u32 = 4;
    let policy = Policy::default();
    let modes = table.config().modes;
    let (mut counts, mut openings) = (Counts::default(), Openings::default());
    let start = Instant::now();
    for _ in 0..PASSES {
        for bytes in &kind.packets {
            let bytes = black_box(bytes.as_slice());
            let packet = Packet::whole(bytes);
            let walked = walk_with(packet, table, &policy, None, fragments, Time(0));
            openings::record(bytes, bytes.len(), walked.class, &modes, &mut counts, &mut openings);
            black_box(walked.decision);
        }
    }
    black_box((counts, openings));
    let packets = f64::from(PASSES) * kind.packets.len() as f64;
    start.elapsed().as_secs_f64() * 1e9 / packets
}

impl Packets {
    fn json(&self) -> Value {
        self.0
            .iter()
            .map(|(name, spreads)| {
                let nanos: Vec<Value> = TABLES
                    .iter()
                    .zip(spreads)
                    .map(|(m, s)| json!({ "m": m, "ns": s.median, "min": s.min, "max": s.max }))
                    .collect();
                json!({ "packets": name, "tables": nanos, "allocations": 0 })
            })
            .collect()
    }

    fn print(&self) {
        let heading = ["packets", "M = 997", "M = 65,537", "M = 1,000,003", "allocations"];
        let row = |(name, spreads): &(&str, Vec<Spread>)| {
            let mut row = vec![name.to_string()];
            row.extend(
                spreads.iter().map(|s| format!("{:.1} ({:.1}–{:.1})", s.median, s.min, s.max)),
            );
            row.push("0".into());
            row
        };
        print_table(&heading, &self.0.iter().map(row).collect::<Vec<_>>());
    }
}

/// Dimensions with milliseconds, bytes allocated while building and the size of the file.
struct Builds(Vec<((u32, u32), Spread, u64, usize)>);

fn measure_builds(rounds: u32) -> Builds {
    let mut millis = vec![Vec::new(); BUILDS.len()];
    let mut bytes = [0; BUILDS.len()];
    for _ in 0..rounds {
        for (((slots, count), millis), bytes) in BUILDS.iter().zip(&mut millis).zip(&mut bytes) {
            let start = Instant::now();
            let (built, allocated) =
                allocations::during(|| maglev::build(equal_targets(*count), *slots));
            millis.push(start.elapsed().as_secs_f64() * 1e3);
            *bytes = allocated.bytes;
            black_box(built);
        }
    }
    let size = |(slots, targets)| file_len(&Config { slots, targets, ..Config::default() });
    Builds(
        BUILDS
            .into_iter()
            .zip(millis)
            .zip(bytes)
            .map(|((dimensions, millis), bytes)| {
                (dimensions, Spread::of(millis), bytes, size(dimensions))
            })
            .collect(),
    )
}

impl Builds {
    fn json(&self) -> Value {
        self.0
            .iter()
            .map(|((m, n), s, allocated, file)| {
                json!({
                    "m": m, "n": n, "ms": s.median, "min": s.min, "max": s.max,
                    "allocated_bytes": allocated, "file_bytes": file,
                })
            })
            .collect()
    }

    fn print(&self) {
        let mib = |bytes: f64| format!("{:.2} MiB", bytes / 1024.0 / 1024.0);
        let row = |((m, n), s, allocated, file): &((u32, u32), Spread, u64, usize)| {
            vec![
                format!("M = {m}, N = {n}"),
                format!("{:.2} ({:.2}–{:.2})", s.median, s.min, s.max),
                mib(*allocated as f64),
                mib(*file as f64),
            ]
        };
        let heading = ["table", "time", "memory to build", "file"];
        print_table(&heading, &self.0.iter().map(row).collect::<Vec<_>>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_allocates_nothing() {
        let table = HeapTable::new(&Config { targets: 100, ..Config::default() }, 100);
        let mut fragments = fragments();
        for kind in kinds() {
            let view = table.view();
            let (nanos, allocated) =
                allocations::during(|| nanos_per_packet(&kind, &view, &mut fragments));
            assert!(nanos > 0.0);
            assert_eq!(allocated.count, 0, "{}", kind.name);
        }
    }
}
