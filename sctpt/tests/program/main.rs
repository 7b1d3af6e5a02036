//! sctpt as a user runs it.

mod disturbed;
mod harness;
mod lab;
mod network;
mod refused;
mod stats;
mod texts;
