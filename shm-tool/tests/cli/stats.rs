//! The counters of an `lb` that is played by this process.

use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use lb_core::counters::{Counter, Counts};
use lb_core::walk::{Class, Reason};
use lb_core::wire::sctp::{CHUNKS, Chunk};
use lb_sys::shm::{Folder, Name, StatsWriter};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::room::{DEADLINE, Room, wait_until};

fn start(room: &Room, instance: &str, queues: &[u16]) -> StatsWriter {
    let name = |text: &str| text.parse::<Name>().unwrap();
    let folder = Folder::new(room.dir());
    StatsWriter::create(&folder, &name(instance), &name("markway"), queues).unwrap()
}

fn counts(numbers: &[(Counter, u64)]) -> Counts {
    let mut counts = Counts::default();
    for (counter, number) in numbers {
        counts.set(*counter, *number);
    }
    counts
}

/// A queue where much happens, and one where nothing does but a little TCP.
fn busy() -> [Counts; 2] {
    [
        counts(&[
            (Counter::Received, 1000),
            (Counter::Marked, 970),
            (Counter::Dropped(Reason::NoTarget), 20),
            (Counter::Dropped(Reason::EarlyFragment), 10),
            (Counter::Class(Class::Tcp), 600),
            (Counter::Class(Class::Udp), 290),
            (Counter::Class(Class::Sctp), 100),
            (Counter::Chunk(Chunk::Init), 90),
            (Counter::Chunk(Chunk::Data), 10),
            (Counter::SkewSourcePort, 5060),
            (Counter::SkewInits, 80),
            (Counter::SkewWarnings, 1),
            (Counter::Class(Class::Fragment), 10),
            (Counter::Batches, 80),
            (Counter::SocketDrops, 3),
            (Counter::VerdictsRefused, 2),
        ]),
        counts(&[(Counter::Received, 5), (Counter::Marked, 5), (Counter::Class(Class::Tcp), 5)]),
    ]
}

fn keep(writer: &StatsWriter, queues: &[u16], counts: &[Counts]) {
    for (place, (queue, counts)) in queues.iter().zip(counts).enumerate() {
        writer.row(place).unwrap().store(*queue, counts);
    }
}

#[test]
fn the_text_shows_queues_and_their_sum_and_what_happened() {
    let room = Room::new();
    let writer = start(&room, "markway", &[4, 17]);
    keep(&writer, &[4, 17], &busy());
    let text = room.ok("stats");
    let (head, rest) = text.split_once("\n\n").unwrap();
    let started = room.json("stats")["started"].as_str().unwrap().to_string();
    let pid = std::process::id();
    assert_eq!(
        head,
        format!("instance markway, table markway\nlb is running: process {pid}, started {started}")
    );
    assert_eq!(
        rest,
        "                     sum  queue 4  queue 17
received            1005     1000         5
marked               975      970         5
held                   0        0         0
dropped               30       30         0

received by class
  tcp                605      600         5
  udp                290      290         0
  sctp               100      100         0
  fragment            10       10         0
SCTP by first chunk
  data                10       10         0
  init                90       90         0
dropped by reason
  no target           20       20         0
  early fragment      10       10         0

batches               80       80         0
packets per batch   12.6     12.5         -
kernel queue drops     0        0         0
socket drops           3        3         0
verdicts refused       2        2         0

skew of new SCTP associations
skew source port    5060     5060         0
skew inits            80       80         0
skew warnings          1        1         0
"
    );

    drop(writer);
    let text = room.ok("stats");
    let line = text.lines().nth(1).unwrap();
    assert_eq!(
        line,
        format!("lb is not running; process {pid}, started {started}, wrote these last values")
    );
    assert!(text.ends_with(rest));
}

#[test]
fn an_idle_lb_has_no_details() {
    let room = Room::new();
    let _writer = start(&room, "markway", &[0]);
    let text = room.ok("stats");
    assert_eq!(
        text.split_once("\n\n").unwrap().1,
        "                    sum  queue 0
received              0        0
marked                0        0
held                  0        0
dropped               0        0

batches               0        0
packets per batch     -        -
kernel queue drops    0        0
socket drops          0        0
"
    );
}

