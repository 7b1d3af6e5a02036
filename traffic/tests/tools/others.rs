//! Together with programs that a user has: each of them as the client, and as the server.

use crate::harness::{BREAK_TEST, CTRAFFIC, HELLO_CLIENT, KAHTTP, MCONNECT, Run, in_namespace};

/// A shell script in a namespace. `listening PORT` waits for a server, `end` ends the last one.
fn script(text: &str) -> Option<Run> {
    let script = format!(
        "ip link set lo up
        listening() {{
            tries=300
            until ss -Hltn \"sport = :$1\" | grep -q .; do
                tries=$((tries - 1)); [ $tries -gt 0 ]; sleep 0.02
            done
        }}
        end() {{ kill $!; wait $! || true; }}
        {text}"
    );
    let run = in_namespace(&script, "sh")?;
    assert_eq!(run.code, 0, "{run:?}");
    Some(run)
}

#[test]
fn nc_asks_mconnect_by_tcp_and_udp() {
    let Some(run) = script(&format!(
        "{MCONNECT} -server -udp -address [::]:5001 2>/dev/null &
        listening 5001
        echo \"$(nc -w 2 127.0.0.1 5001 </dev/null) $(echo Hello | nc -u -w 1 ::1 5001) $(hostname)\"
        end"
    )) else {
        return;
    };
    let names: Vec<&str> = run.stdout.split_whitespace().collect();
    assert!(matches!(names[..], [a, b, own] if a == own && b == own), "{run:?}");
}

#[test]
fn s_client_asks_kahttp() {
    let Some(run) = script(&format!(
        "{KAHTTP} -server -address :8080 -https_addr :8443 -https_selfsigned 2>/dev/null &
        listening 8443
        printf 'GET /x HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n' |
            openssl s_client -quiet -connect 127.0.0.1:8443 2>/dev/null
        openssl s_client -alpn h2 -connect [::1]:8443 </dev/null 2>/dev/null | grep ALPN
        end"
    )) else {
        return;
    };
    assert!(run.stdout.starts_with("HTTP/1.1 200 OK\r\n"), "{run:?}");
    assert!(run.stdout.contains("\nX-Kahttp-Server-Host: Kahttp/"), "{run:?}");
    assert!(run.stdout.ends_with("ALPN protocol: h2\n"), "{run:?}");
}

#[test]
fn iperf_sends_to_ctraffic_and_stops_nobody() {
    // iperf reads nothing of what comes back, so its connection comes to a standstill.
    let Some(run) = script(&format!(
        "{CTRAFFIC} -server -udp -address [::]:5003 2>/dev/null &
        server=$!
        listening 5003
        iperf -c 127.0.0.1 -p 5003 -t 2 >/dev/null &
        iperf -u -c 127.0.0.1 -p 5003 -t 2 -b 1M >/dev/null &
        {CTRAFFIC} -address 127.0.0.1:5003 -rate 50 -timeout 1s -fail-on lost,failed
        {CTRAFFIC} -udp -address 127.0.0.1:5003 -rate 50 -timeout 500ms -fail-on lost,failed
        iperf -c 127.0.0.1 -p 5003 -n 64K | grep -o '64.0 KBytes'
        kill $server"
    )) else {
        return;
    };
    assert!(run.stdout.ends_with("64.0 KBytes\n"), "{run:?}");
}

#[test]
fn ctraffic_asks_an_echo_server_of_busybox() {
    let Some(run) = script(&format!(
        "busybox nc -ll -p 6000 -e cat &
        listening 6000
        {CTRAFFIC} -address 127.0.0.1:6000 -nconn 3 -rate 50 -timeout 1s -fail-on lost,failed
        end"
    )) else {
        return;
    };
    let found = run.json();
    assert!(found["Received"].as_u64().unwrap() > 3, "{found}");
}

#[test]
fn mconnect_and_hello_client_ask_nc() {
    let Some(run) = script(&format!(
        "printf other | nc -l -N 6001 &
        listening 6001
        {MCONNECT} -address 127.0.0.1:6001
        printf 'other: HELLO, I AM ALIVE!!!' | nc -l -N 6002 >/dev/null &
        listening 6002
        {HELLO_CLIENT} 127.0.0.1 6002"
    )) else {
        return;
    };
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(
        lines[2..],
        ["other 1", "Sending Message", "other: HELLO, I AM ALIVE!!!"],
        "{run:?}"
    );
}

#[test]
fn kahttp_asks_busybox_and_openssl() {
    let Some(run) = script(&format!(
        "folder=$(mktemp -d)
        trap 'rm -r $folder' EXIT
        echo text >$folder/index.html
        busybox httpd -f -p 6003 -h $folder &
        listening 6003
        {KAHTTP} -address http://127.0.0.1:6003/ -nclients 3 -rate 50 -timeout 1s -fail-on lost,failed
        end
        openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -keyout $folder/key -out $folder/crt \
            2>/dev/null
        openssl s_server -accept 6004 -www -key $folder/key -cert $folder/crt >/dev/null 2>&1 &
        listening 6004
        {KAHTTP} -address https://127.0.0.1:6004/ -rate 20 -timeout 1s -fail-on lost,failed
        end"
    )) else {
        return;
    };
    let reports: Vec<serde_json::Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for report in &reports {
        assert_eq!(report["NotOK"], 0, "{run:?}");
        // Neither of them keeps connections.
        assert_eq!(report["Dials"], report["Sent"], "{run:?}");
        assert!(report["Received"].as_u64().unwrap() > 3, "{run:?}");
    }
    assert_eq!(reports.len(), 2);
}

#[test]
fn iperf_as_the_server_takes_all_and_answers_nothing() {
    let Some(run) = script(&format!(
        "iperf -s -p 5201 >/dev/null 2>&1 &
        listening 5201
        {CTRAFFIC} -address 127.0.0.1:5201 -timeout 1500ms -fail-on lost 2>/dev/null || echo $?
        # At the first signal it would wait for its clients.
        kill -KILL $!"
    )) else {
        return;
    };
    let lines: Vec<&str> = run.stdout.lines().collect();
    let found: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!((&found["FailedConnects"], &found["Received"]), (&0.into(), &0.into()), "{run:?}");
    assert!(found["FailedConnections"].as_u64().unwrap() >= 1, "{run:?}");
    assert_eq!(lines[1..], ["3"], "{run:?}");
}

#[test]
fn break_test_connects_to_a_web_server() {
    let Some(run) = script(&format!(
        "busybox httpd -f -p 80 -h / &
        listening 80
        {BREAK_TEST} --duration-seconds=1 --output=json 127.0.0.1
        end"
    )) else {
        return;
    };
    let found = run.json();
    assert!(found["TotalTCPConnection"].as_u64().unwrap() > 3, "{found}");
    assert_eq!((&found["FailedTCPConnection"], &found["IcmpLost"]), (&0.into(), &0.into()));
}
