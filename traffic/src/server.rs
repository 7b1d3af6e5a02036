//! The server side of the tools: many streams and datagrams in one thread.
//!
//! A stream costs a file descriptor and an entry in a table. What is said on it
//! is up to a [`Service`].

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::datagram::DatagramServer;
use crate::events::{Events, Interest, TURN, is_transient};
use crate::{process, tcp};

pub struct Settings {
    /// The name of the tool in messages.
    pub program: &'static str,
    pub address: SocketAddr,
    /// Serve UDP beside TCP, on the same address.
    pub udp: bool,
    /// Close a stream on which nothing was heard for so long.
    pub idle_limit: Option<Duration>,
}

/// What a server answers. Answers are appended to a buffer.
pub trait Service {
    /// What is remembered about a stream.
    type Stream: Default;

    /// Called once for each new stream.
    fn greet(&self, answer: &mut Vec<u8>);

    fn hear(&self, stream: &mut Self::Stream, bytes: &[u8], answer: &mut Vec<u8>);

    fn answer_datagram(&self, datagram: &[u8], answer: &mut Vec<u8>);
}

/// Serves until SIGTERM or SIGINT.
pub fn run<S: Service>(settings: &Settings, service: S) -> anyhow::Result<()> {
    let signals = process::termination_signals().context("watch for signals")?;
    let mut server = Server::start(settings, service)?;
    server.events.add(&signals, Interest::EPOLLIN, SIGNALS).context("watch for signals")?;
    server.serve()
}

// Tokens of the descriptors that are no stream; streams count from 0.
const LISTENER: u64 = u64::MAX;
const DATAGRAMS: u64 = u64::MAX - 1;
const SIGNALS: u64 = u64::MAX - 2;

/// How long nothing is accepted after that failed, as it does when there are
/// no file descriptors left. Those who wait stay in the backlog.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often streams are looked through for idle ones.
const IDLE_CHECK: Duration = Duration::from_millis(250);

/// As much as a datagram can hold.
const BUFFER: usize = 1 << 16;

struct Server<'a, S: Service> {
    settings: &'a Settings,
    service: S,
    events: Events,
    listener: TcpListener,
    datagrams: Option<DatagramServer>,
    streams: HashMap<u64, Stream<S>>,
    /// The token of the next stream; none is ever used twice.
    next_token: u64,
    /// Until when nothing is accepted.
    accept_paused: Option<Instant>,
    /// Whether accepting failed since the backlog was last empty: one shortage
    /// is worth one line.
    accept_failing: bool,
    next_idle_check: Option<Instant>,
    /// What is read, and what is to be answered, by whichever stream has its
    /// turn.
    buffer: Vec<u8>,
    answer: Vec<u8>,
}

struct Stream<S: Service> {
    socket: TcpStream,
    state: S::Stream,
    heard: Instant,
    /// Answers that did not go out yet. While there are any, nothing is read: a
    /// peer that asks must also take the answers.
    unsent: Vec<u8>,
}

/// A stream that is over.
struct Closed;

impl<'a, S: Service> Server<'a, S> {
    fn start(settings: &'a Settings, service: S) -> anyhow::Result<Self> {
        process::raise_open_file_limit().context("raise the limit of open files")?;
        let events = Events::new().context("create an epoll")?;

        let address = settings.address;
        let listener = tcp::listen(address).with_context(|| format!("listen on {address}"))?;
        // The same as asked for, but for a port of 0.
        let address = listener.local_addr().context("get the listen address")?;
        events.add(&listener, Interest::EPOLLIN, LISTENER)?;
        process::log(format_args!("Listen on address; {address}"));

        let datagrams = match settings.udp {
            true => {
                let datagrams = DatagramServer::bind(address)
                    .with_context(|| format!("listen on UDP {address}"))?;
                events.add(&datagrams, Interest::EPOLLIN, DATAGRAMS)?;
                process::log(format_args!("Listen on UDP address; {address}"));
                Some(datagrams)
            }
            false => None,
        };

        Ok(Self {
            settings,
            service,
            events,
            listener,
            datagrams,
            streams: HashMap::new(),
            next_token: 0,
            accept_paused: None,
            accept_failing: false,
            next_idle_check: settings.idle_limit.map(|_| Instant::now() + IDLE_CHECK),
            buffer: vec![0; BUFFER],
            answer: Vec::new(),
        })
    }

    fn serve(&mut self) -> anyhow::Result<()> {
        loop {
            let until = [self.accept_paused, self.next_idle_check].into_iter().flatten().min();
            for token in self.events.wait(until).context("wait for events")? {
                match token {
                    SIGNALS => return Ok(()),
                    LISTENER => self.accept(),
                    DATAGRAMS => self.answer_datagrams(),
                    token => self.advance(token),
                }
            }
            let has_come = |time: Option<Instant>| time.is_some_and(|time| Instant::now() >= time);
            if has_come(self.accept_paused) {
                self.accept_paused = None;
                self.watch_listener(Interest::EPOLLIN)?;
            }
            if has_come(self.next_idle_check) {
                self.close_idle_streams();
            }
        }
    }

