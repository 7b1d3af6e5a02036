//! A file that should hold counters.

use std::fs;
use std::ops::Range;

use lb_core::counters::{Counter, Counts};
use lb_sys::shm::{Folder, Name, StatsFile, StatsWriter};

use crate::choices::Choices;

/// Bytes before the first row.
const HEADER_LEN: usize = 512;
/// Where the header has the number of rows.
const ROWS: Range<usize> = 16..24;
/// Bytes of a row.
const ROW_LEN: usize = 1024;

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path());
    let (instance, table): (Name, Name) = ("i".parse().unwrap(), "table-1".parse().unwrap());
    let path = dir.path().join("i.stats");

    let queues: Vec<u16> = (0..choices.below(4)).map(|_| choices.u16()).collect();
    let writer = StatsWriter::create(&folder, &instance, &table, &queues).unwrap();
    let mut stored = Vec::new();
    for (place, queue) in queues.iter().enumerate() {
        let mut counts = Counts::default();
        counts.set(Counter::Received, choices.u64());
        writer.row(place).unwrap().store(*queue, &counts);
        stored.push(Some((*queue, counts)));
    }
    let stats = StatsFile::open(&folder, &instance).unwrap();
    assert!(stats.is_running());
    assert_eq!(stats.table(), table.to_string());
    assert_eq!(stats.queues().collect::<Vec<_>>(), stored);
    drop((stats, writer));

    let mut content = fs::read(&path).unwrap();
    assert_eq!(content.len(), HEADER_LEN + ROW_LEN * queues.len());
    if choices.bool() {
        content.resize(usize::from(choices.u16()) % 4096, 0);
    }
    for _ in 0..choices.below(8) {
        let (place, word) = (usize::from(choices.u16() & 0xff) * 8, choices.array::<8>());
        if let Some(bytes) = content.get_mut(place..place + word.len()) {
            bytes.copy_from_slice(&word);
        }
    }
    fs::write(&path, &content).unwrap();

    if let Ok(stats) = StatsFile::open(&folder, &instance) {
        let rows: Vec<_> = stats.queues().collect();
        assert_eq!(rows.len(), (content.len() - HEADER_LEN) / ROW_LEN);
        assert_eq!(content[ROWS], rows.len().to_ne_bytes());
        assert!(stats.table().len() <= HEADER_LEN * "\u{fffd}".len());
        assert!(!stats.is_running());
        assert!(!stats.is_replaced(&folder, &instance));
        let known: Vec<Counts> = rows.into_iter().flatten().map(|(_, counts)| counts).collect();
        let sum = Counts::sum(&known);
        let _ = (sum.dropped_sum(), stats.pid(), stats.started());
    }
    // Whatever is left of the old counters, the next `lb` of this instance can count.
    StatsWriter::create(&folder, &instance, &table, &[1]).unwrap();
    assert_eq!(StatsFile::open(&folder, &instance).unwrap().queues().count(), 1);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
