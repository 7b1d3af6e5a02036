//! The shortest run of `bench fast-plane`, in namespaces of its own.

use crate::harness;

#[test]
fn every_case_has_figures_for_everybody() {
    let arguments = [
        "--only",
        "change,first-packet,memory",
        "--rounds",
        "1",
        "--seconds",
        "0.1",
        "--max-slots",
        "997",
    ];
    let arguments = [&["fast-plane"], &arguments[..]].concat();
    let Some(run) = harness::run(&["lb", "shm-tool"], &arguments) else {
        return;
    };
    assert_eq!(run.cases.len(), 3);
    for (case, rows) in run.cases.iter().zip([4, 2, 1]) {
        assert_eq!(case["notes"].as_array().unwrap().len(), 0, "{case}");
        assert_eq!(case["rows"].as_array().unwrap().len(), rows, "{case}");
    }
    for name in ["M = 997, table anew", "lb --fast, M = 997"] {
        assert!(run.tables.contains(name), "{}", run.tables);
    }
}
