//! What a start needs: rights, tables, queues, the tun device, and what the kernel can.

use std::fs::OpenOptions;
use std::process;

use lb_core::table::Config;
use lb_core::tier::Tier;
use lb_sys::capability::Capability;
use lb_sys::device;
use lb_sys::nfqueue::KernelQueues;
use lb_sys::nft::{MapValue, Nft, NftError, TableId, Transaction};
use lb_sys::shm::{MappedTable, Name, StatsFile};

use super::{Finding, Level};
use crate::args::Settings;
use crate::express::Ways;
use crate::mirror::MOST_SLOTS;
use crate::rules::{QueueBy, Table};

pub fn findings(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![capabilities(settings), table(settings), queues(settings)];
    findings.extend(settings.fragments.tier.as_ref().map(|name| tier(settings, name)));
    findings.extend(settings.rules.as_ref().map(|_| kernel(settings)));
    findings.extend(tun(settings));
    findings
}

fn capabilities(settings: &Settings) -> Finding {
    let mut needed = vec![Capability::NetAdmin];
    if settings.user.is_some() {
        needed.extend([Capability::SetUid, Capability::SetGid]);
    }
    let missing: Vec<String> = needed
        .iter()
        .filter(|capability| !capability.in_effect())
        .map(ToString::to_string)
        .collect();
    if missing.is_empty() {
        return Finding::ok("rights", "all that is needed");
    }
    let advice = "run as root, or give the program these capabilities";
    Finding::new("rights", Level::Error, format!("missing {}", missing.join(", ")), advice)
}

fn table(settings: &Settings) -> Finding {
    let open = || -> anyhow::Result<String> {
        let snapshot = MappedTable::open(&settings.folder, &settings.table)?.snapshot()?;
        let targets = snapshot.targets.iter().count();
        Ok(format!("{} with {targets} targets, {} slots", settings.table, snapshot.config.slots))
    };
    match open() {
        Ok(what) => Finding::ok("table", what),
        Err(error) => Finding::new("table", Level::Error, format!("{error:#}"), ""),
    }
}

fn tier(settings: &Settings, name: &Name) -> Finding {
    const CHECK: &str = "tier";
    let mapped = match MappedTable::open(&settings.folder, name) {
        Ok(mapped) => mapped,
        Err(error) => {
            let advice = "until then every fragment is handled where it comes";
            return Finding::new(CHECK, Level::Warning, error.to_string(), advice);
        }
    };
    let look = || -> anyhow::Result<(u32, bool)> {
        let own = Tier::new(mapped.table()?)?.own_mark();
        let targets = mapped.snapshot()?.targets;
        let is_active = targets.iter().any(|(_, router)| router.mark == own && router.weight.0 > 0);
        Ok((own.get(), is_active))
    };
    match look() {
        Err(error) => Finding::new(CHECK, Level::Error, format!("table {name}: {error:#}"), ""),
        Ok((own, true)) => Finding::ok(CHECK, format!("{name}, this router is {own}")),
        Ok((own, false)) => {
            let what =
                format!("{name}: this router, {own}, is not active: all fragments go to others");
            Finding::new(CHECK, Level::Note, what, "")
        }
    }
}

fn queues(settings: &Settings) -> Finding {
    const CHECK: &str = "nfqueue";
    let listed = match KernelQueues::open().and_then(|mut queues| queues.read()) {
        Ok(listed) => listed,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let advice = "load the module nfnetlink_queue";
            return Finding::new(CHECK, Level::Error, "this kernel has no NFQUEUE", advice);
        }
        Err(error) => {
            let what = format!("the list of queues could not be read: {error}");
            return Finding::new(CHECK, Level::Note, what, "run as root to know");
        }
    };
    let running = StatsFile::open(&settings.folder, &settings.instance);
    if running.is_ok_and(|stats| stats.is_running()) {
        return Finding::ok(CHECK, format!("lb of instance {} is running", settings.instance));
    }
    let used = listed.iter().find(|queue| settings.queues.contains(&queue.queue));
    match used {
        None => Finding::ok(CHECK, "the queues are free"),
        Some(queue) => {
            let what = format!("queue {} is in use by netlink port {}", queue.queue, queue.port);
            Finding::new(
                CHECK,
                Level::Error,
                what,
                "choose others with --queue, or end that process",
            )
        }
    }
}

