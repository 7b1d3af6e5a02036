//! Runs against a server without a network.

use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};

use super::report::{Detail, PathRecord};
use super::*;
use crate::fake::{Fake, local, remote};
use crate::message::Name;
use crate::stats::figures::Shape;
use crate::verb::server::serve;
use sctp_stack::{Event, PathChange};

pub fn settings() -> Settings {
    Settings {
        local: local(),
        remote: remote(),
        sctp: sctp_stack::Settings::default(),
        clients: 1,
        rate: 1_000.0,
        duration: Duration::from_millis(500),
        wait: Duration::from_millis(200),
        connect_timeout: Duration::from_secs(2),
        connect_rate: 1e6,
        reconnect: false,
        size: 200,
    }
}

/// Runs to a server while `meanwhile` happens, and returns the JSON and what is in shared memory.
fn run_with(
    settings: &Settings,
    fake: &Fake,
    meanwhile: impl FnOnce(&Figures) + Send,
) -> (Value, Figures) {
    let (outcome, shared) = outcome_with(settings, fake, |shared, _| meanwhile(shared));
    (outcome.json(settings, "fake", Detail::All), shared)
}

/// The same with the outcome itself, while signals may be sent.
fn outcome_with(
    settings: &Settings,
    fake: &Fake,
    meanwhile: impl FnOnce(&Figures, Sender<Wake>) + Send,
) -> (Outcome, Figures) {
    let ended = AtomicBool::new(false);
    let listener = fake.listen(&remote(), &settings.sctp).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| serve(&*listener, &Name::new("vm-001"), &ended));
        let done = run_alone(settings, fake, meanwhile);
        ended.store(true, Ordering::Relaxed);
        done
    })
}

fn run_alone(
    settings: &Settings,
    fake: &Fake,
    meanwhile: impl FnOnce(&Figures, Sender<Wake>) + Send,
) -> (Outcome, Figures) {
    let shared = Figures::own(Shape::new(4, 100_000).unwrap());
    let (wake, waker) = channel();
    let signals = wake.clone();
    let outcome = thread::scope(|scope| {
        scope.spawn(|| meanwhile(&shared, signals));
        run(settings, fake, &shared, (wake, &waker), &mut Progress::hidden())
    });
    (outcome, shared)
}

/// The JSON of a run without a server.
fn refused(settings: &Settings) -> Value {
    let (outcome, _) = run_alone(settings, &Fake::default(), |_, _| {});
    outcome.json(settings, "fake", Detail::Summary)
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        thread::yield_now();
    }
}

fn number(json: &Value, key: &str) -> u64 {
    json[key].as_u64().unwrap_or_else(|| panic!("{key} in {json:#}"))
}

#[test]
fn all_that_is_sent_comes_back() {
    let settings = Settings { clients: 10, ..settings() };
    let (json, shared) = run_with(&settings, &Fake::default(), |_| {});
    // Whoever is late on a busy machine drops; together they are what was due.
    let due = number(&json, "sent") + number(&json, "dropped");
    assert!((400..=500).contains(&due), "{json:#}");
    assert!(number(&json, "sent") > 0);
    assert_eq!(json["sent"], json["received"]);
    for key in ["lost", "duplicates", "reordered", "corrupted", "unanswered", "active", "moves"] {
        assert_eq!(number(&json, key), 0, "{key}");
    }
    assert_eq!(number(&json, "connects"), 10);
    let servers = json!({ "vm-001": { "associations": 10, "received": json["received"] } });
    assert_eq!(json["servers"], servers);
    let buckets = json["buckets"].as_array().unwrap();
    assert_eq!(buckets.iter().filter_map(Value::as_u64).sum::<u64>(), number(&json, "received"));
    assert_eq!(Value::Object(shared.snapshot().json())["rttMicros"], json["rttMicros"]);

    let associations = json["associations"].as_array().unwrap();
    assert_eq!(associations.len(), 10);
    for association in associations {
        assert_eq!(association["end"], "lasted");
        assert_eq!(association["peer"], json!(["10.0.0.1:6000", "[1000::1]:6000"]));
        assert_eq!(association["paths"][0]["state"], "active");
        assert_eq!(association["paths"][0]["primary"], true);
        let heartbeats = json!({ "sent": 4, "acksReceived": 3, "received": 2, "acksSent": 1 });
        assert_eq!(association["paths"][0]["heartbeats"], heartbeats);
        assert_eq!(association["paths"][1].get("heartbeats"), Some(&Value::Null));
    }
    assert_eq!(json["paths"][1]["address"], "1000::1");
    assert_eq!(json["paths"][1]["active"], 10);
    let heartbeats = json!({ "sent": 40, "acksReceived": 30, "received": 20, "acksSent": 10 });
    assert_eq!(json["paths"][0]["heartbeats"], heartbeats);
    assert_eq!(json["paths"][1].get("heartbeats"), Some(&Value::Null));
}

