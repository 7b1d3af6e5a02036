//! Settings on a socket, from which its associations take them.

use std::io;
use std::time::Duration;

use super::ffi;
use super::socket::Socket;
use crate::notification::{ASSOCIATION_CHANGE, PATH_CHANGE};
use crate::{Error, Result, Settings, address};

pub(super) fn apply(socket: &Socket, settings: &Settings) -> Result<()> {
    for kind in [ASSOCIATION_CHANGE, PATH_CHANGE] {
        let event = ffi::Event { association: 0, kind, on: 1 };
        set("events", socket.set(ffi::EVENT, &event))?;
    }
    set("receive information", socket.set(ffi::RECVRCVINFO, &1))?;
    set("nodelay", socket.set(ffi::NODELAY, &i32::from(settings.nodelay)))?;
    let streams = ffi::Initmsg {
        out_streams: settings.streams,
        max_in_streams: settings.streams,
        max_attempts: 0,
        max_timeout: 0,
    };
    set("streams", socket.set(ffi::INITMSG, &streams))?;
    if let Some(rto) = settings.rto {
        let rto = ffi::RtoInfo {
            association: 0,
            initial: millis(rto.initial),
            max: millis(rto.max),
            min: millis(rto.min),
        };
        set("retransmission time-out", socket.set(ffi::RTOINFO, &rto))?;
    }
    if let Some(max_retransmits) = settings.association_max_retransmits {
        let params = ffi::AssocParams {
            association: 0,
            peer_rwnd: 0,
            local_rwnd: 0,
            cookie_life: 0,
            max_retransmits,
            peer_destinations: 0,
        };
        set("association retransmits", socket.set(ffi::ASSOCINFO, &params))?;
    }
    let paths = ffi::PeerAddrParams {
        address: address::storage(address::ANY),
        association: 0,
        heartbeat_interval: settings.heartbeat.map_or(0, millis),
        path_mtu: 0,
        flags: if settings.heartbeat.is_some() { ffi::SPP_HB_ENABLE } else { 0 },
        flow_label: 0,
        max_retransmits: settings.path_max_retransmits.unwrap_or(0),
        dscp: 0,
    };
    set("paths", socket.set(ffi::PEER_ADDR_PARAMS, &paths))?;
    if let Some(ports) = settings.encapsulation {
        let encapsulation = ffi::UdpEncaps {
            address: address::storage(address::ANY),
            association: 0,
            port: ports.remote.to_be(),
        };
        set("UDP encapsulation", socket.set(ffi::REMOTE_UDP_ENCAPS_PORT, &encapsulation))?;
    }
    Ok(())
}

fn set(what: &str, result: io::Result<()>) -> Result<()> {
    result.map_err(|cause| Error::Io { operation: format!("set {what}"), cause })
}

/// The library counts in milliseconds, and takes 0 for "as it is".
fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1)
}
