//! What a start needs: rights, tables, queues, the tun device, and what the kernel can.

use std::fs::OpenOptions;
use std::process;

use lb_core::tier::Tier;
use lb_sys::device;
use lb_sys::nfqueue::{self, KernelQueues};
use lb_sys::nft::{MapValue, Nft, NftError, TableFamily, TableId, Transaction};
use lb_sys::shm::{MappedTable, Name};

use super::{Finding, Level};
use crate::args::{RuleSettings, Settings};
use crate::daemon::{GET_CAPABILITIES, missing_capabilities};
use crate::express::Ways;
use crate::means::{Lack, Means, too_large};
use crate::rules::{QueueBy, Table};
use crate::status::is_running;

pub fn findings(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![capabilities(settings), table(settings), queues(settings)];
    findings.extend(settings.fragments.tier.as_ref().map(|name| tier(settings, name)));
    findings.extend(settings.rules.iter().flat_map(|rules| kernel(settings, rules)));
    findings.extend(tun(settings));
    let lack = settings.fragments.lacks_memory(settings.queues.clone().count());
    findings.extend(lack.map(|lack| Finding::new("memory", Level::Error, lack, "")));
    findings
}

fn capabilities(settings: &Settings) -> Finding {
    match missing_capabilities(settings) {
        None => Finding::ok("rights", "all that is needed"),
        Some(missing) => Finding::new("rights", Level::Error, missing, GET_CAPABILITIES),
    }
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
    // As a start would. What comes of it shows in the list.
    let _ = nfqueue::load();
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
    if is_running(settings) {
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
fn kernel(settings: &Settings, rules: &RuleSettings) -> Vec<Finding> {
    const CHECK: &str = "kernel";
    let mapped = MappedTable::open(&settings.folder, &settings.table).ok();
    let config = mapped.and_then(|mapped| Some(*mapped.table().ok()?.config())).unwrap_or_default();
    let mut findings = Vec::new();
    let too_large = too_large(&config).filter(|_| rules.fast);
    let config = too_large.is_none().then_some(&config);
    findings.extend(too_large.map(|complaint| {
        Finding::new(CHECK, Level::Warning, complaint, "make a table with fewer slots")
    }));
    let mut means = Means::new(rules);
    let tables = loop {
        let tables = means.tables(config, &Ways::default());
        let Err(cause) = try_tables(&tables) else { break tables };
        findings.extend(match means.do_without(&cause) {
            Some(Lack::Queue) => {
                // Packets notice nothing. If this fails the rules will, too.
                let _ = Nft::open().and_then(|mut nft| nft.load_queue_target());
                None
            }
            Some(lack @ (Lack::Inits | Lack::Counters)) => {
                Some(Finding::new(CHECK, Level::Note, lack.because(&cause), ""))
            }
            Some(lack @ (Lack::Express | Lack::Fast)) => {
                Some(Finding::new(CHECK, Level::Warning, lack.because(&cause), ""))
            }
            None => {
                let what = format!("nftables refuses the rules: {cause}");
                return vec![Finding::new(CHECK, Level::Error, what, "")];
            }
        });
    };
    let how = match means.by() {
        QueueBy::Expression => "by nftables' own means",
        QueueBy::Target => "by the target NFQUEUE",
    };
    let planes = match (tables.iter().any(|table| table.map.is_some()), tables.len()) {
        (false, _) => "",
        (true, 1) => ", and the fast plane can be made",
        (true, _) => ", and the fast and the express plane can be made",
    };
    findings.push(Finding::ok(CHECK, format!("rules can queue, {how}{planes}")));
    findings
}

/// Makes them without hooks, under other names, and deletes them in the same transaction.
fn try_tables(tables: &[Table]) -> Result<(), NftError> {
    let name = format!("markway-check-{}", process::id());
    let id = |family| TableId { family, name: name.clone() };
    let mut transaction = Transaction::new(&id(TableFamily::Inet));
    for table in tables {
        transaction.go_to(&id(table.family));
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
    }
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
    let is_there = device::list().is_ok_and(|devices| devices.contains(&name.to_string()));
    Some(match (is_there, is_running(settings)) {
        (true, false) => {
            let what = format!("there is a device {name} already");
            Finding::new(CHECK, Level::Warning, what, "choose another name, or remove it")
        }
        (true, true) => Finding::ok(CHECK, format!("{name} is there")),
        (false, _) => Finding::ok(CHECK, format!("{name} can be made")),
    })
}
