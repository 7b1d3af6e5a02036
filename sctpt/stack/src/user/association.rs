//! An association in user space.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::NUMBERING;
use super::ffi;
use super::socket::{Piece, Socket};
use crate::notification::{self, AssociationChange, Notification};
use crate::{
    Association, ConnectFailure, Error, Event, LostBy, MAX_MESSAGE, Path, PathState, Result, Sent,
    address,
};

/// A notification fits in here, save for an ABORT that came with it, which nobody reads.
const NOTIFICATION_ROOM: usize = 512;
/// Where the library is to say which.
pub(super) const ANY: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);
/// Nobody waits to send.
const NOT_BLOCKED: u64 = u64::MAX;

pub(super) struct UserAssociation {
    socket: Socket,
    incoming: Mutex<Incoming>,
    /// This end aborted it.
    aborted: AtomicBool,
    /// What `Signal::writes` was when there was no room.
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
    /// Nothing more comes.
    over: bool,
}

/// What one look at the socket brought.
enum Look {
    Event(Event),
    /// Nothing to tell; there may be more.
    More,
    /// Nothing is there.
    Nothing,
}

impl UserAssociation {
    pub fn new(socket: Socket) -> Self {
        UserAssociation {
            socket,
            incoming: Mutex::default(),
            aborted: AtomicBool::new(false),
            blocked_at: AtomicU64::new(NOT_BLOCKED),
        }
    }

