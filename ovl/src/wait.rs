//! Waiting for a condition with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::activity;

const PAUSE: Duration = Duration::from_millis(5);

/// Looks again and again until `look` returns a value, for at most `limit`, and no longer than the
/// case may take that waits.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let _doing = activity::doing(what);
    let start = Instant::now();
    let deadline = activity::deadline(limit);
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            let waited = deadline.saturating_duration_since(start);
            bail!("wait for {what}: not seen within {:.1} s", waited.as_secs_f64());
        }
        thread::sleep(PAUSE);
    }
}

/// Looks again and again until `look` returns a value; None when it did not within `limit`.
pub fn for_up_to<T>(
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let deadline = Instant::now() + limit;
    loop {
        let found = look()?;
        if found.is_some() || Instant::now() >= deadline {
            return Ok(found);
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_what_was_found() {
        let mut looks = 0;
        let found = until("the third look", Duration::from_secs(5), || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn names_what_did_not_come() {
        let error = until::<()>("a thing", Duration::ZERO, || Ok(None)).unwrap_err();
        assert_eq!(error.to_string(), "wait for a thing: not seen within 0.0 s");
    }
}
