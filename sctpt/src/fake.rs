//! SCTP without a network, for tests: what is sent stands in a queue of the other end.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, Instant};

use sctp_stack::{
    Addresses, Association, ConnectFailure, Error, Event, Heartbeats, Listener, LostBy, Path,
    PathState, Result, Sent, Settings, Stack,
};

/// What becomes of an answer on its way: none, one or more messages. The number counts answers of an association.
pub type Way = Arc<dyn Fn(u64, &[u8]) -> Vec<Vec<u8>> + Send + Sync>;

#[derive(Clone, Default)]
pub struct Fake(Arc<Net>);

#[derive(Default)]
struct Net {
    listeners: Mutex<HashMap<SocketAddr, Arc<Incoming>>>,
    way: Mutex<Option<Way>>,
    /// Nothing is taken while this is set.
    pub is_blocked: AtomicBool,
    /// Associations at the servers' side.
    accepted: Mutex<Vec<Arc<End>>>,
    /// The last client of each port, which has it as long as it is there.
    clients: Mutex<HashMap<u16, Weak<End>>>,
}

type Incoming = Queue<Arc<dyn Association>>;

/// One end of an association.
struct End {
    net: Arc<Net>,
    inbox: Arc<Queue<Item>>,
    outbox: Arc<Queue<Item>>,
    local: Vec<SocketAddr>,
    peer: Vec<SocketAddr>,
    /// What it sent, if it is a server's.
    answers: Option<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

enum Item {
    Message(Vec<u8>, u16),
    Event(Event),
}

struct Queue<T>(Mutex<VecDeque<T>>, Condvar);

/// Of each path of IPv4.
const HEARTBEATS: Heartbeats = Heartbeats { sent: 4, acks_received: 3, received: 2, acks_sent: 1 };

pub fn local() -> Addresses {
    Addresses { addresses: vec!["192.0.2.1".parse().unwrap()], port: 0 }
}

pub fn remote() -> Addresses {
    let addresses = ["10.0.0.1", "1000::1"].map(|address| address.parse().unwrap());
    Addresses { addresses: addresses.into(), port: 6000 }
}

impl Fake {
    /// From now on answers go this way.
    pub fn set_way(&self, way: impl Fn(u64, &[u8]) -> Vec<Vec<u8>> + Send + Sync + 'static) {
        *self.0.way.lock().unwrap() = Some(Arc::new(way));
    }

    pub fn block(&self, is_blocked: bool) {
        self.0.is_blocked.store(is_blocked, Ordering::SeqCst);
    }

    /// How many associations servers have had.
    pub fn accepted(&self) -> usize {
        self.0.accepted.lock().unwrap().len()
    }

    /// Something happens at the client's end of every association so far.
    pub fn happens(&self, event: &Event) {
        for end in self.0.accepted.lock().unwrap().iter() {
            end.outbox.put(Item::Event(event.clone()));
        }
    }

    /// All associations so far break.
    pub fn abort_all(&self) {
        self.0.accepted.lock().unwrap().iter().for_each(|end| end.abort());
    }
}

impl Stack for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn listen(&self, local: &Addresses, _: &Settings) -> Result<Box<dyn Listener>> {
        let queue = Arc::new(Queue::default());
        for address in local.sockets() {
            self.0.listeners.lock().unwrap().insert(address, Arc::clone(&queue));
        }
        Ok(Box::new(FakeListener { queue, port: local.port }))
    }

    fn connect(
        &self,
        local: &Addresses,
        remote: &Addresses,
        _: &Settings,
        _: Instant,
    ) -> Result<Arc<dyn Association>> {
        let mut clients = self.0.clients.lock().unwrap();
        if local.port != 0 && clients.get(&local.port).is_some_and(|end| end.strong_count() > 0) {
            let operation = format!("bind {local}");
            return Err(Error::Io { operation, cause: io::ErrorKind::AddrInUse.into() });
        }
        let peer: Vec<_> = remote.sockets().collect();
        let listener = self.0.listeners.lock().unwrap().get(&peer[0]).cloned();
        let refused = || Error::Connect { to: remote.clone(), cause: ConnectFailure::Refused };
        let listener = listener.ok_or_else(refused)?;
        let (to_server, to_client) = (Arc::default(), Arc::default());
        let end = |inbox: &Arc<Queue<Item>>,
                   outbox: &Arc<Queue<Item>>,
                   local: &[_],
                   peer: &[_],
                   answers| End {
            net: Arc::clone(&self.0),
            inbox: Arc::clone(inbox),
            outbox: Arc::clone(outbox),
            local: local.to_vec(),
            peer: peer.to_vec(),
            answers,
            is_over: Arc::default(),
        };
        let port = if local.port == 0 { 40_000 } else { local.port };
        let local: Vec<_> = Addresses { port, ..local.clone() }.sockets().collect();
        let server = Arc::new(end(&to_server, &to_client, &peer, &local, Some(AtomicU64::new(0))));
        self.0.accepted.lock().unwrap().push(Arc::clone(&server));
        listener.put(server);
        let client = Arc::new(end(&to_client, &to_server, &local, &peer, None));
        clients.insert(port, Arc::downgrade(&client));
        Ok(client)
    }
}

