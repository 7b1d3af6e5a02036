//! Set-up, the workers, and their end.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use lb_core::frag::Secret;
use lb_core::table::Snapshot;
use lb_core::walk::Policy;
use lb_sys::capability::Capability;
use lb_sys::nfqueue::{KernelQueues, Queue, QueueConfig};
use lb_sys::shm::{FolderWatch, MappedTable, StatsWriter};
use lb_sys::tun::Tun;
use lb_sys::wait::{EndSignals, set_timer_slack};
use lb_sys::{privilege, random, syscall_filter};
use tracing::{debug, info, warn};

use crate::args::{RuleSettings, Settings};
use crate::check;
use crate::current::Current;
use crate::express::Express;
use crate::fragments::{self, FragSettings, Shared};
use crate::installed::Installed;
use crate::means::Means;
use crate::mirror::{Mirror, Mirrored, Wake};
use crate::overload::Overload;
use crate::skew::{Handed, Skew, Told};
use crate::summary;
use crate::tier;
use crate::watching::{Complaint, Watching};
use crate::worker::{Losses, Worker};

/// Runs until a signal asks to end.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    if let Some(missing) = missing_capabilities(settings) {
        bail!("{missing}; {GET_CAPABILITIES}");
    }
    if let Some(lack) = settings.fragments.lacks_memory(settings.queues.clone().count()) {
        bail!("{lack}");
    }
    let signals = EndSignals::catch().context("catch signals")?;
    let watch = FolderWatch::new(&settings.folder)
        .with_context(|| format!("watch {}", settings.folder.path().display()))?;
    let table = MappedTable::open(&settings.folder, &settings.table)?;
    let snapshot = table.snapshot().with_context(|| format!("read table {}", settings.table))?;
    let tier = settings.fragments.tier.as_ref().map(|name| tier::at_start(settings, name));
    let tier = tier.transpose()?;
    let numbers: Vec<u16> = settings.queues.clone().collect();
    let mut queues = open_queues(settings, &numbers)?;
    // After the queues: a start that fails leaves the counters of the last run.
    let stats =
        StatsWriter::create(&settings.folder, &settings.instance, &settings.table, &numbers)?;
    let tun = create_tun(settings)?;
    let secret = draw_secret()?;
    let current = Current::new(Arc::new(table));
    let policy = Policy { no_targets_mark: settings.no_targets_mark };
    let kernel_queues = KernelQueues::open()
        .inspect_err(|error| {
            warn!("only root may read what the kernel loses ({error}): it is not counted");
        })
        .ok();
    if let Some(user) = settings.user {
        privilege::become_user(user, Capability::NetAdmin).context("become the user of --user")?;
    }
    // Last of all that can fail: from the first rule on there must be somebody who answers.
    let mut mirror = install_rules(settings, policy, &current)?;
    info!("{}", described(settings, &snapshot));
    warn_of_marks_outside_mask(settings, &snapshot);
    drop(snapshot); // a copy of the whole table

    let losses: Vec<Losses> = numbers.iter().map(|_| Losses::default()).collect();
    let handed: Vec<Handed> = numbers.iter().map(|_| Handed::default()).collect();
    let told = Told::default();
    let stop = AtomicBool::new(false);
    let (mirrored, wake) = (Mirrored::default(), Wake::default());
    let mut workers = Vec::new();
    for (place, ((&number, losses), handed)) in numbers.iter().zip(&losses).zip(&handed).enumerate()
    {
        workers.push(Worker {
            number,
            current: &current,
            tier: tier.as_ref(),
            policy,
            mark_mask: settings.mark_mask,
            row: stats.row(place).context("counters: a row is missing")?,
            losses,
            mirrored: (place == 0 && mirror.is_some()).then_some(&mirrored),
            handed,
            told: (place == 0).then_some(&told),
            gather: settings.gather,
            stop: &stop,
        });
    }

    // The kernel's default of 50 µs would make the short waits of the workers half as long again.
    set_timer_slack(Duration::from_micros(1)).context("set the timer slack")?;
    let overload = Overload::new(kernel_queues, &numbers, &losses);
    let config = settings.fragments.table;
    let shared = Shared::new(config, secret, numbers.len());
    let common = fragments::Common {
        config,
        secret,
        start: Instant::now(),
        tun: tun.as_ref(),
        shared: shared.as_ref(),
    };
    let skew = Skew::new(settings.skew_period, &handed, &told, Instant::now());
    let mut watching = Watching {
        settings,
        signals,
        watch,
        current: &current,
        tier: tier.as_ref(),
        wake: &wake,
        overload,
        skew,
        shared: shared.as_ref(),
        complaint: Complaint::default(),
        tier_complaint: Complaint::default(),
        told_of_split: false,
    };
    std::thread::scope(|scope| {
        let handles: Vec<_> = workers
            .iter()
            .zip(&mut queues)
            .map(|(worker, queue)| {
                let is_first = worker.number == *settings.queues.start();
                let fragments = fragments::Worker::new(common, worker.number, is_first);
                std::thread::Builder::new().name(format!("queue-{}", worker.number)).spawn_scoped(
                    scope,
                    move || {
                        let _stop = StopOnDrop(worker.stop);
                        worker.run(queue, fragments)
                    },
                )
            })
            .collect();
        let mirroring = mirror.as_mut().map(|mirror| {
            let (current, mirrored, wake, stop) = (&current, &mirrored, &wake, &stop);
            std::thread::Builder::new().name("mirror".into()).spawn_scoped(scope, move || {
                let _stop = StopOnDrop(stop);
                mirror.run(current, mirrored, wake, stop);
                Ok(())
            })
        });
        let handles: Vec<_> = handles.into_iter().chain(mirroring).collect();
        let started = handles.iter().all(Result::is_ok);
        if started {
            // It may take long, so somebody must serve the queues by now.
            check::warn_at_start(settings);
        }
        let watched = match settings.user {
            _ if !started => Ok(()),
            Some(_) => syscall_filter::install().context("install the system-call filter"),
            None => Ok(()),
        };
        let watched = watched.and_then(|()| if started { watching.run(&stop) } else { Ok(()) });
        stop.store(true, Relaxed);
        wake.call();
        for handle in handles {
            match handle.context("start a thread")?.join() {
                Ok(result) => result?,
                Err(_) => bail!("a thread panicked"),
            }
        }
        watched
    })?;

    watching.overload.read();
    let counts = workers.iter().filter_map(|worker| {
        let (number, mut counts) = worker.row.load()?;
        worker.add_counted_elsewhere(&mut counts);
        worker.row.store(number, &counts);
        Some(counts)
    });
    info!("{}", summary::of(&counts.collect::<Vec<_>>()));
    Ok(())
}

