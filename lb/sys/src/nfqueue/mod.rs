//! Packets from a netfilter queue, and verdicts on them.
//!
//! A [`Queue`] is a netlink socket that owns one queue of the kernel. [`Queue::receive`] takes a batch
//! of packets with one system call and [`Queue::answer`] answers all of them with a second one: that, not the work on a
//! packet, is what a queue consumer's time goes into.

mod kernel_counters;
mod message;
mod ring;

pub use kernel_counters::{KernelCounters, KernelQueues};
pub use message::{Event, Packet, PacketId, Verdict, events};

use std::io;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::capability::Capability;
use crate::netlink::Socket;
use message::VerdictBatch;
use ring::Ring;

/// How a queue is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Number of the queue.
    pub number: u16,
    /// Most packets that the kernel keeps waiting.
    pub length: u32,
    /// Bytes of each packet that are copied.
    pub copy_range: u32,
    /// Size of the socket's receive buffer in bytes.
    pub receive_buffer: usize,
    /// Whether the kernel lets packets pass, unmarked, that find the queue full.
    pub fail_open: bool,
}

/// Why a queue could not be had.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The process lacks the right.
    #[error("open queue {0}: not permitted; CAP_NET_ADMIN over this network namespace is needed")]
    NotPermitted(u16),
    /// Another process has it.
    #[error(
        "open queue {queue}: it is in use by {}; choose another with --queue, or end that process",
        owner(.port)
    )]
    InUse {
        /// The queue.
        queue: u16,
        /// The netlink port that owns it.
        port: Option<u32>,
    },
    /// The kernel has no such thing.
    #[error("open queue {0}: this kernel has no NFQUEUE; load the module nfnetlink_queue")]
    NotSupported(u16),
    /// The kernel did not answer.
    #[error("open queue {0}: the kernel did not answer the set-up request")]
    NoAnswer(u16),
    /// The system refused.
    #[error("open queue {queue}: {cause}")]
    Io {
        /// The queue.
        queue: u16,
        /// Why.
        cause: io::Error,
    },
}

/// What came of one call of [`Queue::answer`].
#[derive(Debug, Default)]
pub struct Served {
    /// Packets decided about.
    pub packets: u64,
    /// Packets that came without their bytes and were sent round once more.
    pub repeated: u64,
    /// Verdicts that the kernel refused: it had given those packets up.
    pub refused: u64,
    /// The verdicts could not be sent.
    pub send_error: Option<io::Error>,
}

/// A queue of the kernel that this process serves.
#[derive(Debug)]
pub struct Queue {
    socket: Socket,
    ring: Ring,
    verdicts: VerdictBatch,
    /// Messages that came before the answer to the set-up request.
    early: Vec<Vec<u8>>,
    /// How many more packets without bytes are sent round: they come during set-up only, and
    /// nothing may go round for ever.
    repeats_left: u32,
}

/// Packets taken with one system call.
const BATCH: usize = 128;
/// What a message holds beside the copied bytes: headers and attributes.
const MESSAGE_OVERHEAD: usize = 512;
/// How long the kernel may take to answer. It answers within the call that asks.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of unsent verdicts that are kept for a later attempt: with a batch they must fit the socket's
/// default send buffer.
const MAX_UNSENT: usize = 128 * 1024;
/// Most packets that are sent round because they came without bytes.
const MAX_REPEATS: u32 = 100_000;
/// Attempts to send verdicts when memory is short.
const SEND_ATTEMPTS: u32 = 3;

/// Lets the kernel load what it has of queues, if that is a module: it does so for any request.
pub fn load() -> io::Result<()> {
    Socket::open()?.send(&message::no_change())
}

impl Queue {
    /// Bytes that a queue takes in this process, to within a few.
    pub const fn memory(copy_range: u32) -> usize {
        BATCH * (copy_range as usize + MESSAGE_OVERHEAD + Ring::DESCRIPTION)
    }

