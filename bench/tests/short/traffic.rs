//! The shortest run of `bench traffic`, in namespaces of its own.

use crate::harness;

use serde_json::Value;

#[test]
fn every_case_has_figures_of_all_that_are_installed() {
    let arguments =
        ["--rounds", "1", "--seconds", "0.3", "--pace-seconds", "0.5", "--connections", "100"];
    let arguments = [&["traffic"], &arguments[..]].concat();
    let Some(run) = harness::run(&["traffic"], &arguments) else {
        return;
    };
    // Ours, and the programs that they are compared with.
    let expected = [
        ("pace", 6, &["iperf", "hping3"][..]),
        ("packets", 1, &["iperf", "hping3"]),
        ("streams", 2, &["iperf"]),
        ("connections", 3, &["wrk"]),
        ("requests", 3, &["wrk"]),
        ("memory", 5, &["wrk"]),
    ];
    assert_eq!(run.cases.len(), expected.len());
    for (case, (name, ours, rivals)) in run.cases.iter().zip(expected) {
        assert_eq!(case["name"], name);
        // A rival that failed is told of.
        let notes: Vec<&str> =
            case["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap()).collect();
        let about = |rival: &str| notes.iter().any(|note| note.starts_with(rival));
        let of_rivals = notes.iter().all(|note| rivals.iter().any(|rival| note.starts_with(rival)));
        assert!(of_rivals, "{case}");
        let rows = case["rows"].as_array().unwrap();
        let is_rival = |row: &&Value| rivals.contains(&row["name"].as_str().unwrap());
        let is_measured = |row: &Value| !row["rounds"].as_array().unwrap().is_empty();
        assert_eq!(rows.iter().filter(|row| !is_rival(row)).count(), ours, "{case}");
        for rival in rivals {
            let has_row = |row: &Value| {
                row["name"] == *rival && (is_measured(row) || row["variant"] == "not installed")
            };
            assert!(rows.iter().any(has_row) || about(rival), "{rival}: {case}");
        }
        assert!(run.tables.contains(&format!("\n{name}: ")), "{}", run.tables);
    }
    // At 10 packets/s nobody is too slow, but a machine with other work may stand still for some.
    let slow = &run.cases[0]["rows"][0];
    assert_eq!(slow["name"], "ctraffic");
    assert!((1.0..=5.0).contains(&slow["rounds"][0]["sent"].as_f64().unwrap()), "{slow}");
}
