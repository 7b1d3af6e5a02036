//! What the traffic tools have in common: their command line, their pace and
//! source addresses, their server, their statistics, and the parts of a socket
//! that the standard library leaves out.

#![forbid(unsafe_code)]

pub mod address;
pub mod datagram;
pub mod duration;
pub mod events;
pub mod fail_on;
pub mod flags;
pub mod manual;
pub mod pace;
pub mod packet;
pub mod picture;
pub mod process;
pub mod server;
pub mod source;
pub mod sources;
pub mod stats;
pub mod tcp;
