//! The shortest run of `bench traffic`, in namespaces of its own.

mod harness;

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
        assert_eq!(case["notes"].as_array().unwrap().len(), 0, "{case}");
        let rows = case["rows"].as_array().unwrap();
        let is_rival = |row: &&Value| rivals.contains(&row["name"].as_str().unwrap());
        let is_measured = |row: &Value| !row["rounds"].as_array().unwrap().is_empty();
        assert_eq!(rows.iter().filter(|row| !is_rival(row)).count(), ours, "{case}");
        for rival in rivals {
            let has_row = |row: &Value| {
                row["name"] == *rival && (is_measured(row) || row["variant"] == "not installed")
            };
            assert!(rows.iter().any(has_row), "{rival}: {case}");
        }
        assert!(run.tables.contains(&format!("\n{name}: ")), "{}", run.tables);
    }
    // At 10 packets/s nobody is too slow.
    let slow = &run.cases[0]["rows"][0];
    assert_eq!((&slow["name"], &slow["rounds"][0]["sent"]), (&"ctraffic".into(), &5.0.into()));
}
