//! The words that say what is done to frames.
//!
//! A direction (`there`, `back`, `both`) holds for all words behind it, up to the next one; so does
//! a selector (`all`, `whole`, `fragments`, `first`, `later`, `last`), up to the next selector or
//! direction. All other words are treatments, carried out in the order in which they stand.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use traffic::duration;

use crate::chance::Chance;
use crate::corrupt::Harm;
use crate::datagrams::Order;
use crate::frame::{Fragment, Frame};
use crate::line::Pace;

/// What is done in one direction.
#[derive(Clone, Debug)]
pub struct Instructions {
    pub treatments: Vec<(Selector, Treatment)>,
    /// How many frames may be held at a time.
    pub limit: usize,
    /// How long the rest of a datagram is waited for.
    pub patience: Duration,
}

/// Which frames are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selector {
    All,
    Whole,
    Fragments,
    First,
    Later,
    Last,
}

#[derive(Clone, Debug)]
pub enum Treatment {
    Lose(Chance),
    Duplicate(Chance),
    Corrupt(Chance, Harm),
    Line(Pace),
    Arrange(Order),
}

/// What is known of the words' meaning, for the user.
pub const WORDS: &str = "\
loss P                  lose frames
duplicate P             send frames twice
corrupt P [mended|header]
                        change a bit of the data, so that the checksum is wrong;
                        the data under a right checksum; the IP header
delay T [J] [reorder P] hold each frame for T, give or take J; P of them go at once
rate R                  let no more pass than 10mbit, 500kbit... a second
reverse [P], shuffle [P]
                        hold the fragments of a datagram until all are there; then
                        the last one goes first, or they go in any order
interleave N            hold N datagrams; then their fragments go in turn
hold T                  how long a datagram is waited for (200ms)
limit N                 how many frames are held at most (10000)
P is a percentage, 1.5%, or 1/N: every N-th. T is a time: 10ms, 1.5s.
all, whole, fragments, first, later, last: the words behind it are for these only
there, back, both: the words behind it are for this direction only";

const LIMIT: usize = 10_000;
const PATIENCE: Duration = Duration::from_millis(200);

/// Nothing is held for longer.
const LONGEST: Duration = Duration::from_secs(600);

/// More than a program that lives in memory should be asked for.
const HIGHEST_LIMIT: usize = 1_000_000;

impl Default for Instructions {
    fn default() -> Self {
        Self { treatments: Vec::new(), limit: LIMIT, patience: PATIENCE }
    }
}

/// Reads instructions for both directions: there and back.
pub fn parse(words: &[&str]) -> Result<[Instructions; 2]> {
    let mut lanes = [Instructions::default(), Instructions::default()];
    let mut directions = [true, true];
    let mut selector = Selector::All;
    let mut words = words;
    while let [word, rest @ ..] = words {
        words = rest;
        if let Some(named) = direction(word) {
            (directions, selector) = (named, Selector::All);
        } else if let Some(named) = Selector::named(word) {
            selector = named;
        } else {
            let setting = setting(word, &mut words).with_context(|| format!("read {word}"))?;
            let lanes = lanes.iter_mut().zip(directions);
            for (lane, _) in lanes.filter(|(_, is_meant)| *is_meant) {
                match &setting {
                    Setting::Treatment(treatment) => {
                        lane.treatments.push((selector, treatment.clone()));
                    }
                    Setting::Limit(limit) => lane.limit = *limit,
                    Setting::Patience(patience) => lane.patience = *patience,
                }
            }
        }
    }
    Ok(lanes)
}

enum Setting {
    Treatment(Treatment),
    Limit(usize),
    Patience(Duration),
}

fn direction(word: &str) -> Option<[bool; 2]> {
    Some(match word {
        "there" => [true, false],
        "back" => [false, true],
        "both" => [true, true],
        _ => return None,
    })
}

