//! break-test, against breaks of known length in a namespace of its own.

use serde_json::Value;

use crate::harness::{BREAK_TEST, CTRAFFIC, Run, check, comes_out_right, in_namespace, run};

/// Two addresses of a namespace with a server, then `script`; `$0` is
/// break-test.
fn in_network(script: &str) -> Option<Run> {
    let script = format!(
        "ip link set lo up
        ip addr add 10.9.0.1/32 dev lo
        ip -6 addr add fd00:9::1/128 dev lo nodad
        {CTRAFFIC} -server -udp -address [::]:5003 2>/dev/null &
        trap \"kill $!\" EXIT
        tries=100
        until {CTRAFFIC} -address 10.9.0.1:5003 -timeout 100ms -fail-on failed >/dev/null 2>&1; do
            tries=$((tries - 1)); [ $tries -gt 0 ]; sleep 0.05
        done
        nft 'add table inet t; add chain inet t c {{ type filter hook input priority 0; }}'
        {script}"
    );
    in_namespace(&script, BREAK_TEST)
}

fn probe<'a>(report: &'a Value, path: &str, probe: &str) -> &'a Value {
    let mut probes = report["Probes"].as_array().unwrap().iter();
    probes.find(|p| p["Path"] == path && p["Probe"] == probe).unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn millis(value: &Value) -> u64 {
    number(value) / 1_000_000
}

#[test]
fn a_break_is_found_on_its_path_and_nowhere_else() {
    // The rule stands for half a second, as the command itself can tell.
    let command = "nft add rule inet t c ip6 daddr fd00:9::1 drop; \
        date +%s%N >&2; sleep 0.5; date +%s%N >&2; nft flush chain inet t c";
    let script = format!(
        "$0 -remote-port 5003 -duration-seconds 4 -output json -during '{command}' \
            v4=10.9.0.1 v6=fd00:9::1"
    );
    comes_out_right(|| Some(judge_break(&in_network(&script)?)));
}

/// What a busy machine changes is an `Err`.
fn judge_break(run: &Run) -> Result<(), String> {
    assert_eq!(run.code, 0, "{run:?}");
    let times: Vec<u64> = run.stderr.lines().map(|line| line.parse().unwrap()).collect();
    let length = (times[1] - times[0]) / 1_000_000;
    let report = run.json();
    // The keys of the original are about the first path.
    assert_eq!((&report["RemoteAddress"], &report["IcmpLost"]), (&"10.9.0.1".into(), &0.into()));
    assert_eq!(report["RemotePort"], 5003);
    // The commands around take a while, too: it may be that much longer.
    let (from, to) = (millis(&report["During"]["From"]), millis(&report["During"]["To"]));
    assert_eq!(report["During"]["ExitCode"], 0);
    let most = to - from;
    for (name, interval, sent) in
        [("icmp", 10, 350..=400), ("udp", 10, 350..=400), ("connect", 100, 35..=40)]
    {
        let found = probe(&report, "v6", name);
        assert_eq!(probe(&report, "v4", name)["Lost"], 0, "{report}");
        let longest = millis(&found["LongestBreak"]);
        // A trial for each interval of the break.
        let (number, lost) = (number(&found["Sent"]), number(&found["Lost"]));
        let begin = millis(&found["Breaks"][0]["From"]);
        check(
            longest + interval >= length
                && longest <= most + 2 * interval
                && sent.contains(&number)
                && lost <= most / interval + 2
                && 2 * lost >= length / interval
                && (from..=to).contains(&begin),
            || format!("{name}: a break of {length} to {most} ms from {from} on: {found}"),
        )?;
    }
    // TCP tries again at growing intervals, so its break is longer.
    let stream = probe(&report, "v6", "tcp");
    let longest = millis(&stream["LongestBreak"]);
    assert!(number(&stream["Retransmits"]) > 0, "{stream}");
    let undisturbed = probe(&report, "v4", "tcp");
    check(longest + 10 >= length && longest < 1_500 && undisturbed["Retransmits"] == 0, || {
        format!("a break of {length} ms: {stream}, and none: {undisturbed}")
    })
}

