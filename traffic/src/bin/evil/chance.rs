//! Random choices that follow from a seed.

/// Numbers that follow from a seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

/// How often something happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chance {
    /// Each time with this probability, in millionths.
    Millionths(u32),
    /// Every such time, counted from the first.
    Every { period: u32, passed: u32 },
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below a limit above 0 that is far from the largest number.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// A place in a list that is not empty.
    pub fn index(&mut self, length: usize) -> usize {
        let below = self.below(length.try_into().unwrap_or(u64::MAX));
        usize::try_from(below).unwrap_or(0)
    }
}

impl Chance {
    pub const ALWAYS: Self = Self::Millionths(1_000_000);

    /// `N%` with up to four decimals, or `1/N`: every N-th.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(period) = text.strip_prefix("1/") {
            let period = period.parse().ok().filter(|period| *period > 0)?;
            return Some(Self::Every { period, passed: 0 });
        }
        let (whole, decimals) = {
            let number = text.strip_suffix('%')?;
            number.split_once('.').unwrap_or((number, ""))
        };
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || decimals.len() > 4 || !digits(whole) || !digits(decimals) {
            return None;
        }
        let millionths: u32 = format!("{whole}{decimals:0<4}").parse().ok()?;
        (millionths <= 1_000_000).then_some(Self::Millionths(millionths))
    }

    /// Whether it happens this time.
    pub fn strikes(&mut self, random: &mut Random) -> bool {
        match self {
            Self::Millionths(millionths) => random.below(1_000_000) < u64::from(*millionths),
            Self::Every { period, passed } => {
                *passed += 1;
                let strikes = passed == period;
                if strikes {
                    *passed = 0;
                }
                strikes
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_and_every_nth_are_read() {
        let read = |text: &str| Chance::parse(text);
        assert_eq!(read("1%"), Some(Chance::Millionths(10_000)));
        assert_eq!(read("0.5%"), Some(Chance::Millionths(5_000)));
        assert_eq!(read("0.0001%"), Some(Chance::Millionths(1)));
        assert_eq!(read("100%"), Some(Chance::ALWAYS));
        assert_eq!(read("1/20"), Some(Chance::Every { period: 20, passed: 0 }));
        for text in ["", "%", "1", "-1%", "+1%", "1.%x", "100.1%", "0.00001%", "1/0", "2/3", "1/"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    #[test]
    fn chances_are_met() {
        let mut random = Random::new(1);
        let mut count =
            |mut chance: Chance| (0..100_000).filter(|_| chance.strikes(&mut random)).count();
        assert_eq!(count(Chance::Millionths(0)), 0);
        assert_eq!(count(Chance::ALWAYS), 100_000);
        assert_eq!(count(Chance::Every { period: 20, passed: 0 }), 5_000);
        assert!((900..1_100).contains(&count(Chance::Millionths(10_000))));
    }

    #[test]
    fn every_nth_does_not_begin_with_the_first() {
        let (mut chance, mut random) = (Chance::parse("1/3").unwrap(), Random::new(0));
        let strikes: Vec<bool> = (0..6).map(|_| chance.strikes(&mut random)).collect();
        assert_eq!(strikes, [false, false, true, false, false, true]);
    }
}