/// Makes the rules where no packet comes, and takes them away within the same transaction.
fn kernel(settings: &Settings) -> Finding {
    const CHECK: &str = "kernel";
    let refused = |what: &str, cause: &NftError, level| {
        Finding::new(CHECK, level, format!("{what}: {cause}"), "")
    };
    let by = match try_rules(settings, QueueBy::Expression, None) {
        Ok(()) => QueueBy::Expression,
        Err(error) if error.expression() == Some("queue") => {
            match try_rules(settings, QueueBy::Target, None) {
                Ok(()) => QueueBy::Target,
                Err(error) => return refused("nftables cannot queue", &error, Level::Error),
            }
        }
        Err(error) => return refused("nftables refuses the rules", &error, Level::Error),
    };
    let how = match by {
        QueueBy::Expression => "by nftables' own means",
        QueueBy::Target => "by the target NFQUEUE",
    };
    if !settings.rules.as_ref().is_some_and(|rules| rules.fast) {
        return Finding::ok(CHECK, format!("rules can queue, {how}"));
    }
    let mapped = MappedTable::open(&settings.folder, &settings.table).ok();
    let config = mapped.and_then(|mapped| Some(*mapped.table().ok()?.config())).unwrap_or_default();
    if config.slots > MOST_SLOTS {
        let what =
            format!("no fast plane: the table has {} slots, more than {MOST_SLOTS}", config.slots);
        return Finding::new(CHECK, Level::Warning, what, "make a table with fewer slots");
    }
    if let Err(error) = try_rules(settings, by, Some(&config)) {
        return refused("no fast plane", &error, Level::Warning);
    }
    let rules = settings.rules.as_ref().filter(|rules| !rules.express.is_empty());
    let Some(rules) = rules else {
        return Finding::ok(
            CHECK,
            format!("rules can queue, {how}, and the fast plane can be made"),
        );
    };
    match try_table(&Ways::default().table(&rules.wanted, &config)) {
        Ok(()) => Finding::ok(
            CHECK,
            format!("rules can queue, {how}, and the fast and the express plane can be made"),
        ),
        Err(error) => refused("no express plane", &error, Level::Warning),
    }
}

fn try_rules(settings: &Settings, by: QueueBy, fast: Option<&Config>) -> Result<(), NftError> {
    let Some(rules) = &settings.rules else { return Ok(()) };
    try_table(&Table::new(&rules.wanted, by, fast))
}

/// Makes it without hooks, under another name, and deletes it in the same transaction.
fn try_table(table: &Table) -> Result<(), NftError> {
    let id = TableId { family: table.family, name: format!("markway-check-{}", process::id()) };
    let mut transaction = Transaction::new(&id);
    transaction.add_table("a check of lb of Markway");
    for counter in table.counters {
        transaction.add_counter(counter);
    }
    if let Some(map) = &table.map {
        transaction.add_map(&map.name, map.size, MapValue::Mark);
    }
    for (map, value) in &table.hops {
        transaction.add_map(&map.name, map.size, *value);
    }
    if let Some(set) = &table.targets {
        transaction.add_counters_by_mark(&set.name, set.size);
    }
    for chain in &table.chains {
        transaction.add_chain(&chain.name, None);
    }
    for chain in &table.chains {
        chain.rules.iter().for_each(|rule| transaction.add_rule(&chain.name, rule));
    }
    transaction.delete_table();
    Nft::open()?.commit(transaction)
}

fn tun(settings: &Settings) -> Option<Finding> {
    const CHECK: &str = "tun";
    let name = settings.fragments.tun.as_ref()?;
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        let what = format!("there is no usable /dev/net/tun: {error}");
        let advice = "load the module tun, and let a container have the device";
        return Some(Finding::new(CHECK, Level::Error, what, advice));
    }
    let running = StatsFile::open(&settings.folder, &settings.instance);
    let is_running = running.is_ok_and(|stats| stats.is_running());
    let is_there = device::list().is_ok_and(|devices| devices.contains(&name.to_string()));
    Some(match (is_there, is_running) {
        (true, false) => {
            let what = format!("there is a device {name} already");
            Finding::new(CHECK, Level::Warning, what, "choose another name, or remove it")
        }
        (true, true) => Finding::ok(CHECK, format!("{name} is there")),
        (false, _) => Finding::ok(CHECK, format!("{name} can be made")),
    })
}
