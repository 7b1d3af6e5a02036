//! The server: tells everyone its host name.
//!
//! One thread waits for all sockets at once, so that a held connection costs
//! an entry in a table and no thread.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Socket, TcpKeepalive, Type};
use traffic::datagram::DatagramServer;
use traffic::process;

pub struct Settings {
    pub address: SocketAddr,
    /// Serve UDP beside TCP.
    pub udp: bool,
}

/// Serves until SIGTERM or SIGINT.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    let signals = process::termination_signals().context("watch for signals")?;
    let mut server = Server::start(settings)?;
    server
        .epoll
        .add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS))
        .context("watch for signals")?;
    server.serve()
}

// Tokens of the descriptors that are no connection; connections count from 0.
const LISTENER: u64 = u64::MAX;
const DATAGRAMS: u64 = u64::MAX - 1;
const SIGNALS: u64 = u64::MAX - 2;

/// What is taken from one source before the others have their turn.
const TURN: usize = 256;

/// How long nothing is accepted after that failed, as it does when there are
/// no file descriptors left. Those who wait stay in the backlog.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

struct Server {
    host_name: String,
    epoll: Epoll,
    listener: TcpListener,
    datagrams: Option<DatagramServer>,
    connections: HashMap<u64, Connection>,
    /// The token of the next connection; none is ever used twice.
    next_token: u64,
    /// Until when nothing is accepted.
    accept_paused: Option<Instant>,
    /// Whether accepting failed since the backlog was last empty: one shortage
    /// is worth one line.
    accept_failing: bool,
}

struct Connection {
    stream: TcpStream,
    /// Bytes of the host name that did not go out yet. While there are any,
    /// nothing is read: a peer that asks must also take the answers.
    unsent: usize,
}

/// A connection that is over.
struct Closed;

impl Server {
    fn start(settings: &Settings) -> anyhow::Result<Self> {
        process::raise_open_file_limit().context("raise the limit of open files")?;
        let host_name = process::host_name().context("get the host name")?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("create an epoll")?;

        let listener =
            listen(settings.address).with_context(|| format!("listen on {}", settings.address))?;
        // The same as asked for, but for a port of 0.
        let address = listener.local_addr().context("get the listen address")?;
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        process::log(format_args!("Listen on address; {address}"));

        let datagrams = match settings.udp {
            true => {
                let datagrams = DatagramServer::bind(address)
                    .with_context(|| format!("listen on UDP {address}"))?;
                epoll.add(&datagrams, EpollEvent::new(EpollFlags::EPOLLIN, DATAGRAMS))?;
                process::log(format_args!("Listen on UDP address; {address}"));
                Some(datagrams)
            }
            false => None,
        };

        Ok(Self {
            host_name,
            epoll,
            listener,
            datagrams,
            connections: HashMap::new(),
            next_token: 0,
            accept_paused: None,
            accept_failing: false,
        })
    }

    fn serve(&mut self) -> anyhow::Result<()> {
        let mut events = [EpollEvent::empty(); TURN];
        loop {
            let timeout = match self.accept_paused {
                Some(_) => EpollTimeout::try_from(ACCEPT_PAUSE).expect("a short time"),
                None => EpollTimeout::NONE,
            };
            let count = match self.epoll.wait(&mut events, timeout) {
                Err(Errno::EINTR) => 0,
                other => other.context("wait for events")?,
            };
            for event in &events[..count] {
                match event.data() {
                    SIGNALS => return Ok(()),
                    LISTENER => self.accept(),
                    DATAGRAMS => self.answer_datagrams(),
                    token => self.advance(token),
                }
            }
            if self.accept_paused.is_some_and(|end| Instant::now() >= end) {
                self.accept_paused = None;
                self.watch_listener(EpollFlags::EPOLLIN)?;
            }
        }
    }

