//! Replays the inputs that fuzzing found: what is worth keeping, and what once broke a promise.

use std::fs;
use std::path::Path;
use std::thread;

use lb_fuzz::TARGETS;

#[test]
fn no_input_breaks_a_promise() {
    for target in TARGETS {
        let corpus = inputs("corpus", target.name);
        assert!(!corpus.is_empty(), "there are no inputs for {}", target.name);
        for input in corpus.iter().chain(&inputs("crashes", target.name)) {
            let _named = Replaying(input);
            (target.run)(&input.bytes);
        }
    }
}

/// A little fuzzing in every run of the tests, always the same.
#[test]
fn no_small_change_of_an_input_breaks_a_promise() {
    const CHANGED: u64 = 12;
    for target in TARGETS {
        for (number, input) in (0..).zip(inputs("corpus", target.name)) {
            for variant in 0..CHANGED {
                let input = input.changed(number * CHANGED + variant);
                let _named = Replaying(&input);
                (target.run)(&input.bytes);
            }
        }
    }
}

struct Input {
    name: String,
    bytes: Vec<u8>,
}

impl Input {
    /// The input with a few bytes more, and a few of them changed.
    fn changed(&self, seed: u64) -> Self {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            state.to_be_bytes()
        };
        let mut bytes = self.bytes.clone();
        for _ in 0..seed % 4 {
            bytes.extend(next());
        }
        for _ in 0..1 + seed % 3 {
            let [high, low, value, ..] = next();
            if !bytes.is_empty() {
                let place = usize::from(u16::from_be_bytes([high, low])) % bytes.len();
                bytes[place] = value;
            }
        }
        Input { name: format!("{}, changed", self.name), bytes }
    }
}

/// Tells the input if the target panics over it.
struct Replaying<'a>(&'a Input);

impl Drop for Replaying<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the input was {}: {:x?}", self.0.name, self.0.bytes);
        }
    }
}

fn inputs(kind: &str, name: &str) -> Vec<Input> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(kind).join(name);
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let input =
        |path: &Path| Input { name: path.display().to_string(), bytes: fs::read(path).unwrap() };
    let mut inputs: Vec<Input> = entries.map(|entry| input(&entry.unwrap().path())).collect();
    inputs.sort_by(|a, b| a.name.cmp(&b.name));
    inputs
}
