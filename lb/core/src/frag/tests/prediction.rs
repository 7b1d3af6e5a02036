//! Hours of traffic in virtual time, and the loss that a formula predicts.
//!
//! Datagrams of two fragments arrive at random (Poisson, `rate` λ). The second follows the first after a
//! delay that is uniform in 0…D, or, in a share q of the datagrams, never. What is kept between the two has
//! N places; when they are full the oldest goes, at an age that settles at A. Then the places are in use
//! for min(delay, A), so
//!
//! ```text
//! N = λ · ((1 − q)·(A − A²/2D) + q·A)
//! ```
//!
//! and the datagrams whose second fragment comes after A are lost: 1 − A/D of them. If there is no such
//! A below D and below the ttl, nothing is pushed out, and A is the ttl.

use super::*;
use crate::wire::ip::{Addresses, Fragment};
use std::collections::BTreeSet;

#[derive(Clone, Copy)]
struct Traffic {
    /// Datagrams a second.
    rate: f64,
    /// The longest delay in seconds.
    delay: f64,
    /// The share of datagrams whose second fragment never comes.
    unfinished: f64,
    hours: f64,
    /// The later fragment comes first.
    reversed: bool,
}

fn predicted_loss(traffic: Traffic, places: f64, ttl: f64) -> f64 {
    let Traffic { rate, delay, unfinished, .. } = traffic;
    let finished = 1.0 - unfinished;
    let root = 1.0 - 2.0 * finished * places / (rate * delay);
    let age = match root >= 0.0 {
        true => (delay / finished * (1.0 - root.sqrt())).min(ttl),
        false => ttl,
    };
    (1.0 - age / delay).max(0.0)
}

/// The share of finished datagrams that lost a fragment, and the table afterwards.
fn simulated_loss(traffic: Traffic, config: FragConfig) -> (f64, Fragments) {
    let mut fragments = Fragments::new(config, SECRET);
    let mut random = Random(7);
    // The second fragments on their way, by time and number.
    let mut due = BTreeSet::new();
    let (mut whole, mut finished) = (0u64, 0u64);
    let mut now = 0.0;
    for number in 0.. {
        now -= (1.0 - random.unit()).ln() / traffic.rate;
        if now > traffic.hours * 3600.0 {
            break;
        }
        while let Some(&(then, number)) = due.first()
            && then <= nanos(now)
        {
            due.pop_first();
            finished += 1;
            whole += u64::from(second_makes_whole(&mut fragments, number, traffic.reversed, then));
        }
        match traffic.reversed {
            true => later(&mut fragments, number, nanos(now)),
            false => first(&mut fragments, number, nanos(now)),
        };
        if random.unit() >= traffic.unfinished {
            due.insert((nanos(now + random.unit() * traffic.delay), number));
        }
    }
    (1.0 - whole as f64 / finished as f64, fragments)
}

fn second_makes_whole(fragments: &mut Fragments, number: u32, reversed: bool, now: u64) -> bool {
    if !reversed {
        return later(fragments, number, now);
    }
    first(fragments, number, now);
    fragments.poll_ready().is_some() && later(fragments, number, now)
}

fn first(fragments: &mut Fragments, number: u32, now: u64) -> bool {
    let part = Part { start: 0, len: 16, more: true };
    let mark = Decision::Mark(Mark::new(1).unwrap());
    fragments.first(key(number), part, mark, Time(now));
    true
}

fn later(fragments: &mut Fragments, number: u32, now: u64) -> bool {
    let part = Part { start: 16, len: 16, more: false };
    let decision = fragments.later(key(number), part, Packet::whole(&[0; 16]), Time(now));
    matches!(decision, Decision::Mark(_))
}

fn nanos(seconds: f64) -> u64 {
    Duration::from_secs_f64(seconds).as_nanos().try_into().unwrap()
}

fn key(number: u32) -> DatagramKey {
    let [a, b, c, d] = number.to_be_bytes();
    let fragment = Fragment { id: number & 0xffff, offset: 0, more: true };
    DatagramKey::new(Addresses::V4(&[a, b, c, d, 10, 0, 0, 0]), 17, fragment)
}

fn check(traffic: Traffic, config: FragConfig, expected: core::ops::Range<f64>) -> Fragments {
    let places = if traffic.reversed { config.held } else { config.entries };
    let predicted = predicted_loss(traffic, places.into(), config.ttl.as_secs_f64());
    assert!(expected.contains(&predicted), "the prediction is {predicted}");
    let (loss, fragments) = simulated_loss(traffic, config);
    assert!((loss - predicted).abs() < 0.015, "{loss}, predicted were {predicted}");
    fragments
}

const TRAFFIC: Traffic =
    Traffic { rate: 50.0, delay: 20.0, unfinished: 0.0, hours: 2.0, reversed: false };
const CONFIG: FragConfig = FragConfig {
    entries: 400,
    held: 0,
    held_per_source: 1,
    held_bytes: 16,
    ttl: Duration::from_secs(60),
};
/// Room in the table for everything, and the buffers are few.
const HOLDING: FragConfig = FragConfig { entries: 10_000, held: 400, ..CONFIG };

#[test]
fn a_table_that_is_too_small_loses_what_is_slow() {
    check(TRAFFIC, CONFIG, 0.44..0.45);
    check(TRAFFIC, FragConfig { entries: 200, ..CONFIG }, 0.77..0.78);
    check(Traffic { unfinished: 0.3, ..TRAFFIC }, CONFIG, 0.51..0.53);
}

#[test]
fn so_do_too_few_buffers_when_the_first_fragment_comes_last() {
    let reversed = Traffic { reversed: true, ..TRAFFIC };
    check(reversed, HOLDING, 0.44..0.45);
    check(Traffic { unfinished: 0.3, ..reversed }, HOLDING, 0.51..0.53);
}

#[test]
fn what_takes_longer_than_the_ttl_is_lost() {
    let short = FragConfig { entries: 10_000, ttl: Duration::from_secs(15), ..CONFIG };
    let fragments = check(TRAFFIC, short, 0.24..0.26);
    assert_eq!(fragments.counts().evicted, 0);
}

/// Unfinished datagrams stay for the whole ttl, the others for half the delay on average: the peak is
/// a little above λ·(q·ttl + (1 − q)·D/2), or λ·ttl if complete ones stay as well.
#[test]
fn enough_room_loses_nothing() {
    let lossy = Traffic { unfinished: 0.2, ..TRAFFIC };
    let enough = FragConfig { entries: 1200, ..CONFIG };
    let fragments = check(lossy, enough, 0.0..0.001);
    let counts = fragments.counts();
    assert_eq!(counts.evicted, 0);
    let unfinished = 50.0 * 7200.0 * 0.2;
    assert!((counts.expired as f64 / unfinished - 1.0).abs() < 0.03, "{counts:?}");

    let reversed = Traffic { reversed: true, ..lossy };
    let fragments = check(reversed, FragConfig { held: 1200, ..HOLDING }, 0.0..0.001);
    let counts = fragments.counts();
    let peak = 50.0 * (0.2 * 60.0 + 0.8 * 10.0);
    assert!((1.0..1.15).contains(&(counts.held_peak as f64 / peak)), "{counts:?}");
}
