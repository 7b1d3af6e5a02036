//! UDP packets of many flows, at a pace or as fast as they can be sent.

use std::io::IoSlice;
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::datagrams::{self, Made};
use super::lab::{COUNTED_PORTS, SOURCES, VIPS, source_address, vip};

/// Headers of a UDP packet.
const HEADERS: usize = 20 + 8;

/// What is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Length of each IP packet.
    pub packet_len: usize,
    /// How fast.
    pub pace: Pace,
    /// Packets that are sent with one system call, and between two pauses of a paced load.
    pub burst: usize,
    /// How long.
    pub duration: Duration,
    /// The CPU to run on.
    pub cpu: Option<usize>,
    /// Not UDP of sockets, but packets that are made here.
    pub made: Option<Made>,
}

impl Load {
    /// A paced load sends all of its packets, but takes no more than twice its time.
    pub fn longest(&self) -> Duration {
        match self.pace {
            Pace::PerSecond(_) => self.duration * 2,
            Pace::Flood => self.duration,
        }
    }
}

/// How fast packets are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// So many packets per second.
    PerSecond(f64),
    /// As many as the generator can.
    Flood,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Packets that the kernel took.
    pub packets: u64,
    /// Processor time of the generator, which holds all that the kernel does in the sender's context:
    /// also the way into the queue, and, with plain forwarding, the whole way to the sink.
    pub cpu: Duration,
    /// How long it took.
    pub took: Duration,
}

/// Sends from this thread's namespace.
pub fn generate(load: &Load, stop: &AtomicBool) -> anyhow::Result<Sent> {
    prepare_thread(load.cpu)?;
    match load.made {
        None => packets(load, stop),
        Some(made) => datagrams::generate(load, made, stop),
    }
}

fn packets(load: &Load, stop: &AtomicBool) -> anyhow::Result<Sent> {
    let sockets = SOURCES
        .map(|last| UdpSocket::bind((source_address(last), 40_000 + u16::from(last))))
        .collect::<Result<Vec<_>, _>>()
        .context("open the generator's sockets")?;
    let destinations = destinations();
    let payload = vec![0; load.packet_len.saturating_sub(HEADERS)];
    let slices = vec![[IoSlice::new(&payload)]; load.burst];
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(load.burst, None);

    let mut turns = sockets.iter().cycle().zip(destinations.chunks_exact(load.burst).cycle());
    paced(load, stop, || {
        let Some((socket, to)) = turns.next() else { return 0 };
        let sent = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, to, [], MsgFlags::empty());
        sent.map_or(0, |sent| sent.count() as u64)
    })
}

/// Calls `send`, which sends packets and says how many the kernel took, as the load wants.
pub fn paced(
    load: &Load,
    stop: &AtomicBool,
    mut send: impl FnMut() -> u64,
) -> anyhow::Result<Sent> {
    let before = thread_cpu()?;
    let start = Instant::now();
    let mut packets = 0u64;
    loop {
        if let Pace::PerSecond(rate) = load.pace {
            let due = due(packets, rate);
            if due >= load.duration {
                break;
            }
            sleep_until(start + due);
        }
        if start.elapsed() >= load.longest() || stop.load(Relaxed) {
            break;
        }
        // What the kernel refuses was not sent; whoever compares counts what was.
        packets += send();
    }
    Ok(Sent { packets, cpu: thread_cpu()?.saturating_sub(before), took: start.elapsed() })
}

/// When the packet after so many is due.
fn due(packets: u64, rate: f64) -> Duration {
    Duration::from_secs_f64(packets as f64 / rate)
}

fn sleep_until(time: Instant) {
    let left = time.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        thread::sleep(left);
    }
}

/// Where packets go, one after the other.
fn destinations() -> Vec<Option<SockaddrIn>> {
    COUNTED_PORTS
        .flat_map(|port| VIPS.map(move |last| SocketAddrV4::new(vip(last), port)))
        .map(|to| Some(SockaddrIn::from(to)))
        .collect()
}

fn prepare_thread(cpu: Option<usize>) -> anyhow::Result<()> {
    prctl::set_timerslack(1).context("set the timer's precision")?;
    if let Some(cpu) = cpu {
        let mut set = CpuSet::new();
        set.set(cpu)?;
        sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("run on CPU {cpu}"))?;
    }
    Ok(())
}

/// Processor time of this thread.
fn thread_cpu() -> anyhow::Result<Duration> {
    let time =
        clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("read the thread's clock")?;
    Ok(time.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn packets_are_due_at_their_rate() {
        assert_eq!(due(80_000, 80_000.0), Duration::from_secs(1));
        assert_eq!(due(16, 80_000.0), Duration::from_micros(200));
        assert_eq!(due(0, 1.0), Duration::ZERO);
    }

    #[test]
    fn a_round_of_sockets_and_destinations_meets_many_flows() {
        let destinations = destinations();
        let turns = (0..16usize).cycle().zip(destinations.chunks_exact(16).cycle());
        let flows: HashSet<_> = turns
            .take(10_000)
            .flat_map(|(socket, to)| to.iter().flatten().map(move |to| (socket, to.to_string())))
            .collect();
        assert!(flows.len() >= 4000, "{}", flows.len());
    }
}
