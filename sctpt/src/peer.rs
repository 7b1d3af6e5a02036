//! What every verb tells of the ends of an association.

use std::net::SocketAddr;

use sctp_stack::{Association, Result};

use crate::ctraffic::report::PathRecord;
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

/// What is known of the paths, if the association is still there.
pub fn tell_paths(association: &dyn Association) {
    if log::is_told(Level::Info) {
        match association.paths() {
            Ok(paths) => paths.iter().for_each(|path| {
                log::info(format_args!("At the end: {}", PathRecord::of(path)));
            }),
            Err(error) => log::info(format_args!("At the end: {error}")),
        }
    }
}

/// Addresses, each on a line of its own behind the text before them.
pub fn lines(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(|address| format!("\n  {},{}", address.ip(), address.port())).collect()
}
