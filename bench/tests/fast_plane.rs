//! The shortest run of `bench fast-plane`, in namespaces of its own. It needs root; without it, it says so
//! and does nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_bench");

/// Tests of this package alone build no other programs.
fn build_what_is_measured() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "-p", "lb", "-p", "shm-tool"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success());
}

#[test]
fn every_case_has_figures_for_everybody() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("skipped: networks need root");
        return;
    }
    build_what_is_measured();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("figures.json");
    let output = Command::new(BENCH)
        .args(["fast-plane", "--only", "change,first-packet,memory"])
        .args(["--rounds", "1", "--seconds", "0.1", "--max-slots", "997", "--json"])
        .arg(&file)
        .args(["--bin-dir".as_ref(), Path::new(BENCH).parent().unwrap().as_os_str()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let results: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let cases = results["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 3);
    for (case, rows) in cases.iter().zip([4, 2, 1]) {
        assert_eq!(case["notes"].as_array().unwrap().len(), 0, "{case}");
        assert_eq!(case["rows"].as_array().unwrap().len(), rows, "{case}");
    }
    let tables = String::from_utf8_lossy(&output.stdout);
    for name in ["M = 997, table anew", "lb --fast, M = 997"] {
        assert!(tables.contains(name), "{tables}");
    }
    // What was saved can be shown again.
    let report = Command::new(BENCH).arg("report").arg(&file).output().unwrap();
    assert!(report.status.success() && report.stdout == output.stdout);
}
