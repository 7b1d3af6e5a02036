//! A table in ordinary memory.

use std::sync::atomic::{AtomicU32, AtomicU64};

use lb_core::table::{Config, Generation, HEADER_LEN, Table, WritableTable, file_len, header_of};
use lb_core::target::{Mark, Target, Targets, Weight};

/// The memory of a table, as a file would hold it.
pub struct HeapTable {
    header: Vec<AtomicU64>,
    body: Vec<AtomicU32>,
}

impl HeapTable {
    /// A table with `count` targets of equal weight.
    pub fn new(config: &Config, count: u32) -> Self {
        let words = (file_len(config) - HEADER_LEN) / size_of::<u32>();
        let table = HeapTable {
            header: header_of(config, Generation(0)).map(AtomicU64::new).into(),
            body: (0..words).map(|_| AtomicU32::new(0)).collect(),
        };
        let mut targets = Targets::new(config.targets);
        for target in equal_targets(count) {
            targets.activate(target.mark, Some(target.weight), None).expect("there is room");
        }
        table.publish(&targets);
        table
    }

    fn publish(&self, targets: &Targets) {
        let table = WritableTable::view(&self.header, &self.body).expect("it was made so");
        table.publish(targets);
    }

    /// The table.
    pub fn view(&self) -> Table<'_> {
        Table::view(&self.header, &self.body).expect("it was made so")
    }
}

/// Targets of weight 1 with marks from 100 on.
pub fn equal_targets(count: u32) -> impl Iterator<Item = Target> {
    (100..100 + count).filter_map(Mark::new).map(|mark| Target { mark, weight: Weight(1) })
}