struct FakeListener {
    queue: Arc<Incoming>,
    port: u16,
}

impl Listener for FakeListener {
    fn accept(&self, deadline: Option<Instant>) -> Result<Option<Arc<dyn Association>>> {
        Ok(self.queue.take(deadline))
    }

    fn port(&self) -> u16 {
        self.port
    }
}

impl Association for End {
    fn send(&self, message: &[u8], stream: u16) -> Result<Sent> {
        if self.is_over.load(Ordering::SeqCst) {
            return Err(Error::Ended);
        }
        if self.net.is_blocked.load(Ordering::SeqCst) {
            return Ok(Sent::Blocked);
        }
        let way = self.net.way.lock().unwrap().clone();
        let messages = match (&self.answers, way) {
            (Some(answers), Some(way)) => way(answers.fetch_add(1, Ordering::SeqCst), message),
            _ => vec![message.to_vec()],
        };
        messages.into_iter().for_each(|message| self.outbox.put(Item::Message(message, stream)));
        Ok(Sent::Taken)
    }

    fn writable(&self, deadline: Instant) -> Result<bool> {
        while self.net.is_blocked.load(Ordering::SeqCst) {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::yield_now();
        }
        Ok(true)
    }

    fn receive(&self, buffer: &mut [u8], deadline: Option<Instant>) -> Result<Option<Event>> {
        if self.is_over.load(Ordering::SeqCst) {
            return Err(Error::Ended);
        }
        Ok(match self.inbox.take(deadline) {
            None => None,
            Some(Item::Message(message, stream)) => {
                let length = message.len();
                let room = buffer.get_mut(..length).ok_or(Error::TooLong { length, room: 0 })?;
                room.copy_from_slice(&message);
                Some(Event::Message { length, stream })
            }
            Some(Item::Event(event)) => {
                let is_end = matches!(event, Event::Closed | Event::Lost(_));
                self.is_over.fetch_or(is_end, Ordering::SeqCst);
                Some(event)
            }
        })
    }

    fn local_addresses(&self) -> Result<Vec<SocketAddr>> {
        Ok(self.local.clone())
    }

    fn peer_addresses(&self) -> Result<Vec<SocketAddr>> {
        Ok(self.peer.clone())
    }

    fn paths(&self) -> Result<Vec<Path>> {
        if self.is_over.load(Ordering::SeqCst) {
            return Err(Error::Ended);
        }
        let path = |address: &SocketAddr| Path {
            address: *address,
            state: PathState::Active,
            primary: *address == self.peer[0],
            srtt: Duration::from_micros(100),
            rto: Duration::from_secs(1),
            mtu: 1500,
            cwnd: 4380,
            // As a stack that does not tell for the other one.
            heartbeats: address.is_ipv4().then_some(HEARTBEATS),
        };
        Ok(self.peer.iter().map(path).collect())
    }

    fn set_primary(&self, _: IpAddr) -> Result<()> {
        Ok(())
    }

    fn close(&self, _: Instant) -> Result<()> {
        if !self.is_over.swap(true, Ordering::SeqCst) {
            self.outbox.put(Item::Event(Event::Closed));
        }
        Ok(())
    }

    fn abort(&self) {
        if !self.is_over.swap(true, Ordering::SeqCst) {
            self.outbox.put(Item::Event(Event::Lost(LostBy::Abort)));
        }
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue(Mutex::default(), Condvar::new())
    }
}

impl<T> Queue<T> {
    fn put(&self, item: T) {
        self.0.lock().unwrap().push_back(item);
        self.1.notify_all();
    }

    fn take(&self, deadline: Option<Instant>) -> Option<T> {
        let mut items = self.0.lock().unwrap();
        loop {
            if let Some(item) = items.pop_front() {
                return Some(item);
            }
            items = match deadline.map(|deadline| deadline.checked_duration_since(Instant::now())) {
                None => self.1.wait(items).unwrap(),
                Some(None) => return None,
                Some(Some(left)) => self.1.wait_timeout(items, left).unwrap().0,
            };
        }
    }
}
