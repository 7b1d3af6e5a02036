//! The statistics at a moment, as they are shown.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use thiserror::Error;

use super::figures::{
    BUCKETS, COUNTERS, Counter, FIRST_BUCKET, FIRST_COUNT, FIRST_COUNTER, INTERVAL, MAGIC, MAX_RTT,
    Shape, WIDE_LENGTH, WIDE_MAGIC, WIDE_WORDS,
};
use super::spread::{self, Percentiles};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub shape: Shape,
    /// Milliseconds.
    pub max_rtt: u32,
    pub buckets: Vec<u32>,
    counters: [u64; COUNTERS.len()],
    pub rtt: Option<Percentiles>,
}

/// Why bytes are no statistics.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Broken {
    #[error("{bytes} bytes are no statistics")]
    Foreign { bytes: usize },
    #[error("made by the C program, which counts less")]
    Older,
    #[error("made by another version of sctpt")]
    OtherVersion,
}

/// Columns of the longest bar.
const BAR: u64 = 64;

impl Snapshot {
    /// What a file holds; it is not to be trusted.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Broken> {
        let shape = shape_of(bytes)?;
        let (narrow, wide) = bytes.split_at(shape.narrow_bytes());
        let narrow = narrow.as_chunks().0.iter().map(|word| u32::from_ne_bytes(*word));
        let wide = wide.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word));
        Ok(Self::from_words(shape, &narrow.collect::<Vec<_>>(), &wide.collect::<Vec<_>>()))
    }

    /// As many words as the shape has.
    pub fn from_words(shape: Shape, narrow: &[u32], wide: &[u64]) -> Self {
        let buckets = narrow[FIRST_BUCKET..].iter().copied();
        let mut counters = [0; COUNTERS.len()];
        counters.copy_from_slice(&wide[FIRST_COUNTER..FIRST_COUNT]);
        let longest = counters[Counter::MaxRttMicros as usize];
        Snapshot {
            shape,
            max_rtt: narrow[MAX_RTT],
            buckets: buckets.take(usize::try_from(shape.buckets).unwrap_or(0)).collect(),
            counters,
            rtt: spread::percentiles(&wide[FIRST_COUNT..], longest),
        }
    }

    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// Messages whose answer may still come.
    pub fn unanswered(&self) -> u64 {
        let answered = self.counter(Counter::Received).saturating_add(self.counter(Counter::Lost));
        self.counter(Counter::Sent).saturating_sub(answered)
    }

    /// The keys of the older program first.
    pub fn json(&self) -> Map<String, Value> {
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
        put("sent", json!(self.counter(Counter::Sent)));
        put("received", json!(self.counter(Counter::Received)));
        put("maxRtt", json!(self.max_rtt));
        put("nBuckets", json!(self.shape.buckets));
        put("interval", json!(self.shape.interval));
        put("buckets", json!(self.buckets));
        for (counter, name) in &COUNTERS[2..] {
            put(name, json!(self.counter(*counter)));
        }
        put("unanswered", json!(self.unanswered()));
        put("rttMicros", json!(self.rtt));
        map
    }

    /// The form of the older program, and below it what is new.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "Sent:     {}", self.counter(Counter::Sent))?;
        writeln!(out, "Received: {}", self.counter(Counter::Received))?;
        writeln!(out, "MaxRTT:   {}", self.max_rtt)?;
        writeln!(out, "Interval: {}", self.shape.interval)?;
        let most = u64::from(self.buckets.iter().copied().max().unwrap_or(0).max(1));
        for count in &self.buckets {
            let columns = usize::try_from(u64::from(*count) * BAR / most).unwrap_or(0);
            writeln!(out, "{count:6} |{}", "=".repeat(columns))?;
        }
        for line in [
            &[Counter::Lost, Counter::Duplicates, Counter::Reordered, Counter::Corrupted][..],
            &[Counter::Dropped],
            &[Counter::Active, Counter::Connects, Counter::FailedConnects],
            &[Counter::Reconnects, Counter::LostAssociations],
            &[Counter::PathsDown, Counter::PathsUp, Counter::Failovers],
        ] {
            let words = line.iter().map(|counter| {
                format!("{} {}", COUNTERS[*counter as usize].1, self.counter(*counter))
            });
            let mut words: Vec<_> = words.collect();
            if line.contains(&Counter::Dropped) {
                words.push(format!("unanswered {}", self.unanswered()));
            }
            writeln!(out, "{}", words.join(", "))?;
        }
        if let Some(rtt) = self.rtt {
            let Percentiles { min, p50, p90, p99, p999, max } = rtt;
            writeln!(
                out,
                "RTT in us: min {min}, 50% {p50}, 90% {p90}, 99% {p99}, 99.9% {p999}, max {max}"
            )?;
        }
        Ok(())
    }
}

