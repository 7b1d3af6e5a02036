//! Keeps what is in nftables equal to what the settings and the table say, in a thread beside the workers.

mod shared;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::Context;
use lb_core::fast;
use lb_core::table::{Config, Generation, Snapshot, TableError};
use lb_core::walk::Policy;
use tracing::{debug, info, warn};

use crate::current::Current;
use crate::express::{EXPRESS, Express, Ways};
use crate::installed::{Changes, Content, InstallError, Installed, NOTHING};
use crate::means::{Lack, Means, too_large};
use crate::rules::{FAST, QUEUED, QueueBy, Table};
use shared::add;
pub use shared::{Mirrored, Wake};

/// How often it is looked whether somebody else changed nftables: one short request.
const TICK: Duration = Duration::from_millis(100);
/// How often the kernel's counters are read, and what failed is tried again.
const SECOND: Duration = Duration::from_secs(1);
/// How often the whole map is compared with the table, a part after the other.
const CHECK: Duration = Duration::from_secs(60);
/// How long there is none after one, though somebody else changes nftables all the time.
const PAUSE: Duration = Duration::from_secs(5);
/// Slots of a part: they take about a millisecond, for which a change has to wait.
const PART: u32 = 500;
/// How long there is nothing to do between two parts.
const BETWEEN_PARTS: Duration = Duration::from_millis(10);
/// What fails when the kernel's routing cannot be asked.
const ASK: &str = "ask for routes";

/// The mirror with all that it knows.
#[derive(Debug)]
pub struct Mirror {
    policy: Policy,
    installed: Installed,
    means: Means,
    /// Where marks lead, while there is to be an express plane.
    express: Option<Express>,
    /// Whether it has found other ways than before.
    has_other_ways: bool,
    /// Whether something is in force yet. Before, whatever goes wrong with the fast plane is taken for the
    /// kernel's lack; later it is tried again.
    is_started: bool,
    /// The table that is in the map: the mapping's number, and the publication.
    mirrored: Option<(u64, Generation)>,
    check_at: Instant,
    checked_at: Option<Instant>,
    /// When it is looked again which counters have no target any more.
    tidy_at: Instant,
    /// The slot from which on the check under way goes on.
    checking: Option<u32>,
    /// Whether something failed, so that nothing may be believed.
    in_doubt: bool,
    try_at: Instant,
    count_at: Instant,
    complaint: String,
}

impl Mirror {
    /// Installs the rules, or takes over those of the `lb` before.
    pub fn install(
        installed: Installed,
        (means, express): (Means, Option<Express>),
        policy: Policy,
        current: &Current,
    ) -> anyhow::Result<Self> {
        let now = Instant::now();
        let mut mirror = Mirror {
            policy,
            installed,
            means,
            express,
            has_other_ways: false,
            is_started: false,
            mirrored: None,
            check_at: now + CHECK,
            checked_at: None,
            tidy_at: now + CHECK,
            checking: None,
            in_doubt: false,
            try_at: now,
            count_at: now,
            complaint: String::new(),
        };
        let changes = mirror.put_all(current)?;
        mirror.is_started = true;
        info!("{}", mirror.described(&changes));
        Ok(mirror)
    }

    /// Follows the table until it is asked to stop.
    pub fn run(&mut self, current: &Current, mirrored: &Mirrored, wake: &Wake, stop: &AtomicBool) {
        while !stop.load(Relaxed) {
            wake.wait(if self.checking.is_some() { BETWEEN_PARTS } else { TICK });
            let now = Instant::now();
            if now < self.try_at {
                continue;
            }
            match self.step(current, mirrored, now) {
                Ok(()) => self.complaint.clear(),
                Err(error) => {
                    // The first time it may be that somebody else was faster: at once once more.
                    if self.in_doubt {
                        self.try_at = now + SECOND;
                        self.complain(format!("{error:#}"));
                    }
                    self.in_doubt = true;
                }
            }
        }
    }

    fn step(&mut self, current: &Current, mirrored: &Mirrored, now: Instant) -> anyhow::Result<()> {
        let disturbed = self.installed.is_disturbed()?;
        if self.in_doubt {
            self.installed.forget();
        }
        if self.in_doubt || disturbed {
            let before = self.mirrored;
            self.has_other_ways = false;
            let changes = self.put_all(current)?;
            self.report(&changes, before, mirrored);
            self.in_doubt = false;
            // Whoever changed something may have changed the map, too.
            self.check_soon(now);
        } else if self.has_new_ways(now)? {
            // A device that was away for a moment has lost its chain.
            self.put_all(current)?;
            self.check_soon(now);
        } else if self.means.fast() && self.is_behind(current)? {
            self.follow(current, mirrored)?;
            self.check_soon(now);
        }
        if self.means.fast() && (self.checking.is_some() || now >= self.check_at) {
            self.check(mirrored, now)?;
        }
        if now >= self.tidy_at {
            self.tidy_at = now + CHECK;
            self.installed.end_counters()?;
        }
        if now >= self.count_at {
            self.count_at = now + SECOND;
            self.count(mirrored)?;
        }
        Ok(())
    }

