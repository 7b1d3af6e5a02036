//! The library itself, of which a process has one.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::{NAME, ffi, wake};
use crate::{Error, Result};

/// Bytes that an association may hold back, in each direction: several of the longest messages, and
/// little enough for thousands of associations.
const BUFFER: u32 = 256 * 1024;
/// Buckets for associations and for ports. The library's own numbers are made for few.
const ASSOCIATION_BUCKETS: u32 = 4096;
const PORT_BUCKETS: u32 = 1024;
/// How long the end waits for associations that are still shutting down, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(5);

/// Whether the library runs in this process.
static RUNNING: AtomicBool = AtomicBool::new(false);

/// The library while it runs. Each socket keeps it running; there is one in a process.
#[derive(Debug)]
pub(super) struct Library {
    /// None: SCTP goes directly in IP.
    pub udp_port: Option<u16>,
    /// Ended by dropping the sender.
    caretaker: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Library {
    /// Starts it, if this process may and does not have one yet.
    pub fn start(udp_port: Option<u16>) -> Result<Self> {
        let unavailable = |cause: String| Error::Unavailable { stack: NAME, cause };
        match udp_port {
            // The library would say nothing and send nothing.
            None => raw_socket()
                .map_err(|error| unavailable(format!("raw socket: {error} (needs CAP_NET_RAW)")))?,
            Some(0) => return Err(unavailable("the local UDP port must not be 0".into())),
            Some(port) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))
                .map(drop)
                .map_err(|error| unavailable(format!("UDP port {port}: {error}")))?,
        }
        if RUNNING.swap(true, Ordering::AcqRel) {
            return Err(unavailable("it runs already in this process".into()));
        }
        // SAFETY: numbers only; before the library starts, as it wants these.
        unsafe { ffi::usrsctp_tunable_set_sctp_hashtblsize(ASSOCIATION_BUCKETS) };
        // SAFETY: as above.
        unsafe { ffi::usrsctp_tunable_set_sctp_pcbtblsize(PORT_BUCKETS) };
        // SAFETY: it does not run (`RUNNING`); no output for other addresses and no printer.
        unsafe { ffi::usrsctp_init(udp_port.unwrap_or(0), ptr::null(), ptr::null()) };
        // What does not belong to an association is answered; `hooks` holds back the answers that would
        // disturb other processes.
        // SAFETY: a number only, here and below.
        unsafe { ffi::usrsctp_sysctl_set_sctp_blackhole(0) };
        // SAFETY: as above. The peer on this host may be a stack that does look at checksums.
        unsafe { ffi::usrsctp_sysctl_set_sctp_no_csum_on_loopback(0) };
        // SAFETY: as above.
        unsafe { ffi::usrsctp_sysctl_set_sctp_sendspace(BUFFER) };
        // SAFETY: as above.
        unsafe { ffi::usrsctp_sysctl_set_sctp_recvspace(BUFFER) };
        let mut library = Library { udp_port, caretaker: None };
        library.caretaker = Some(caretaker()?);
        Ok(library)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.caretaker.take() {
            drop(sender);
            // It does not panic; if it did, there is nothing left to do for it.
            let _ = thread.join();
        }
        let deadline = Instant::now() + PATIENCE;
        // SAFETY: all sockets are closed: each keeps the library alive. The call refuses while associations
        // are still being shut down.
        while unsafe { ffi::usrsctp_finish() } != 0 {
            if Instant::now() > deadline {
                // It runs on and cannot be started a second time.
                return;
            }
            thread::sleep(LOOK);
        }
        RUNNING.store(false, Ordering::Release);
    }
}

/// Whether this process may speak SCTP in IP.
fn raw_socket() -> io::Result<()> {
    Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(ffi::IPPROTO_SCTP))).map(drop)
}

/// The thread that looks after sockets without packets.
fn caretaker() -> Result<(Sender<()>, JoinHandle<()>)> {
    let (sender, receiver) = mpsc::channel();
    let body = move || {
        while receiver.recv_timeout(wake::ROUND) == Err(RecvTimeoutError::Timeout) {
            wake::look_after_all();
        }
    };
    let thread = thread::Builder::new()
        .name("sctp-caretaker".into())
        .spawn(body)
        .map_err(|cause| Error::Io { operation: "start thread".into(), cause })?;
    Ok((sender, thread))
}
