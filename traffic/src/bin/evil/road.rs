//! Devices, and the lanes between them: the part of the program that the kernel sees.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use serde::Serialize;
use traffic::events::{Events, Interest, TURN, is_transient};
use traffic::process;
use traffic_sys::tun::{self, Kind};

use crate::args::Settings;
use crate::counters::Counters;
use crate::frame::{Frame, Layer};
use crate::lane::Lane;

struct Road {
    layer: Layer,
    names: Vec<String>,
    devices: Vec<File>,
    /// Each with the device that its frames come from; the first leads there, the second back.
    lanes: Vec<Lane>,
    start: Instant,
    buffer: Vec<u8>,
}

#[derive(Serialize)]
struct Report {
    seed: u64,
    there: Counters,
    #[serde(skip_serializing_if = "Option::is_none")]
    back: Option<Counters>,
}

/// The token of the descriptor that is no device; devices count from 0.
const SIGNALS: u64 = u64::MAX;

/// More than the longest frame.
const BUFFER: usize = 1 << 16;

/// Joins the devices until SIGTERM or SIGINT.
pub fn run(settings: &Settings) -> Result<()> {
    let asked = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1];
    let signals = process::signals(&asked).context("watch for signals")?;
    let mut events = Events::new().context("create an epoll")?;
    events.add(&signals, Interest::EPOLLIN, SIGNALS).context("watch for signals")?;
    let mut road = Road::open(settings)?;
    for (token, device) in (0..).zip(&road.devices) {
        events.add(device, Interest::EPOLLIN, token).context("watch a device")?;
    }
    process::log(format_args!("ready: {}", settings.devices.join(" ")));
    loop {
        let until = road.next_due().map(|due| road.start + due);
        for token in events.wait(until).context("wait for events")? {
            if token == SIGNALS {
                let is_end = is_end(&signals)?;
                road.report(settings.seed);
                if is_end {
                    return Ok(());
                }
            } else if let Ok(number) = usize::try_from(token) {
                road.take(number).context("read from a device")?;
            }
        }
        road.release();
    }
}

/// Whether the signal that came is one that ends the program.
fn is_end(signals: &SignalFd) -> Result<bool> {
    let signal = signals.read_signal().context("read a signal")?;
    let request = Signal::SIGUSR1 as u32;
    Ok(signal.is_some_and(|signal| signal.ssi_signo != request))
}

impl Road {
    fn open(settings: &Settings) -> Result<Self> {
        let open = |name: &String| {
            tun::create(name, settings.kind, settings.mtu)
                .with_context(|| format!("create device {name}"))
        };
        let devices = settings.devices.iter().map(open).collect::<Result<Vec<_>>>()?;
        // Another seed for each, so that the directions do not suffer alike.
        let lanes = (0..).zip(&settings.instructions).take(devices.len()).map(
            |(number, instructions): (u64, _)| {
                Lane::new(instructions, settings.seed.wrapping_add(number), settings.most_bytes)
            },
        );
        Ok(Self {
            layer: match settings.kind {
                Kind::Tap => Layer::Ethernet,
                Kind::Tun => Layer::Ip,
            },
            lanes: lanes.collect(),
            names: settings.devices.clone(),
            devices,
            start: Instant::now(),
            buffer: vec![0; BUFFER],
        })
    }

    fn next_due(&self) -> Option<Duration> {
        self.lanes.iter().filter_map(Lane::next_due).min()
    }

    /// Takes what a device has, up to as much as lets the others have their turn.
    fn take(&mut self, number: usize) -> io::Result<()> {
        for _ in 0..TURN {
            let length = match self.devices[number].read(&mut self.buffer) {
                Err(error) if is_transient(&error) => return Ok(()),
                length => length?,
            };
            let frame = Frame::new(self.buffer[..length].to_vec(), self.layer);
            let frames = self.lanes[number].put(frame, self.start.elapsed());
            self.send(number, &frames);
        }
        Ok(())
    }

    fn release(&mut self) {
        let now = self.start.elapsed();
        for number in 0..self.lanes.len() {
            let frames = self.lanes[number].release(now);
            self.send(number, &frames);
        }
    }

    /// Sends what has passed a lane. What the kernel does not take is counted.
    fn send(&mut self, number: usize, frames: &[Frame]) {
        let to = match self.layer {
            Layer::Ethernet => 1 - number,
            Layer::Ip => number,
        };
        for frame in frames {
            let sent = (&self.devices[to]).write(&frame.bytes);
            self.lanes[number].count_sent(sent.is_ok());
        }
    }

    fn report(&self, seed: u64) {
        // Always there to be read; without it, nothing is known to be missed.
        let kernel = fs::read_to_string("/proc/net/dev").unwrap_or_default();
        let mut counters = self.lanes.iter().zip(&self.names).map(|(lane, name)| Counters {
            missed: missed(&kernel, name).unwrap_or(0),
            ..lane.counters()
        });
        let report =
            Report { seed, there: counters.next().unwrap_or_default(), back: counters.next() };
        let mut line = serde_json::to_string(&report).expect("numbers under names");
        line.push('\n');
        // Nobody may be reading there any more.
        let _ = io::stdout().write_all(line.as_bytes());
    }
}

/// The packets for a device that its reader was too slow for, from /proc/net/dev.
fn missed(table: &str, device: &str) -> Option<u64> {
    let mut lines = table.lines().filter_map(|line| line.split_once(':'));
    let (_, numbers) = lines.find(|(name, _)| name.trim() == device)?;
    // Eight about receiving, then bytes, packets, errors and drops.
    numbers.split_whitespace().nth(11)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_is_in_the_row_of_the_device() {
        let table = "Inter-|   Receive | Transmit\n face |bytes packets|bytes packets\n\
                     \x20   lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n\
                     evil-there:21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36\n";
        assert_eq!(missed(table, "lo"), Some(12));
        assert_eq!(missed(table, "evil-there"), Some(32));
        assert_eq!(missed(table, "evil"), None);
    }
}
