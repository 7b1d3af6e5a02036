//! The table of a tier of routers, if `lb` is to have one.

use std::sync::Arc;

use anyhow::Context;
use lb_core::tier::Tier;
use lb_sys::shm::{Cause, MappedTable, Name, ShmError};
use tracing::{info, warn};

use crate::args::Settings;
use crate::current::CurrentTier;
use crate::daemon::warn_of_marks_outside_mask;

/// The table when `lb` starts; it may come later.
pub fn at_start(settings: &Settings, name: &Name) -> anyhow::Result<CurrentTier> {
    let opened = match open(settings, name) {
        Ok(table) => Some(Arc::new(table)),
        Err(error) if is_missing(&error) => {
            warn!("{error:#}; every fragment is handled here until it is there");
            None
        }
        Err(error) => return Err(error),
    };
    Ok(CurrentTier::new(opened))
}

/// A table that is good for a tier.
pub fn open(settings: &Settings, name: &Name) -> anyhow::Result<MappedTable> {
    let mapped = MappedTable::open(&settings.folder, name)?;
    let snapshot = mapped.snapshot().with_context(|| format!("read table {name}"))?;
    let tier = Tier::new(mapped.table()?).with_context(|| format!("read table {name}"))?;
    let routers = snapshot.targets.iter().count();
    info!("tier: table {name} with {routers} routers, this one is {}", tier.own_mark());
    warn_of_marks_outside_mask(settings, &snapshot);
    Ok(mapped)
}

/// Whether there is no such table.
pub fn is_missing(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref().map(|ShmError { cause, .. }| cause);
    matches!(cause, Some(Cause::MissingTable(_)))
}
