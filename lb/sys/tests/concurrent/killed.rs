//! Writers, two at a time, killed at random points.

use std::time::{Duration, Instant};

use lb_core::table::{Generation, Snapshot};

use crate::child::{Actor, Stage};
use crate::effort::{either, wait_until};
use crate::random::Random;
use crate::room::Room;
use crate::sequence::Sequence;

/// Far less than a writer waits for a lock that is held.
const AT_ONCE: Duration = Duration::from_secs(2);

#[test]
fn writers_killed_at_any_moment_leave_what_was_published_last_and_no_lock() {
    let mut random = Random::announced();
    let (room, sequence) = (Room::new(), Sequence::new());
    sequence.begin(&room);
    for _ in 0..either(1_000, 25_000) {
        let [mut first, mut second] = [(); 2].map(|()| Actor::start("publish", &room, &mut random));
        // Some die on their way into the table.
        if random.below(8) > 0 {
            first.wait_ready();
            second.wait_ready();
        }
        random.pause(2_000);
        first.kill();
        let seen = check(&room, &sequence);

        let reader = room.open().unwrap();
        let generation = || reader.table().unwrap().generation();
        wait_until("the other writer goes on", || generation() > seen.generation);
        random.pause(2_000);
        second.kill();
        let left = check(&room, &sequence);
        assert!(left.generation > seen.generation);

        let asked = Instant::now();
        let writer = room.lock().unwrap();
        assert!(
            asked.elapsed() < AT_ONCE,
            "the lock of a dead writer held for {:?}",
            asked.elapsed()
        );
        assert_eq!(writer.snapshot().unwrap(), left);
    }
    assert_eq!(room.files(), ["t"]);
}

/// Who opens the table now finds a whole one, as it was published.
fn check(room: &Room, sequence: &Sequence) -> Snapshot {
    let snapshot = room.open().unwrap().snapshot().unwrap();
    sequence.check(&snapshot);
    snapshot
}

/// The role of a writer: publishes the next set, and the next, a few each time it has the lock.
pub fn publish(room: &Room, mut random: Random, stage: &Stage) {
    let sequence = Sequence::new();
    stage.ready();
    while stage.is_wanted() {
        let writer = room.lock().unwrap();
        let Generation(before) = {
            let snapshot = writer.snapshot().unwrap();
            sequence.check(&snapshot);
            snapshot.generation
        };
        for next in before + 1..=before + 1 + u64::from(random.below(4)) {
            let published = writer.publish(sequence.targets(Generation(next))).unwrap();
            assert_eq!(published.generation, Generation(next), "somebody else has published");
            sequence.check(&published);
        }
    }
}
