//! Many streams of bytes over one channel, the serial line between a machine and its keeper.
//!
//! Each stream ends in a socket on either side. A stream whose reader is slow stops its own writer
//! and no other: a side sends only as much as the other one has room for.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// What a side may have under way on one stream before the other side says that it has room.
const ROOM: usize = 256 * 1024;

/// The most bytes of one message.
const CHUNK: usize = 16 * 1024;

const OPEN: u8 = 1;
const DATA: u8 = 2;
const END: u8 = 3;
const TAKEN: u8 = 4;

/// Kind, number of the stream, and the length of what follows or, for `TAKEN`, a number of bytes.
const HEADER: usize = 9;

/// One side of a channel.
pub struct Channel {
    out: Mutex<Box<dyn Write + Send>>,
    streams: Mutex<BTreeMap<u32, Arc<Stream>>>,
    next: AtomicU32,
}

struct Stream {
    local: UnixStream,
    room: Mutex<usize>,
    more_room: Condvar,
    arrivals: Mutex<Sender<Vec<u8>>>,
    /// Directions that have not ended.
    directions: AtomicU8,
}

impl Channel {
    pub fn new(out: impl Write + Send + 'static) -> Arc<Self> {
        Arc::new(Self {
            out: Mutex::new(Box::new(out)),
            streams: Mutex::default(),
            next: AtomicU32::new(1),
        })
    }

