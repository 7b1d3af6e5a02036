//! An association of either stack.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::endpoint::{Endpoint, Piece};
use crate::notification::{self, AssociationChange, Notification};
use crate::{Association, ConnectFailure, Error, Event, LostBy, MAX_MESSAGE, Path, Result, Sent};

/// A notification fits in here, save for an ABORT that came with it, which nobody reads.
const NOTIFICATION_ROOM: usize = 512;
/// Nobody waits to send.
const NOT_BLOCKED: u64 = u64::MAX;

pub(crate) struct EndpointAssociation<E> {
    endpoint: E,
    incoming: Mutex<Incoming>,
    /// It broke, was closed by the peer or aborted here.
    ended: AtomicBool,
    /// What `Endpoint::writes` was when there was no room.
    blocked_at: AtomicU64,
}

/// What has come so far of something.
#[derive(Debug, Default)]
struct Incoming {
    /// Pieces of the message, as many as fit.
    begin: Vec<u8>,
    /// Length of all its pieces.
    length: usize,
    /// The rest of a notification is still to come.
    in_notification: bool,
}

/// What one look at the socket brought.
enum Look {
    Event(Event),
    /// Nothing to tell; there may be more.
    More,
    /// Nothing is there.
    Nothing,
}

impl<E: Endpoint> EndpointAssociation<E> {
    pub fn new(endpoint: E) -> Self {
        EndpointAssociation {
            endpoint,
            incoming: Mutex::default(),
            ended: AtomicBool::new(false),
            blocked_at: AtomicU64::new(NOT_BLOCKED),
        }
    }

    /// Waits until it is up.
    pub fn wait_until_up(&self, deadline: Instant) -> std::result::Result<(), ConnectFailure> {
        let start = Instant::now();
        let mut buffer = [0; NOTIFICATION_ROOM];
        loop {
            let seen = self.endpoint.reads();
            match self.endpoint.receive(&mut buffer) {
                Ok(Some(piece)) if piece.notification => {
                    match notification::parse(&buffer[..piece.length], E::NUMBERING) {
                        Some(Notification::Association { change, with_abort }) => {
                            return match change {
                                AssociationChange::Up | AssociationChange::Restarted => Ok(()),
                                _ if with_abort => Err(ConnectFailure::Refused),
                                _ => Err(self.why_not_up(start)),
                            };
                        }
                        _ => continue,
                    }
                }
                // Messages come after the notification that it is up.
                Ok(_) => return Err(ConnectFailure::Refused),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(connect_failure(error, start)),
            }
            let in_time = self.endpoint.wait_for_read(seen, Some(deadline));
            if !in_time.map_err(ConnectFailure::Io)? {
                return Err(ConnectFailure::Timeout(start.elapsed()));
            }
        }
    }

    /// Why it did not come up, which the socket tells after the notification.
    fn why_not_up(&self, start: Instant) -> ConnectFailure {
        match self.endpoint.receive(&mut [0; NOTIFICATION_ROOM]) {
            Err(error) => connect_failure(error, start),
            Ok(_) => ConnectFailure::Refused,
        }
    }

