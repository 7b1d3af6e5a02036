//! Waiting for sockets and the time, in one thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
pub use nix::sys::epoll::EpollFlags as Interest;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
use nix::sys::time::TimeSpec;

/// Events taken at a time; also the measure of what one source may do before
/// the others have their turn.
pub const TURN: usize = 256;

/// What is waited for. Each descriptor has a token, which its events carry.
pub struct Events {
    epoll: Epoll,
    ready: Vec<EpollEvent>,
}

impl Events {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            ready: vec![EpollEvent::empty(); TURN],
        })
    }

    pub fn add(&self, source: impl AsFd, interest: Interest, token: u64) -> io::Result<()> {
        Ok(self.epoll.add(source, EpollEvent::new(interest, token))?)
    }

    pub fn change(&self, source: impl AsFd, interest: Interest, token: u64) -> io::Result<()> {
        Ok(self.epoll.modify(source, &mut EpollEvent::new(interest, token))?)
    }

    /// The tokens of what happened, at the latest when the time has come;
    /// without a time only for an event. None at all may come early, too.
    pub fn wait(
        &mut self,
        until: Option<Instant>,
    ) -> io::Result<impl Iterator<Item = u64> + use<>> {
        let mut count = self.take()?;
        if count == 0 {
            self.sleep(until)?;
            count = self.take()?;
        }
        let tokens: Vec<u64> = self.ready[..count].iter().map(EpollEvent::data).collect();
        Ok(tokens.into_iter())
    }

    fn take(&mut self) -> io::Result<usize> {
        match self.epoll.wait(&mut self.ready, EpollTimeout::ZERO) {
            Err(Errno::EINTR) => Ok(0),
            other => Ok(other?),
        }
    }

    /// epoll itself counts in milliseconds, which is too coarse for pacing.
    fn sleep(&self, until: Option<Instant>) -> io::Result<()> {
        let time = until.map(|until| until.saturating_duration_since(Instant::now()));
        if time == Some(Duration::ZERO) {
            return Ok(());
        }
        let mut poll = [PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut poll, time.map(TimeSpec::from), None) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether an operation is merely to be tried again.
pub fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_time_is_kept_below_a_millisecond() {
        let mut events = Events::new().unwrap();
        let mut wait = || {
            let begin = Instant::now();
            let until = begin + Duration::from_micros(200);
            assert_eq!(events.wait(Some(until)).unwrap().count(), 0);
            assert!(Instant::now() >= until);
            begin.elapsed()
        };
        // By whole milliseconds none would be shorter than one; a busy machine makes many longer.
        let shortest = (0..200).map(|_| wait()).min().unwrap();
        assert!(shortest < Duration::from_millis(1), "{shortest:?}");
    }

    #[test]
    fn an_event_brings_its_token() {
        let mut events = Events::new().unwrap();
        let (here, mut there) = UnixStream::pair().unwrap();
        events.add(&here, Interest::EPOLLIN, 7).unwrap();
        assert_eq!(events.wait(Some(Instant::now())).unwrap().count(), 0);
        there.write_all(b"x").unwrap();
        assert_eq!(events.wait(None).unwrap().collect::<Vec<_>>(), [7]);
        events.change(&here, Interest::empty(), 7).unwrap();
        assert_eq!(events.wait(Some(Instant::now())).unwrap().count(), 0);
    }
}