    /// Opens a stream; what is written to the other end of `local` comes out on the other side.
    pub fn open(self: &Arc<Self>, local: UnixStream) -> io::Result<()> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let local = self.carry(id, local)?;
        self.send(OPEN, id, &[])?;
        self.start(id, local)
    }

    /// Takes what arrives until the channel ends. `accept` gets the sockets of streams that the other
    /// side opens.
    pub fn serve(
        self: &Arc<Self>,
        mut input: impl Read,
        mut accept: impl FnMut(UnixStream),
    ) -> io::Result<()> {
        let served = self.take_messages(&mut input, &mut accept);
        for stream in std::mem::take(&mut *locked(&self.streams)).into_values() {
            // Those who wait are to go on, and find that all is over.
            let _ = stream.local.shutdown(Shutdown::Both);
            *locked(&stream.room) = usize::MAX;
            stream.more_room.notify_all();
        }
        served
    }

    fn take_messages(
        self: &Arc<Self>,
        input: &mut impl Read,
        accept: &mut impl FnMut(UnixStream),
    ) -> io::Result<()> {
        let mut header = [0; HEADER];
        loop {
            match input.read_exact(&mut header) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                read => read?,
            }
            let (kind, id, number) = (header[0], word(&header[1..5]), word(&header[5..]));
            let number = usize::try_from(number).unwrap_or(usize::MAX);
            if kind == OPEN {
                let (local, other) = UnixStream::pair()?;
                let local = self.carry(id, local)?;
                self.start(id, local)?;
                accept(other);
                continue;
            }
            let stream = locked(&self.streams).get(&id).cloned();
            match kind {
                DATA if number <= CHUNK => {
                    let mut bytes = vec![0; number];
                    input.read_exact(&mut bytes)?;
                    // What comes for a stream that is gone is of no use to anybody.
                    if let Some(stream) = stream {
                        let _ = locked(&stream.arrivals).send(bytes);
                    }
                }
                TAKEN => {
                    if let Some(stream) = stream {
                        let mut room = locked(&stream.room);
                        *room = room.saturating_add(number);
                        stream.more_room.notify_all();
                    }
                }
                END => {
                    if let Some(stream) = stream {
                        let _ = locked(&stream.arrivals).send(Vec::new());
                    }
                }
                _ => return Err(io::Error::other(format!("odd message {kind} of {number}"))),
            }
        }
    }

    /// Makes a stream known and returns what the thread that empties it needs.
    fn carry(&self, id: u32, local: UnixStream) -> io::Result<Receiver<Vec<u8>>> {
        let (arrivals, arrived) = mpsc::channel();
        let stream = Stream {
            local,
            room: Mutex::new(ROOM),
            more_room: Condvar::new(),
            arrivals: Mutex::new(arrivals),
            directions: AtomicU8::new(2),
        };
        locked(&self.streams).insert(id, Arc::new(stream));
        Ok(arrived)
    }

    fn start(self: &Arc<Self>, id: u32, arrived: Receiver<Vec<u8>>) -> io::Result<()> {
        let Some(stream) = locked(&self.streams).get(&id).cloned() else { return Ok(()) };
        let (channel, other) = (self.clone(), stream.clone());
        thread::Builder::new().spawn(move || channel.send_on(id, &other))?;
        let channel = self.clone();
        thread::Builder::new().spawn(move || channel.hand_out(id, &stream, &arrived))?;
        Ok(())
    }

    /// Sends what the local socket has to say.
    fn send_on(&self, id: u32, stream: &Stream) {
        let mut buffer = [0; CHUNK];
        let mut local = &stream.local;
        loop {
            let room = stream.wait_for_room();
            match local.read(&mut buffer[..room.min(CHUNK)]) {
                Ok(0) => break,
                Ok(count) => {
                    stream.take_room(count);
                    if self.send(DATA, id, &buffer[..count]).is_err() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        // Fails only when the channel has ended, and then everybody knows.
        let _ = self.send(END, id, &[]);
        self.end_direction(id, stream);
    }

    /// Hands what has arrived to the local socket.
    fn hand_out(&self, id: u32, stream: &Stream, arrived: &Receiver<Vec<u8>>) {
        let mut local = &stream.local;
        let mut wanted = true;
        for bytes in arrived {
            if bytes.is_empty() {
                break;
            }
            wanted = wanted && local.write_all(&bytes).is_ok();
            let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            if self.send_header(TAKEN, id, count, &[]).is_err() {
                break;
            }
        }
        // Fails when the other end is closed already.
        let _ = local.shutdown(Shutdown::Write);
        self.end_direction(id, stream);
    }

    fn end_direction(&self, id: u32, stream: &Stream) {
        if stream.directions.fetch_sub(1, Ordering::AcqRel) == 1 {
            locked(&self.streams).remove(&id);
        }
    }

    fn send(&self, kind: u8, id: u32, bytes: &[u8]) -> io::Result<()> {
        self.send_header(kind, id, u32::try_from(bytes.len()).unwrap_or(u32::MAX), bytes)
    }

    fn send_header(&self, kind: u8, id: u32, number: u32, bytes: &[u8]) -> io::Result<()> {
        let mut message = Vec::with_capacity(HEADER + bytes.len());
        message.push(kind);
        message.extend(id.to_le_bytes());
        message.extend(number.to_le_bytes());
        message.extend(bytes);
        let mut out = locked(&self.out);
        out.write_all(&message)?;
        out.flush()
    }
}

impl Stream {
    fn wait_for_room(&self) -> usize {
        let room = locked(&self.room);
        let wait = self.more_room.wait_while(room, |room| *room == 0);
        *wait.unwrap_or_else(PoisonError::into_inner)
    }

    fn take_room(&self, count: usize) {
        let mut room = locked(&self.room);
        *room = room.saturating_sub(count);
    }
}

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked has left nothing half done in here.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sides, the second of which answers each stream with what it gets.
    fn echo() -> Arc<Channel> {
        let (one, other) = UnixStream::pair().unwrap();
        let side = |socket: &UnixStream| Channel::new(socket.try_clone().unwrap());
        let (first, second) = (side(&one), side(&other));
        let serving = first.clone();
        thread::spawn(move || serving.serve(one, |_| {}));
        thread::spawn(move || {
            let accept = |socket: UnixStream| {
                thread::spawn(move || io::copy(&mut &socket, &mut &socket));
            };
            second.serve(other, accept)
        });
        first
    }

    fn open(channel: &Arc<Channel>) -> UnixStream {
        let (local, own) = UnixStream::pair().unwrap();
        channel.open(local).unwrap();
        own
    }

    #[test]
    fn streams_do_not_hinder_each_other() {
        let channel = echo();
        // Nobody reads what comes back on this one.
        let mut slow = open(&channel);
        let filler = thread::spawn(move || {
            let _ = slow.write_all(&vec![1; 64 * ROOM]);
            slow
        });
        let text: Vec<u8> = (0..3 * ROOM).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let mut own = open(&channel);
        let (mut writing, sent) = (own.try_clone().unwrap(), text.clone());
        thread::spawn(move || {
            writing.write_all(&sent).unwrap();
            writing.shutdown(Shutdown::Write).unwrap();
        });
        let mut seen = Vec::new();
        own.read_to_end(&mut seen).unwrap();
        assert!(seen == text);
        assert!(!filler.is_finished());
    }

    #[test]
    fn ended_streams_are_forgotten() {
        let channel = echo();
        for _ in 0..20 {
            let mut own = open(&channel);
            own.write_all(b"x").unwrap();
            own.shutdown(Shutdown::Write).unwrap();
            let mut seen = Vec::new();
            own.read_to_end(&mut seen).unwrap();
            assert_eq!(seen, b"x");
        }
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !locked(&channel.streams).is_empty() {
            assert!(std::time::Instant::now() < deadline);
            thread::yield_now();
        }
    }

    #[test]
    fn the_end_of_the_channel_is_the_end_of_all_streams() {
        let (one, other) = UnixStream::pair().unwrap();
        let channel = Channel::new(one.try_clone().unwrap());
        let mut own = open(&channel);
        other.shutdown(Shutdown::Write).unwrap();
        channel.serve(one, |_| {}).unwrap();
        assert_eq!(own.read_to_end(&mut Vec::new()).unwrap(), 0);
    }

    #[test]
    fn rubbish_is_an_error() {
        let channel = Channel::new(io::sink());
        assert!(channel.serve(&[9; HEADER][..], |_| {}).is_err());
        assert!(channel.serve(&[DATA, 1, 0, 0, 0, 255, 255, 255, 255][..], |_| {}).is_err());
    }
}
