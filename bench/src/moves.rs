//! How many slots a change moves beyond those that must move, beside Maglev's own algorithm.

use std::collections::HashMap;

use lb_core::maglev;
use lb_core::target::{Mark, Target, Weight};
use serde_json::{Value, json};

use crate::report::{Spread, print_table};

/// Slots and targets of the sets that are changed.
const DIMENSIONS: [(u32, usize); 8] = [
    (997, 4),
    (997, 9),
    (10_007, 4),
    (10_007, 10),
    (10_007, 100),
    (65_537, 10),
    (65_537, 100),
    (65_537, 600),
];
/// Random sets for each.
const SETS: u64 = 100;

type Build = fn(&[Target], u32) -> Vec<u32>;
const BUILDERS: [(&str, Build); 2] = [
    ("Markway", |targets, slots| maglev::build(targets.iter().copied(), slots)),
    ("Maglev", plain_maglev),
];

/// Measures and prints.
pub fn run(json: bool) {
    let mut rows = Vec::new();
    let mut objects = Vec::new();
    for (slots, count) in DIMENSIONS {
        let mut row = vec![format!("M = {slots}, N = {count}")];
        for (builder, build) in BUILDERS {
            for (change, heaviest) in [("remove", 1), ("weight", 4)] {
                let needless = (0..SETS).map(|seed| {
                    let set = random_set(seed, count, heaviest);
                    let before = build(&set, slots);
                    needless_moves(&before, &build(&changed(set, change), slots))
                });
                let spread = Spread::of(needless.collect());
                row.push(format!("{:.2} ({:.2})", spread.median, spread.max));
                objects.push(json!({
                    "m": slots, "n": count, "builder": builder, "change": change,
                    "median": spread.median, "worst": spread.max,
                }));
            }
        }
        rows.push(row);
    }
    if json {
        println!("{}", Value::from(objects));
        return;
    }
    println!(
        "Slots that a change moves without need, percent of all, median (worst) of {SETS} sets:"
    );
    let heading =
        ["table", "remove one", "weights: +1", "Maglev: remove one", "Maglev: weights: +1"];
    print_table(&heading, &rows);
}

fn changed(mut set: Vec<Target>, change: &str) -> Vec<Target> {
    if change == "remove" {
        set.remove(0);
    } else {
        set[0].weight.0 += 1;
    }
    set
}

/// What moved less what had to, in percent of all slots.
fn needless_moves(before: &[u32], after: &[u32]) -> f64 {
    let mut lost: HashMap<u32, i64> = HashMap::new();
    for (old, new) in before.iter().zip(after) {
        *lost.entry(*old).or_default() += 1;
        *lost.entry(*new).or_default() -= 1;
    }
    let needed: i64 = lost.values().filter(|lost| **lost > 0).sum();
    let moved = before.iter().zip(after).filter(|(old, new)| old != new).count();
    100.0 * (moved as f64 - needed as f64) / before.len() as f64
}

/// Distinct marks with weights up to `heaviest`, the same for the same seed.
fn random_set(seed: u64, count: usize, heaviest: u16) -> Vec<Target> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut set: HashMap<Mark, Weight> = HashMap::new();
    while set.len() < count {
        let mark = (random() >> 33) as u32;
        let weight = 1 + ((random() % u64::from(heaviest)) & 0xffff) as u16;
        set.extend(Mark::new(mark).map(|mark| (mark, Weight(weight))));
    }
    let mut set: Vec<Target> =
        set.into_iter().map(|(mark, weight)| Target { mark, weight }).collect();
    set.sort_by_key(|target| target.mark);
    set
}

/// The algorithm of the Maglev paper (section 3.4) with permutations by mark, turns in ascending order
/// of marks, and as many turns in a row as a target has weight.
fn plain_maglev(targets: &[Target], slots: u32) -> Vec<u32> {
    let mut walks: Vec<(u32, u16, u32, u32)> = targets
        .iter()
        .map(|target| {
            let mut x = u64::from(target.mark.get()).wrapping_add(0x9e37_79b9_7f4a_7c15);
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^= x >> 31;
            let (high, low) = ((x >> 32) as u32, (x & 0xffff_ffff) as u32);
            let (offset, skip) = (high % slots, low % (slots - 1) + 1);
            (target.mark.get(), target.weight.0, offset, skip)
        })
        .collect();
    let mut filled = vec![Mark::EMPTY; slots as usize];
    let mut free = filled.len();
    while free > 0 {
        for (mark, weight, next, skip) in &mut walks {
            for _ in 0..*weight {
                if free == 0 {
                    break;
                }
                while filled[*next as usize] != Mark::EMPTY {
                    *next = (*next + *skip) % slots;
                }
                filled[*next as usize] = *mark;
                free -= 1;
            }
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_move_is_not_counted() {
        assert_eq!(needless_moves(&[1, 1, 2, 2], &[2, 2, 2, 2]), 0.0);
        assert_eq!(needless_moves(&[1, 1, 2, 2], &[2, 1, 1, 2]), 50.0);
        assert_eq!(needless_moves(&[1, 1, 2, 2], &[2, 2, 2, 1]), 50.0);
    }

    #[test]
    fn the_alternative_fills_evenly() {
        let set = random_set(1, 10, 1);
        let filled = plain_maglev(&set, 997);
        for target in set {
            let held = filled.iter().filter(|mark| **mark == target.mark.get()).count();
            assert!((99..=100).contains(&held), "{held}");
        }
    }
}