/// Reads a word and those that belong to it.
fn setting(word: &str, rest: &mut &[&str]) -> Result<Setting> {
    Ok(Setting::Treatment(match word {
        "loss" => Treatment::Lose(needed_chance(rest)?),
        "duplicate" => Treatment::Duplicate(needed_chance(rest)?),
        "corrupt" => {
            let chance = needed_chance(rest)?;
            let harm = match rest.first() {
                Some(&"mended") => Harm::Mended,
                Some(&"header") => Harm::Header,
                _ => Harm::Data,
            };
            if harm != Harm::Data {
                *rest = &rest[1..];
            }
            Treatment::Corrupt(chance, harm)
        }
        "delay" => Treatment::Line(delay(rest)?),
        "rate" => Treatment::Line(Pace::Rate(rate(next(rest)?)?)),
        "reverse" => Treatment::Arrange(Order::Reversed(chance_or_always(rest)?)),
        "shuffle" => Treatment::Arrange(Order::Shuffled(chance_or_always(rest)?)),
        "interleave" => {
            let count = number(next(rest)?, 1_000)?;
            ensure!(count >= 2, "{count} is less than 2");
            Treatment::Arrange(Order::Interleaved(count))
        }
        "limit" => return Ok(Setting::Limit(number(next(rest)?, HIGHEST_LIMIT)?)),
        "hold" => return Ok(Setting::Patience(time(next(rest)?)?)),
        "reorder" => bail!("it belongs behind a delay: delay 10ms reorder 5%"),
        _ => bail!(
            "no such word (loss, duplicate, corrupt, delay, rate, reverse, shuffle, interleave, \
             hold, limit; all, whole, fragments, first, later, last; there, back, both)"
        ),
    }))
}

fn delay(rest: &mut &[&str]) -> Result<Pace> {
    let delay = time(next(rest)?)?;
    let mut jitter = Duration::ZERO;
    if rest.first().is_some_and(|word| is_value(word)) {
        jitter = time(next(rest)?)?;
        ensure!(jitter <= delay, "the jitter is more than the delay");
    }
    let mut hurry = None;
    if rest.first() == Some(&"reorder") {
        *rest = &rest[1..];
        hurry = Some(needed_chance(rest)?);
    }
    Ok(Pace::Delay { time: delay, jitter, hurry })
}

fn next<'a>(rest: &mut &[&'a str]) -> Result<&'a str> {
    let (word, behind) = rest.split_first().context("its value is missing")?;
    *rest = behind;
    Ok(word)
}

/// Words begin with letters, values do not.
fn is_value(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_digit())
}

fn needed_chance(rest: &mut &[&str]) -> Result<Chance> {
    let word = next(rest)?;
    Chance::parse(word).with_context(|| format!("{word:?} is neither a percentage nor 1/N"))
}

fn chance_or_always(rest: &mut &[&str]) -> Result<Chance> {
    match rest.first() {
        Some(word) if is_value(word) => needed_chance(rest),
        _ => Ok(Chance::ALWAYS),
    }
}

fn time(word: &str) -> Result<Duration> {
    let time = duration::parse(word).with_context(|| format!("{word:?} is no time"))?;
    ensure!(time <= LONGEST, "{word} is more than {LONGEST:?}");
    Ok(time)
}

fn number(word: &str, most: usize) -> Result<usize> {
    let number = word.parse().ok().filter(|number| (1..=most).contains(number));
    number.with_context(|| format!("{word:?} is no number from 1 to {most}"))
}

/// Bits a second.
fn rate(word: &str) -> Result<u64> {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &word[digits.len()..] {
        "bit" => 1,
        "kbit" => 1_000,
        "mbit" => 1_000_000,
        "gbit" => 1_000_000_000,
        _ => 0,
    };
    let rate = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    rate.filter(|rate| *rate > 0)
        .with_context(|| format!("{word:?} is no rate (500kbit, 10mbit, 1gbit)"))
}

impl Selector {
    fn named(word: &str) -> Option<Self> {
        Some(match word {
            "all" => Self::All,
            "whole" => Self::Whole,
            "fragments" => Self::Fragments,
            "first" => Self::First,
            "later" => Self::Later,
            "last" => Self::Last,
            _ => return None,
        })
    }