    fn accept(&mut self) {
        for _ in 0..TURN {
            let accepted = self.listener.accept().and_then(|(socket, _)| {
                socket.set_nonblocking(true)?;
                Ok(socket)
            });
            match accepted {
                Ok(socket) => self.greet(socket),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        self.accept_failing = false;
                        return;
                    }
                    // About one stream only: the next one may be well.
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => return self.pause_accepting(&error),
                },
            }
        }
    }

    fn pause_accepting(&mut self, error: &io::Error) {
        if !self.accept_failing {
            let open = self.streams.len();
            self.log(format_args!("accept: {error}; {open} connections are open"));
            self.accept_failing = true;
        }
        if self.watch_listener(Interest::empty()).is_ok() {
            self.accept_paused = Some(Instant::now() + ACCEPT_PAUSE);
        }
    }

    fn watch_listener(&self, interest: Interest) -> anyhow::Result<()> {
        self.events.change(&self.listener, interest, LISTENER).context("watch the listener")
    }

    fn greet(&mut self, socket: TcpStream) {
        let mut stream = Stream::<S>::new(socket);
        self.answer.clear();
        self.service.greet(&mut self.answer);
        let Ok(interest) = stream.send(&self.answer) else {
            return;
        };
        let token = self.next_token;
        match self.events.add(&stream.socket, interest, token) {
            Ok(()) => {
                self.next_token += 1;
                self.streams.insert(token, stream);
            }
            Err(error) => self.log(format_args!("watch a connection: {error}")),
        }
    }

    fn advance(&mut self, token: u64) {
        let Some(stream) = self.streams.get_mut(&token) else {
            return;
        };
        let before = stream.interest();
        let kept =
            stream.advance(&self.service, &mut self.buffer, &mut self.answer).and_then(|after| {
                match after == before {
                    true => Ok(()),
                    false => self.events.change(&stream.socket, after, token).map_err(|_| Closed),
                }
            });
        if let Err(Closed) = kept {
            self.streams.remove(&token);
        }
    }

    fn answer_datagrams(&mut self) {
        let Some(datagrams) = &mut self.datagrams else {
            return;
        };
        for _ in 0..TURN {
            match datagrams.receive(&mut self.buffer) {
                Ok(request) => {
                    self.answer.clear();
                    self.service.answer_datagram(&self.buffer[..request.length], &mut self.answer);
                    // An answer that cannot be sent is a lost datagram to the
                    // client, which is what it is there to count.
                    drop(datagrams.answer(&request, &self.answer));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    let program = self.settings.program;
                    process::log(format_args!("{program}: receive a datagram: {error}"));
                }
            }
        }
    }

    fn close_idle_streams(&mut self) {
        let now = Instant::now();
        self.next_idle_check = self.settings.idle_limit.map(|limit| {
            self.streams.retain(|_, stream| now.duration_since(stream.heard) < limit);
            now + IDLE_CHECK
        });
    }

    fn log(&self, message: std::fmt::Arguments<'_>) {
        process::log(format_args!("{}: {message}", self.settings.program));
    }
}

impl<S: Service> Stream<S> {
    fn new(socket: TcpStream) -> Self {
        Self { socket, state: S::Stream::default(), heard: Instant::now(), unsent: Vec::new() }
    }

    fn interest(&self) -> Interest {
        match self.unsent.is_empty() {
            true => Interest::EPOLLIN,
            false => Interest::EPOLLOUT,
        }
    }

    /// Does what can be done and says what to wait for next.
    fn advance(
        &mut self,
        service: &S,
        buffer: &mut [u8],
        answer: &mut Vec<u8>,
    ) -> Result<Interest, Closed> {
        answer.clear();
        if !self.unsent.is_empty() {
            std::mem::swap(&mut self.unsent, answer);
            self.unsent.clear();
            return self.send(answer);
        }
        match self.socket.read(buffer) {
            Ok(0) => Err(Closed),
            Ok(length) => {
                self.heard = Instant::now();
                service.hear(&mut self.state, &buffer[..length], answer);
                self.send(answer)
            }
            Err(error) if is_transient(&error) => Ok(Interest::EPOLLIN),
            Err(_) => Err(Closed),
        }
    }

    /// Sends what there is room for and keeps the rest.
    fn send(&mut self, answer: &[u8]) -> Result<Interest, Closed> {
        let sent = match answer.is_empty() {
            true => 0,
            false => match self.socket.write(answer) {
                Ok(sent) => sent,
                Err(error) if is_transient(&error) => 0,
                Err(_) => return Err(Closed),
            },
        };
        self.unsent.extend_from_slice(&answer[sent..]);
        if self.unsent.is_empty() {
            // A buffer is kept only by those who need it.
            self.unsent = Vec::new();
        }
        Ok(self.interest())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Answers a long text to everything.
    struct LongWinded(Vec<u8>);

    impl Service for LongWinded {
        type Stream = ();

        fn greet(&self, answer: &mut Vec<u8>) {
            answer.extend_from_slice(&self.0);
        }

        fn hear(&self, (): &mut (), _: &[u8], answer: &mut Vec<u8>) {
            answer.extend_from_slice(&self.0);
        }

        fn answer_datagram(&self, _: &[u8], _: &mut Vec<u8>) {}
    }

    #[test]
    fn an_answer_that_does_not_fit_is_finished_before_the_next_question() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut stream = Stream::<LongWinded>::new(socket);
        let text = b"0123456789".repeat(2_000_000);
        let service = LongWinded(text.clone());

        peer.write_all(b"question").unwrap();
        assert_eq!(stream.send(&text).ok(), Some(Interest::EPOLLOUT));
        assert!(!stream.unsent.is_empty());

        // The first text, and the one that answers the question.
        let reader = thread::spawn(move || {
            let mut answers = vec![0; 2 * 20_000_000];
            peer.read_exact(&mut answers).map(|()| answers)
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        let (mut buffer, mut answer, mut answered) = (vec![0; 64], Vec::new(), 0);
        while answered < 2 {
            assert!(Instant::now() < deadline, "the answers do not end");
            let had_unsent = !stream.unsent.is_empty();
            let interest = stream.advance(&service, &mut buffer, &mut answer).ok().expect("open");
            answered += usize::from(had_unsent && interest == Interest::EPOLLIN);
        }
        let answers = reader.join().unwrap().unwrap();
        assert!(answers == text.repeat(2), "the texts are garbled");
    }
}
