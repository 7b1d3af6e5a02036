//! How much may be held, and how much is.

/// Shared by all stages of a lane.
#[derive(Debug, Default)]
pub struct Room {
    pub most: Amount,
    pub held: Amount,
    pub peak: Amount,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    pub frames: usize,
    pub bytes: usize,
}

impl Room {
    pub fn new(most: Amount) -> Self {
        Self { most, ..Self::default() }
    }

    /// Takes room for a frame; false when there is none.
    pub fn take(&mut self, length: usize) -> bool {
        let wanted = Amount { frames: self.held.frames + 1, bytes: self.held.bytes + length };
        if wanted.frames > self.most.frames || wanted.bytes > self.most.bytes {
            return false;
        }
        self.held = wanted;
        self.peak.frames = self.peak.frames.max(wanted.frames);
        self.peak.bytes = self.peak.bytes.max(wanted.bytes);
        true
    }

    pub fn give(&mut self, length: usize) {
        self.held.frames -= 1;
        self.held.bytes -= length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_more_than_that() {
        let mut room = Room::new(Amount { frames: 2, bytes: 100 });
        assert!(room.take(60) && !room.take(41) && room.take(40) && !room.take(0));
        room.give(60);
        assert!(room.take(0));
        assert_eq!(room.held, Amount { frames: 2, bytes: 40 });
        assert_eq!(room.peak, Amount { frames: 2, bytes: 100 });
    }
}
