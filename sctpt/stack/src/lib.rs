//! SCTP through the kernel or in user space, behind one interface.
//!
//! A [`Stack`] makes listeners and associations; who uses them need not know which stack it is. All calls block,
//! at most until their deadline, and an association may be used by one thread that sends and one that receives.

mod address;
mod association;
mod endpoint;
mod kernel;
mod notification;
mod open;
pub mod route;
mod scope;
mod user;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use address::{AddressError, Addresses};
pub use kernel::KernelStack;
pub use open::{Choice, kernel_answers, open};
pub use user::UserStack;

/// The longest message that is sent and received.
pub const MAX_MESSAGE: usize = 16_384;

/// A way to speak SCTP.
pub trait Stack: Send + Sync {
    /// Its name: `kernel` or `user`.
    fn name(&self) -> &'static str;

    /// Takes associations at all these addresses.
    fn listen(&self, local: &Addresses, settings: &Settings) -> Result<Box<dyn Listener>>;

    /// Makes an association between all these addresses. It is up when this returns.
    fn connect(
        &self,
        local: &Addresses,
        remote: &Addresses,
        settings: &Settings,
        deadline: Instant,
    ) -> Result<Arc<dyn Association>>;
}

/// Where associations come in.
pub trait Listener: Send + Sync {
    /// The next association; none if there was none until the deadline.
    fn accept(&self, deadline: Option<Instant>) -> Result<Option<Arc<dyn Association>>>;

    /// The port, also if the kernel chose it.
    fn port(&self) -> u16;
}

/// One association, with all its paths.
pub trait Association: Send + Sync {
    /// Hands over a message. It never waits: if there is no room the message is not taken.
    fn send(&self, message: &[u8], stream: u16) -> Result<Sent>;

    /// Waits until a message may be taken again.
    fn writable(&self, deadline: Instant) -> Result<bool>;

    /// The next thing that happened; none if nothing did until the deadline. A message is whole: it is put
    /// together before it is given out. What does not fit into `buffer` is an error of its own.
    fn receive(&self, buffer: &mut [u8], deadline: Option<Instant>) -> Result<Option<Event>>;

    /// Addresses of this end.
    fn local_addresses(&self) -> Result<Vec<SocketAddr>>;

    /// Addresses of the peer.
    fn peer_addresses(&self) -> Result<Vec<SocketAddr>>;

    /// The paths to the peer, one for each of its addresses.
    fn paths(&self) -> Result<Vec<Path>>;

    /// Asks to send on this path as long as it is active.
    fn set_primary(&self, peer: IpAddr) -> Result<()>;

    /// Ends it after all that was taken has been acknowledged. It may take until the deadline.
    fn close(&self, deadline: Instant) -> Result<()>;

    /// Ends it at once, and tells the peer.
    fn abort(&self);
}

/// What may be set on an association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Between heartbeats on an idle path; none: the stack's own.
    pub heartbeat: Option<Duration>,
    /// Retransmission time-out: at first, at least and at most.
    pub rto: Option<Rto>,
    /// Losses in a row after which a path is inactive.
    pub path_max_retransmits: Option<u16>,
    /// Losses in a row after which the association ends.
    pub association_max_retransmits: Option<u16>,
    /// Whether small messages wait for others.
    pub nodelay: bool,
    /// Streams in each direction.
    pub streams: u16,
    /// SCTP in UDP (RFC 6951).
    pub encapsulation: Option<Encapsulation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rto {
    pub initial: Duration,
    pub min: Duration,
    pub max: Duration,
}

/// UDP ports of SCTP in UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encapsulation {
    pub local: u16,
    pub remote: u16,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Taken,
    /// There was no room for it.
    Blocked,
}

/// What happened on an association.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Message {
        length: usize,
        stream: u16,
    },
    /// A path changed.
    Path {
        address: IpAddr,
        change: PathChange,
    },
    /// The peer ended it in order; nothing more comes.
    Closed,
    /// It broke: reset by the peer or without answer for too long. Nothing more comes.
    Lost(LostBy),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostBy {
    /// The peer aborted it.
    Abort,
    /// This end gave up: no answer on any path. (Or the peer broke the protocol, which the stacks do not
    /// tell apart from it.)
    Timeout,
}

impl fmt::Display for LostBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LostBy::Abort => "aborted by the peer",
            LostBy::Timeout => "no answer",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathChange {
    Up,
    Down,
    /// The peer confirmed the address by a heartbeat.
    Confirmed,
    Primary,
    Added,
    Removed,
}

/// One path, as the stack knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    pub address: SocketAddr,
    pub state: PathState,
    pub primary: bool,
    pub srtt: Duration,
    pub rto: Duration,
    pub mtu: u32,
    pub cwnd: u32,
    /// None where the stack does not tell, as that of the kernel.
    pub heartbeats: Option<Heartbeats>,
}

/// Heartbeats of a path since the association began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heartbeats {
    /// To the peer, and answers to them.
    pub sent: u64,
    pub acks_received: u64,
    /// From the peer, and answers to them.
    pub received: u64,
    pub acks_sent: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathState {
    Active,
    Inactive,
    /// Not yet confirmed by a heartbeat.
    Unconfirmed,
}

pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, as `operation object: cause`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This stack cannot be used here.
    #[error("{stack} SCTP: {cause}")]
    Unavailable { stack: &'static str, cause: String },
    #[error("connect {to}: {cause}")]
    Connect { to: Addresses, cause: ConnectFailure },
    #[error("{operation}: {cause}")]
    Io { operation: String, cause: std::io::Error },
    /// The association has ended.
    #[error("the association has ended")]
    Ended,
    /// The association broke while it was to end.
    #[error("the association was lost: {0}")]
    Lost(LostBy),
    #[error("a message of {length} bytes cannot be sent: it must have 1 to {MAX_MESSAGE}")]
    Length { length: usize },
    #[error("a message of {length} bytes does not fit into {room}")]
    TooLong { length: usize, room: usize },
}

/// Why no association came up.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFailure {
    #[error("refused")]
    Refused,
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error(transparent)]
    Io(std::io::Error),
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            heartbeat: None,
            rto: None,
            path_max_retransmits: None,
            association_max_retransmits: None,
            nodelay: true,
            streams: 10,
            encapsulation: None,
        }
    }
}
