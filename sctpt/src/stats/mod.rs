//! The statistics of `ctraffic`: counters that grow while it runs, in shared memory, and what is made of them.

pub mod figures;
pub mod shm;
pub mod snapshot;
pub mod spread;