#[test]
fn what_happens_to_answers_is_counted() {
    let fake = Fake::default();
    let kept = Mutex::new(Vec::new());
    fake.set_way(move |number, message| match number % 10 {
        1 => vec![],
        2 => vec![message.to_vec(), message.to_vec()],
        // The fourth comes behind the fifth.
        3 => {
            *kept.lock().unwrap() = message.to_vec();
            vec![]
        }
        4 => vec![message.to_vec(), std::mem::take(&mut kept.lock().unwrap())],
        5 => {
            let mut broken = message.to_vec();
            broken[150] ^= 1;
            vec![broken]
        }
        _ => vec![message.to_vec()],
    });
    let (json, _) = run_with(&settings(), &fake, |_| {});
    let sent = number(&json, "sent");
    // How many of them were the n-th of ten.
    let nth = |n: u64| (sent + 9 - n) / 10;
    assert!(sent >= 50, "{json:#}");
    assert_eq!(number(&json, "duplicates"), nth(2));
    assert_eq!(number(&json, "reordered"), nth(4));
    assert_eq!(number(&json, "corrupted"), nth(5));
    let never_sent_on = nth(3) - nth(4);
    assert_eq!(number(&json, "lost"), nth(1) + nth(5) + never_sent_on);
    assert_eq!(number(&json, "received"), sent - number(&json, "lost"));
    assert_eq!(json["causes"]["Received wrong checksum"], nth(5));
    // Late answers were waited for.
    assert!(json["took"].as_f64().unwrap() >= 0.7, "{json:#}");
}

#[test]
fn without_a_server_every_connect_fails_and_the_run_ends() {
    let settings = Settings { clients: 3, duration: Duration::from_secs(60), ..settings() };
    let json = refused(&settings);
    assert_eq!(number(&json, "failedConnects"), 3);
    assert_eq!(number(&json, "unconnected"), 3);
    assert_eq!(number(&json, "sent"), 0);
    assert_eq!(json["causes"]["connect 10.0.0.1,1000::1 port 6000: refused"], 3);
    assert!(json["took"].as_f64().unwrap() < 20.0);
}

#[test]
fn the_duration_holds_while_connects_fail_again_and_again() {
    let settings = Settings { reconnect: true, ..settings() };
    let json = refused(&settings);
    // After 0, 0.1 and 0.3 s.
    assert_eq!(number(&json, "failedConnects"), 3);
    assert_eq!(number(&json, "unconnected"), 1);
    let took = json["took"].as_f64().unwrap();
    assert!((0.5..20.0).contains(&took), "{took}");
}

#[test]
fn a_lost_association_is_made_anew_if_that_is_wanted() {
    for reconnect in [true, false] {
        let settings =
            Settings { clients: 4, reconnect, duration: Duration::from_secs(1), ..settings() };
        let fake = Fake::default();
        let (json, _) = run_with(&settings, &fake, |shared| {
            wait_until("traffic", || shared.get(Counter::Received) >= 20);
            fake.abort_all();
        });
        assert_eq!(number(&json, "lostAssociations"), 4, "{json:#}");
        assert_eq!(number(&json, "reconnects"), if reconnect { 4 } else { 0 });
        assert_eq!(fake.accepted(), if reconnect { 8 } else { 4 });
        assert_eq!(json["causes"]["Association lost: aborted by the peer"], 4);
        assert_eq!(json["associations"][0]["end"], "aborted");
        let answered = number(&json, "received") + number(&json, "lost");
        assert_eq!(number(&json, "sent"), answered);
    }
}

#[test]
fn a_lost_association_is_made_anew_from_the_same_ports() {
    let local = Addresses { port: 5_000, ..local() };
    let duration = Duration::from_secs(1);
    let settings = Settings { clients: 4, reconnect: true, duration, local, ..settings() };
    let fake = Fake::default();
    let (json, _) = run_with(&settings, &fake, |shared| {
        wait_until("traffic", || shared.get(Counter::Received) >= 20);
        fake.abort_all();
    });
    assert_eq!(number(&json, "reconnects"), 4, "{json:#}");
    assert_eq!(number(&json, "failedConnects"), 0, "{json:#}");
    for association in json["associations"].as_array().unwrap() {
        let address = format!("192.0.2.1:{}", 5_000 + number(association, "client"));
        assert_eq!(association["local"], json!([address]));
    }
}

