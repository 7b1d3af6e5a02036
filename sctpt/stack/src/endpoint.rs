//! What a stack's sockets must be able to do; listeners and associations are the same on top of it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use crate::association::EndpointAssociation;
use crate::notification::Numbering;
use crate::{
    Addresses, Association, ConnectFailure, Error, Listener, Path, Result, Settings, Stack, route,
    scope,
};

/// Associations that wait to be accepted; a kernel may take fewer.
const BACKLOG: i32 = 1024;

/// A socket of the one-to-one style, which never waits by itself. Dropped, it shuts its association down in
/// the background.
pub(crate) trait Endpoint: Send + Sync + Sized + 'static {
    /// Of its notifications.
    const NUMBERING: Numbering;

    /// Starts an association; it is not up yet.
    fn connect(&self, remote: &Addresses) -> io::Result<()>;

    /// Takes associations.
    fn listen(&self, backlog: i32) -> io::Result<()>;

    /// The next association that came in; `WouldBlock` if there is none.
    fn accept(&self) -> io::Result<Self>;

    /// The next piece; none at the end of the association; `WouldBlock` if there is none yet.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Piece>>;

    /// Hands over a message; `WouldBlock` if there is no room.
    fn send(&self, message: &[u8], stream: u16) -> io::Result<()>;

    /// To be called before one looks, and given to the wait: what came in between ends the wait.
    fn reads(&self) -> u64;

    /// To be called before one sends, and given to the wait.
    fn writes(&self) -> u64;

    /// Waits for something to receive or to accept; false when the time is over.
    fn wait_for_read(&self, seen: u64, deadline: Option<Instant>) -> io::Result<bool>;

    /// Waits for room; false when the time is over.
    fn wait_for_write(&self, seen: u64, deadline: Instant) -> io::Result<bool>;

    /// Ends all waits.
    fn wake(&self);

    /// Nothing more will be sent.
    fn shutdown(&self) -> io::Result<()>;

    /// Ends the association at once.
    fn abort(&self) -> io::Result<()>;

    fn port(&self) -> u16;

    fn local_addresses(&self) -> io::Result<Vec<SocketAddr>>;

    fn peer_addresses(&self) -> io::Result<Vec<SocketAddr>>;

    /// The path to this address of the peer; whether it is the primary one is filled in by the caller.
    fn path(&self, peer: SocketAddr) -> io::Result<Path>;

    fn primary(&self) -> io::Result<IpAddr>;

    fn set_primary(&self, peer: SocketAddr) -> io::Result<()>;
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub length: usize,
    pub stream: u16,
    pub notification: bool,
    /// Nothing of this message or notification is left.
    pub last: bool,
}

/// Where associations come in.
pub(crate) struct EndpointListener<E>(pub E);

impl<E: Endpoint> Listener for EndpointListener<E> {
    fn accept(&self, deadline: Option<Instant>) -> Result<Option<Arc<dyn Association>>> {
        let failed = |cause| Error::Io { operation: format!("accept port {}", self.port()), cause };
        loop {
            let seen = self.0.reads();
            match self.0.accept() {
                Ok(endpoint) => return Ok(Some(Arc::new(EndpointAssociation::new(endpoint)))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // It ended before it was accepted; the next is another one.
                Err(error) if is_gone(error.kind()) => continue,
                Err(cause) => return Err(failed(cause)),
            }
            if !self.0.wait_for_read(seen, deadline).map_err(failed)? {
                return Ok(None);
            }
        }
    }

    fn port(&self) -> u16 {
        self.0.port()
    }
}

/// What makes one stack differ from the other.
pub(crate) trait Sockets: Send + Sync {
    const NAME: &'static str;
    type Socket: Endpoint;

    /// A bound socket with these settings.
    fn bound(&self, local: &Addresses, settings: &Settings) -> Result<Self::Socket>;
}

impl<S: Sockets> Stack for S {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn listen(&self, local: &Addresses, settings: &Settings) -> Result<Box<dyn Listener>> {
        let socket = self.bound(local, settings)?;
        socket
            .listen(BACKLOG)
            .map_err(|cause| Error::Io { operation: format!("listen {local}"), cause })?;
        Ok(Box::new(EndpointListener(socket)))
    }

    fn connect(
        &self,
        local: &Addresses,
        remote: &Addresses,
        settings: &Settings,
        deadline: Instant,
    ) -> Result<Arc<dyn Association>> {
        let failed = |cause| Error::Connect { to: remote.clone(), cause };
        let socket = self.bound(local, settings)?;
        // Neither stack says so by itself.
        route::check_reachable(&remote.addresses).map_err(|cause| failed(cause.into()))?;
        let order = scope::narrowest_first(remote);
        socket.connect(&order).map_err(|cause| failed(cause.into()))?;
        let association = EndpointAssociation::new(socket);
        if let Err(cause) = association.wait_until_up(deadline) {
            // The peer must not think that it has come up after all.
            association.abort();
            return Err(failed(cause));
        }
        if order != *remote {
            // It fails if the peer does not have the address.
            let _ = association.set_primary(remote.addresses[0]);
        }
        Ok(Arc::new(association))
    }
}

/// What the stacks say of an association that ended while it waited to be accepted.
fn is_gone(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

impl From<io::Error> for ConnectFailure {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED | libc::ECONNRESET) => ConnectFailure::Refused,
            _ => ConnectFailure::Io(error),
        }
    }
}