    fn complain(&mut self, complaint: String) {
        if complaint != self.complaint {
            warn!("rules may be out of date: {complaint}; trying again every second");
            self.complaint = complaint;
        }
    }

    fn check_soon(&mut self, now: Instant) {
        let paused = self.checked_at.map_or(now, |checked_at| checked_at + PAUSE);
        self.check_at = self.check_at.min(paused.max(now + SECOND));
    }

    /// Checks another part of the map.
    fn check(&mut self, mirrored: &Mirrored, now: Instant) -> Result<(), InstallError> {
        let first = self.checking.unwrap_or_else(|| {
            // From here on whatever happens is for the next one.
            self.check_at = now + CHECK;
            0
        });
        let wrong = self.installed.check(first, PART)?;
        if let Some(wrong @ 1..) = wrong {
            add(&mirrored.map_repairs, wrong);
            let table = self.installed.table();
            warn!("{wrong} elements of the maps of {table} were not as they should be: mended");
        }
        self.checking = wrong.is_some().then(|| first.saturating_add(PART));
        if self.checking.is_none() {
            self.checked_at = Some(Instant::now());
            debug!("map: checked");
        }
        Ok(())
    }

    fn is_behind(&self, current: &Current) -> anyhow::Result<bool> {
        let (mapped, epoch) = current.get();
        let generation = mapped.table()?.generation();
        Ok(self.mirrored != Some((epoch, generation)))
    }

    fn has_new_ways(&mut self, now: Instant) -> anyhow::Result<bool> {
        match &mut self.express {
            Some(express) if self.installed.has_map() => express.is_behind(now).context(ASK),
            _ => Ok(false),
        }
    }

    /// Brings the map to the newest state of the table, whatever was in between.
    fn follow(&mut self, current: &Current, mirrored: &Mirrored) -> anyhow::Result<()> {
        let (mapped, epoch) = current.get();
        if self.mirrored.is_none_or(|(mirrored, _)| mirrored != epoch) {
            let changes = self.put_all(current)?;
            info!("{}", self.described(&changes));
            add(&mirrored.map_changes, 1);
            add(&mirrored.map_slots, changes.slots);
            return Ok(());
        }
        if !self.installed.has_map() {
            self.mirrored = Some((epoch, mapped.table()?.generation()));
            return Ok(());
        }
        let start = Instant::now();
        let snapshot = match mapped.snapshot() {
            Err(TableError::Busy(_)) => return Ok(()), // There will be another chance, and newer.
            snapshot => snapshot?,
        };
        let content = self.content(&snapshot)?;
        let tables = self.tables(Some(&snapshot.config));
        let changed = if self.installed.has_rules(&tables) {
            self.installed.put_content(content)?
        } else {
            // A next hop with another limit, or a device that came or went.
            self.installed.put(&tables, content)?.slots
        };
        self.mirrored = Some((epoch, snapshot.generation));
        add(&mirrored.map_changes, usize::from(changed > 0));
        add(&mirrored.map_slots, changed);
        debug!("map: {changed} slots changed in {:.2?}", start.elapsed());
        Ok(())
    }

    /// Puts everything into force, by the means that this kernel has.
    fn put_all(&mut self, current: &Current) -> anyhow::Result<Changes> {
        let (mapped, epoch) = current.get();
        loop {
            let table = mapped.table()?;
            let takes = self.means.fast() && self.takes(table.config(), epoch);
            let snapshot = if takes { Some(mapped.snapshot()?) } else { None };
            let generation = snapshot.as_ref().map_or(table.generation(), |copy| copy.generation);
            let config = snapshot.as_ref().map(|snapshot| &snapshot.config);
            let content = match &snapshot {
                Some(snapshot) => self.content(snapshot)?,
                None => Content::default(),
            };
            match self.installed.put(&self.tables(config), content) {
                Ok(changes) => {
                    self.mirrored = Some((epoch, generation));
                    return Ok(changes);
                }
                Err(error) => self.do_without(error)?,
            }
        }
    }

    fn tables(&self, config: Option<&Config>) -> Vec<Table> {
        let ways = self.express.as_ref().map(Express::ways);
        self.means.tables(config, ways.unwrap_or(&Ways::default()))
    }