    /// Waits until it is up.
    pub fn wait_until_up(&self, deadline: Instant) -> std::result::Result<(), ConnectFailure> {
        let start = Instant::now();
        let mut buffer = [0; NOTIFICATION_ROOM];
        loop {
            let seen = self.socket.signal.reads();
            match self.socket.receive(&mut buffer) {
                Ok(Some(piece)) if piece.notification => {
                    match notification::parse(&buffer[..piece.length], NUMBERING) {
                        Some(Notification::Association { change, with_abort }) => {
                            return match change {
                                AssociationChange::Up | AssociationChange::Restarted => Ok(()),
                                _ if with_abort => Err(ConnectFailure::Refused),
                                _ => Err(self.connect_error(start)),
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
            if !self.socket.signal.wait_for_read(seen, Some(deadline)) {
                return Err(ConnectFailure::Timeout(start.elapsed()));
            }
        }
    }

    /// Why it did not come up, which the socket tells after the notification.
    fn connect_error(&self, start: Instant) -> ConnectFailure {
        match self.socket.receive(&mut [0; NOTIFICATION_ROOM]) {
            Err(error) => connect_failure(error, start),
            Ok(_) => ConnectFailure::Refused,
        }
    }

    /// One look at what came.
    fn look(&self, buffer: &mut [u8]) -> Result<Look> {
        let mut incoming = self.lock();
        if incoming.over || self.aborted.load(Ordering::Acquire) {
            return Err(Error::Ended);
        }
        // The piece goes where it is wanted, if a notification fits there, too.
        let mut small = [0; NOTIFICATION_ROOM];
        let direct = buffer.len() >= NOTIFICATION_ROOM && incoming.length == 0;
        let mut large = Vec::new();
        let place: &mut [u8] = if direct {
            &mut *buffer
        } else if buffer.len() >= NOTIFICATION_ROOM {
            large.resize(MAX_MESSAGE, 0);
            &mut large
        } else {
            &mut small
        };
        let event = match self.socket.receive(place) {
            Ok(Some(piece)) if piece.notification || incoming.in_notification => {
                let first = !incoming.in_notification;
                incoming.in_notification = !piece.last;
                if first { translate(&place[..piece.length]) } else { None }
            }
            Ok(Some(piece)) if direct && piece.last => {
                Some(Event::Message { length: piece.length, stream: piece.stream })
            }
            Ok(Some(piece)) => {
                // What is in `buffer` already need not be copied back, but messages in pieces are rare.
                let bytes = place[..piece.length].to_vec();
                incoming.add(&bytes, buffer.len());
                if piece.last { Some(incoming.finish(buffer, piece)?) } else { None }
            }
            Ok(None) => Some(Event::Closed),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Look::Nothing),
            Err(error) => match error.raw_os_error() {
                Some(libc::ECONNRESET) => Some(Event::Lost(LostBy::Abort)),
                Some(libc::ETIMEDOUT | libc::ECONNABORTED) => Some(Event::Lost(LostBy::Timeout)),
                _ => return Err(Error::Io { operation: "receive".into(), cause: error }),
            },
        };
        let Some(event) = event else { return Ok(Look::More) };
        if matches!(event, Event::Closed | Event::Lost(_)) {
            incoming.over = true;
            drop(incoming);
            // Others may wait for the same end.
            self.socket.signal.wake(true, true);
        }
        Ok(Look::Event(event))
    }

    fn lock(&self) -> MutexGuard<'_, Incoming> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.aborted.load(Ordering::Acquire) || self.lock().over
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
        if length > buffer.len() {
            return Err(Error::TooLong { length, room: buffer.len() });
        }
        let count = begin.len().min(length);
        buffer[..count].copy_from_slice(&begin[..count]);
        Ok(Event::Message { length, stream: last.stream })
    }
}

impl Association for UserAssociation {
    fn send(&self, message: &[u8], stream: u16) -> Result<Sent> {
        if message.is_empty() || message.len() > MAX_MESSAGE {
            return Err(Error::Length { length: message.len() });
        }
        let seen = self.socket.signal.writes();
        match self.socket.send(message, stream) {
            Ok(()) => {
                self.blocked_at.store(NOT_BLOCKED, Ordering::Relaxed);
                Ok(Sent::Taken)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.blocked_at.store(seen, Ordering::Relaxed);
                Ok(Sent::Blocked)
            }
            Err(cause) if is_end(&cause) => Err(Error::Ended),
            Err(cause) => Err(Error::Io { operation: "send".into(), cause }),
        }
    }

    fn writable(&self, deadline: Instant) -> Result<bool> {
        if self.is_over() {
            return Err(Error::Ended);
        }
        match self.blocked_at.load(Ordering::Relaxed) {
            NOT_BLOCKED => Ok(true),
            seen => Ok(self.socket.signal.wait_for_write(seen, deadline)),
        }
    }

    fn receive(&self, buffer: &mut [u8], deadline: Option<Instant>) -> Result<Option<Event>> {
        loop {
            let seen = self.socket.signal.reads();
            match self.look(buffer)? {
                Look::Event(event) => return Ok(Some(event)),
                Look::More => continue,
                Look::Nothing => {}
            }
            if !self.socket.signal.wait_for_read(seen, deadline) {
                return Ok(None);
            }
        }
    }

    fn local_addresses(&self) -> Result<Vec<SocketAddr>> {
        Ok(self.socket.local_addresses())
    }

    fn peer_addresses(&self) -> Result<Vec<SocketAddr>> {
        Ok(self.socket.peer_addresses())
    }

    fn paths(&self) -> Result<Vec<Path>> {
        let primary = self.primary();
        let mut paths = Vec::new();
        for peer in self.socket.peer_addresses() {
            let question = ffi::PeerAddrInfo {
                address: address::storage(peer),
                association: 0,
                state: 0,
                cwnd: 0,
                srtt: 0,
                rto: 0,
                mtu: 0,
            };
            // An address may be gone since the list was made.
            let Ok(info) = self.socket.get(ffi::GET_PEER_ADDR_INFO, question) else { continue };
            paths.push(Path {
                address: peer,
                state: match info.state {
                    ffi::ACTIVE => PathState::Active,
                    ffi::UNCONFIRMED => PathState::Unconfirmed,
                    _ => PathState::Inactive,
                },
                primary: primary == Some(peer.ip()),
                srtt: Duration::from_millis(info.srtt.into()),
                rto: Duration::from_millis(info.rto.into()),
                mtu: info.mtu,
                cwnd: info.cwnd,
            });
        }
        Ok(paths)
    }

    fn set_primary(&self, peer: IpAddr) -> Result<()> {
        let operation = || format!("set primary path {peer}");
        let peers = self.socket.peer_addresses();
        let Some(peer) = peers.iter().find(|address| address.ip() == peer) else {
            let cause = io::Error::from(io::ErrorKind::AddrNotAvailable);
            return Err(Error::Io { operation: operation(), cause });
        };
        let address = address::storage(*peer);
        let primary = ffi::SetPrimary { address, association: 0, padding: [0; 4] };
        self.socket
            .set(ffi::PRIMARY_ADDR, &primary)
            .map_err(|cause| Error::Io { operation: operation(), cause })
    }

    fn close(&self, deadline: Instant) -> Result<()> {
        if self.is_over() {
            return Ok(());
        }
        match self.socket.shutdown() {
            Err(cause) if !is_end(&cause) => {
                return Err(Error::Io { operation: "close".into(), cause });
            }
            _ => {}
        }
        let mut buffer = vec![0; MAX_MESSAGE];
        loop {
            let seen = self.socket.signal.reads();
            match self.look(&mut buffer) {
                Ok(Look::Event(Event::Closed)) | Err(Error::Ended) => return Ok(()),
                Ok(Look::Event(Event::Lost(by))) => return Err(Error::Lost(by)),
                // Messages that nobody waits for any more, too.
                Ok(Look::Event(_) | Look::More) | Err(Error::TooLong { .. }) => continue,
                Ok(Look::Nothing) => {}
                Err(error) => return Err(error),
            }
            if !self.socket.signal.wait_for_read(seen, Some(deadline)) {
                self.abort();
                let cause = io::ErrorKind::TimedOut.into();
                return Err(Error::Io { operation: "close".into(), cause });
            }
        }
    }

    fn abort(&self) {
        if !self.aborted.swap(true, Ordering::AcqRel) {
            self.socket.abort();
            self.socket.signal.wake(true, true);
        }
    }
}

impl UserAssociation {
    fn primary(&self) -> Option<IpAddr> {
        let address = address::storage(ANY);
        let question = ffi::SetPrimary { address, association: 0, padding: [0; 4] };
        let answer = self.socket.get(ffi::PRIMARY_ADDR, question).ok()?;
        address::from_storage(&answer.address).map(|address| address.ip())
    }
}

/// What the user is told; none if it is of no interest.
fn translate(bytes: &[u8]) -> Option<Event> {
    match notification::parse(bytes, NUMBERING)? {
        Notification::Association { change, with_abort } => match change {
            AssociationChange::Up | AssociationChange::Restarted => None,
            AssociationChange::Closed => Some(Event::Closed),
            // The peer's ABORT comes with it; otherwise this end gave up.
            AssociationChange::Lost | AssociationChange::NotStarted if with_abort => {
                Some(Event::Lost(LostBy::Abort))
            }
            AssociationChange::Lost | AssociationChange::NotStarted => {
                Some(Event::Lost(LostBy::Timeout))
            }
        },
        Notification::Path { address, change } => Some(Event::Path { address, change }),
        Notification::Other => None,
    }
}

fn connect_failure(error: io::Error, start: Instant) -> ConnectFailure {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::ECONNRESET) => ConnectFailure::Refused,
        Some(libc::ETIMEDOUT | libc::ECONNABORTED) => ConnectFailure::Timeout(start.elapsed()),
        _ => ConnectFailure::Io(error),
    }
}

/// Whether the association is gone.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ENOTCONN
                | libc::EPIPE
                | libc::ECONNRESET
                | libc::ECONNABORTED
                | libc::ETIMEDOUT
                | libc::ECONNREFUSED
                | libc::EINVAL
        )
    )
}
