//! Targets and the set of them that a table holds.

use alloc::vec::Vec;
use core::fmt;

use thiserror::Error;

/// The fwmark that stands for a target. Every value but one is legal, also 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(u32);

impl Mark {
    /// What an empty slot holds; not a mark.
    pub const EMPTY: u32 = u32::MAX;

    /// The mark of this number, unless it is [`Mark::EMPTY`].
    #[inline]
    pub fn new(number: u32) -> Option<Self> {
        (number != Self::EMPTY).then_some(Mark(number))
    }

    /// The mark as a number.
    #[inline]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How large a target's share is, relative to the others. Weight 0 is listed and holds no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(pub u16);

impl Default for Weight {
    fn default() -> Self {
        Weight(1)
    }
}

/// A member of the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The mark its packets get.
    pub mark: Mark,
    /// Its share.
    pub weight: Weight,
}

/// Why the set could not be changed. The set is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TargetError {
    /// No index is free.
    #[error("the table is full: all {capacity} indexes hold a target")]
    Full {
        /// Number of indexes.
        capacity: u32,
    },
    /// The mark is not in the set.
    #[error("no target has mark {0}")]
    UnknownMark(Mark),
    /// The index holds no target.
    #[error("index {0} holds no target")]
    EmptyIndex(u32),
    /// The index is beyond the capacity.
    #[error("index {index} is out of range: the table has indexes 0 to {}", capacity - 1)]
    IndexOutOfRange {
        /// The index asked for.
        index: u32,
        /// Number of indexes.
        capacity: u32,
    },
}

/// The targets of a table, each at an index. The index is a name for operators; it does not influence
/// which slots a target holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    places: Vec<Option<Target>>,
}

impl Targets {
    /// A set with room for `capacity` targets.
    pub fn new(capacity: u32) -> Self {
        Targets { places: alloc::vec![None; capacity as usize] }
    }

    /// The set that holds these targets at these indexes, unless a mark stands twice.
    pub fn from_places(places: Vec<Option<Target>>) -> Option<Self> {
        let mut marks: Vec<Mark> = places.iter().flatten().map(|target| target.mark).collect();
        marks.sort_unstable();
        marks.windows(2).all(|pair| pair[0] != pair[1]).then_some(Targets { places })
    }

    /// Number of indexes.
    pub fn capacity(&self) -> u32 {
        u32::try_from(self.places.len()).unwrap_or(u32::MAX)
    }

    /// Every index with what it holds.
    pub fn places(&self) -> &[Option<Target>] {
        &self.places
    }