/// The shape of statistics in a file, if all in it fits.
pub fn shape_of(bytes: &[u8]) -> Result<Shape, Broken> {
    let foreign = Broken::Foreign { bytes: bytes.len() };
    let narrow = |index: usize| {
        let at = index * size_of::<u32>();
        bytes.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word))
    };
    let shape = narrow(BUCKETS).zip(narrow(INTERVAL)).ok_or(foreign)?;
    let shape = Shape::new(shape.0, shape.1).map_err(|_| foreign)?;
    let wide = |index: usize| {
        let at = shape.narrow_bytes() + index * size_of::<u64>();
        bytes.get(at..)?.first_chunk().map(|word| u64::from_ne_bytes(*word))
    };
    let words = FIRST_BUCKET * size_of::<u32>();
    let classic = words + usize::try_from(shape.buckets).unwrap_or(0) * size_of::<u32>();
    match wide(WIDE_MAGIC) {
        Some(MAGIC) if bytes.len() == shape.bytes() => match wide(WIDE_LENGTH) {
            Some(words) if words == WIDE_WORDS as u64 => Ok(shape),
            _ => Err(Broken::OtherVersion),
        },
        Some(magic) if magic.to_le_bytes()[..7] == MAGIC.to_le_bytes()[..7] => {
            Err(Broken::OtherVersion)
        }
        _ if bytes.len() == classic => Err(Broken::Older),
        _ => Err(foreign),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::figures::Figures;
    use super::*;

    fn bytes(shape: Shape) -> Vec<u8> {
        let mut bytes = vec![0; shape.bytes()];
        bytes[12..16].copy_from_slice(&shape.buckets.to_ne_bytes());
        bytes[16..20].copy_from_slice(&shape.interval.to_ne_bytes());
        let wide = shape.narrow_bytes();
        bytes[wide..wide + 8].copy_from_slice(b"MkSctpt\x01");
        bytes[wide + 8..wide + 16].copy_from_slice(&(WIDE_WORDS as u64).to_ne_bytes());
        bytes
    }

    const SHAPE: Shape = Shape { buckets: 2, interval: 1000 };

    #[test]
    fn statistics_are_this_in_bytes() {
        let mut bytes = bytes(SHAPE);
        bytes[0..4].copy_from_slice(&7u32.to_ne_bytes());
        bytes[4..8].copy_from_slice(&6u32.to_ne_bytes());
        bytes[8..12].copy_from_slice(&3u32.to_ne_bytes());
        bytes[20..24].copy_from_slice(&4u32.to_ne_bytes());
        bytes[24..28].copy_from_slice(&2u32.to_ne_bytes());
        // Seven words and one to fill up; two of the form; sent and received are the first counters.
        bytes[32 + 16..32 + 24].copy_from_slice(&7u64.to_ne_bytes());
        bytes[32 + 24..32 + 32].copy_from_slice(&6u64.to_ne_bytes());
        let snapshot = Snapshot::from_bytes(&bytes).unwrap();
        assert_eq!(snapshot.shape, SHAPE);
        assert_eq!((snapshot.max_rtt, &snapshot.buckets[..]), (3, &[4, 2][..]));
        assert_eq!(snapshot.counter(Counter::Sent), 7);
        assert_eq!(snapshot.unanswered(), 1);
        assert_eq!(snapshot.rtt, None);
    }

    #[test]
    fn other_files_are_told_apart() {
        let error = |bytes: &[u8]| Snapshot::from_bytes(bytes).unwrap_err();
        let good = bytes(SHAPE);
        assert_eq!(error(&[]), Broken::Foreign { bytes: 0 });
        assert_eq!(error(&[0; 84]), Broken::Foreign { bytes: 84 });
        assert_eq!(error(&good[..good.len() - 1]), Broken::OtherVersion);
        assert_eq!(error(&good[..28]), Broken::Older);
        let mut newer = good.clone();
        newer[32 + 7] = 2;
        assert_eq!(error(&newer), Broken::OtherVersion);
        let mut longer = good.clone();
        longer[32 + 8] ^= 1;
        assert_eq!(error(&longer), Broken::OtherVersion);
        let mut many = good;
        many[12..16].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(matches!(error(&many), Broken::Foreign { .. }));
    }

    #[test]
    fn the_text_begins_as_readers_know_it() {
        let figures = Figures::own(Shape::new(3, 1000).unwrap());
        figures.add(Counter::Sent, 4);
        figures.add(Counter::Received, 3);
        for micros in [100, 200, 1_500] {
            figures.record(Duration::from_micros(micros));
        }
        let text = figures.snapshot().text();
        let bar = "=".repeat(64);
        let half = "=".repeat(32);
        let known = format!(
            "Sent:     4\nReceived: 3\nMaxRTT:   1\nInterval: 1000\n     2 |{bar}\n     1 |{half}\n     0 |\n"
        );
        let new = text.strip_prefix(&known).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(
            new,
            "lost 0, duplicates 0, reordered 0, corrupted 0\ndropped 0, unanswered 1\n\
             active 0, connects 0, failedConnects 0\nreconnects 0, lostAssociations 0\n\
             pathsDown 0, pathsUp 0, failovers 0\n\
             RTT in us: min 100, 50% 200, 90% 1500, 99% 1500, 99.9% 1500, max 1500\n"
        );
    }

    #[test]
    fn json_has_the_known_keys_first() {
        let json = Figures::own(Shape::new(2, 1000).unwrap()).snapshot().json();
        let keys: Vec<_> = json.keys().map(String::as_str).collect();
        assert_eq!(keys[..6], ["sent", "received", "maxRtt", "nBuckets", "interval", "buckets"]);
        assert_eq!(keys[6], "lost");
        assert_eq!(json["rttMicros"], Value::Null);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(mut any in prop::collection::vec(any::<u8>(), 0..200), buckets in 0u32..40) {
            if let Some(word) = any.get_mut(12..16) {
                word.copy_from_slice(&buckets.to_ne_bytes());
            }
            prop_assert!(Snapshot::from_bytes(&any).is_err());
        }

        #[test]
        fn any_counts_are_shown(changes in prop::collection::vec((20usize..27_000, any::<u8>()), 0..50)) {
            let mut bytes = bytes(SHAPE);
            for (at, value) in changes {
                if !(32..48).contains(&at) && at < bytes.len() {
                    bytes[at] = value;
                }
            }
            let snapshot = Snapshot::from_bytes(&bytes).unwrap();
            prop_assert!(!snapshot.text().is_empty());
            prop_assert!(snapshot.json().len() > 6);
        }
    }
}
