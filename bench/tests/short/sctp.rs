//! The shortest run of `bench sctp`, in namespaces of its own. Failovers take minutes, so they are not in it.

use crate::harness;

#[test]
fn messages_are_answered_over_ip_and_in_udp() {
    // A hundred associations come up within a part of it, on a busy machine too.
    let arguments = ["sctp", "--only", "messages", "--rounds", "1", "--seconds", "1.5"];
    let Some(run) = harness::run(&["sctpt"], &arguments) else {
        return;
    };
    let [case] = &run.cases[..] else { panic!("{:?}", run.cases) };
    assert_eq!(case["notes"].as_array().unwrap().len(), 0, "{case}");
    let rows = case["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 6, "{case}");
    assert!(run.tables.contains("\nmessages: "), "{}", run.tables);
    for row in rows {
        assert!(row["rounds"][0]["rate"].as_f64().unwrap() > 0.0, "{row}");
    }
}