    /// One look at what came.
    fn look(&self, buffer: &mut [u8]) -> Result<Look> {
        let mut incoming = self.lock();
        self.check_not_ended()?;
        // What comes is read to where it is wanted, if a notification has room there, too. Messages in pieces
        // and short buffers are rare.
        let direct = buffer.len() >= NOTIFICATION_ROOM && incoming.length == 0;
        let mut other = if direct { Vec::new() } else { vec![0; MAX_MESSAGE] };
        let place = if direct { &mut *buffer } else { &mut other[..] };
        let event = match self.endpoint.receive(place) {
            Ok(Some(piece)) if piece.notification => {
                let first = !incoming.in_notification;
                incoming.in_notification = !piece.last;
                if first { self.translate(&place[..piece.length]) } else { None }
            }
            Ok(Some(piece)) if direct && piece.last => {
                Some(Event::Message { length: piece.length, stream: piece.stream })
            }
            Ok(Some(piece)) => {
                let room = if direct { place.len() } else { buffer.len() };
                let place = if direct { &*buffer } else { &other[..] };
                incoming.add(&place[..piece.length], room);
                if piece.last { Some(incoming.finish(buffer, piece)?) } else { None }
            }
            Ok(None) => Some(Event::Closed),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Look::Nothing),
            Err(cause) => match lost_by(&cause) {
                Some(by) => Some(Event::Lost(by)),
                None => return Err(failure("receive", cause)),
            },
        };
        let Some(event) = event else { return Ok(Look::More) };
        if matches!(event, Event::Closed | Event::Lost(_)) {
            self.ended.store(true, Ordering::Release);
            drop(incoming);
            // Others may wait for the same end.
            self.endpoint.wake();
        }
        Ok(Look::Event(event))
    }

    /// What the user is told; none if it is of no interest.
    fn translate(&self, bytes: &[u8]) -> Option<Event> {
        match notification::parse(bytes, E::NUMBERING)? {
            Notification::Association { change, with_abort } => match change {
                AssociationChange::Up | AssociationChange::Restarted => None,
                AssociationChange::Closed => Some(Event::Closed),
                _ if with_abort => Some(Event::Lost(LostBy::Abort)),
                // An ABORT without a cause: then the socket's error tells.
                _ => match self.endpoint.receive(&mut [0; NOTIFICATION_ROOM]) {
                    Err(error) => Some(Event::Lost(lost_by(&error).unwrap_or(LostBy::Timeout))),
                    Ok(_) => Some(Event::Lost(LostBy::Timeout)),
                },
            },
            Notification::Path { address, change } => Some(Event::Path { address, change }),
            Notification::Other => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Incoming> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn check_not_ended(&self) -> Result<()> {
        if self.has_ended() { Err(Error::Ended) } else { Ok(()) }
    }
}

impl Incoming {
    /// Adds a piece of a message; what does not fit into `room` is only counted.
    fn add(&mut self, bytes: &[u8], room: usize) {
        let left = room.saturating_sub(self.begin.len()).min(bytes.len());
        self.begin.extend_from_slice(&bytes[..left]);
        self.length += bytes.len();
    }

    /// Gives the message out after its last piece.
    fn finish(&mut self, buffer: &mut [u8], last: Piece) -> Result<Event> {
        let begin = std::mem::take(&mut self.begin);
        let length = std::mem::take(&mut self.length);
        match buffer.get_mut(..length) {
            // Its begin may have come with a shorter buffer.
            Some(place) if begin.len() == length => place.copy_from_slice(&begin),
            _ => return Err(Error::TooLong { length, room: buffer.len() }),
        }
        Ok(Event::Message { length, stream: last.stream })
    }
}

impl<E: Endpoint> Association for EndpointAssociation<E> {
    fn send(&self, message: &[u8], stream: u16) -> Result<Sent> {
        if message.is_empty() || message.len() > MAX_MESSAGE {
            return Err(Error::Length { length: message.len() });
        }
        self.check_not_ended()?;
        let seen = self.endpoint.writes();
        match self.endpoint.send(message, stream) {
            Ok(()) => {
                self.blocked_at.store(NOT_BLOCKED, Ordering::Relaxed);
                Ok(Sent::Taken)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.blocked_at.store(seen, Ordering::Relaxed);
                Ok(Sent::Blocked)
            }
            Err(cause) => {
                Err(failure(format!("send {} bytes on stream {stream}", message.len()), cause))
            }
        }
    }

    fn writable(&self, deadline: Instant) -> Result<bool> {
        self.check_not_ended()?;
        match self.blocked_at.load(Ordering::Relaxed) {
            NOT_BLOCKED => Ok(true),
            seen => self
                .endpoint
                .wait_for_write(seen, deadline)
                .map_err(|cause| Error::Io { operation: "wait to send".into(), cause }),
        }
    }

    fn receive(&self, buffer: &mut [u8], deadline: Option<Instant>) -> Result<Option<Event>> {
        loop {
            let seen = self.endpoint.reads();
            match self.look(buffer)? {
                Look::Event(event) => return Ok(Some(event)),
                Look::More => continue,
                Look::Nothing => {}
            }
            if !self.wait_for_read(seen, deadline)? {
                return Ok(None);
            }
        }
    }

    fn local_addresses(&self) -> Result<Vec<SocketAddr>> {
        self.check_not_ended()?;
        let result = self.endpoint.local_addresses();
        result.map_err(|cause| failure("list local addresses", cause))
    }

    fn peer_addresses(&self) -> Result<Vec<SocketAddr>> {
        self.check_not_ended()?;
        let result = self.endpoint.peer_addresses();
        result.map_err(|cause| failure("list peer addresses", cause))
    }

    fn paths(&self) -> Result<Vec<Path>> {
        let primary = self.endpoint.primary().ok();
        let mut paths = Vec::new();
        for peer in self.peer_addresses()? {
            // An address may be gone since the list was made.
            if let Ok(path) = self.endpoint.path(peer) {
                paths.push(Path { primary: primary == Some(peer.ip()), ..path });
            }
        }
        Ok(paths)
    }

    fn set_primary(&self, peer: IpAddr) -> Result<()> {
        let failed = |cause| failure(format!("set primary path {peer}"), cause);
        let peers = self.peer_addresses()?;
        let Some(address) = peers.into_iter().find(|address| address.ip() == peer) else {
            return Err(failed(io::ErrorKind::AddrNotAvailable.into()));
        };
        self.endpoint.set_primary(address).map_err(failed)
    }

    fn close(&self, deadline: Instant) -> Result<()> {
        if self.has_ended() {
            return Ok(());
        }
        match self.endpoint.shutdown() {
            Err(cause) if !is_end(&cause) => {
                return Err(Error::Io { operation: "close".into(), cause });
            }
            _ => {}
        }
        let mut buffer = vec![0; MAX_MESSAGE];
        loop {
            let seen = self.endpoint.reads();
            match self.look(&mut buffer) {
                Ok(Look::Event(Event::Closed)) | Err(Error::Ended) => return Ok(()),
                Ok(Look::Event(Event::Lost(by))) => return Err(Error::Lost(by)),
                // Messages that nobody waits for any more, too.
                Ok(Look::Event(_) | Look::More) | Err(Error::TooLong { .. }) => continue,
                Ok(Look::Nothing) => {}
                Err(error) => return Err(error),
            }
            if !self.wait_for_read(seen, Some(deadline))? {
                self.abort();
                let cause = io::ErrorKind::TimedOut.into();
                return Err(Error::Io { operation: "close".into(), cause });
            }
        }
    }

    fn abort(&self) {
        if !self.ended.swap(true, Ordering::AcqRel) {
            // It fails when the association is gone, which is what is wanted.
            let _ = self.endpoint.abort();
            self.endpoint.wake();
        }
    }
}

impl<E: Endpoint> EndpointAssociation<E> {
    fn wait_for_read(&self, seen: u64, deadline: Option<Instant>) -> Result<bool> {
        self.endpoint
            .wait_for_read(seen, deadline)
            .map_err(|cause| Error::Io { operation: "wait to receive".into(), cause })
    }
}

fn connect_failure(error: io::Error, start: Instant) -> ConnectFailure {
    match error.raw_os_error() {
        Some(libc::ETIMEDOUT | libc::ECONNABORTED) => ConnectFailure::Timeout(start.elapsed()),
        _ => error.into(),
    }
}

/// The end that an error stands for.
fn lost_by(error: &io::Error) -> Option<LostBy> {
    match error.raw_os_error() {
        Some(libc::ECONNRESET) => Some(LostBy::Abort),
        Some(libc::ETIMEDOUT | libc::ECONNABORTED) => Some(LostBy::Timeout),
        _ => None,
    }
}

/// What went wrong; that the association is gone is no matter of the operation.
fn failure(operation: impl Into<String>, cause: io::Error) -> Error {
    if is_end(&cause) { Error::Ended } else { Error::Io { operation: operation.into(), cause } }
}

/// Whether the association is gone, whose end nobody may have read yet. The library says ENOENT to who sends then,
/// ECONNRESET while it is being taken apart or shut down, and ENOTCONN to who asks or closes; the kernel says
/// EPIPE or ESHUTDOWN to who sends, and ENOTCONN.
fn is_end(error: &io::Error) -> bool {
    let gone = matches!(
        error.raw_os_error(),
        Some(libc::ENOTCONN | libc::ENOENT | libc::EPIPE | libc::ESHUTDOWN | libc::ECONNREFUSED)
    );
    gone || lost_by(error).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_as_such_whatever_the_stack_calls_it() {
        for number in [
            libc::ENOENT,
            libc::ENOTCONN,
            libc::ECONNRESET,
            libc::ECONNABORTED,
            libc::ECONNREFUSED,
            libc::ETIMEDOUT,
            libc::EPIPE,
            libc::ESHUTDOWN,
        ] {
            let error = failure("send", io::Error::from_raw_os_error(number));
            assert!(matches!(error, Error::Ended), "{number}: {error}");
        }
        for number in [libc::EINVAL, libc::EMSGSIZE, libc::ENOBUFS, libc::EBADF] {
            let error = failure("send", io::Error::from_raw_os_error(number));
            assert!(matches!(error, Error::Io { .. }), "{number}: {error}");
        }
        let error = failure("set primary path ::1", io::ErrorKind::AddrNotAvailable.into());
        assert!(error.to_string().starts_with("set primary path ::1: "), "{error}");
    }
}
