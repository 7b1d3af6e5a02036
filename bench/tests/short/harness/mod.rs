//! What tests of whole benchmarks have in common.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_bench");

/// Names a folder with the programs that are measured, where they need not be built.
const BIN_DIR: &str = "MARKWAY_BIN_DIR";

/// What a run has printed and saved.
pub struct Run {
    pub cases: Vec<Value>,
    pub tables: String,
}

/// Runs a benchmark with the programs of these packages. It needs root; without it, this says so and
/// does nothing.
pub fn run(packages: &[&str], arguments: &[&str]) -> Option<Run> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("skipped: networks need root");
        return None;
    }
    let bin_dir = env::var_os(BIN_DIR).map_or_else(|| build(packages), PathBuf::from);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("figures.json");
    let output = Command::new(BENCH)
        .args(arguments)
        .arg("--json")
        .arg(&file)
        .args(["--bin-dir".as_ref(), bin_dir.as_os_str()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // What was saved can be shown again.
    let report: Output = Command::new(BENCH).arg("report").arg(&file).output().unwrap();
    assert!(report.status.success(), "{}", String::from_utf8_lossy(&report.stderr));
    let tables = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(String::from_utf8_lossy(&report.stdout), tables);
    let results: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    Some(Run { cases: results["cases"].as_array().unwrap().clone(), tables })
}

/// Tests of this package alone build no other programs. Returns where they are.
fn build(packages: &[&str]) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet"]);
    for package in packages {
        cargo.args(["-p", package]);
    }
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success());
    Path::new(BENCH).parent().unwrap().to_owned()
}