    fn accept(&mut self) {
        for _ in 0..TURN {
            let accepted = self.listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(true)?;
                Ok(stream)
            });
            match accepted {
                Ok(stream) => self.greet(stream),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        self.accept_failing = false;
                        return;
                    }
                    // About one connection only: the next one may be well.
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => return self.pause_accepting(&error),
                },
            }
        }
    }

    fn pause_accepting(&mut self, error: &io::Error) {
        if !self.accept_failing {
            let open = self.connections.len();
            process::log(format_args!("mconnect: accept: {error}; {open} connections are open"));
            self.accept_failing = true;
        }
        if self.watch_listener(EpollFlags::empty()).is_ok() {
            self.accept_paused = Some(Instant::now() + ACCEPT_PAUSE);
        }
    }

    fn watch_listener(&self, interest: EpollFlags) -> anyhow::Result<()> {
        self.epoll
            .modify(&self.listener, &mut EpollEvent::new(interest, LISTENER))
            .context("watch the listener")
    }

    /// Sends the host name on a new connection and keeps it.
    fn greet(&mut self, stream: TcpStream) {
        let mut connection = Connection { stream, unsent: 0 };
        let Ok(interest) = connection.tell(&self.host_name) else {
            return;
        };
        let token = self.next_token;
        match self.epoll.add(&connection.stream, EpollEvent::new(interest, token)) {
            Ok(()) => {
                self.next_token += 1;
                self.connections.insert(token, connection);
            }
            Err(error) => process::log(format_args!("mconnect: watch a connection: {error}")),
        }
    }

    fn advance(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        let kept = connection.advance(&self.host_name).and_then(|interest| {
            self.epoll
                .modify(&connection.stream, &mut EpollEvent::new(interest, token))
                .map_err(|_| Closed)
        });
        if let Err(Closed) = kept {
            self.connections.remove(&token);
        }
    }

    fn answer_datagrams(&mut self) {
        let Some(datagrams) = &mut self.datagrams else {
            return;
        };
        // What is asked does not matter.
        let mut buffer = [0; 64];
        for _ in 0..TURN {
            match datagrams.receive(&mut buffer) {
                // An answer that cannot be sent is a lost datagram to the
                // client, which is what it is there to count.
                Ok(request) => drop(datagrams.answer(&request, self.host_name.as_bytes())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => process::log(format_args!("mconnect: receive a datagram: {error}")),
            }
        }
    }
}

impl Connection {
    /// Does what can be done and says what to wait for next.
    fn advance(&mut self, host_name: &str) -> Result<EpollFlags, Closed> {
        if self.unsent > 0 {
            return self.flush(host_name);
        }
        let mut buffer = [0; 4_096];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(Closed),
            Ok(_) => self.tell(host_name),
            Err(error) if is_transient(&error) => Ok(EpollFlags::EPOLLIN),
            Err(_) => Err(Closed),
        }
    }

    /// Sends the host name once more.
    fn tell(&mut self, host_name: &str) -> Result<EpollFlags, Closed> {
        self.unsent = host_name.len();
        self.flush(host_name)
    }

    fn flush(&mut self, host_name: &str) -> Result<EpollFlags, Closed> {
        let rest = &host_name.as_bytes()[host_name.len() - self.unsent..];
        match self.stream.write(rest) {
            Ok(sent) => self.unsent -= sent,
            Err(error) if is_transient(&error) => {}
            Err(_) => return Err(Closed),
        }
        Ok(match self.unsent {
            0 => EpollFlags::EPOLLIN,
            _ => EpollFlags::EPOLLOUT,
        })
    }
}

/// A TCP listener whose options every accepted connection inherits.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A server can be started again while its former connections still end.
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    // A client that vanished, or whose reset was lost on the way, is found out.
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.bind(&address.into())?;
    // The kernel holds this at net.core.somaxconn.
    socket.listen(i32::MAX)?;
    Ok(socket.into())
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn an_answer_that_does_not_fit_is_finished_before_the_next_question() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut connection = Connection { stream, unsent: 0 };
        // No host name is that long; a short one takes gigabytes of questions
        // before the buffers between the two are full.
        let name = "0123456789".repeat(2_000_000);

        peer.write_all(b"question").unwrap();
        assert_eq!(connection.tell(&name).ok(), Some(EpollFlags::EPOLLOUT));
        let rest = connection.unsent;
        assert!(rest > 0);

        // The first name, and the one that answers the question.
        let reader = thread::spawn(move || {
            let mut answers = vec![0; 2 * 20_000_000];
            peer.read_exact(&mut answers).map(|()| answers)
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut answered = 0;
        while answered < 2 {
            assert!(Instant::now() < deadline, "the answers do not end");
            let before = connection.unsent;
            let interest = connection.advance(&name).ok().expect("open");
            let is_done = interest == EpollFlags::EPOLLIN;
            assert_eq!(is_done, connection.unsent == 0);
            answered += usize::from(is_done && before > 0);
        }
        let answers = reader.join().unwrap().unwrap();
        assert!(answers == name.repeat(2).as_bytes(), "the names are garbled");
    }
}