    /// The targets with their indexes, in order of index.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Target)> {
        (0..).zip(&self.places).filter_map(|(index, place)| place.map(|target| (index, target)))
    }

    /// Adds a target, or changes its weight or index. Without a weight a present target keeps its own
    /// and a new one gets 1; without an index a present target stays and a new one takes the first
    /// free. The target that an explicit index held before is replaced and returned.
    pub fn activate(
        &mut self,
        mark: Mark,
        weight: Option<Weight>,
        index: Option<u32>,
    ) -> Result<Option<Target>, TargetError> {
        let present = self.index_of(mark);
        let index = match index.or(present).or_else(|| self.first_free()) {
            Some(index) => index,
            None => {
                return Err(TargetError::Full { capacity: self.capacity() });
            }
        };
        let old = *self.place(index)?;
        let kept = match present {
            Some(present) => self.place(present)?.take(),
            None => None,
        };
        let weight = weight.or(kept.map(|target| target.weight)).unwrap_or_default();
        *self.place(index)? = Some(Target { mark, weight });
        Ok(old.filter(|target| target.mark != mark))
    }

    /// Takes a target out.
    pub fn deactivate(&mut self, mark: Mark) -> Result<Target, TargetError> {
        let index = self.index_of(mark).ok_or(TargetError::UnknownMark(mark))?;
        self.deactivate_index(index)
    }

    /// Takes out the target that an index holds.
    pub fn deactivate_index(&mut self, index: u32) -> Result<Target, TargetError> {
        self.place(index)?.take().ok_or(TargetError::EmptyIndex(index))
    }

    /// The index of a mark.
    pub fn index_of(&self, mark: Mark) -> Option<u32> {
        self.iter().find(|(_, target)| target.mark == mark).map(|(index, _)| index)
    }

    fn first_free(&self) -> Option<u32> {
        (0..).zip(&self.places).find(|(_, place)| place.is_none()).map(|(index, _)| index)
    }

    fn place(&mut self, index: u32) -> Result<&mut Option<Target>, TargetError> {
        let capacity = self.capacity();
        self.places.get_mut(index as usize).ok_or(TargetError::IndexOutOfRange { index, capacity })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(number: u32) -> Mark {
        Mark::new(number).unwrap()
    }

    fn listed(targets: &Targets) -> Vec<(u32, u32, u16)> {
        targets.iter().map(|(index, t)| (index, t.mark.get(), t.weight.0)).collect()
    }

    #[test]
    fn marks_take_the_first_free_index() {
        let mut targets = Targets::new(3);
        for number in [7, 0, 9] {
            assert_eq!(targets.activate(mark(number), None, None), Ok(None));
        }
        assert_eq!(listed(&targets), [(0, 7, 1), (1, 0, 1), (2, 9, 1)]);
        targets.deactivate(mark(0)).unwrap();
        targets.activate(mark(5), None, None).unwrap();
        assert_eq!(listed(&targets), [(0, 7, 1), (1, 5, 1), (2, 9, 1)]);
    }

    #[test]
    fn a_present_mark_changes_what_is_given_and_keeps_the_rest() {
        let mut targets = Targets::new(3);
        targets.activate(mark(7), Some(Weight(5)), None).unwrap();
        targets.activate(mark(7), None, Some(2)).unwrap();
        assert_eq!(listed(&targets), [(2, 7, 5)]);
        targets.activate(mark(7), Some(Weight(0)), None).unwrap();
        assert_eq!(listed(&targets), [(2, 7, 0)]);
    }

    #[test]
    fn an_explicit_index_replaces_and_tells_whom() {
        let mut targets = Targets::new(3);
        targets.activate(mark(7), Some(Weight(5)), None).unwrap();
        targets.activate(mark(8), None, None).unwrap();
        let replaced = targets.activate(mark(8), None, Some(0)).unwrap().unwrap();
        assert_eq!((replaced.mark, replaced.weight), (mark(7), Weight(5)));
        assert_eq!(listed(&targets), [(0, 8, 1)]);
        assert_eq!(targets.activate(mark(8), None, Some(0)), Ok(None));
    }

    #[test]
    fn errors_name_what_is_wrong_and_change_nothing() {
        let mut targets = Targets::new(2);
        targets.activate(mark(1), None, None).unwrap();
        targets.activate(mark(2), None, None).unwrap();
        let before = targets.clone();
        let full = targets.activate(mark(3), None, None).unwrap_err();
        assert_eq!(full.to_string(), "the table is full: all 2 indexes hold a target");
        let range = targets.activate(mark(1), Some(Weight(9)), Some(2)).unwrap_err();
        assert_eq!(range.to_string(), "index 2 is out of range: the table has indexes 0 to 1");
        assert_eq!(targets.deactivate(mark(3)), Err(TargetError::UnknownMark(mark(3))));
        assert!(targets.deactivate_index(2).is_err());
        assert_eq!(targets, before);
        targets.deactivate_index(0).unwrap();
        assert_eq!(targets.deactivate_index(0), Err(TargetError::EmptyIndex(0)));
    }

    #[test]
    fn the_number_of_an_empty_slot_is_no_mark() {
        assert_eq!(Mark::new(u32::MAX), None);
        assert_eq!(Mark::new(0).map(Mark::get), Some(0));
    }

    use alloc::string::ToString;
}
