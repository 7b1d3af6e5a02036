//! SCTP in the hello pair and in break-test: two hosts made of namespaces.

use serde_json::Value;
use traffic::process::host_name;

use crate::harness::{
    BREAK_TEST, HELLO_CLIENT, HELLO_SERVER, Run, between_hosts, check, comes_out_right,
    in_namespace,
};

/// Starts a server there, on the port that is free for it, and waits until it answers.
fn serving(flags: &str, script: &str) -> String {
    format!(
        "serve() {{
            nsenter --net --target $peer {HELLO_SERVER} {flags} 2>/dev/null >/dev/null & server=$!
        }}
        answers() {{ {HELLO_CLIENT} -protocol sctp -timeout 300ms ${{1-10.9.0.1}} 9090; }}
        serve
        trap 'kill $server $peer' EXIT
        until_true answers
        {script}"
    )
}

const EACH: &str = "-sctp 10.9.0.1:9090,10.9.1.1:9090,[fd00:9::1]:9090,[fd00:9:1::1]:9090";

fn answer(text: &str) -> String {
    format!("Sending Message\n{}: {text}\n", host_name().unwrap())
}

#[test]
fn the_answer_names_the_host() {
    let script = serving(
        EACH,
        "for ip in 10.9.0.1 10.9.1.1 fd00:9::1 fd00:9:1::1; do $0 -protocol sctp -message $ip $ip 9090; done
        $0 -protocol=sctp -count=3 -message=again 10.9.0.1 9090
        # The answer would be too long.
        long=$(head -c 16384 /dev/zero | tr '\\0' x)
        code=0; $0 -protocol=sctp -message=$long 10.9.0.1 9090 || code=$?; [ $code = 1 ]
        # Nobody there.
        code=0; $0 -protocol=sctp 10.9.0.1 9091 || code=$?; [ $code = 1 ]
        code=0; $0 -protocol=sctp -timeout 500ms 10.9.0.9 9090 || code=$?; [ $code = 1 ]
        code=0; $0 -protocol=sctp 192.0.2.1 9090 || code=$?; [ $code = 1 ]",
    );
    let Some(run) = between_hosts(&script, HELLO_CLIENT) else { return };
    assert_eq!(run.code, 0, "{run:?}");
    let mut expected = String::new();
    for text in ["10.9.0.1", "10.9.1.1", "fd00:9::1", "fd00:9:1::1", "again", "again", "again"] {
        expected += &answer(text);
    }
    expected += &"Sending Message\n".repeat(4);
    assert_eq!(run.stdout, expected, "{run:?}");
    let complaints: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(complaints[0], "hello-client: ask 10.9.0.1:9090: aborted by the peer");
    assert_eq!(complaints[1], "hello-client: ask 10.9.0.1:9091: refused");
    assert_eq!(complaints[2], "hello-client: ask 10.9.0.9:9090: no answer within 500ms");
    assert!(
        complaints[3].contains("ask 192.0.2.1:9090: find the way to 192.0.2.1: Network is unr")
    );
}

#[test]
fn a_client_that_vanishes_disturbs_no_other() {
    let script = serving(
        "-sctp 10.9.0.1:9090",
        "out=$(mktemp -d)
        $0 -protocol sctp -count 100000 10.9.0.1 9090 >$out/vanishing & vanishing=$!
        clients=
        for n in 1 2 3 4 5 6; do
            $0 -protocol sctp -count 5 -message $n 10.9.0.1 9090 >$out/$n & clients=\"$clients $!\"
        done
        until_true test -s $out/vanishing
        kill -9 $vanishing
        for client in $clients; do wait $client; done
        cat $out/[1-6]
        rm -r $out
        $0 -protocol sctp -message after 10.9.0.1 9090",
    );
    let Some(run) = between_hosts(&script, HELLO_CLIENT) else { return };
    assert_eq!(run.code, 0, "{run:?}");
    let all: String = (1..=6).map(|n| answer(&n.to_string()).repeat(5)).collect();
    assert_eq!(run.stdout, all + &answer("after"), "{run:?}");
}