    /// Gives up what the kernel does not have, if there is another way.
    fn do_without(&mut self, error: InstallError) -> anyhow::Result<()> {
        let InstallError::Nft { cause, .. } = &error else { return Err(error.into()) };
        let given_up = match self.is_started {
            false => self.means.do_without(cause),
            true => self.means.queue_otherwise(cause),
        };
        match given_up {
            None => return Err(error.into()),
            Some(lack @ Lack::Queue) => {
                debug!("{}", lack.because(cause));
                if let Err(error) = self.installed.load_queue_target() {
                    // If it is missing the rules will say so.
                    debug!("load the target NFQUEUE: {error}");
                }
            }
            Some(lack) => warn!("{}", lack.because(cause)),
        }
        if !self.means.express() {
            self.express = None;
        }
        Ok(())
    }

    /// Whether the table is of a size for the fast plane; told once for each table.
    fn takes(&self, config: &Config, epoch: u64) -> bool {
        let complaint = too_large(config);
        if let Some(complaint) = &complaint
            && self.mirrored.is_none_or(|(mirrored, _)| mirrored != epoch)
        {
            warn!("{complaint}");
        }
        complaint.is_none()
    }

    fn content(&mut self, snapshot: &Snapshot) -> anyhow::Result<Content> {
        let element = |word: u32| fast::element(word, &self.policy, self.means.wanted().mark_mask);
        let slots = snapshot.slots.iter().map(|word| element(*word).unwrap_or(NOTHING)).collect();
        // The mark of an empty table, too.
        let words = snapshot.targets.iter().map(|(_, target)| target.mark.get());
        let marks = words.chain([NOTHING]).filter_map(element).collect();
        let hops = match &mut self.express {
            Some(express) => {
                if express.find(&marks, Instant::now()).context(ASK)? {
                    self.has_other_ways = true;
                    debug!("next hops: {:?}", express.ways());
                }
                // The reason may be another one although the ways are the same.
                if let Some(lack) = express.new_lack() {
                    warn!("{lack}");
                }
                express.ways().elements()
            }
            None => BTreeMap::new(),
        };
        Ok(Content { slots, marks, hops })
    }

    /// Says and counts what was not as it should have been.
    fn report(&self, changes: &Changes, before: Option<(u64, Generation)>, mirrored: &Mirrored) {
        let table = self.installed.table();
        let same_table = self.mirrored == before;
        // A table made anew in the same moment, and other next hops, bring rules of their own.
        let same_rules = self.mirrored.map(|(epoch, _)| epoch) == before.map(|(epoch, _)| epoch)
            && !self.has_other_ways;
        let missing = (changes.rules && same_rules) || (changes.counters > 0 && same_table);
        if changes.made || missing {
            add(&mirrored.rules_mended, 1);
            warn!("somebody else changed the rules of table {table}: mended");
        } else if (changes.slots > 0 && same_table) || (changes.hops > 0 && same_rules) {
            let wrong = changes.slots + changes.hops;
            add(&mirrored.map_repairs, wrong);
            warn!("{wrong} elements of the maps of {table} were not as they should be: mended");
        } else if changes.slots > 0 || changes.rules {
            add(&mirrored.map_changes, 1);
            add(&mirrored.map_slots, changes.slots);
        }
    }

    fn count(&mut self, mirrored: &Mirrored) -> Result<(), InstallError> {
        for counter in self.installed.counters()? {
            let (packets, bytes) = match counter.name.as_str() {
                EXPRESS => (&mirrored.express_packets, &mirrored.express_bytes),
                FAST => (&mirrored.fast_packets, &mirrored.fast_bytes),
                QUEUED => (&mirrored.queued_packets, &mirrored.queued_bytes),
                _ => continue,
            };
            packets.store(counter.packets, Relaxed);
            bytes.store(counter.bytes, Relaxed);
        }
        Ok(())
    }

    fn described(&self, changes: &Changes) -> String {
        let what = match changes {
            Changes { made: true, .. } => "made",
            Changes { rules: true, .. } => "changed",
            Changes { slots: 0, hops: 0, .. } => "taken over",
            _ => "taken over, the maps brought up to date",
        };
        let plane = match (self.installed.has_map(), &self.express) {
            (true, Some(_)) => "express plane",
            (true, None) => "fast plane",
            (false, _) => "slow plane",
        };
        let by = match self.means.by() {
            QueueBy::Expression => "queue",
            QueueBy::Target => "target NFQUEUE",
        };
        format!("rules: table {} {what}, {plane}, {by}", self.installed.table())
    }
}
