//! SCTP in user space, by libusrsctp.

mod alone;
mod control;
mod ffi;
mod heartbeats;
mod hooks;
mod library;
mod pieces;
mod settings;
mod socket;
mod source;
mod wake;

use std::sync::{Arc, Mutex, PoisonError};

use self::library::Library;
use self::socket::Socket;
use crate::endpoint::Sockets;
use crate::{Addresses, Encapsulation, Error, Result, Settings};

pub(super) const NAME: &str = "user";

/// The stack in this process.
///
/// Its library runs once in a process, until the stack and all that came from it are dropped. All
/// associations use the same local UDP port, or none does.
#[derive(Debug, Default)]
pub struct UserStack {
    library: Mutex<Option<Arc<Library>>>,
}

impl UserStack {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it can run here: the error says what is missing.
    pub fn check(&self, encapsulation: Option<Encapsulation>) -> Result<()> {
        self.library(encapsulation).map(drop)
    }

    /// The library, which is started if it does not run.
    fn library(&self, encapsulation: Option<Encapsulation>) -> Result<Arc<Library>> {
        let udp_port = encapsulation.map(|ports| ports.local);
        let mut library = self.library.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = &*library
            && running.udp_port == udp_port
        {
            return Ok(Arc::clone(running));
        }
        if let Some(running) = library.take_if(|running| Arc::strong_count(running) > 1) {
            let name =
                |port: Option<u16>| port.map_or("IP".into(), |port| format!("UDP port {port}"));
            let (is, wanted) = (name(running.udp_port), name(udp_port));
            *library = Some(running);
            let cause = format!("{wanted}: all of this process goes by {is}");
            return Err(Error::Unavailable { stack: NAME, cause });
        }
        // Nothing uses it: it may be started anew.
        *library = None;
        let started = Arc::new(Library::start(udp_port)?);
        *library = Some(Arc::clone(&started));
        Ok(started)
    }
}

impl Sockets for UserStack {
    const NAME: &'static str = NAME;
    type Socket = Socket;

    fn bound(&self, local: &Addresses, settings: &Settings) -> Result<Socket> {
        let library = self.library(settings.encapsulation)?;
        let failed = |cause| Error::Io { operation: format!("bind {local}"), cause };
        let mut socket = Socket::new(&library).map_err(failed)?;
        settings::apply(&socket, settings)?;
        socket.bind(local).map_err(failed)?;
        Ok(socket)
    }
}
