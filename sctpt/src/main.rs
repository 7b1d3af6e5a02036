//! SCTP test traffic.

fn main() {}
