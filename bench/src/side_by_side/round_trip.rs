//! Round trips of single packets: an echo on the sink, a probe on the source.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use nix::sys::prctl;

use super::lab::{Lab, source_address, vip};

/// Not among those that the sink drops.
const PORT: u16 = 6000;
/// After this a probe counts as lost.
const PATIENCE: Duration = Duration::from_millis(100);
/// Mean time from an answer to the next probe. It varies, so as not to keep step with the load.
const GAP: Duration = Duration::from_micros(300);

/// The two ends.
#[derive(Debug)]
pub struct Ends {
    probe: UdpSocket,
    echo: UdpSocket,
}

/// What the probe met.
#[derive(Debug)]
pub struct RoundTrips {
    /// Nanoseconds.
    pub times: Histogram<u64>,
    /// Probes without an answer.
    pub lost: u64,
}

impl Ends {
    /// Opens them.
    pub fn open(lab: &Lab) -> anyhow::Result<Self> {
        let echo = lab.sink.enter(|| Ok(UdpSocket::bind((vip(1), PORT))?));
        let probe = lab.source.enter(|| {
            let probe = UdpSocket::bind((source_address(1), PORT))?;
            probe.connect((vip(1), PORT))?;
            Ok(probe)
        });
        let ends = Ends {
            probe: probe.context("open the probe's socket")?,
            echo: echo.context("open the echo's socket")?,
        };
        for socket in [&ends.probe, &ends.echo] {
            socket.set_read_timeout(Some(PATIENCE)).context("set a time limit")?;
        }
        Ok(ends)
    }

    /// Answers until it is told to stop.
    pub fn echo(&self, stop: &AtomicBool) -> anyhow::Result<()> {
        let mut buffer = [0; 64];
        while !stop.load(Relaxed) {
            match self.echo.recv_from(&mut buffer) {
                Ok((len, from)) => {
                    // An answer that cannot be sent is a lost probe.
                    let _ = self.echo.send_to(&buffer[..len], from);
                }
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error).context("receive a probe"),
            }
        }
        Ok(())
    }

    /// Probes for some time, one packet at a time.
    pub fn probe(&self, duration: Duration, stop: &AtomicBool) -> anyhow::Result<RoundTrips> {
        /// Nanoseconds. No answer is waited for that long.
        const LONGEST: u64 = 1_000_000_000;
        prctl::set_timerslack(1).context("set the timer's precision")?;
        let mut trips = RoundTrips { times: Histogram::new_with_max(LONGEST, 3)?, lost: 0 };
        let start = Instant::now();
        for number in 0u64.. {
            if start.elapsed() >= duration || stop.load(Relaxed) {
                break;
            }
            match self.one(number)? {
                Some(time) => {
                    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
                    trips.times.saturating_record(nanos.max(1));
                }
                None => trips.lost += 1,
            }
            thread::sleep(gap(number));
        }
        Ok(trips)
    }

    /// The time that one probe took. Answers to earlier ones, given up by now, are passed over.
    fn one(&self, number: u64) -> anyhow::Result<Option<Duration>> {
        let mut buffer = [0; 64];
        let start = Instant::now();
        if self.probe.send(&number.to_be_bytes()).is_err() {
            return Ok(None);
        }
        while start.elapsed() < PATIENCE {
            match self.probe.recv(&mut buffer) {
                Ok(len) if buffer[..len] == number.to_be_bytes() => {
                    return Ok(Some(start.elapsed()));
                }
                Ok(_) => {}
                Err(error) if is_timeout(&error) => break,
                Err(error) => return Err(error).context("receive an answer"),
            }
        }
        Ok(None)
    }
}

/// Between half of the mean and one and a half of it.
fn gap(number: u64) -> Duration {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54; // 0 to 1023
    GAP / 2 + GAP.mul_f64(spread as f64 / 1024.0)
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_vary_about_their_mean() {
        let gaps: Vec<Duration> = (0..10_000).map(gap).collect();
        assert!(gaps.iter().all(|gap| (GAP / 2..GAP * 3 / 2).contains(gap)));
        let mean = gaps.iter().sum::<Duration>() / 10_000;
        assert!(mean.abs_diff(GAP) < GAP / 100, "{mean:?}");
    }
}
