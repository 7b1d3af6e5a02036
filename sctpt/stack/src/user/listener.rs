//! Where associations come in.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::association::UserAssociation;
use super::socket::Socket;
use crate::{Association, Error, Listener, Result};

pub(super) struct UserListener {
    socket: Socket,
}

impl UserListener {
    pub fn new(socket: Socket) -> Self {
        UserListener { socket }
    }
}

impl Listener for UserListener {
    fn accept(&self, deadline: Option<Instant>) -> Result<Option<Arc<dyn Association>>> {
        loop {
            let seen = self.socket.signal.reads();
            match self.socket.accept() {
                Ok(socket) => return Ok(Some(Arc::new(UserAssociation::new(socket)))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // It ended before it was accepted; the next is another one.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(cause) => {
                    let operation = format!("accept port {}", self.socket.port());
                    return Err(Error::Io { operation, cause });
                }
            }
            if !self.socket.signal.wait_for_read(seen, deadline) {
                return Ok(None);
            }
        }
    }

    fn port(&self) -> u16 {
        self.socket.port()
    }
}
