//! shm-tool as a user runs it, in folders of its own.

mod errors;
mod room;
mod stats;
mod tables;
mod texts;
mod writers;