#[test]
fn what_finds_no_room_is_dropped_and_never_sent_in_a_burst() {
    let settings = Settings { clients: 2, duration: Duration::from_secs(1), ..settings() };
    let fake = Fake::default();
    let (json, _) = run_with(&settings, &fake, |shared| {
        wait_until("traffic", || shared.get(Counter::Received) >= 20);
        fake.block(true);
        wait_until("dropped messages", || shared.get(Counter::Dropped) >= 200);
        fake.block(false);
    });
    let (sent, dropped) = (number(&json, "sent"), number(&json, "dropped"));
    assert!(dropped >= 200, "{json:#}");
    assert!((700..=1_000).contains(&(sent + dropped)), "{json:#}");
    assert_eq!(json["sent"], json["received"]);
}

#[test]
fn more_clients_than_messages_send_one_each() {
    let settings = Settings { clients: 50, rate: 1.0, ..settings() };
    let (json, _) = run_with(&settings, &Fake::default(), |_| {});
    assert_eq!(number(&json, "sent"), 50);
    assert_eq!(number(&json, "received"), 50);
    for association in json["associations"].as_array().unwrap() {
        assert_eq!(association["sent"], 1);
    }
}

#[test]
fn paths_that_go_and_come_are_counted() {
    let fake = Fake::default();
    let (json, _) = run_with(&settings(), &fake, |shared| {
        wait_until("traffic", || shared.get(Counter::Received) >= 20);
        for (address, change) in [
            ("10.0.0.1", PathChange::Down),
            ("10.0.0.1", PathChange::Down),
            ("1000::1", PathChange::Confirmed),
            ("1000::1", PathChange::Up),
            ("10.0.0.1", PathChange::Up),
            ("1000::1", PathChange::Down),
        ] {
            fake.happens(&Event::Path { address: address.parse().unwrap(), change });
        }
    });
    assert_eq!(number(&json, "pathsDown"), 2);
    assert_eq!(number(&json, "pathsUp"), 1);
    // Only the first address is primary.
    assert_eq!(number(&json, "failovers"), 1);
    let association = &json["associations"][0];
    assert_eq!(association["failovers"], 1);
    assert_eq!(association["paths"][0]["downs"], 1);
    assert_eq!(association["paths"][0]["ups"], 1);
    assert_eq!(json["paths"][1]["downs"], 1);
}

#[test]
fn a_signal_ends_the_run_early_and_the_answers_are_there() {
    let settings = Settings { duration: Duration::from_secs(3_600), ..settings() };
    let (outcome, _) = outcome_with(&settings, &Fake::default(), |shared, signals| {
        wait_until("traffic", || shared.get(Counter::Received) >= 20);
        signals.send(Wake::Signal).unwrap();
    });
    assert!(outcome.took < Duration::from_secs(20));
    assert_eq!(outcome.figures.get(Counter::Sent), outcome.figures.get(Counter::Received));
    assert!(outcome.figures.get(Counter::Sent) >= 20);
}

#[test]
fn complaints_are_about_what_was_asked_for_and_happened() {
    let fake = Fake::default();
    fake.set_way(|number, message| if number == 3 { vec![] } else { vec![message.to_vec()] });
    let (outcome, _) = outcome_with(&settings(), &fake, |_, _| {});
    let complaints = |words: &str| words.parse::<fail_on::FailOn>().unwrap().complaints(&outcome);
    assert_eq!(complaints("lost,failed,moves"), ["1 messages lost"]);
    assert!(complaints("failed,corrupted,duplicates,reordered,paths,moves").is_empty());
    let error = "lost,late".parse::<fail_on::FailOn>().unwrap_err();
    assert!(error.starts_with("\"late\" is none of lost, failed, dropped, "), "{error}");
    assert!("".parse::<fail_on::FailOn>().is_err());
}

#[test]
fn a_path_is_told_with_its_heartbeats() {
    let fake = Fake::default();
    let _listener = fake.listen(&remote(), &settings().sctp).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let association = fake.connect(&local(), &remote(), &settings().sctp, deadline).unwrap();
    let paths = association.paths().unwrap();
    let told: Vec<_> = paths.iter().map(|path| PathRecord::of(path).to_string()).collect();
    assert_eq!(
        told,
        [
            "path 10.0.0.1: active, RTT 100µs, heartbeats 4 sent, 3 answered, 2 received, 1 answered",
            "path 1000::1: active, RTT 100µs, heartbeats -",
        ]
    );
}