#[test]
fn json_has_every_counter() {
    let room = Room::new();
    let writer = start(&room, "other", &[4, 17]);
    keep(&writer, &[4, 17], &busy());
    let mut shown = room.json("stats --shm markway --instance other");
    let started = shown["started"].take();
    let started = humantime_seconds(started.as_str().unwrap());
    assert!(started > 1_600_000_000, "{started}");
    let nothing = json!({
        "received": 0, "marked": 0, "held": 0,
        "dropped": {
            "no_target": 0, "early_fragment": 0, "held_full": 0, "source_full": 0,
            "too_long_to_hold": 0, "first_dropped": 0, "first_too_short": 0,
            "quoted_fragment": 0, "truncated": 0, "not_copied": 0, "malformed": 0,
            "chain_too_long": 0,
        },
        "classes": {
            "tcp": 0, "udp": 0, "sctp": 0, "sctp_in_udp": 0, "echo": 0, "icmp_error": 0,
            "icmp": 0, "other": 0, "fragment": 0, "unreadable": 0,
        },
        "sctp_chunks": {
            "data": 0, "init": 0, "init_ack": 0, "sack": 0, "heartbeat": 0, "heartbeat_ack": 0,
            "abort": 0, "shutdown": 0, "shutdown_ack": 0, "error": 0, "cookie_echo": 0,
            "cookie_ack": 0, "ecne": 0, "cwr": 0, "shutdown_complete": 0, "auth": 0, "i_data": 0,
            "asconf_ack": 0, "re_config": 0, "pad": 0, "forward_tsn": 0, "asconf": 0,
            "other_chunk": 0, "no_chunk": 0,
        },
        "batches": 0, "repeated": 0, "receive_errors": 0, "send_errors": 0,
        "verdicts_refused": 0, "kernel_queue_drops": 0, "socket_drops": 0,
        "fast_packets": 0, "fast_bytes": 0, "express_packets": 0, "express_bytes": 0,
        "queued_packets": 0, "queued_bytes": 0,
        "map_changes": 0, "map_slots": 0, "map_repairs": 0, "rules_mended": 0,
        "datagrams": 0, "datagrams_peak": 0, "datagrams_completed": 0, "datagrams_expired": 0,
        "datagrams_evicted": 0, "held_now": 0, "held_peak": 0, "held_injected": 0,
        "held_unsent": 0, "held_refused": 0, "held_expired": 0, "held_evicted": 0,
        "tier_relayed": 0, "tier_missing": 0, "fragments_split": 0,
        "skew_warnings": 0, "skew_source_port": 0, "skew_destination_port": 0, "skew_inits": 0,
        "skew_all_inits": 0, "skew_seconds": 0, "skew_mark": 0,
    });
    let mut first = nothing.clone();
    first["received"] = json!(1000);
    first["marked"] = json!(970);
    first["dropped"]["no_target"] = json!(20);
    first["dropped"]["early_fragment"] = json!(10);
    first["classes"]["tcp"] = json!(600);
    first["classes"]["udp"] = json!(290);
    first["classes"]["sctp"] = json!(100);
    first["sctp_chunks"]["init"] = json!(90);
    first["sctp_chunks"]["data"] = json!(10);
    first["skew_source_port"] = json!(5060);
    first["skew_inits"] = json!(80);
    first["skew_warnings"] = json!(1);
    first["classes"]["fragment"] = json!(10);
    first["batches"] = json!(80);
    first["socket_drops"] = json!(3);
    first["verdicts_refused"] = json!(2);
    let mut second = nothing;
    for key in ["received", "marked"] {
        second[key] = json!(5);
    }
    second["classes"]["tcp"] = json!(5);
    let mut sum = first.clone();
    sum["received"] = json!(1005);
    sum["marked"] = json!(975);
    sum["classes"]["tcp"] = json!(605);
    first["queue"] = json!(4);
    second["queue"] = json!(17);
    assert_eq!(
        shown,
        json!({
            "instance": "other", "table": "markway", "running": true,
            "pid": std::process::id(), "started": null, "unreadable_queues": 0,
            "queues": [first, second], "sum": sum,
        })
    );
    drop(writer);
    // Programs that other tests start at this moment hold its lock until they run.
    wait_until("lb is not running", || room.json("stats --instance other")["running"] == false);
}

