//! Client and server together.

use traffic::process::host_name;

use crate::harness::{MCONNECT, Server, in_namespace, run};

#[test]
fn every_connection_is_answered() {
    let server = Server::start(MCONNECT, &["-udp", "-address", "[::]:0"]);
    for host in ["127.0.0.1", "[::1]"] {
        for transport in [&[][..], &["-udp"]] {
            let address = format!("{host}:{}", server.port);
            let mut arguments = vec!["-address", &address, "-nconn=300", "--output", "json"];
            arguments.extend(transport);
            let run = run(MCONNECT, &arguments);
            assert_eq!(run.code, 0, "{arguments:?}: {run:?}");
            assert_eq!(run.stderr, "");

            let report = run.json();
            let keys: Vec<_> = report.as_object().unwrap().keys().collect();
            let known = [
                "hosts",
                "connects",
                "failed_connects",
                "failed_reads",
                "start_time",
                "timeout",
                "duration",
            ];
            assert_eq!(keys[..known.len()], known);
            // A UDP connection stands at once.
            let is_tcp = transport.is_empty();
            assert_eq!(report.get("connect_time").is_some(), is_tcp);
            let times = &report["answer_time"];
            let time = |key: &str| times[key].as_u64().unwrap();
            assert!(0 < time("min") && time("min") <= time("p50"), "{times}");
            assert!(time("p50") <= time("p999") && time("p999") <= time("max"), "{times}");
            assert_eq!(run.hosts(), [(host_name().unwrap(), 300)]);
            assert_eq!(report["connects"], 300);
            assert_eq!(report["failed_connects"], 0);
            assert_eq!(report["failed_reads"], 0);
            assert_eq!(report["timeout"], 2_300_000_000_u64);
            let duration = report["duration"].as_u64().unwrap();
            assert!((1..2_300_000_000).contains(&duration), "{duration}");
            humantime::parse_rfc3339(report["start_time"].as_str().unwrap()).unwrap();
        }
    }
}

#[test]
fn text_is_the_default_report() {
    let server = Server::start(MCONNECT, &["-address", "127.0.0.1:0"]);
    let run = run(MCONNECT, &["-address", &server.at("127.0.0.1"), "-nconn", "5"]);
    let expected = format!("Failed connects; 0\nFailed reads; 0\n{} 5\n", host_name().unwrap());
    assert_eq!(run.stdout, expected);
    assert_eq!(run.code, 0);
}

#[test]
fn a_udp_answer_comes_from_the_address_that_was_asked() {
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let server = Server::start(MCONNECT, &["-server", "-udp", "-address", listen]);
        // Without packet info the answer would come from 127.0.0.1.
        let run = run(MCONNECT, &["-udp", "-address", &server.at("127.0.0.2"), "-nconn=20"]);
        assert_eq!(run.code, 0, "{listen}: {run:?}");
    }
}

/// IPv6 has one loopback address: more of them need a network of their own.
#[test]
fn ipv6_sources_and_answers_from_many_addresses() {
    // Asked at fd00::2 from fd00::1, an answer by route comes from fd00::1.
    let run = in_namespace(
        "ip link set lo up
        ip -6 addr add fd00::1/128 dev lo nodad
        ip -6 addr add fd00::2/128 dev lo nodad
        ip -6 route add local 1000::/64 dev lo
        $0 -server -udp -address [::]:5001 2>/dev/null &
        trap \"kill $!\" EXIT
        tries=100
        until $0 -address [fd00::2]:5001 >/dev/null 2>&1; do
            tries=$((tries - 1)); [ $tries -gt 0 ]; sleep 0.05
        done
        $0 -udp -address [fd00::2]:5001 -srccidr fd00::1/128 -nconn 20
        $0 -udp -address [fd00::2]:5001 -srccidr 1000::/64 -nconn 20
        $0 -address [fd00::2]:5001 -srccidr 1000::/64 -nconn 20",
        MCONNECT,
    );
    let Some(run) = run else {
        return;
    };
    let expected = format!("Failed connects; 0\nFailed reads; 0\n{} 20\n", host_name().unwrap());
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(run.stdout, expected.repeat(3));
}

#[test]
fn a_rate_spreads_connections_evenly() {
    let server = Server::start(MCONNECT, &["-address", "127.0.0.1:0"]);
    let address = server.at("127.0.0.1");
    let run = run(MCONNECT, &["-address", &address, "-nconn=100", "-rate=200", "-output=json"]);
    assert_eq!(run.code, 0, "{run:?}");
    // The last of them is due after 99 intervals.
    assert!(run.json()["duration"].as_u64().unwrap() >= 495_000_000, "{run:?}");
}

#[test]
fn sources_come_from_a_file_until_it_ends() {
    let server = Server::start(MCONNECT, &["-udp", "-address", "127.0.0.1:0"]);
    let list = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(list.path(), "127.9.0.1\n127.9.0.2\n").unwrap();
    let (address, list) = (server.at("127.0.0.1"), list.path().to_str().unwrap());
    for (nconn, code, failed) in [("2", 0, 0), ("3", 1, 1)] {
        let run = run(
            MCONNECT,
            &["-address", &address, "-srcfile", list, "-nconn", nconn, "-output=json"],
        );
        assert_eq!(run.code, code, "{run:?}");
        assert_eq!(run.json()["failed_connects"], failed);
        assert_eq!(run.stderr.contains("Ran out of source addresses"), failed > 0);
    }
}
