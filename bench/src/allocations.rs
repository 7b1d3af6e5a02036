//! Counts the allocations of a thread, to show where there are none.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static ALLOCATED: Cell<Allocated> = const { Cell::new(Allocated { count: 0, bytes: 0 }) };
}

/// What a piece of work allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocated {
    /// Number of allocations.
    pub count: u64,
    /// Their sum in bytes.
    pub bytes: u64,
}

/// Does the work and counts.
pub fn during<T>(work: impl FnOnce() -> T) -> (T, Allocated) {
    let before = ALLOCATED.get();
    let result = work();
    let after = ALLOCATED.get();
    let count = after.count - before.count;
    (result, Allocated { count, bytes: after.bytes - before.bytes })
}

fn count(layout: Layout) {
    // A thread that is ending has no counter any more, and nobody who asks.
    let _ = ALLOCATED.try_with(|allocated| {
        let Allocated { count, bytes } = allocated.get();
        allocated.set(Allocated { count: count + 1, bytes: bytes + layout.size() as u64 });
    });
}

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_core::frag::{FragConfig, Fragments, Secret, Witness};

    #[test]
    fn what_a_thread_allocates_is_counted() {
        let (vector, allocated) = during(|| Vec::<u64>::with_capacity(10));
        assert_eq!(allocated, Allocated { count: 1, bytes: 80 });
        assert_eq!(during(|| vector.len()).1, Allocated { count: 0, bytes: 0 });
    }

    /// What `lb --check` and docs/fragments.md tell is what is allocated, to a thousandth.
    #[test]
    fn a_table_of_fragments_takes_what_it_says() {
        let secret = Secret([1, 2]);
        for (entries, held, held_bytes) in [
            (16_384, 0, 512),
            (4096, 256, 1500),
            (16_384, 1024, 1500),
            (65_536, 4096, 9000),
            (1000, 77, 1281),
        ] {
            let config = FragConfig { entries, held, held_bytes, ..FragConfig::default() };
            let (_fragments, allocated) = during(|| Fragments::new(config, secret));
            let told = config.memory() as u64;
            let off = allocated.bytes.abs_diff(told);
            assert!(off <= told / 1000, "{config:?}: {allocated:?}, told {told}");
        }
        let (_witness, allocated) = during(|| Witness::new(secret));
        assert_eq!(allocated.bytes, Witness::MEMORY as u64);
    }
}