#[test]
fn sctp_goes_in_udp() {
    let Some(run) = between_hosts(
        &format!(
            "nsenter --net --target $peer {HELLO_SERVER} -sctp 10.9.0.1:9090 -encap-local 9899 \
                2>/dev/null >/dev/null & server=$!
            trap 'kill $server $peer' EXIT
            ask() {{ {HELLO_CLIENT} -protocol sctp -encap-remote 9899 \"$@\" 10.9.0.1 9090; }}
            nft 'add table inet t; add chain inet t c {{ type filter hook output priority 0; }}'
            nft add rule inet t c meta l4proto sctp drop
            until_true ask -timeout 300ms
            ask -timeout 10s
            trap 'kill $peer' EXIT
            kill $server
            wait $server"
        ),
        HELLO_CLIENT,
    ) else {
        return;
    };
    assert_eq!((run.code, run.stdout.clone()), (0, answer("HELLO, I AM ALIVE!!!")), "{run:?}");
}

#[test]
fn an_idle_association_is_closed() {
    // The probe speaks a hundred times a second until its server is gone from the way.
    let script = serving(
        "-sctp 10.9.0.1:9090 -timeout 500ms",
        "$0 -sctp-port 9090 -duration-seconds 3 -output json -during '
            nft \"add table inet t; add chain inet t c { type filter hook output priority 0; }\"
            nft add rule inet t c meta l4proto sctp drop; sleep 1; nft delete table inet t' 10.9.0.1",
    );
    let Some(run) = between_hosts(&script, BREAK_TEST) else { return };
    let report = run.json();
    let found = probe(&report, "10.9.0.1");
    assert_eq!(found["Reconnects"], 1, "{found}");
}

fn probe<'a>(report: &'a Value, path: &str) -> &'a Value {
    let mut probes = report["Probes"].as_array().unwrap().iter();
    probes.find(|p| p["Path"] == path && p["Probe"] == "sctp").unwrap()
}

fn millis(value: &Value) -> u64 {
    value.as_u64().unwrap() / 1_000_000
}

#[test]
fn a_break_is_found_on_its_path_and_nowhere_else_ipv4() {
    find_a_break("ip", "10.9.1.1", "10.9.0.1");
}

#[test]
fn a_break_is_found_on_its_path_and_nowhere_else_ipv6() {
    find_a_break("ip6", "fd00:9:1::1", "fd00:9::1");
}