    /// Takes over a queue. Packets that arrive from the first moment on are kept.
    pub fn open(config: &QueueConfig) -> Result<Self, OpenError> {
        let queue = config.number;
        let io = |cause| OpenError::Io { queue, cause };
        let socket = Socket::open().map_err(|cause| refused(queue, cause))?;
        socket.set_receive_buffer(config.receive_buffer).map_err(io)?;
        socket.send(&message::setup(config)).map_err(|cause| refused(queue, cause))?;

        let mut early = Vec::new();
        let mut buffer = vec![0; config.copy_range as usize + MESSAGE_OVERHEAD];
        let deadline = Instant::now() + PATIENCE;
        'answered: loop {
            let len = match socket.receive(&mut buffer) {
                Ok(len) => len,
                Err(error) if is_idle(&error) && Instant::now() < deadline => continue,
                Err(error) if is_idle(&error) => return Err(OpenError::NoAnswer(queue)),
                Err(cause) => return Err(io(cause)),
            };
            let datagram = &buffer[..len];
            for event in message::events(datagram) {
                match event {
                    Event::Answer { sequence: message::SETUP, errno: 0 } => break 'answered,
                    Event::Answer { sequence: message::SETUP, errno } => {
                        return Err(refused(queue, io::Error::from_raw_os_error(errno)));
                    }
                    Event::Answer { .. } | Event::Packet(_) => {}
                }
            }
            early.push(datagram.to_vec());
            if Instant::now() >= deadline {
                return Err(OpenError::NoAnswer(queue));
            }
        }
        let ring = Ring::new(BATCH, config.copy_range as usize + MESSAGE_OVERHEAD);
        Ok(Queue {
            socket,
            ring,
            verdicts: VerdictBatch::new(queue, BATCH),
            early,
            repeats_left: MAX_REPEATS,
        })
    }

    /// The size of the receive buffer that the kernel granted, in bytes. It tells twice as much as
    /// can be asked for.
    pub fn receive_buffer(&self) -> io::Result<usize> {
        Ok(self.socket.receive_buffer()? / 2)
    }

    /// Waits a moment for packets and takes as many as there are, up to a batch. What was taken
    /// before and not answered yet comes first.
    pub fn receive(&mut self) -> io::Result<()> {
        if !self.early.is_empty() || self.ring.holds_datagrams() {
            return Ok(());
        }
        match self.ring.receive(&self.socket) {
            Err(error) if !is_idle(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Asks `decide` about each packet that was taken, and sends the verdicts.
    pub fn answer(&mut self, mut decide: impl FnMut(&Packet<'_>) -> Verdict) -> Served {
        let mut served = Served::default();
        let Queue { socket, ring, verdicts, early, repeats_left } = self;
        let mut take = |datagram: &[u8]| {
            for event in message::events(datagram) {
                match event {
                    // It was queued before the kernel had learnt to copy.
                    Event::Packet(packet) if packet.payload.is_none() && *repeats_left > 0 => {
                        *repeats_left -= 1;
                        served.repeated += 1;
                        verdicts.push(packet.id, Verdict::Repeat);
                    }
                    Event::Packet(packet) => {
                        served.packets += 1;
                        verdicts.push(packet.id, decide(&packet));
                    }
                    Event::Answer { errno, .. } => served.refused += u64::from(errno != 0),
                }
            }
        };
        early.drain(..).for_each(|datagram| take(&datagram));
        ring.drain().for_each(&mut take);
        if !verdicts.is_empty() {
            served.send_error = send(socket, verdicts).err();
            // Verdicts that could not be sent go with the next ones, within bounds.
            if served.send_error.is_none() || verdicts.bytes().len() > MAX_UNSENT {
                verdicts.clear();
            }
        }
        served
    }
}

fn send(socket: &Socket, verdicts: &VerdictBatch) -> io::Result<()> {
    let mut attempt = 1;
    loop {
        match socket.send(verdicts.bytes()) {
            Err(_) if attempt < SEND_ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

fn is_idle(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// The kernel says "not permitted" both to who has no right and to who comes second.
fn refused(queue: u16, cause: io::Error) -> OpenError {
    match cause.raw_os_error() {
        Some(libc::EPERM | libc::EBUSY) => {
            let listed = KernelQueues::open().and_then(|mut queues| queues.read());
            let owner = listed.iter().flatten().find(|one| one.queue == queue);
            match owner {
                None if listed.is_ok() || !Capability::NetAdmin.in_effect() => {
                    OpenError::NotPermitted(queue)
                }
                owner => OpenError::InUse { queue, port: owner.map(|owner| owner.port) },
            }
        }
        Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOENT | libc::EPROTONOSUPPORT) => {
            OpenError::NotSupported(queue)
        }
        _ => OpenError::Io { queue, cause },
    }
}

/// A netlink port is mostly the number of its process.
fn owner(port: &Option<u32>) -> String {
    let Some(port) = port else {
        return "another process".into();
    };
    match std::fs::read_to_string(format!("/proc/{port}/comm")) {
        Ok(name) => format!("process {port} ({})", name.trim()),
        Err(_) => format!("another process (netlink port {port})"),
    }
}
