//! The part of Markway that thinks: bytes of a packet in, a decision out.
//!
//! A packet walks straight through: bytes → [`wire`] view → [`key`] → [`hash`] → slot → mark →
//! [`walk::Decision`]. The [`table`] is a view of shared memory that somebody else mapped; building
//! its slots is [`maglev`]'s work.
//!
//! The crate is `no_std` and forbids unsafe code, so the compiler keeps the promise that nothing here
//! opens a socket, reads a clock, starts a thread or writes a log line.

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod counters;
pub mod fast;
pub mod frag;
pub mod hash;
pub mod key;
pub mod maglev;
pub mod openings;
pub mod table;
pub mod target;
pub mod tier;
pub mod walk;
pub mod wire;
