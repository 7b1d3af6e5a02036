//! shm-tool as a user runs it, in folders of its own.

// A report with all counters is one `json!`.
#![recursion_limit = "256"]

mod dry_run;
mod errors;
mod explain;
mod room;
mod saved;
mod stats;
mod tables;
mod texts;
mod verify;
mod writers;