    pub fn takes(self, frame: &Frame) -> bool {
        let fragment = frame.fragment();
        match self {
            Self::All => true,
            Self::Whole => frame.packet.is_some() && fragment.is_none(),
            Self::Fragments => fragment.is_some(),
            Self::First => fragment.is_some_and(Fragment::is_first),
            Self::Later => fragment.is_some_and(|fragment| !fragment.is_first()),
            Self::Last => fragment.is_some_and(|fragment| fragment.is_last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::tests::{v4, v6};

    fn read(text: &str) -> Result<[Instructions; 2], String> {
        parse(&text.split_whitespace().collect::<Vec<_>>()).map_err(|error| format!("{error:#}"))
    }

    fn shown(text: &str) -> [String; 2] {
        read(text).unwrap().map(|lane| format!("{:?}", lane.treatments))
    }

    #[test]
    fn words_are_for_both_directions_unless_they_say_so() {
        let [there, back] = read("loss 1% there delay 10ms back rate 1mbit both limit 7").unwrap();
        assert_eq!((there.treatments.len(), back.treatments.len()), (2, 2));
        assert_eq!((there.limit, back.limit), (7, 7));
        assert!(matches!(there.treatments[1].1, Treatment::Line(Pace::Delay { .. })));
        assert!(matches!(back.treatments[1].1, Treatment::Line(Pace::Rate(1_000_000))));
    }

    #[test]
    fn a_selector_holds_up_to_the_next_one() {
        let [there, back] = read("first loss 1/2 duplicate 1% later loss 2% back loss 3%").unwrap();
        let selectors = |lane: &Instructions| {
            lane.treatments.iter().map(|(selector, _)| *selector).collect::<Vec<_>>()
        };
        assert_eq!(selectors(&there), [Selector::First, Selector::First, Selector::Later]);
        assert_eq!(selectors(&back)[3..], [Selector::All]);
    }

    #[test]
    fn values_that_may_be_left_out() {
        let [there, _] = shown("reverse delay 1s 10ms reorder 5% corrupt 1% mended shuffle 50%");
        assert_eq!(
            there,
            "[(All, Arrange(Reversed(Millionths(1000000)))), \
             (All, Line(Delay { time: 1s, jitter: 10ms, hurry: Some(Millionths(50000)) })), \
             (All, Corrupt(Millionths(10000), Mended)), \
             (All, Arrange(Shuffled(Millionths(500000))))]"
        );
        assert_eq!(read("hold 2s").unwrap()[1].patience, Duration::from_secs(2));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, error) in [
            ("loss", "read loss: its value is missing"),
            ("loss 1", "read loss: \"1\" is neither a percentage nor 1/N"),
            ("delay 1s 2s", "read delay: the jitter is more than the delay"),
            ("delay 1h", "read delay: 1h is more than 600s"),
            ("reorder 1%", "read reorder: it belongs behind a delay: delay 10ms reorder 5%"),
            ("rate 1mb", "read rate: \"1mb\" is no rate (500kbit, 10mbit, 1gbit)"),
            ("rate 0bit", "read rate: \"0bit\" is no rate (500kbit, 10mbit, 1gbit)"),
            ("interleave 1", "read interleave: 1 is less than 2"),
            ("limit 0", "read limit: \"0\" is no number from 1 to 1000000"),
        ] {
            assert_eq!(read(text).unwrap_err(), error, "{text}");
        }
        assert!(read("los 1%").unwrap_err().starts_with("read los: no such word (loss, "));
    }

    #[test]
    fn selectors_know_fragments() {
        let frames =
            [v4(1, 0..80, true), v6(1, 0..80, false), v4(1, 80..160, false), v6(1, 160..200, true)];
        let taken = |selector: Selector| frames.each_ref().map(|frame| selector.takes(frame));
        assert_eq!(taken(Selector::All), [true; 4]);
        assert_eq!(taken(Selector::Whole), [true, false, false, false]);
        assert_eq!(taken(Selector::Fragments), [false, true, true, true]);
        assert_eq!(taken(Selector::First), [false, true, false, false]);
        assert_eq!(taken(Selector::Later), [false, false, true, true]);
        assert_eq!(taken(Selector::Last), [false, false, false, true]);
    }
}