/// One queue without a worker loses packets: when one ends, also by a panic, the whole ends.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// What to do about a capability that is missing.
pub const GET_CAPABILITIES: &str = "run as root, or give the program these capabilities";

/// The capabilities that are missing, each with what it is needed for.
pub fn missing_capabilities(settings: &Settings) -> Option<String> {
    let mut needed = vec![(Capability::NetAdmin, "for queues and verdicts")];
    if settings.user.is_some() {
        needed.extend([(Capability::SetUid, "for --user"), (Capability::SetGid, "for --user")]);
    }
    let missing: Vec<String> = needed
        .into_iter()
        .filter(|(capability, _)| !capability.in_effect())
        .map(|(capability, why)| format!("{capability} ({why})"))
        .collect();
    (!missing.is_empty()).then(|| format!("missing {}", missing.join(", ")))
}

fn open_queues(settings: &Settings, numbers: &[u16]) -> anyhow::Result<Vec<Queue>> {
    let mut queues = Vec::new();
    for &number in numbers {
        let queue = Queue::open(&QueueConfig {
            number,
            length: settings.queue_length,
            copy_range: settings.fragments.copy_range,
            receive_buffer: settings.receive_buffer,
            fail_open: settings.fail_open,
        })?;
        let granted = queue.receive_buffer().unwrap_or(0);
        debug!(queue = number, receive_buffer = granted, "queue opened");
        if granted < settings.receive_buffer {
            warn!(
                "queue {number}: the kernel granted a receive buffer of {granted} bytes, not {}; \
                 raise the sysctl net.core.rmem_max or lower --receive-buffer",
                settings.receive_buffer
            );
        }
        queues.push(queue);
    }
    Ok(queues)
}

fn install_rules(
    settings: &Settings,
    policy: Policy,
    current: &Current,
) -> anyhow::Result<Option<Mirror>> {
    let Some(rules) = &settings.rules else { return Ok(None) };
    let RuleSettings { wanted, express, .. } = rules;
    let installed = Installed::open(&settings.instance)?;
    let open = || Express::open(express.clone(), &wanted.vips, Instant::now());
    let express = (!express.is_empty()).then(open).transpose().context("ask for routes")?;
    Mirror::install(installed, (Means::new(rules), express), policy, current).map(Some)
}

/// The device by which held fragments come in once more. It must be there before the workers.
fn create_tun(settings: &Settings) -> anyhow::Result<Option<Tun>> {
    let FragSettings { tun, table, copy_range, .. } = &settings.fragments;
    let Some(name) = tun else { return Ok(None) };
    let tun = Tun::create(name, *copy_range)?;
    match tun.source_check() {
        Ok(None) => {}
        Ok(Some(setting)) => {
            warn!("{setting} is not 0: the kernel drops held fragments that come in by {name}");
        }
        Err(error) => {
            warn!("{error}: unless it is 0 the kernel drops held fragments that come in by {name}");
        }
    }
    info!(
        "fragments: {} datagrams and {} held fragments in each queue ({} kB in all), by {name}",
        table.entries,
        table.held,
        settings.fragments.memory(settings.queues.clone().count()) / 1000
    );
    Ok(Some(tun))
}

/// What nobody outside may know of the table of fragments.
fn draw_secret() -> anyhow::Result<Secret> {
    let half = || random::bytes().map(u64::from_ne_bytes).context("draw a random number");
    Ok(Secret([half()?, half()?]))
}

/// What is served, in a line.
pub fn described(settings: &Settings, snapshot: &Snapshot) -> String {
    let queues = match (settings.queues.start(), settings.queues.end()) {
        (first, last) if first == last => format!("queue {first}"),
        (first, last) => format!("queues {first} to {last}"),
    };
    format!(
        "ready: {queues}, table {} with {} slots, {} targets, generation {}, fingerprint {}",
        settings.table,
        snapshot.config.slots,
        snapshot.targets.iter().count(),
        snapshot.generation.0,
        snapshot.fingerprint,
    )
}

/// Tells of marks of which the mask leaves only a part.
pub fn warn_of_marks_outside_mask(settings: &Settings, snapshot: &Snapshot) {
    let mask = settings.mark_mask;
    let marks = snapshot.targets.iter().map(|(_, target)| target.mark.get());
    let cut: Vec<u32> = marks.filter(|mark| mark & !settings.mark_mask != 0).collect();
    if let Some(mark) = cut.first() {
        let (many, set) = (cut.len(), mark & mask);
        warn!(
            "{many} marks have bits outside the mask {mask:#x}, such as {mark:#x}: packets get {set:#x}"
        );
    }
}