#[test]
fn the_length_of_a_break_is_right_to_one_interval() {
    const LENGTH: u64 = 500;
    // The kernel itself ends the break, by taking the address out of the set.
    let command = format!("nft add element inet t gone {{ 10.9.0.1 timeout {LENGTH}ms }}");
    let script = format!(
        "nft 'add set inet t gone {{ type ipv4_addr; flags timeout; }}'
        nft add rule inet t c ip daddr @gone drop
        $0 -remote-port 5003 -duration-seconds 3 -output json -during '{command}' 10.9.0.1"
    );
    comes_out_right(|| {
        let run = in_network(&script)?;
        assert_eq!(run.code, 0, "{run:?}");
        let report = run.json();
        let found = [("icmp", 10), ("udp", 10), ("connect", 100)].map(|(name, interval)| {
            let longest = millis(&probe(&report, "10.9.0.1", name)["LongestBreak"]);
            (name, longest, longest.abs_diff(LENGTH) <= interval)
        });
        let is_right = found.iter().all(|(_, _, is_right)| *is_right);
        Some(check(is_right, || format!("not {LENGTH} ms: {found:?}")))
    });
}

#[test]
fn a_limit_decides_about_the_exit_code_and_a_picture_is_drawn() {
    let Some(run) = in_network(
        "plot=$(mktemp --suffix .svg)
        $0 -remote-port 5003 -duration-seconds 2 -max-break 400ms -plot $plot 10.9.0.1
        grep -c '10.9.0.1 icmp' $plot
        rm $plot
        nft add rule inet t c icmp type echo-request drop
        $0 -remote-port 5003 -duration-seconds 1 -max-break 400ms 10.9.0.1 && exit 9 || exit $?",
    ) else {
        return;
    };
    assert_eq!(run.code, 3, "{run:?}");
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert!(lines[0].starts_with("path     probe      sent   lost  break ms    at s"), "{run:?}");
    for (line, name) in lines[1..5].iter().zip(["icmp", "connect", "tcp", "udp"]) {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((words[0], words[1], words[3]), ("10.9.0.1", name, "0"), "{run:?}");
    }
    assert_eq!(lines[5], "1");
    let words: Vec<&str> = lines[7].split_whitespace().collect();
    assert_eq!((words[1], words[2]), ("icmp", words[3]), "all of them are lost: {run:?}");
}

#[test]
fn a_missing_server_is_told_apart_from_a_loss() {
    let Some(run) =
        in_network("$0 -remote-port 1 -echo-port 1 -duration-seconds 1 -output json 10.9.0.1")
    else {
        return;
    };
    let report = run.json();
    assert_eq!(probe(&report, "10.9.0.1", "icmp")["Lost"], 0, "{run:?}");
    for name in ["connect", "tcp", "udp"] {
        let found = probe(&report, "10.9.0.1", name);
        assert!(number(&found["Lost"]) > 3, "{found}");
        let causes = found["Causes"].as_object().unwrap();
        assert!(causes.keys().all(|cause| cause.contains("Connection refused")), "{found}");
        // From the first trial to the end.
        assert!(millis(&found["LongestBreak"]) > 700, "{found}");
    }
}

#[test]
fn a_signal_ends_the_run_with_its_report() {
    let Some(run) = in_network(
        "$0 -remote-port 5003 -duration-seconds 3600 -output json -during 'exit 9' 10.9.0.1 &
        test=$!
        sleep 1
        kill $test
        wait $test",
    ) else {
        return;
    };
    assert_eq!(run.code, 0, "{run:?}");
    let report = run.json();
    assert!(report["During"].is_null());
    assert!((1..10_000).contains(&number(&report["TotalIcmpEcho"])), "{report}");
    assert_eq!(report["IcmpLost"], 0);
}

#[test]
fn a_bad_command_line_is_refused() {
    for (code, arguments, complaint) in [
        (2, &["-bogus"][..], "unknown flag: -bogus"),
        (2, &["-output=xml"], "neither text nor json"),
        (1, &["-duration-seconds=0"], "needs some time"),
        (1, &["-plot=x.gif"], "plot x.gif: the ending is neither .svg nor .png"),
    ] {
        let run = run(BREAK_TEST, arguments);
        assert_eq!(run.code, code, "{arguments:?}: {run:?}");
        assert!(run.stderr.contains(complaint), "{run:?}");
    }
    assert!(run(BREAK_TEST, &["-print=man"]).stdout.starts_with(".TH break-test 1"));
}
