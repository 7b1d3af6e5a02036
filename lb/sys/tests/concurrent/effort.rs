//! How much is done: a short form for every run of the tests, and a long one.

use std::env;
use std::time::{Duration, Instant};

/// Nothing that is waited for takes longer, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The first in the short form, the second in the long one.
pub fn either<T>(short: T, long: T) -> T {
    if env::var_os("MARKWAY_SOAK").is_some_and(|value| value == "1") { long } else { short }
}

/// Waits for something that another process does.
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::yield_now();
    }
}
