//! When packets arrive at a target, by the kernel's clock.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use anyhow::Context;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeSpec, TimeVal, TimeValLike as _};
use nix::time::{ClockId, clock_gettime};

use crate::side_by_side::namespace::Namespace;

/// How soon the watch notices that it shall end.
const STEP: i64 = 20;

/// A tap on everything that comes to a namespace. The kernel notes the time before any rule drops it.
#[derive(Debug)]
pub struct Arrivals {
    socket: OwnedFd,
    count: AtomicU64,
    /// Nanoseconds since 1970; zero is none.
    first: AtomicU64,
    last: AtomicU64,
}

impl Arrivals {
    /// Opens the tap.
    pub fn open(target: &Namespace) -> anyhow::Result<Self> {
        let open = || -> anyhow::Result<OwnedFd> {
            let (kind, all) = (SockType::Datagram, SockProtocol::EthAll);
            let socket = socket(AddressFamily::Packet, kind, SockFlag::SOCK_CLOEXEC, all)?;
            setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(STEP))?;
            Ok(socket)
        };
        let socket = target.enter(open).context("open a tap on the target")?;
        let zero = || AtomicU64::new(0);
        Ok(Arrivals { socket, count: zero(), first: zero(), last: zero() })
    }

    /// Notes what arrives until it is told to stop.
    pub fn watch(&self, stop: &AtomicBool) -> anyhow::Result<()> {
        let mut control = cmsg_space!(TimeSpec);
        while !stop.load(Relaxed) {
            // The time is wanted, not the packet.
            let mut byte = [0];
            let mut parts = [IoSliceMut::new(&mut byte)];
            let received = recvmsg::<()>(
                self.socket.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                MsgFlags::empty(),
            );
            let message = match received {
                Ok(message) => message,
                Err(Errno::EAGAIN | Errno::EINTR) => continue,
                Err(error) => return Err(error).context("receive at the target"),
            };
            for control in message.cmsgs().context("read the time of a packet")? {
                if let ControlMessageOwned::ScmTimestampns(time) = control {
                    self.note(nanos(time));
                }
            }
        }
        Ok(())
    }

    fn note(&self, time: u64) {
        self.last.store(time, Relaxed);
        if self.count.fetch_add(1, Relaxed) == 0 {
            self.first.store(time, Relaxed);
        }
    }

    /// Forgets all; at a quiet moment.
    pub fn forget(&self) {
        for number in [&self.count, &self.first, &self.last] {
            number.store(0, Relaxed);
        }
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// When the first came.
    pub fn first(&self) -> Option<u64> {
        some(self.first.load(Relaxed))
    }

    /// When the last came.
    pub fn last(&self) -> Option<u64> {
        some(self.last.load(Relaxed))
    }
}

/// The clock by which arrivals are told.
pub fn now() -> anyhow::Result<u64> {
    Ok(nanos(clock_gettime(ClockId::CLOCK_REALTIME).context("read the clock")?))
}

fn some(time: u64) -> Option<u64> {
    (time != 0).then_some(time)
}

fn nanos(time: TimeSpec) -> u64 {
    u64::try_from(Duration::from(time).as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_are_kept() {
        let (socket, _) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let zero = || AtomicU64::new(0);
        let arrivals =
            Arrivals { socket: socket.into(), count: zero(), first: zero(), last: zero() };
        assert_eq!((arrivals.first(), arrivals.last()), (None, None));
        [5, 7, 9].into_iter().for_each(|time| arrivals.note(time));
        assert_eq!((arrivals.count(), arrivals.first(), arrivals.last()), (3, Some(5), Some(9)));
        arrivals.forget();
        assert_eq!((arrivals.count(), arrivals.first(), arrivals.last()), (0, None, None));
    }

    #[test]
    fn a_second_has_a_thousand_million_nanoseconds() {
        assert_eq!(nanos(TimeSpec::new(2, 5)), 2_000_000_005);
    }
}
