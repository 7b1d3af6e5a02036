//! Traffic while servers die and paths are cut.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{Running, finish, number, wait_until};
use crate::lab::{CLIENT, Lab, SERVER};

/// Settings with which a dead path is noticed within two seconds or so.
const QUICK: &str = "--heartbeat 300ms --rto 200ms,100ms,500ms --path-max-retrans 2";

fn now(lab: &Lab) -> Value {
    lab.shm.run("stats json").json()
}

fn start(lab: &Lab, line: &str) -> Running {
    let line =
        format!("ctraffic --init --stack user --addr {SERVER} --laddr {CLIENT} {QUICK} {line}");
    let traffic = Running::start(&mut lab.client(&line));
    wait_until("traffic", || {
        let run = lab.shm.run("stats json");
        run.code == Some(0) && number(&run.json(), "received") > 20
    });
    traffic
}

#[test]
fn a_path_is_cut_and_comes_back_and_no_message_is_lost() {
    let Some(lab) = Lab::new() else { return };
    let _server = lab.server(&format!("--stack user --addr {SERVER} {QUICK}"));
    let mut traffic =
        start(&lab, "--clients 4 --rate 200 --duration 1h --fail-on lost,failed,moves");
    lab.cut("1");
    wait_until("the path is down", || number(&now(&lab), "pathsDown") == 4);
    let then = number(&now(&lab), "received");
    wait_until("traffic on the other path", || number(&now(&lab), "received") > then + 100);
    lab.mend();
    wait_until("the path is up", || number(&now(&lab), "pathsUp") == 4);
    traffic.signal(Signal::SIGTERM);
    let run = traffic.end();
    assert_eq!(run.code, Some(0), "{run:?}");
    let json = run.json();
    assert_eq!(json["sent"], json["received"], "{json:#}");
    for key in ["lost", "duplicates", "reordered", "corrupted", "lostAssociations"] {
        assert_eq!(number(&json, key), 0, "{key}");
    }
    assert_eq!(number(&json, "failovers"), 4);
    assert!(number(&json, "maxRtt") < 5_000, "{json:#}");
    let paths = json["paths"].as_array().unwrap();
    let path = |address: &str| paths.iter().find(|path| path["address"] == address).unwrap();
    let cut = path("192.168.1.2");
    assert_eq!((number(cut, "downs"), number(cut, "ups"), number(cut, "active")), (4, 4, 4));
    let other = path("fd00:2::2");
    assert_eq!((number(other, "downs"), number(other, "active")), (0, 4));
}

#[test]
fn clients_of_a_killed_server_go_to_the_next_one() {
    let Some(lab) = Lab::new() else { return };
    let (mut first, _log) = lab.server(&format!("--stack user --addr {SERVER} --name first"));
    let mut traffic = start(
        &lab,
        "--clients 3 --rate 200 --duration 1h --reconnect --assoc-max-retrans 4 --fail-on lost,failed",
    );
    first.signal(Signal::SIGKILL);
    assert_eq!(first.end().code, None);
    let (mut second, _log) = lab.server(&format!("--stack user --addr {SERVER} --name second"));
    wait_until("new associations", || number(&now(&lab), "reconnects") == 3);
    let then = number(&now(&lab), "received");
    wait_until("traffic to the second server", || number(&now(&lab), "received") > then + 50);
    traffic.signal(Signal::SIGTERM);
    let run = traffic.end();
    // The associations to the first one failed.
    assert_eq!(run.code, Some(3), "{run:?}");
    assert!(run.stderr.contains("error: 3 associations lost\n"), "{run:?}");
    let json = run.json();
    for server in ["first", "second"] {
        assert_eq!(number(&json["servers"][server], "associations"), 3, "{json:#}");
    }
    assert_eq!(number(&json, "moves"), 0);
    assert_eq!(number(&json, "sent"), number(&json, "received") + number(&json, "lost"));
    let ends = json["associations"].as_array().unwrap().iter().filter(|one| one["end"] == "lasted");
    assert_eq!(ends.count(), 3);
    second.signal(Signal::SIGTERM);
    assert_eq!(second.end().code, Some(0));
}

#[test]
fn clients_come_back_from_their_own_ports() {
    let Some(lab) = Lab::new() else { return };
    let line = format!("--stack user --addr {SERVER}");
    let (mut first, _log) = lab.server(&line);
    // The second one answers packets for the first one with an ABORT.
    let mut traffic =
        start(&lab, "--clients 3 --rate 200 --duration 1h --reconnect --lport 20000 --log 7");
    first.signal(Signal::SIGKILL);
    assert_eq!(first.end().code, None);
    let (_second, log) = lab.server(&line);
    wait_until("new associations", || number(&now(&lab), "reconnects") == 3);
    log.until("Got a new connection (3)");
    traffic.signal(Signal::SIGTERM);
    let run = traffic.end();
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(!run.stderr.contains("already in use"), "{run:?}");
    let json = run.json();
    let associations = json["associations"].as_array().unwrap();
    assert_eq!(associations.len(), 6, "{json:#}");
    for association in associations {
        let port = 20_000 + number(association, "client");
        for address in association["local"].as_array().unwrap() {
            assert!(address.as_str().unwrap().ends_with(&format!(":{port}")), "{json:#}");
        }
    }
}

#[test]
fn the_duration_holds_when_the_server_is_gone() {
    let Some(lab) = Lab::new() else { return };
    let (mut server, _log) = lab.server(&format!("--stack user --addr {SERVER}"));
    let traffic = start(&lab, "--clients 3 --rate 100 --duration 3 --wait 1 --reconnect");
    server.signal(Signal::SIGKILL);
    server.end();
    let run = traffic.end();
    assert_eq!(run.code, Some(0), "{run:?}");
    let json = run.json();
    let took = json["took"].as_f64().unwrap();
    // The duration, the wait, the end of associations, and what a busy machine adds.
    assert!((3.0..15.0).contains(&took), "{took}");
    assert!(number(&json, "lost") > 0 || number(&json, "lostAssociations") > 0, "{json:#}");
}

#[test]
fn a_server_that_ends_closes_its_associations_and_one_broken_ends_no_other() {
    let Some(lab) = Lab::new() else { return };
    let (mut server, log) =
        lab.server(&format!("--stack user --addr {SERVER} {QUICK} --assoc-max-retrans 3"));
    let traffic = start(&lab, "--clients 2 --rate 100 --duration 1h");
    // A client that dies without a word.
    let mut dying = Running::start(&mut lab.client(&format!(
        "ctraffic --keep --stack user --addr {SERVER} --laddr {CLIENT} --duration 1h"
    )));
    wait_until("a third association", || number(&now(&lab), "active") == 3);
    dying.signal(Signal::SIGKILL);
    dying.end();
    log.until("Connection lost (3): ");
    let then = number(&now(&lab), "received");
    wait_until("the others go on", || number(&now(&lab), "received") > then + 50);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end().code, Some(0));
    // Nobody is left to send to, so the run is over before its time.
    let run = traffic.end();
    assert_eq!(run.code, Some(0), "{run:?}");
    let json = run.json();
    assert_eq!(number(&json["causes"], "Association lost: closed by the peer"), 2, "{json:#}");
    let probe = format!("client --stack user --addr {SERVER} --laddr {CLIENT} --size 10");
    assert!(finish(lab.client(&probe)).fails().contains("error: connect "));
}
