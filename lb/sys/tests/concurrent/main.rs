//! Tables and counters under the hands of several processes at a time, some of which are killed.
//!
//! `MARKWAY_SOAK=1` makes the long forms of these tests.

mod child;
mod counters;
mod effort;
mod killed;
mod racing;
mod random;
mod readers;
mod room;
mod sequence;
