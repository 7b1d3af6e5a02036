//! What every verb tells of the ends of an association.

use std::net::SocketAddr;

use sctp_stack::{Association, Result};

use crate::log::{self, Level};

/// The addresses of both ends, as lists.
pub fn tell_addresses(association: &dyn Association) -> Result<()> {
    if log::is_told(Level::Info) {
        let (local, peer) = (association.local_addresses()?, association.peer_addresses()?);
        log::info(format_args!("Local addresses:{}", lines(&local)));
        log::info(format_args!("Peer addresses:{}", lines(&peer)));
    }
    Ok(())
}

/// Addresses, each on a line of its own behind the text before them.
pub fn lines(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(|address| format!("\n  {},{}", address.ip(), address.port())).collect()
}
