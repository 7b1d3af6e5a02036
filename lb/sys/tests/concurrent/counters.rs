//! Counters that one process writes and another reads.

use std::time::{Duration, Instant};

use lb_core::counters::{Counter, Counts};
use lb_core::target::Mark;
use lb_core::walk::{Class, Decision, Reason, Walked};
use lb_sys::shm::{StatsFile, StatsWriter};

use crate::child::{Actor, Stage};
use crate::effort::either;
use crate::random::Random;
use crate::room::Room;

const QUEUES: [u16; 2] = [4, 7];

/// Counters that go up together are read together, and a dead writer keeps nobody from counting.
#[test]
fn counters_balance_whenever_they_are_read() {
    let mut random = Random::announced();
    let room = Room::new();
    let (mut rounds, mut readings, mut moved, mut half_written) = (0, 0, 0, 0);
    let deadline = Instant::now() + either(Duration::from_secs(2), Duration::from_secs(60));
    while Instant::now() < deadline {
        let mut writer = Actor::start("count", &room, &mut random);
        writer.wait_ready();
        let stats = StatsFile::open(&room.folder, &room.name).unwrap();
        assert_eq!((stats.pid(), stats.is_running()), (writer.id().into(), true));
        let mut last = [0; QUEUES.len()];
        for _ in 0..random.below(200) {
            for (place, row) in stats.queues().enumerate() {
                let Some((queue, counts)) = row else { continue };
                assert_eq!(queue, QUEUES[place]);
                let received = balanced(&counts);
                assert!(received >= last[place], "{received} after {}", last[place]);
                moved += u32::from(received > last[place]);
                last[place] = received;
                readings += 1;
            }
        }
        random.pause(500);
        writer.kill();
        rounds += 1;
        assert!(!stats.is_running());
        let rows: Vec<_> = stats.queues().collect();
        assert_eq!(rows.len(), QUEUES.len());
        for row in rows {
            match row {
                Some((_, counts)) => assert!(balanced(&counts) > 0),
                None => half_written += 1,
            }
        }
    }
    println!(
        "{rounds} killed, {half_written} rows half written, {moved} new of {readings} readings"
    );
    assert!(moved > 50 && half_written > 0, "nothing met anything");
    assert_eq!(room.files(), ["t.stats"]);
}

/// The packets received; everything else must agree with them.
fn balanced(counts: &Counts) -> u64 {
    let received = counts.get(Counter::Received);
    let ended = counts.get(Counter::Marked) + counts.get(Counter::Held) + counts.dropped_sum();
    assert_eq!(ended, received);
    assert_eq!(counts.classes().map(|(_, number)| number).sum::<u64>(), received);
    assert_eq!(counts.get(Counter::SocketDrops), received);
    received
}

/// The role of an `lb` whose counters balance after every batch.
pub fn count(room: &Room, mut random: Random, stage: &Stage) {
    let table = "table".parse().unwrap();
    let stats = StatsWriter::create(&room.folder, &room.name, &table, &QUEUES).unwrap();
    let mut all = QUEUES.map(|queue| (queue, Counts::default()));
    let mut told = false;
    while stage.is_wanted() {
        for (place, (queue, counts)) in all.iter_mut().enumerate() {
            counts.record(walked(&mut random));
            counts.set(Counter::SocketDrops, counts.get(Counter::Received));
            stats.row(place).unwrap().store(*queue, counts);
        }
        if !told {
            stage.ready();
            told = true;
        }
    }
}

fn walked(random: &mut Random) -> Walked {
    let class = random.one_of([Class::Tcp, Class::Udp, Class::Sctp, Class::Fragment]);
    let decision = match random.below(4) {
        0 => Decision::Hold,
        1 => Decision::Drop(random.one_of([Reason::NoTarget, Reason::ChainTooLong])),
        _ => Decision::Mark(Mark::new(7).unwrap()),
    };
    Walked { class, decision }
}
