//! The tools as a user runs them, on loopback and in namespaces of their own.

mod break_test;
mod ctraffic;
mod evil;
mod harness;
mod hello;
mod kahttp;
mod mconnect;
mod others;
mod sctp;
