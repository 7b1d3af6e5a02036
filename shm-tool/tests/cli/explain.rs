//! Packets that are explained: by fields, as hex, out of captures.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::room::{Room, Run, finish};

/// 10.0.0.1:4000 -> 10.0.0.2:80
const UDP: &str = "4500 001c 0000 0000 4011 0000 0a00 0001 0a00 0002 0fa0 0050 0008 0000";

/// shm-tool with something on stdin.
fn run_with(room: &Room, line: &str, stdin: &[u8]) -> Run {
    let file = room.path(".stdin");
    fs::write(&file, stdin).unwrap();
    let mut command = room.command(line);
    command.stdin(fs::File::open(file).unwrap());
    finish(command)
}

/// Explains one packet in hexadecimal.
fn explain(room: &Room, hex: &str, options: &str) -> Value {
    let run = run_with(room, &format!("explain --hex - --json {options}"), hex.as_bytes());
    assert_eq!((run.code, &*run.stderr), (Some(0), ""), "{hex}");
    serde_json::from_str(&run.stdout).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().filter(|c| !c.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// A capture of these packets, each with the length it had.
fn pcap(link: u32, packets: &[(&[u8], usize)]) -> Vec<u8> {
    let mut file: Vec<u8> = [0xa1b2_c3d4, 0x0002_0004_u32.rotate_left(16), 0, 0, 65_535, link]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    for (packet, full_len) in packets {
        for number in [0, 0, packet.len(), *full_len] {
            file.extend(u32::try_from(number).unwrap().to_le_bytes());
        }
        file.extend(*packet);
    }
    file
}

// ---- One packet

/// `explain` and `lookup` agree for what both know.
#[test]
fn fields_lead_where_a_lookup_leads() {
    let room = Room::with(&["init", "init --shm t --sctp-hash tuple --affinity client"]);
    room.ok("activate 101 102 103");
    room.ok("activate --shm t 101 102 103");
    for shm in ["markway", "t"] {
        for (src, dst) in [("10.0.0.1:4000", "10.0.0.2:80"), ("[1000::1]:4001", "[1000::2]:80")] {
            for proto in ["tcp", "UDP", "sctp"] {
                let fields = format!("--src {src} --dst {dst} --proto {proto} --shm {shm}");
                let explained = room.json(&format!("explain {fields}"));
                let found = room.json(&format!("lookup {fields}"));
                for key in ["hash", "slot", "mark"] {
                    assert_eq!(explained[key], found[key], "{fields}");
                }
                assert_eq!(explained["slot_mark"], found["mark"]);
                assert_eq!(explained["class"], proto.to_lowercase());
            }
        }
    }
}

#[test]
fn all_of_an_explanation() {
    let room = Room::with(&["init --seed 0x12345678", "activate 101"]);
    let line = "explain --src 10.0.0.1:4000 --dst 10.0.0.2:80 --proto udp";
    let expected = json!({
        "class": "udp",
        "headers": ["IPv4 10.0.0.1 -> 10.0.0.2", "UDP 4000 -> 80"],
        "key": {
            "of": "packet",
            "parts": ["source", "destination", "protocol", "ports"],
            "words": ["0a000001", "0a000002", "11000000", "0fa00050"],
        },
        // As the kernel gives it.
        "hash": 0x1d37_1cac, "slot": 113, "slot_mark": 101, "mark": 101,
        "dropped": null, "reason": null, "plane": "fast", "queued_because": null, "tier": null,
    });
    assert_eq!(room.json(line), expected);
    assert_eq!(explain(&room, UDP, ""), expected);
    let colons = UDP.replace(' ', ":");
    assert_eq!(room.json(&format!("explain --hex {colons}")), expected);
    assert_eq!(
        room.ok(line),
        "\
headers  IPv4 10.0.0.1 -> 10.0.0.2, UDP 4000 -> 80
class    udp
key      source, destination, protocol, ports
words    0a000001 0a000002 11000000 0fa00050
hash     0x1d371cac
slot     113
mark     101
plane    fast: with lb --fast the kernel marks it
"
    );
}

#[test]
fn keys_of_every_kind() {
    let room =
        Room::with(&["init", "init --shm t --sctp-hash tuple --affinity client --sctp-encap 9899"]);
    for (line, class, parts, words) in [
        (
            "--src 10.0.0.1:4000 --dst 10.0.0.2:80 --proto sctp",
            "sctp",
            json!(["ports"]),
            json!(["0fa00050"]),
        ),
        (
            "--src 10.0.0.1:4000 --dst 10.0.0.2:80 --proto 132 --shm t",
            "sctp",
            json!(["source", "destination", "protocol", "ports"]),
            json!(["0a000001", "0a000002", "84000000", "0fa00050"]),
        ),
        (
            "--src 10.0.0.1:1 --dst 10.0.0.2:80 --shm t",
            "tcp",
            json!(["source"]),
            json!(["0a000001"]),
        ),
        (
            "--src [1000::1]:1 --dst [1000::2]:80 --shm t",
            "tcp",
            json!(["source"]),
            json!(["10000000", "00000000", "00000000", "00000001"]),
        ),
        (
            "--src 10.0.0.1 --dst 10.0.0.2 --proto icmp --id 0",
            "echo",
            json!(["source", "destination", "protocol", "identifier"]),
            json!(["0a000001", "0a000002", "01000000", "00000000"]),
        ),
        (
            "--src 10.0.0.1 --dst 10.0.0.2 --proto 47",
            "other",
            json!(["source", "destination", "protocol"]),
            json!(["0a000001", "0a000002", "2f000000", "00000000"]),
        ),
    ] {
        let explained = room.json(&format!("explain {line}"));
        assert_eq!(explained["class"], class, "{line}");
        assert_eq!(explained["key"], json!({"of": "packet", "parts": parts, "words": words}));
    }
    let echo = room.json("explain --src 1000::1 --dst 1000::2 --proto icmp --id 258");
    assert_eq!(echo["headers"], json!(["IPv6 1000::1 -> 1000::2", "ICMPv6 echo, identifier 258"]));
    assert_eq!(echo["key"]["words"][9], "01020000");

    let inside = "4500 0028 0000 0000 4011 0000 0a00 0001 0a00 0002 1234 26ab 0014 0000 0fa0 0050 \
                  0000 0000 0000 0000";
    let explained = explain(&room, inside, "--shm t");
    assert_eq!(explained["class"], "sctp_in_udp");
    assert_eq!(
        explained["key"]["parts"],
        json!(["source", "destination", "protocol", "ports of SCTP inside"])
    );
}

/// An error leads where the packets go that the quoted one answered.
#[test]
fn an_icmp_error_has_the_key_of_what_it_quotes_the_other_way_round() {
    let room = Room::with(&["init", "activate 101 102 103"]);
    let error = "4500 0038 0000 0000 4001 0000 c000 0201 0a00 0002 0304 0000 0000 0500 \
                 4500 05dc 0000 4000 4006 0000 0a00 0002 0a00 0001 0050 0fa0 0000 0000";
    let explained = explain(&room, error, "");
    let found = room.json("lookup --src 10.0.0.1:4000 --dst 10.0.0.2:80");
    assert_eq!(explained["class"], "icmp_error");
    assert_eq!(explained["key"]["of"], "quoted packet");
    for key in ["hash", "slot", "mark"] {
        assert_eq!(explained[key], found[key]);
    }
    let run = run_with(&room, "explain --hex -", error.as_bytes());
    assert!(
        run.stdout.contains(
            "\nkey      source, destination, protocol, ports of the quoted packet, source and \
             destination swapped\n"
        ),
        "{run:?}"
    );
    assert!(
        run.stdout.starts_with(
            "headers  IPv4 192.0.2.1 -> 10.0.0.2, ICMP error 3 code 4, \
             quoted IPv4 10.0.0.2 -> 10.0.0.1, TCP 80 -> 4000\n"
        ),
        "{run:?}"
    );
}

#[test]
fn every_drop_has_its_reason() {
    let room = Room::with(&["init", "activate 101"]);
    let later = UDP.replacen("0000 0000 4011", "0000 0002 4011", 1);
    let first = UDP.replacen("0000 0000 4011", "0000 2000 4011", 1);
    for (hex, options, class, reason) in [
        ("45", "", "unreadable", "truncated"),
        ("55", "", "unreadable", "malformed"),
        (&later, "", "fragment", "early_fragment"),
        (&first[..UDP.len() - 15], "", "fragment", "first_too_short"),
        (&UDP[..UDP.len() - 15], "", "udp", "truncated"),
    ] {
        let explained = explain(&room, hex, options);
        assert_eq!((&explained["class"], &explained["dropped"]), (&json!(class), &json!(reason)));
        for key in ["key", "hash", "slot", "slot_mark", "mark"] {
            assert_eq!(explained[key], Value::Null, "{hex}");
        }
        assert!(explained["reason"].as_str().unwrap().len() > 10);
    }
    assert_eq!(
        room.ok("explain --hex 45"),
        "\
headers  IPv4: the packet ends inside a header
class    unreadable
dropped  truncated: the packet ends inside a header
plane    slow: it goes to the queue, because the packet ends inside a header
"
    );
    // Options push the ports out of what lb is given.
    let many =
        format!("4f00 0050 0000 0000 4011 0000 0a00 0001 0a00 0002 {} 0fa0 0050", "00".repeat(40));
    let options = format!("{many} {}", "00".repeat(16));
    let copied = explain(&room, &options, "--copy-range 64");
    assert_eq!((&copied["mark"], &copied["dropped"]), (&json!(101), &Value::Null));
    let hop_by_hop = format!(
        "6000 0000 0024 0040 {} {} 1103 0000 {} 0fa0 0050",
        "10000000000000000000000000000001",
        "10000000000000000000000000000002",
        "00".repeat(28)
    );
    let copied = explain(&room, &hop_by_hop, "--copy-range 64");
    assert_eq!(copied["dropped"], "not_copied");
    assert_eq!(
        copied["headers"][1],
        "hop-by-hop options: a header lies beyond the copied part of the packet"
    );
    assert_eq!(explain(&room, &hop_by_hop, "")["mark"], 101);
}

/// Packets that the kernel would have to think about go to the queue, and it is told why.
#[test]
fn every_packet_has_its_plane() {
    let room = Room::with(&["init --sctp-encap 9899", "activate 101"]);
    let fragment = UDP.replacen("0000 0000 4011", "0000 2000 4011", 1);
    let encapsulated = UDP.replacen("0fa0 0050", "0fa0 26ab", 1) + "0000 0000 0000 0000 0fa0 0050";
    let options = UDP.replacen("4500", "4600", 1) + "0fa0 0050";
    let v6 = |next: &str| {
        let address = "10000000000000000000000000000001";
        format!(
            "6000 0000 0010 {next} 40 {address} {address} 0600 0000 0000 0000 0fa0 0050 0000 0000"
        )
    };
    for (hex, why) in [
        (UDP, None),
        (&options, None),
        (&v6("06"), None),
        (&fragment, Some("it is a fragment")),
        (&v6("00"), Some("it has IPv6 extension headers")),
        (&v6("33"), Some("it has IPv6 extension headers")),
        (&v6("3a").replacen("0600", "8000", 1), None),
        (&v6("3a"), Some("it is neither TCP nor UDP nor SCTP nor an echo request")),
        (&encapsulated, Some("it is UDP to a port of --sctp-encap")),
    ] {
        let explained = explain(&room, hex, "");
        let plane = if why.is_some() { "slow" } else { "fast" };
        assert_eq!(
            (&explained["plane"], &explained["queued_because"]),
            (&json!(plane), &json!(why))
        );
    }
}

#[test]
fn without_an_active_target() {
    let room = Room::with(&["init", "activate 5 --weight 0"]);
    let line = "explain --src 10.0.0.1:1 --dst 10.0.0.2:2";
    let explained = room.json(line);
    assert_eq!((&explained["mark"], &explained["dropped"]), (&Value::Null, &json!("no_target")));
    assert!(explained["slot"].is_u64());
    assert!(room.ok(line).contains("\ndropped  no_target: no target is active\n"));
    assert_eq!(
        (&explained["plane"], &explained["queued_because"]),
        (&json!("slow"), &json!("no target is active"))
    );
    let line = format!("{line} --no-targets-mark 0x63");
    let explained = room.json(&line);
    assert_eq!(explained["mark"], 99);
    assert_eq!((&explained["slot_mark"], &explained["dropped"]), (&Value::Null, &Value::Null));
    assert!(room.ok(&line).contains("\nmark     99, because no target is active\nplane    fast: "));
    room.ok("activate 5 --weight 1");
    assert_eq!(room.json(&line)["mark"], 5);
}

#[test]
fn packets_that_cannot_be_made_or_read() {
    let room = Room::with(&["init --sctp-encap 9899"]);
    assert_eq!(
        room.fails("explain --src 10.0.0.1:1 --dst 10.0.0.2:9899 --proto udp"),
        "look up in table markway: UDP to port 9899 holds SCTP there; \
         ask with `--proto sctp` for the ports inside"
    );
    assert_eq!(
        room.fails("explain --hex 45xx"),
        "read packet: 'x', character 3, is no hexadecimal digit"
    );
    assert_eq!(
        room.fails("explain --hex 450"),
        "read packet: half a byte follows the 1 whole ones"
    );
    assert_eq!(room.fails("explain --hex -"), "read packet: there are no digits");
    let run = run_with(&room, "explain --hex -", &b"00".repeat(3 << 20));
    assert_eq!(run.code, Some(1));
    assert_eq!(run.stderr, "error: read stdin: it is longer than any packet\n");
    for (line, part) in [
        ("", "<--src <A:P>|--hex <DIGITS>|--pcap <FILE>>"),
        ("--src 10.0.0.1:1", "--dst <A:P>"),
        ("--src 10.0.0.1:1 --dst 10.0.0.2:2 --hex 45", "cannot be used with"),
        ("--hex 45 --pcap x", "cannot be used with"),
        ("--hex 45 --proto udp", "--src <A:P>"),
        ("--hex 45 --id 1", "--proto <PROTO>"),
        ("--hex 45 --copy-range 63", "63 is not in 64..=65535"),
        ("--hex 45 --no-targets-mark 0xffffffff", "it stands for an empty slot"),
        ("--src 10.0.0.1:1 --dst 10.0.0.2", "need the ports of --src and --dst"),
        ("--src 10.0.0.1:1 --dst [::1]:1", "of different families"),
        ("--src 10.0.0.1 --dst 10.0.0.2 --proto icmp", "needs its identifier: --id N"),
        ("--src 10.0.0.1:1 --dst 10.0.0.2:1 --proto gre", "a protocol number from 0 to 255"),
        ("--src 10.0.0.1:x --dst 10.0.0.2:1", "not of the form ADDRESS:PORT"),
        ("--src ::1 --dst ::2 --proto 60", "IPv6 extension header; give the packet as --hex"),
    ] {
        let error = room.refused(&format!("explain {line}"));
        assert!(error.contains(part), "{line}: {error}");
    }
}

// ---- Captures

#[test]
fn every_packet_of_a_capture() {
    let room = Room::with(&["init --seed 0x12345678", "activate 101"]);
    let udp = bytes(UDP);
    let link = bytes("ffffffffffff 020000000001");
    let ip = [&link, bytes("0800").as_slice(), &udp, &[0; 18]].concat(); // padded
    let tagged = [&link, bytes("8100 0005 0800").as_slice(), &udp].concat();
    let arp = [&link, bytes("0806 0001").as_slice()].concat();
    // The capture ends behind the ports; the packet did not.
    let snapped = &ip[..38];
    let short = &ip[..36];
    let packets: [(&[u8], usize); 6] =
        [(&ip, 60), (&arp, 42), (&tagged, 46), (snapped, 1514), (short, 1514), (&ip[..5], 60)];
    let file = pcap(1, &packets);
    fs::write(room.path("x.pcap"), &file).unwrap();
    let path = room.path("x.pcap").display().to_string();

    let text = "IPv4 10.0.0.1 -> 10.0.0.2, UDP 4000 -> 80: mark 101; fast plane\n    \
                key source, destination, protocol, ports: 0a000001 0a000002 11000000 0fa00050; \
                hash 0x1d371cac; slot 113\n";
    let expected = format!(
        "1: udp: {text}2: not IP: EtherType 0x0806\n3: udp: {text}4: udp: {text}\
         5: udp: IPv4 10.0.0.1 -> 10.0.0.2, UDP: a header lies beyond the copied part of the packet: \
         dropped not_copied: a header lies beyond the copied part of the packet; slow plane\n\
         6: it ends inside its link header\n\
         6 packets: 3 marked, 1 dropped (1 not_copied), 2 passed over\n"
    );
    assert_eq!(room.ok(&format!("explain --pcap {path}")), expected);
    let run = run_with(&room, "explain --pcap -", &file);
    assert_eq!((run.code, run.stdout), (Some(0), expected));

    let lines: Vec<Value> = room
        .ok(&format!("explain --pcap {path} --json"))
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 6);
    let single = explain(&room, UDP, "");
    for (number, offset, length) in [(1, 24, 60), (3, 132, 46), (4, 194, 1514)] {
        let mut expected = json!({"packet": number, "offset": offset, "length": length});
        expected.as_object_mut().unwrap().extend(single.as_object().unwrap().clone());
        assert_eq!(lines[number - 1], expected);
    }
    assert_eq!(
        lines[1],
        json!({"packet": 2, "offset": 100, "length": 42, "skipped": "not IP: EtherType 0x0806"})
    );
    assert_eq!(lines[4]["dropped"], "not_copied");
}

#[test]
fn fragments_of_a_capture_follow_the_first() {
    let room = Room::with(&["init --seed 0x12345678", "activate 101 102 103"]);
    let fragment = |flags: &str| bytes(&UDP.replacen("0000 0000 4011", flags, 1));
    let (first, later) = (fragment("0007 2000 4011"), fragment("0007 0002 4011"));
    let other = fragment("0008 0002 4011");
    let packets = [&later, &first, &later, &other].map(|packet| (&packet[..], packet.len()));
    let file = pcap(101, &packets);
    fs::write(room.path("x.pcap"), &file).unwrap();
    let path = room.path("x.pcap").display().to_string();
    let lines: Vec<Value> = room
        .ok(&format!("explain --pcap {path} --json"))
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let whole = explain(&room, UDP, "");
    assert!(whole["mark"].is_u64());
    for (line, mark, dropped) in [
        (0, &Value::Null, json!("early_fragment")),
        (1, &whole["mark"], Value::Null),
        (2, &whole["mark"], Value::Null),
        (3, &Value::Null, json!("early_fragment")),
    ] {
        assert_eq!((&lines[line]["mark"], &lines[line]["dropped"]), (mark, &dropped), "{line}");
    }
    assert_eq!((&lines[1]["slot"], &lines[2]["slot"]), (&whole["slot"], &Value::Null));
    let text = room.ok(&format!("explain --pcap {path}"));
    assert!(text.contains(", that of the first fragment of its datagram;"), "{text}");
}

#[test]
fn a_malformed_capture_is_told_after_what_could_be_read() {
    let room = Room::with(&["init", "activate 101"]);
    let udp = bytes(UDP);
    let file = pcap(101, &[(&udp, 28), (&udp, 28)]);
    for cut in 0..file.len() {
        let run = run_with(&room, "explain --pcap - --json", &file[..cut]);
        let complete = cut.saturating_sub(24) / 44;
        assert_eq!(run.stdout.lines().count(), complete, "{cut}");
        if cut >= 24 && (cut - 24) % 44 == 0 {
            assert_eq!((run.code, &*run.stderr), (Some(0), ""), "{cut}");
        } else {
            assert_eq!(run.code, Some(1), "{cut}");
            let error = run.stderr.strip_prefix("error: read stdin: offset ").unwrap();
            assert!(error.contains(": the file ends inside "), "{cut}: {error}");
        }
    }
    assert_eq!(
        run_with(&room, "explain --pcap -", b"no capture at all").stderr,
        "error: read stdin: offset 0: neither pcap nor pcapng: it begins with 0x6e6f2063\n"
    );
    assert_eq!(
        room.fails("explain --pcap /nowhere/x"),
        "read /nowhere/x: No such file or directory (os error 2)"
    );
    assert!(room.fails("explain --pcap /proc").starts_with("read /proc: "));
}

/// A capture that is still being written is explained as it comes.
#[test]
fn a_live_capture_is_explained_at_once() {
    let room = Room::with(&["init", "activate 101"]);
    let udp = bytes(UDP);
    let file = pcap(101, &[(&udp, 28)]);
    let mut child = room
        .command("explain --pcap -")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    stdin.write_all(&file[..24]).unwrap();
    for number in 1..=3 {
        stdin.write_all(&file[24..]).unwrap();
        let line = lines.next().unwrap().unwrap();
        assert!(line.starts_with(&format!("{number}: udp: ")), "{line}");
        assert!(lines.next().unwrap().unwrap().starts_with("    key "));
    }
    drop(stdin);
    let line = lines.next().unwrap().unwrap();
    assert_eq!(line, "3 packets: 3 marked, 0 dropped, 0 passed over");
    assert!(child.wait().unwrap().success());
}

// ---- Tiers

/// The first fragment of a datagram from 10.0.0.1 to 10.0.0.2, and a later one.
const FRAGMENTS: [&str; 2] = [
    "4500 001c 0007 2000 4011 0000 0a00 0001 0a00 0002 0fa0 0050 0008 0000",
    "4500 001c 0007 0001 4011 0000 0a00 0001 0a00 0002 eeee eeee eeee eeee",
];

#[test]
fn a_fragment_goes_to_its_router_and_a_whole_packet_does_not() {
    let room = Room::with(&["init", "activate 101", "init --shm one --own-mark 201"]);
    for line in [
        "activate --shm one 201 202",
        "init --shm two --own-mark 202",
        "activate --shm two 202 201",
    ] {
        room.ok(line);
    }
    for (at, hex) in FRAGMENTS.iter().enumerate() {
        let [one, two] =
            ["one", "two"].map(|tier| explain(&room, hex, &format!("--tier-shm {tier}")));
        assert_eq!(one["tier"]["slot"], two["tier"]["slot"]);
        assert_eq!(one["tier"]["slot_mark"], two["tier"]["slot_mark"]);
        let (here, there) = match one["tier"]["handled"] == "here" {
            true => (&one, &two),
            false => (&two, &one),
        };
        assert_eq!(
            (&here["tier"]["handled"], &there["tier"]["handled"]),
            (&json!("here"), &json!("elsewhere"))
        );
        assert_eq!(there["mark"], there["tier"]["slot_mark"]);
        let alone = explain(&room, hex, "");
        assert_eq!((&here["mark"], &here["dropped"]), (&alone["mark"], &alone["dropped"]));
        assert_eq!(alone["mark"].is_null(), at > 0, "a later one alone is too early");
    }
    assert!(explain(&room, UDP, "--tier-shm one")["tier"].is_null());

    let text = run_with(&room, "explain --hex - --lbshm two", FRAGMENTS[1].as_bytes()).stdout;
    assert!(text.contains("tier     addresses, hash 0x"), "{text}");
    let run = run_with(&room, "explain --hex - --tier-shm markway", UDP.as_bytes());
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("init --own-mark MARK"), "{}", run.stderr);
}