/// Half a second is cut out of one path.
fn find_a_break(family: &str, broken: &str, whole: &str) {
    let script = serving(
        EACH,
        &format!(
            "far nft 'add table inet t; add chain inet t c {{ type filter hook input priority 0; }}'
            far nft 'add chain inet t o {{ type filter hook output priority 0; }}'
            $0 -sctp-port 9090 -duration-seconds 4 -output json -during '
                far() {{ nsenter --net --target $peer \"$@\"; }}
                far nft add rule inet t c {family} daddr {broken} drop\\; \
                    add rule inet t o {family} saddr {broken} drop
                date +%s%N >&2; sleep 0.5; date +%s%N >&2
                far nft flush table inet t' vip={broken} direct={whole}"
        ),
    );
    comes_out_right(|| {
        let run = between_hosts(&script, BREAK_TEST)?;
        assert_eq!(run.code, 0, "{run:?}");
        let times: Vec<u64> = run.stderr.lines().map(|line| line.parse().unwrap()).collect();
        let length = (times[1] - times[0]) / 1_000_000;
        let report = run.json();
        let (from, to) = (millis(&report["During"]["From"]), millis(&report["During"]["To"]));
        let (found, other) = (probe(&report, "vip"), probe(&report, "direct"));
        for probe in [found, other] {
            assert_eq!((&probe["Lost"], &probe["Reconnects"]), (&0.into(), &0.into()), "{probe}");
        }
        let (begin, end) = longest(found);
        let (begin_of_other, end_of_other) = longest(other);
        // Within an interval at each end; the commands around the rule take a while, too.
        let is_right = end - begin + 10 >= length
            && (from..=to).contains(&begin)
            && 2 * (end_of_other - begin_of_other) < length
            && end - begin <= to - from + 20
            && found["Sent"].as_u64().unwrap() >= 350;
        Some(check(is_right, || format!("{length} ms in {from} to {to}: {found} {other}")))
    });
}

/// Begin and end of the longest break; nothing at 0 if there is none.
fn longest(probe: &Value) -> (u64, u64) {
    let span = |one: &Value| (millis(&one["From"]), millis(&one["To"]));
    let breaks = probe["Breaks"].as_array().unwrap().iter().map(span);
    breaks.max_by_key(|(from, to)| to - from).unwrap_or_default()
}

#[test]
fn a_server_that_is_started_again_is_found_again() {
    let script = serving(
        EACH,
        &format!(
            "pid=$(mktemp)
            $0 -sctp-port 9090 -duration-seconds 4 -during '
                kill -9 '$server'
                nsenter --net --target $peer {HELLO_SERVER} {EACH} 2>/dev/null >/dev/null &
                echo $! >'$pid 10.9.0.1 v6=fd00:9::1
            kill $(cat $pid); rm $pid; trap 'kill $peer' EXIT"
        ),
    );
    let Some(run) = between_hosts(&script, BREAK_TEST) else { return };
    assert_eq!(run.code, 0, "{run:?}");
    for path in ["10.9.0.1", "v6"] {
        let line = sctp_line(&run, path);
        assert!(line.contains("1 reconnect, "), "{run:?}");
        assert!(line.contains("aborted by the peer (1 times)"), "{run:?}");
    }
}

/// The line of the table about this path's SCTP.
fn sctp_line<'a>(run: &'a Run, path: &str) -> &'a str {
    let is_it = |line: &&str| line.split_whitespace().take(2).eq([path, "sctp"]);
    run.stdout.lines().find(is_it).unwrap_or_else(|| panic!("{run:?}"))
}

#[test]
fn what_cannot_be_measured_is_told() {
    let script = serving(
        "-sctp [::]:9090",
        "$0 -sctp-port 9090 -duration-seconds 1 wide=10.9.0.1 gone=10.9.0.9
        $0 -sctp-port 9091 -duration-seconds 1 none=10.9.0.1",
    );
    let Some(run) = between_hosts(&script, BREAK_TEST) else { return };
    let line = sctp_line(&run, "wide");
    assert!(line.contains("not measured: the server has 4 addresses, so SCTP would go"), "{run:?}");
    assert!(line.ends_with("let it listen on 10.9.0.1 alone"), "{run:?}");
    let words: Vec<&str> = sctp_line(&run, "none").split_whitespace().collect();
    assert_eq!((words[2], words[3]), ("0", "0"), "{run:?}");
    // From the first refusal to the end of a second.
    assert!(words[4].parse::<u64>().unwrap() > 500, "{run:?}");
    assert!(sctp_line(&run, "none").contains("refused ("), "{run:?}");
    assert!(sctp_line(&run, "gone").contains("no answer ("), "{run:?}");
}

#[test]
fn without_a_stack_it_says_so() {
    // Nobody may open a raw socket here; the kernel's stack is not asked.
    let Some(run) = in_namespace(
        &format!(
            "ip link set lo up
            bare() {{ setpriv --bounding-set -net_raw \"$@\"; }}
            bare $0 -sctp-port 9090 -stack user -duration-seconds 1 127.0.0.1
            code=0; bare {HELLO_CLIENT} -protocol sctp -stack user 127.0.0.1 9090 || code=$?
            [ $code = 1 ]
            code=0; bare {HELLO_SERVER} -sctp :9090 -stack user || code=$?
            [ $code = 1 ]"
        ),
        BREAK_TEST,
    ) else {
        return;
    };
    assert_eq!(run.code, 0, "{run:?}");
    let missing = "user SCTP: raw socket: Operation not permitted (os error 1) (needs CAP_NET_RAW)";
    assert!(sctp_line(&run, "127.0.0.1").ends_with(&format!("not measured: {missing}")), "{run:?}");
    let complaints = format!("hello-client: {missing}\nhello-server: {missing}\n");
    assert_eq!(run.stderr, complaints, "{run:?}");
}
