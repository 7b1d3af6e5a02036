//! TCP streams from the source to the sink, as fast as they go.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use super::interrupt::Interrupt;
use super::lab::{Lab, vip};

const PORT: u16 = 7000;
const CHUNK: usize = 128 * 1024;
/// How long a stream may stand still before it looks whether it is to end.
const IDLE: Duration = Duration::from_millis(100);
const CONNECT: Duration = Duration::from_secs(3);
/// Until the streams have found their speed.
const WARM_UP: Duration = Duration::from_millis(500);

/// Both ends of the streams.
#[derive(Debug)]
pub struct Streams(Vec<(TcpStream, TcpStream)>);

impl Streams {
    /// Connects so many, each to a virtual address of its own.
    pub fn connect(lab: &Lab, count: u8) -> anyhow::Result<Self> {
        let listener = lab.sink.enter(|| Ok(TcpListener::bind(("0.0.0.0", PORT))?));
        let listener = listener.context("open the receiver's socket")?;
        let mut streams = Vec::new();
        for last in 1..=count {
            let to = (vip(last), PORT).into();
            let sender = lab.source.enter(|| Ok(TcpStream::connect_timeout(&to, CONNECT)?));
            let sender = sender.with_context(|| format!("connect to {to}"))?;
            let (receiver, _) = listener.accept().context("accept a stream")?;
            sender.set_write_timeout(Some(IDLE))?;
            receiver.set_read_timeout(Some(IDLE))?;
            streams.push((sender, receiver));
        }
        Ok(Streams(streams))
    }

    /// Bytes per second that arrive; `measured` is done from the first measured moment to the last,
    /// and waits for it.
    pub fn run<T>(
        self,
        signals: &Interrupt,
        measured: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<(f64, T)> {
        let (stop, received) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            let mut ends = Vec::new();
            for (sender, receiver) in &self.0 {
                ends.push(scope.spawn(|| send(sender, &stop)));
                ends.push(scope.spawn(|| receive(receiver, &received, &stop)));
            }
            let result = signals.pause(WARM_UP).and_then(|()| {
                let (start, before) = (Instant::now(), received.load(Relaxed));
                let outcome = measured()?;
                let bytes = received.load(Relaxed) - before;
                Ok((bytes as f64 / start.elapsed().as_secs_f64(), outcome))
            });
            stop.store(true, Relaxed);
            for end in ends {
                end.join().map_err(|_| anyhow!("a stream's thread panicked"))??;
            }
            result
        })
    }
}

fn send(mut stream: &TcpStream, stop: &AtomicBool) -> anyhow::Result<()> {
    let chunk = vec![0; CHUNK];
    while !stop.load(Relaxed) {
        match stream.write(&chunk) {
            Ok(_) => {}
            Err(error) if is_pause(&error) => {}
            Err(error) => return Err(error).context("send on a stream"),
        }
    }
    Ok(())
}

fn receive(mut stream: &TcpStream, received: &AtomicU64, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut chunk = vec![0; CHUNK];
    while !stop.load(Relaxed) {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) => {
                received.fetch_add(len as u64, Relaxed);
            }
            Err(error) if is_pause(&error) => {}
            Err(error) => return Err(error).context("receive from a stream"),
        }
    }
    Ok(())
}

fn is_pause(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
