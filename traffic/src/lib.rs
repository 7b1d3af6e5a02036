//! What the traffic tools have in common: their command line, their source
//! addresses, and the parts of a socket that the standard library leaves out.

#![forbid(unsafe_code)]

pub mod address;
pub mod datagram;
pub mod duration;
pub mod flags;
pub mod process;
pub mod source;
