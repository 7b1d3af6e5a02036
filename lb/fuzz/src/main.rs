//! The targets as libFuzzer wants them. It brings `main`; the variable `FUZZ_TARGET` names the target.

#![no_main]

use std::ffi::c_int;
use std::sync::LazyLock;

use lb_fuzz::{Target, target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| panic!("FUZZ_TARGET: there is no target {name:?}"))
});

// SAFETY: nothing else has this name; libFuzzer calls it with these types.
#[unsafe(no_mangle)]
extern "C" fn LLVMFuzzerTestOneInput(data: *const u8, len: usize) -> c_int {
    let input = match len {
        0 => &[],
        // SAFETY: libFuzzer keeps `len` bytes at `data` through the call.
        _ => unsafe { std::slice::from_raw_parts(data, len) },
    };
    (TARGET.run)(input);
    0
}
