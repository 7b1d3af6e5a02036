//! Several tests at once, and some that want the machine for themselves.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

/// Does `work` for every item, `jobs` at a time, and then for those that are `alone`, one by one.
/// Each result that it tells is handed to `finish`, in this thread, as soon as it is there; when that
/// says so, or when `stop` is set, nothing more is begun.
pub fn run<T: Send, R: Send>(
    items: Vec<T>,
    jobs: usize,
    alone: impl Fn(&T) -> bool,
    stop: &AtomicBool,
    work: impl Fn(T, &dyn Fn(R)) + Sync,
    mut finish: impl FnMut(R) -> Next,
) {
    let (last, first): (Vec<T>, Vec<T>) = items.into_iter().partition(alone);
    for (items, jobs) in [(first, jobs), (last, 1)] {
        let items = Mutex::new(items.into_iter());
        let next = || items.lock().ok()?.next().filter(|_| !stop.load(Ordering::Relaxed));
        let work = &work;
        thread::scope(|scope| {
            let (done, results) = mpsc::channel();
            for _ in 0..jobs {
                let (done, next) = (done.clone(), &next);
                scope.spawn(move || {
                    while let Some(item) = next() {
                        // The other end is there until this thread has ended.
                        work(item, &|result| drop(done.send(result)));
                    }
                });
            }
            drop(done);
            for result in results {
                if finish(result) == Next::Stop {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        });
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next {
    GoOn,
    Stop,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn some_run_together_and_some_alone() {
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let both = std::sync::Barrier::new(2);
        let work = |item: u32, tell: &dyn Fn(u32)| {
            let now = running.fetch_add(1, Ordering::SeqCst) + 1;
            if item.is_multiple_of(2) {
                // Ends only when two of them are here.
                both.wait();
            } else {
                most.fetch_max(now, Ordering::SeqCst);
            }
            running.fetch_sub(1, Ordering::SeqCst);
            tell(item);
        };
        let mut ended = Vec::new();
        run(
            (0..8).collect(),
            2,
            |item| !item.is_multiple_of(2),
            &AtomicBool::new(false),
            work,
            |item| {
                ended.push(item);
                Next::GoOn
            },
        );
        assert_eq!(most.into_inner(), 1);
        assert_eq!(ended[..4].iter().copied().collect::<BTreeSet<_>>(), [0, 2, 4, 6].into());
        assert_eq!(ended[4..], [1, 3, 5, 7]);
    }

    #[test]
    fn nothing_is_begun_after_a_stop() {
        let mut ended = Vec::new();
        run(
            (0..8).collect(),
            1,
            |_| false,
            &AtomicBool::new(false),
            |item: u32, tell| tell(item),
            |item| {
                ended.push(item);
                if item == 2 { Next::Stop } else { Next::GoOn }
            },
        );
        // One more may be under way already, or even several that were quick.
        assert!(ended.starts_with(&[0, 1, 2]), "{ended:?}");
        let stopped = AtomicBool::new(true);
        let work = |item: u32, tell: &dyn Fn(u32)| tell(item);
        run(vec![1], 1, |_| false, &stopped, work, |item| panic!("{item} was begun"));
    }
}