fn humantime_seconds(text: &str) -> u64 {
    let time = humantime::parse_rfc3339(text).unwrap();
    time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// A counter that is added one day must not be forgotten in the text.
#[test]
fn no_counter_is_missing_in_the_text() {
    let room = Room::new();
    let writer = start(&room, "markway", &[0]);
    let mut all = Counts::default();
    for (counter, _, _) in Counts::default().others() {
        all.set(counter, 1);
    }
    for class in [
        Class::Tcp,
        Class::Udp,
        Class::Sctp,
        Class::SctpInUdp,
        Class::IcmpError,
        Class::Echo,
        Class::Icmp,
        Class::Other,
        Class::Fragment,
        Class::Unreadable,
    ] {
        all.set(Counter::Class(class), 1);
    }
    for reason in [
        Reason::NoTarget,
        Reason::EarlyFragment,
        Reason::HeldFull,
        Reason::SourceFull,
        Reason::TooLongToHold,
        Reason::FirstDropped,
        Reason::FirstTooShort,
        Reason::QuotedFragment,
        Reason::Truncated,
        Reason::NotCopied,
        Reason::Malformed,
        Reason::ChainTooLong,
    ] {
        all.set(Counter::Dropped(reason), 1);
    }
    for (chunk, _) in CHUNKS {
        all.set(Counter::Chunk(chunk), 1);
    }
    let detailed = || all.classes().chain(all.dropped()).chain(all.chunks());
    assert!(detailed().all(|(_, number)| number == 1));
    keep(&writer, &[0], &[all]);
    let text = room.ok("stats");
    let has = |label: String| text.lines().any(|line| line.starts_with(&label));
    for (_, name, _) in all.others() {
        assert!(has(name.replace('_', " ")), "{name}: {text}");
    }
    for (name, _) in detailed() {
        assert!(has(format!("  {} ", name.replace('_', " "))), "{name}: {text}");
    }
}

#[test]
fn many_queues_stand_below_each_other() {
    let room = Room::new();
    let queues: Vec<u16> = (0..16).collect();
    let writer = start(&room, "markway", &queues);
    let counts: Vec<Counts> =
        (0..16).map(|number| counts(&[(Counter::Received, number)])).collect();
    keep(&writer, &queues, &counts);
    let text = room.ok("stats");
    for queue in queues {
        assert_eq!(
            text.matches(&format!("queue {queue}")).count(),
            match queue {
                1 => 7, // and 10 to 15
                _ => 1,
            }
        );
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    assert_eq!(text.matches("received  ").count(), 3);
}

#[test]
fn counters_that_are_not_there_or_not_counters() {
    let room = Room::with(&["init"]);
    assert_eq!(
        room.fails("stats"),
        "read counters of markway: there are no counters: no `lb` of this instance has run; \
         another instance is named with --instance"
    );
    std::fs::write(room.path("markway.stats"), [7; 2000]).unwrap();
    assert_eq!(
        room.fails("stats --json"),
        "read counters of markway: the file does not hold counters"
    );
    drop(start(&room, "older", &[1]));
    room.edit("older.stats", |bytes| bytes[8] ^= 1);
    assert_eq!(
        room.fails("stats --instance older --watch"),
        "read counters of older: the `lb` that counts there is of another version; \
         use programs of one release"
    );
    drop(start(&room, "short", &[1, 2]));
    room.edit("short.stats", |bytes| bytes.truncate(2048));
    assert_eq!(
        room.fails("stats --instance short"),
        "read counters of short: damaged: the length of the file does not match its header"
    );
}

#[test]
fn a_row_that_a_killed_lb_left_half_written_is_told() {
    let room = Room::new();
    let writer = start(&room, "markway", &[4, 17]);
    keep(&writer, &[4, 17], &busy());
    drop(writer);
    let mut file = std::fs::File::options().write(true).open(room.path("markway.stats")).unwrap();
    // The sequence of the first row, which follows a header of 64 words.
    file.seek(SeekFrom::Start(64 * 8)).unwrap();
    file.write_all(&7u64.to_ne_bytes()).unwrap();
    let shown = room.json("stats");
    assert_eq!(shown["unreadable_queues"], 1);
    assert_eq!(shown["queues"].as_array().unwrap().len(), 1);
    assert_eq!(shown["sum"]["received"], 5);
    let text = room.ok("stats");
    let line = "not counted here: 1 of 2 queues, left half written when lb was killed\n";
    assert!(text.contains(line), "{text}");
}

// ---- Watching

/// `stats --watch` with its lines as they come.
struct Watching {
    child: Child,
    lines: Receiver<String>,
}

impl Watching {
    fn start(room: &Room, line: &str) -> Self {
        let mut child = room.command(line).stdout(Stdio::piped()).spawn().unwrap();
        let stdout: ChildStdout = child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                if sender.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        Watching { child, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("no more lines")
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    /// The first line from now on for which this is so.
    fn until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        for _ in 0..1000 {
            let line = self.line();
            if is_so(&line) {
                return line;
            }
        }
        panic!("never came: {what}");
    }

    fn end(mut self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn watching_tells_rates_per_second() {
    let room = Room::new();
    let writer = start(&room, "markway", &[4, 17]);
    keep(&writer, &[4, 17], &busy());
    let watching = Watching::start(&room, "stats --watch 0.2");
    let first = watching.until("received", |line| line.starts_with("received "));
    let cells: Vec<&str> = first.split_whitespace().collect();
    assert_eq!(cells, ["received", "1005", "-", "1000", "-", "5", "-"]);

    let mut more = busy();
    more[0].add(Counter::Received, 4000);
    keep(&writer, &[4, 17], &more);
    let next = watching.until("the growth", |line| line.contains(" 5005 "));
    let cells: Vec<&str> = next.split_whitespace().collect();
    let rate: f64 = cells[2].parse().unwrap();
    // 4000 within an interval that may be stretched, never shortened by much.
    assert!((100.0..=40_000.0).contains(&rate), "{next}");
    assert_eq!(cells[4], cells[2]);
    assert_eq!(cells[6], "0");
    assert_eq!(watching.until("a blank line", str::is_empty), "");
    watching.end(Signal::SIGINT);
}

#[test]
fn watching_prints_one_block_per_interval_without_control_characters() {
    let room = Room::new();
    let writer = start(&room, "markway", &[4]);
    let watching = Watching::start(&room, "stats --watch 0.1");
    assert_eq!(watching.line(), "instance markway, table markway");
    let second = watching.until("another block", |line| line.starts_with("instance"));
    assert_eq!(second, "instance markway, table markway");
    let head = watching.until("the head of columns", |line| line.contains("sum"));
    let cells: Vec<&str> = head.split_whitespace().collect();
    assert_eq!(cells, ["sum", "/s", "queue", "4", "/s"]);
    watching.end(Signal::SIGTERM);
    drop(writer);
}

#[test]
fn watching_follows_a_restart() {
    let room = Room::new();
    let writer = start(&room, "markway", &[4]);
    keep(&writer, &[4], &busy());
    let watching = Watching::start(&room, "stats --watch 0.1 --json");
    let first = watching.json();
    assert_eq!((&first["running"], &first["sum"]["received"]), (&json!(true), &json!(1000)));
    drop(writer);
    let ended = watching.until("the end", |line| line.contains(r#""running":false"#));
    assert!(ended.contains(r#""received":1000"#));

    // Watching must not keep the next one from starting.
    let writer = start(&room, "markway", &[8, 9]);
    let next = watching.until("the restart", |line| line.contains(r#""running":true"#));
    let next: Value = serde_json::from_str(&next).unwrap();
    assert_eq!(next["sum"]["received"], 0);
    assert_eq!(next["queues"][1]["queue"], 9);
    drop(writer);

    // Whoever removes the file takes nothing from those who watch.
    std::fs::remove_file(room.path("markway.stats")).unwrap();
    watching.until("the end", |line| line.contains(r#""running":false"#));
    watching.json();
    watching.end(Signal::SIGINT);
}

#[test]
fn watching_ends_when_nobody_reads() {
    let room = Room::new();
    let _writer = start(&room, "markway", &[4]);
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = room.command("stats --watch 0.1");
    let child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    drop(command); // and with it the other copy of the pipe's end
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "instance markway, table markway\n");
    drop(reader);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    let output = receiver.recv_timeout(DEADLINE).expect("it goes on").unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
