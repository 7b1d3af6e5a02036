//! When the kernel's tables changed.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use lb_sys::nft::Nft;
use nix::sys::prctl;

/// Between two looks. A look itself takes a few microseconds.
const STEP: Duration = Duration::from_micros(50);

/// A moment between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The end of the look that saw it.
    pub at: Instant,
    /// How much earlier it may have been: the look before had begun that much earlier.
    pub precision: Duration,
}

/// Watches the generation of nftables, which the kernel moves in the moment from which packets meet what a
/// transaction has made; until it is another one than `before`, or somebody says stop.
pub fn watch(nft: &mut Nft, before: u32, stop: &AtomicBool) -> anyhow::Result<Option<Seen>> {
    prctl::set_timerslack(1)?;
    let mut earlier = Instant::now();
    while !stop.load(Relaxed) {
        let begin = Instant::now();
        if nft.generation()? != before {
            let at = Instant::now();
            return Ok(Some(Seen { at, precision: at - earlier }));
        }
        earlier = begin;
        thread::sleep(STEP);
    }
    Ok(None)
}
