//! SCTP in the tools: the flags for it, associations between one address and one other, and a server.

mod server;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use sctp_stack::{
    Addresses, Association, Choice, Encapsulation, Error, Listener, Result, Settings, Stack, route,
};

pub use server::serve;

use crate::flags::{Flag, FlagValue};

/// The UDP port that SCTP in UDP has by convention.
const ENCAPSULATION_PORT: u16 = 9899;

/// Which stack is to be used, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct StackFlags {
    pub stack: Choice,
    pub encap_local: UdpPort,
    pub encap_remote: UdpPort,
}

/// A UDP port, or none.
#[derive(Clone, Copy, Debug, Default)]
pub struct UdpPort(Option<u16>);

type Slot<Args> = fn(&mut Args) -> &mut dyn FlagValue;

pub const fn stack_flag<Args>(slot: Slot<Args>) -> Flag<Args> {
    Flag {
        name: "stack",
        value: "auto|kernel|user",
        help: "Who speaks SCTP: the kernel, this program, or the kernel if it can",
        slot,
    }
}

pub const fn encap_local_flag<Args>(slot: Slot<Args>) -> Flag<Args> {
    Flag {
        name: "encap-local",
        value: "PORT",
        help: "SCTP in UDP from this port; 9899 if only -encap-remote is given",
        slot,
    }
}

pub const fn encap_remote_flag<Args>(slot: Slot<Args>) -> Flag<Args> {
    Flag {
        name: "encap-remote",
        value: "PORT",
        help: "SCTP in UDP to this port; 9899 if only -encap-local is given",
        slot,
    }
}

impl StackFlags {
    /// The stack, and why it is this one.
    pub fn open(&self) -> Result<(Box<dyn Stack>, String)> {
        sctp_stack::open(self.stack, self.encapsulation())
    }

    pub fn encapsulation(&self) -> Option<Encapsulation> {
        match (self.encap_local.0, self.encap_remote.0) {
            (None, None) => None,
            (local, remote) => Some(Encapsulation {
                local: local.unwrap_or(ENCAPSULATION_PORT),
                remote: remote.unwrap_or(ENCAPSULATION_PORT),
            }),
        }
    }
}

/// Takes associations at this address and tells them of no other one.
pub fn listen(
    stack: &dyn Stack,
    address: SocketAddr,
    settings: &Settings,
) -> Result<Box<dyn Listener>> {
    stack.listen(&only(address), settings)
}

/// An association from the one address that the routing table gives, so that it has one path if the
/// server has one address.
pub fn connect(
    stack: &dyn Stack,
    target: SocketAddr,
    settings: &Settings,
    deadline: Instant,
) -> Result<Arc<dyn Association>> {
    let source = route::source(target.ip()).map_err(|cause| {
        let operation = format!("find the way to {}", target.ip());
        Error::Io { operation, cause }
    })?;
    stack.connect(&only(SocketAddr::new(source, 0)), &only(target), settings, deadline)
}

fn only(address: SocketAddr) -> Addresses {
    Addresses { addresses: vec![address.ip()], port: address.port() }
}

impl FlagValue for Choice {
    fn set(&mut self, text: &str) -> std::result::Result<(), String> {
        *self = text.parse().map_err(|_| "neither auto, kernel nor user".to_owned())?;
        Ok(())
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

impl FlagValue for UdpPort {
    fn set(&mut self, text: &str) -> std::result::Result<(), String> {
        let mut port = 0;
        FlagValue::set(&mut port, text)?;
        match port {
            0 => Err("not a port".to_owned()),
            _ => {
                self.0 = Some(port);
                Ok(())
            }
        }
    }

    fn shown(&self) -> String {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_port_of_udp_is_enough() {
        let ports = |local: &str, remote: &str| {
            let mut flags = StackFlags::default();
            for (flag, text) in [(&mut flags.encap_local, local), (&mut flags.encap_remote, remote)]
            {
                if !text.is_empty() {
                    flag.set(text).unwrap();
                }
            }
            flags.encapsulation()
        };
        let some = |local, remote| Some(Encapsulation { local, remote });
        assert_eq!(ports("", ""), None);
        assert_eq!(ports("1", ""), some(1, 9899));
        assert_eq!(ports("", "2"), some(9899, 2));
        assert_eq!(ports("1", "2"), some(1, 2));
    }

    #[test]
    fn bad_values_are_refused() {
        for text in ["", "0", "65536", "x"] {
            assert!(UdpPort::default().set(text).is_err(), "{text}");
        }
        let mut choice = Choice::default();
        assert_eq!(choice.set("none"), Err("neither auto, kernel nor user".to_owned()));
        assert_eq!(choice.set("user"), Ok(()));
        assert_eq!(choice.shown(), "user");
    }
}
