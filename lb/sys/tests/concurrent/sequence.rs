//! A sequence of target sets that all writers of a test walk through, so that a table's generation
//! says what must be in it.

use lb_core::maglev;
use lb_core::table::{Config, Generation, Snapshot};
use lb_core::target::{Mark, Targets, Weight};

use crate::room::Room;

pub const CONFIG: Config = Config {
    slots: 251,
    targets: 8,
    own_mark: 0,
    seed: lb_core::hash::Seed(1),
    modes: lb_core::key::KeyModes {
        sctp_hash: lb_core::key::SctpHash::Ports,
        affinity: lb_core::key::Affinity::Flow,
        sctp_encap: lb_core::key::EncapPorts([0, 0]),
    },
};

/// The sets, each with its slots.
pub struct Sequence(Vec<(Targets, Vec<u32>)>);

impl Sequence {
    /// More than the two that the buffers hold.
    const LEN: u32 = 11;

    pub fn new() -> Self {
        let set = |number| {
            let targets = Self::set(number);
            let slots = maglev::build(targets.iter().map(|(_, target)| target), CONFIG.slots);
            (targets, slots)
        };
        Sequence((0..Self::LEN).map(set).collect())
    }

    /// A set that differs from all the others in marks, weights and indexes, and is never empty.
    fn set(number: u32) -> Targets {
        let mut targets = Targets::new(CONFIG.targets);
        for index in 0..=number % CONFIG.targets {
            let mark = Mark::new(100 * number + index).unwrap();
            let weight = Weight(u16::try_from(1 + (number + index) % 3).unwrap());
            let index = CONFIG.targets - 1 - index;
            targets.activate(mark, Some(weight), Some(index)).unwrap();
        }
        targets
    }

    /// Makes the table and publishes the first set.
    pub fn begin(&self, room: &Room) {
        let made = room.init(CONFIG, lb_sys::shm::Existing::Refuse).unwrap();
        let writer = room.lock().unwrap();
        writer.publish(self.targets(made.generation.next())).unwrap();
    }

    pub fn targets(&self, generation: Generation) -> &Targets {
        &self.at(generation).0
    }

    pub fn slots(&self, generation: Generation) -> &[u32] {
        &self.at(generation).1
    }

    /// A table is what was published at its generation.
    pub fn check(&self, snapshot: &Snapshot) {
        let (targets, slots) = self.at(snapshot.generation);
        assert_eq!(snapshot.targets, *targets, "at {:?}", snapshot.generation);
        assert_eq!(snapshot.slots, *slots, "at {:?}", snapshot.generation);
    }

    fn at(&self, generation: Generation) -> &(Targets, Vec<u32>) {
        let place = generation.0 % u64::from(Self::LEN);
        &self.0[usize::try_from(place).unwrap()]
    }
}
