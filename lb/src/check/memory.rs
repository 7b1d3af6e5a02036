//! The memory that the options take.

use std::fmt::Write as _;

use lb_core::table::file_len;
use lb_sys::nfqueue::Queue;
use lb_sys::shm::MappedTable;
use serde_json::{Value, json};

use crate::args::Settings;

/// What takes how many bytes.
pub struct Memory {
    parts: Vec<(&'static str, usize)>,
}

impl Memory {
    /// That of a run with these settings. What is not there takes nothing yet.
    pub fn of(settings: &Settings) -> Self {
        let queues = settings.queues.clone().count();
        let table = |name| {
            let mapped = MappedTable::open(&settings.folder, name).ok()?;
            Some(file_len(mapped.table().ok()?.config()))
        };
        let tables = table(&settings.table).unwrap_or(0)
            + settings.fragments.tier.as_ref().and_then(table).unwrap_or(0);
        Memory {
            parts: vec![
                ("fragments", settings.fragments.memory(queues)),
                ("batches", queues * Queue::memory(settings.fragments.copy_range)),
                ("tables, shared with others", tables),
                ("receive buffers, in the kernel, at most", queues * settings.receive_buffer),
            ],
        }
    }

    pub fn text(&self) -> String {
        let mut text = String::from("memory in kB\n");
        for (what, bytes) in &self.parts {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{:>9} {what}", bytes.div_ceil(1000));
        }
        text
    }

    pub fn json(&self) -> Value {
        self.parts.iter().map(|(what, bytes)| json!({ "what": what, "bytes": bytes })).collect()
    }
}
