//! evil, with devices in a network namespace of its own.

use serde_json::Value;

use crate::harness::{EVIL, Run, in_namespace, run};

#[test]
fn a_command_line_that_makes_no_sense_is_refused() {
    for (arguments, said) in [
        (&["loss", "1%"][..], "evil: one of -link and -loop is needed\n"),
        (&["-loop", "a", "loss"], "evil: read loss: its value is missing\n"),
        (&["-check", "delay", "1"], "evil: read delay: \"1\" is no time: no unit behind"),
        (&["-link", "a"], "evil: link a: not two devices: A,B\n"),
    ] {
        let run = run(EVIL, arguments);
        assert_eq!(run.code, 2, "{run:?}");
        assert!(run.stderr.starts_with(said), "{run:?}");
    }
    assert_eq!(run(EVIL, &["-check", "loss 1% there delay 5ms"]).code, 0);
}

#[test]
fn it_explains_itself() {
    assert!(run(EVIL, &["-words"]).stdout.contains("interleave N"));
    assert!(run(EVIL, &["-help"]).stdout.contains("-loop A[,B]"));
    assert!(run(EVIL, &["-print", "man"]).stdout.contains(".SH OPTIONS"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(EVIL, &["-print", shell]).stdout.contains("memory"));
    }
}

/// Runs a script in which `evil ARGUMENTS` starts the program and waits until it is ready.
fn with_devices(script: &str) -> Option<Run> {
    let start = r#"
        evil() {
            "$program" "$@" >"$work/out" 2>"$work/err" &
            pid=$!
            until grep -q ready: "$work/err"; do
                kill -0 $pid || { cat "$work/err" >&2; exit 9; }
            done
        }
        program=$0
        work=$(mktemp -d)
        pid=
        trap '[ -z "$pid" ] || kill "$pid" 2>"$work/kill" || true; rm -rf "$work"' EXIT
        ip link set lo up
    "#;
    in_namespace(&format!("{start}\n{script}"), EVIL)
}

fn last_report(run: &Run) -> Value {
    assert_eq!(run.code, 0, "{run:?}");
    serde_json::from_str(run.stdout.lines().last().unwrap()).unwrap()
}

#[test]
fn a_link_joins_two_taps() {
    // Both ends are in one namespace: a frame that enters one device leaves by the other, as the
    // kernel's counters tell.
    let script = r#"
        evil -link near,far -seed 7 there loss 1/2 back duplicate 100%
        ip link set near arp off; ip link set far arp off
        ip address add 10.9.0.1/24 dev near
        received() { awk -v device="$1:" '$1 == device { print $3 }' /proc/net/dev; }
        before=$(received far)
        # Nobody answers.
        ping -q -c 10 -i 0.01 -W 1 10.9.0.2 >"$work/ping" || true
        turns=0
        until [ $(($(received far) - before)) -ge 5 ]; do
            turns=$((turns + 1)); [ $turns -lt 1000 ]
        done
        kill -s USR1 $pid
        until grep -q received "$work/out"; do kill -0 $pid; done
        kill $pid; wait $pid
        [ $(wc -l <"$work/out") -eq 2 ]
        ! grep -q near: /proc/net/dev
        cat "$work/out"
    "#;
    let Some(run) = with_devices(script) else { return };
    let report = last_report(&run);
    let there = |name: &str| report["there"][name].as_u64().unwrap();
    assert_eq!(report["seed"], 7);
    assert!(there("received") >= 10 && there("lost") == there("received") / 2, "{report}");
    assert_eq!(there("received"), there("lost") + there("sent"));
    assert!(report["back"].is_object());
}

#[test]
fn a_loop_returns_what_was_routed_to_it() {
    let script = r#"
        for file in all/rp_filter default/rp_filter; do
            echo 0 >/proc/sys/net/ipv4/conf/$file
        done
        echo 1 >/proc/sys/net/ipv4/conf/default/accept_local
        echo 1 >/proc/sys/net/ipv4/ip_forward
        evil -loop evil0 reverse
        ip address add 10.9.0.1/32 dev lo
        # The packets of one namespace for itself, once round.
        ip rule add iif lo to 10.9.0.1 lookup 9 pref 1
        ip rule add iif lo to 10.9.0.2 lookup 9 pref 1
        ip route add default dev evil0 src 10.9.0.1 table 9
        ping -q -c 3 -i 0.01 -W 1 -s 5000 10.9.0.2 >"$work/ping" || true
        kill $pid; wait $pid
        cat "$work/out"
    "#;
    let Some(run) = with_devices(script) else { return };
    let report = last_report(&run);
    let there = |name: &str| report["there"][name].as_u64().unwrap();
    // 5,008 bytes are four fragments.
    assert_eq!((there("rearranged"), there("fragments")), (3, 12), "{report}");
    assert!(report["back"].is_null());
}

#[test]
fn a_device_that_is_there_is_left_alone() {
    let script = r#"
        ip tuntap add dev mine mode tun
        "$program" -loop mine reverse
    "#;
    let Some(run) = with_devices(script) else { return };
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.starts_with("evil: create device mine: "), "{run:?}");
}
