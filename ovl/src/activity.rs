//! What a thread is doing right now, and until when it may take: so that something that is stuck
//! can be named, and ends.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

thread_local! {
    static OWN: RefCell<Own> = RefCell::default();
}

/// What the thread itself knows.
#[derive(Default)]
struct Own {
    activities: Activities,
    deadline: Option<Instant>,
}

/// What a thread is doing, for others to see: the innermost thing last.
#[derive(Clone, Default)]
pub struct Activities(Arc<Mutex<Vec<String>>>);

/// Ends the mention of an activity when it is dropped.
pub struct Doing(Activities);

/// From now on this thread mentions its activities here, and everything that it waits for gives
/// up after `limit`.
pub fn begin(activities: Activities, limit: Duration) {
    OWN.set(Own { activities, deadline: Some(Instant::now() + limit) });
}

/// Mentions an activity of this thread.
pub fn doing(what: &str) -> Doing {
    let activities = OWN.with_borrow(|own| own.activities.clone());
    activities.change(|all| all.push(what.to_owned()));
    Doing(activities)
}

/// Restores the deadline of before when it is dropped.
pub struct Limited(Option<Instant>);

/// Until the answer is dropped, what this thread waits for gives up after `limit` at the latest.
pub fn limit(limit: Duration) -> Limited {
    let deadline = deadline(limit);
    OWN.with_borrow_mut(|own| Limited(own.deadline.replace(deadline)))
}

/// When something in this thread that may take as long as `limit` has to give up.
pub fn deadline(limit: Duration) -> Instant {
    let own = Instant::now() + limit;
    OWN.with_borrow(|state| state.deadline.map_or(own, |deadline| deadline.min(own)))
}

impl Activities {
    /// The innermost activity.
    pub fn current(&self) -> Option<String> {
        self.change(|all| all.last().cloned())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<String>) -> T) -> T {
        // A thread that panicked has left nothing half done in here.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        OWN.with_borrow_mut(|own| own.deadline = self.0);
    }
}

impl Drop for Doing {
    fn drop(&mut self) {
        self.0.change(Vec::pop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_activity_is_told() {
        let activities = Activities::default();
        begin(activities.clone(), Duration::ZERO);
        assert_eq!(activities.current(), None);
        let outer = doing("outer");
        {
            let _inner = doing("inner");
            assert_eq!(activities.current().as_deref(), Some("inner"));
        }
        assert_eq!(activities.current().as_deref(), Some("outer"));
        drop(outer);
        assert_eq!(activities.current(), None);
    }

    #[test]
    fn the_nearer_deadline_counts() {
        let hour = Duration::from_secs(3600);
        begin(Activities::default(), hour);
        assert!(deadline(2 * hour) <= Instant::now() + hour);
        assert!(deadline(Duration::ZERO) <= Instant::now());
        {
            let _limit = limit(Duration::ZERO);
            assert!(deadline(hour) <= Instant::now());
        }
        assert!(deadline(hour) > Instant::now());
    }
}
