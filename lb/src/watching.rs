//! What the main thread does while the workers work: signals, new tables, the kernel's counters.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::Context;
use lb_sys::shm::{FolderWatch, MappedTable};
use lb_sys::wait::{EndSignals, wait};
use tracing::{info, warn};

use crate::args::Settings;
use crate::current::{Current, CurrentTier};
use crate::daemon::{described, warn_of_marks_outside_mask};
use crate::fragments::Shared;
use crate::mirror::Wake;
use crate::overload::Overload;
use crate::skew::Skew;
use crate::tier;

/// How often the kernel's counters are read and the tables' files are looked at.
const TICK: Duration = Duration::from_secs(1);

/// The main thread with what it looks at.
pub struct Watching<'a> {
    pub settings: &'a Settings,
    pub signals: EndSignals,
    pub watch: FolderWatch,
    pub current: &'a Current,
    pub tier: Option<&'a CurrentTier>,
    pub wake: &'a Wake,
    pub overload: Overload<'a>,
    pub skew: Skew<'a>,
    pub shared: Option<&'a Shared>,
    pub complaint: Complaint,
    pub tier_complaint: Complaint,
    pub told_of_split: bool,
}

impl Watching<'_> {
    /// Returns when a signal or a worker asks to end.
    pub fn run(&mut self, stop: &AtomicBool) -> anyhow::Result<()> {
        let mut looked = Instant::now();
        while !stop.load(Relaxed) {
            let fds = [self.signals.as_fd(), self.watch.as_fd()];
            let [signalled, _] = wait(fds, TICK).context("wait for signals")?;
            if signalled {
                info!("asked to end");
                return Ok(());
            }
            let changed = self.watch.drain();
            self.follow_table();
            self.follow_tier();
            if changed {
                self.wake.call();
            }
            if looked.elapsed() >= TICK {
                self.overload.look();
                self.tell_of_split();
                looked = Instant::now();
                self.skew.look(self.current, looked);
            }
        }
        Ok(())
    }

    /// Moves over to a table that was made anew. One that cannot be used is passed over: the old one
    /// stays in force.
    fn follow_table(&mut self) {
        let Settings { folder, table: name, .. } = self.settings;
        let (old, _) = self.current.get();
        if !old.is_replaced(folder, name) {
            return;
        }
        let opened = MappedTable::open(folder, name).map_err(anyhow::Error::from);
        match opened.and_then(|table| Ok((table.snapshot()?, table))) {
            Ok((snapshot, table)) => {
                self.current.replace(Arc::new(table));
                self.complaint.clear();
                info!("moved over: {}", described(self.settings, &snapshot));
                warn_of_marks_outside_mask(self.settings, &snapshot);
            }
            Err(error) => self.complaint.about(&error),
        }
    }

    /// The same for the table of the tier, which need not have been there before.
    fn follow_tier(&mut self) {
        let (Some(tier), Some(name)) = (self.tier, &self.settings.fragments.tier) else { return };
        let folder = &self.settings.folder;
        let (old, _) = tier.get();
        if old.is_some_and(|old| !old.is_replaced(folder, name)) {
            return;
        }
        match tier::open(self.settings, name) {
            Ok(table) => {
                tier.replace(Some(Arc::new(table)));
                self.tier_complaint.clear();
            }
            Err(error) if tier::is_missing(&error) => {}
            Err(error) => self.tier_complaint.about(&error),
        }
    }

    fn tell_of_split(&mut self) {
        if !self.told_of_split && self.shared.is_some_and(Shared::is_in_use) {
            self.told_of_split = true;
            warn!(
                "fragments of one datagram come to different queues: from now on all queues share one table \
                 of fragments, with a lock; let the rules spread packets by addresses (no fanout)"
            );
        }
    }
}

/// The last one about a table, so that it is not repeated.
#[derive(Debug, Default)]
pub struct Complaint(String);

impl Complaint {
    fn about(&mut self, error: &anyhow::Error) {
        let complaint = format!("{error:#}; going on with the table before it");
        if complaint != self.0 {
            warn!("{complaint}");
            self.0 = complaint;
        }
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}
