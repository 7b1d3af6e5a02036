//! SCTP by the kernel.

mod socket;
mod uapi;

use std::fs;
use std::io;

use self::socket::Socket;
use crate::endpoint::Sockets;
use crate::{Addresses, Encapsulation, Error, Result, Settings};

const NAME: &str = "kernel";
/// The kernel's own UDP port, which is the same for all of a network namespace.
const UDP_PORT: &str = "/proc/sys/net/sctp/udp_port";

/// The stack of this kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelStack;

impl KernelStack {
    /// Whether the kernel has it: the error says what is missing.
    pub fn check(&self, encapsulation: Option<Encapsulation>) -> Result<()> {
        let unavailable = |cause: String| Error::Unavailable { stack: NAME, cause };
        let socket = Socket::new().map_err(|error| unavailable(format!("socket: {error}")))?;
        let Some(ports) = encapsulation else { return Ok(()) };
        socket
            .set(uapi::REMOTE_UDP_ENCAPS_PORT, &uapi::udp_encapsulation(ports.remote))
            .map_err(|error| unavailable(format!("UDP encapsulation: {error}")))?;
        let local = fs::read_to_string(UDP_PORT)
            .map_err(|error| unavailable(format!("read {UDP_PORT}: {error}")))?;
        check_udp_port(&local, ports.local).map_err(unavailable)
    }
}

impl Sockets for KernelStack {
    const NAME: &'static str = NAME;
    type Socket = Socket;

    fn bound(&self, local: &Addresses, settings: &Settings) -> Result<Socket> {
        if settings.encapsulation.is_some() {
            self.check(settings.encapsulation)?;
        }
        let failed = |cause| Error::Io { operation: format!("bind {local}"), cause };
        let socket = Socket::new().map_err(failed)?;
        apply(&socket, settings)?;
        socket.bind(local).map_err(failed)?;
        Ok(socket)
    }
}

/// Settings of the socket, from which its associations take them.
fn apply(socket: &Socket, settings: &Settings) -> Result<()> {
    let set = |what: &str, result: io::Result<()>| {
        result.map_err(|cause| Error::Io { operation: format!("set {what}"), cause })
    };
    let on = |on: bool| i32::from(on).to_ne_bytes();
    set("events", socket.set(uapi::EVENTS, &uapi::SUBSCRIPTION))?;
    set("receive information", socket.set(uapi::RECVRCVINFO, &on(true)))?;
    set("nodelay", socket.set(uapi::NODELAY, &on(settings.nodelay)))?;
    set("streams", socket.set(uapi::INITMSG, &uapi::init_message(settings.streams)))?;
    if let Some(rto) = settings.rto {
        set("retransmission time-out", socket.set(uapi::RTOINFO, &uapi::rto_info(rto)))?;
    }
    if let Some(max) = settings.association_max_retransmits {
        let params = uapi::association_params(max);
        set("association retransmits", socket.set(uapi::ASSOCINFO, &params))?;
    }
    if settings.heartbeat.is_some() || settings.path_max_retransmits.is_some() {
        let params = uapi::path_params(settings.heartbeat, settings.path_max_retransmits);
        set("paths", socket.set(uapi::PEER_ADDR_PARAMS, &params))?;
    }
    if let Some(ports) = settings.encapsulation {
        let port = uapi::udp_encapsulation(ports.remote);
        set("UDP encapsulation", socket.set(uapi::REMOTE_UDP_ENCAPS_PORT, &port))?;
    }
    Ok(())
}

/// Compares with what the kernel listens on.
fn check_udp_port(kernel: &str, wanted: u16) -> std::result::Result<(), String> {
    let kernel = kernel.trim();
    if kernel == wanted.to_string() {
        return Ok(());
    }
    Err(format!(
        "UDP port {wanted}: the kernel's is {kernel}: set it (sysctl -w net.sctp.udp_port={wanted}) \
         or use the user stack"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_udp_port_is_the_kernel_s() {
        assert_eq!(check_udp_port("9899\n", 9899), Ok(()));
        let complaint = check_udp_port("0\n", 9899).unwrap_err();
        assert!(complaint.contains("net.sctp.udp_port=9899"), "{complaint}");
    }
}
