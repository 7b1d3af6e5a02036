//! shm-tool as a user runs it, in folders of its own.

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
