//! The shortest runs of what takes long, side by side: what they measure does not count.

mod fast_plane;
mod harness;
mod sctp;
mod traffic;
