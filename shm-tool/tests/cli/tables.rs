//! What the verbs do and show when all is well.

use serde_json::{Value, json};

use crate::room::Room;

// ---- init, show

#[test]
fn a_new_table_has_the_defaults_and_no_targets() {
    let room = Room::new();
    assert_eq!(room.ok("init"), "");
    assert_eq!(room.names(), ["markway"]);
    let mut shown = room.json("show");
    let fingerprint = shown["fingerprint"].take();
    assert_eq!(
        shown,
        json!({
            "name": "markway", "m": 997, "n": 32, "own_mark": 0, "seed": 0x4d57_4159,
            "sctp_hash": "ports", "affinity": "flow", "sctp_encap": [], "generation": 1, "fingerprint": null, "evenness": null,
            "targets": [],
        })
    );
    let fingerprint = fingerprint.as_str().unwrap();
    assert_eq!(
        room.ok("show"),
        format!(
            "\
table        markway
slots (M)    997
room (N)     32 targets
own mark     none
seed         0x4d574159
SCTP hash    ports
SCTP in UDP  none
affinity     flow
generation   1
fingerprint  {fingerprint}
evenness     no active target

no targets
"
        )
    );
}

#[test]
fn what_is_said_is_in_the_table() {
    let room = Room::with(&[
        "init --shm tier2 --m 65537 --n 200 --own-mark 0x10 --seed 0xfeed --sctp-hash tuple \
         --affinity client --sctp-encap 9899,4500",
        "activate --shm tier2 7",
    ]);
    let mut shown = room.json("show --shm tier2");
    let fingerprint = shown["fingerprint"].take();
    assert_eq!(
        shown,
        json!({
            "name": "tier2", "m": 65537, "n": 200, "own_mark": 16, "seed": 0xfeed,
            "sctp_hash": "tuple", "affinity": "client", "sctp_encap": [4500, 9899], "generation": 2, "fingerprint": null, "evenness": 1.0,
            "targets": [{"mark": 7, "weight": 1, "index": 0, "slots": 65537, "share": 1.0}],
        })
    );
    let digits = fingerprint.as_str().unwrap().strip_prefix("0x").unwrap();
    assert!(digits.len() == 16 && u64::from_str_radix(digits, 16).is_ok());
    assert_eq!(
        room.ok("show --shm tier2"),
        format!(
            "\
table        tier2
slots (M)    65537
room (N)     200 targets
own mark     16
seed         0x0000feed
SCTP hash    tuple
SCTP in UDP  to port 4500, 9899
affinity     client
generation   2
fingerprint  0x{digits}
evenness     100.00 %

index  mark  weight  slots     share     ideal
    0     7       1  65537  100.00 %  100.00 %
"
        )
    );
}

#[test]
fn an_m_that_is_not_prime_goes_to_the_prime_below_and_says_so() {
    let room = Room::new();
    assert_eq!(room.ok("init --m 1000"), "M adjusted: 1000 -> 997\n");
    assert_eq!(room.ok("init --m 1000004"), "M adjusted: 1000004 -> 1000003\n");
    assert_eq!(room.json("show")["m"], 1_000_003);
    assert_eq!(room.ok("init --m 4 --n 3"), "M adjusted: 4 -> 3\n");
    assert_eq!(room.ok("init --m 997"), "");
}

#[test]
fn shares_follow_weights() {
    let room = Room::with(&["init", "activate 101 102", "activate 103 --weight 2"]);
    room.ok("activate 104 --weight 0");
    let shown = room.json("show");
    let targets = shown["targets"].as_array().unwrap();
    let slots: Vec<u64> = targets.iter().map(|target| target["slots"].as_u64().unwrap()).collect();
    assert_eq!(slots.iter().sum::<u64>(), 997);
    assert_eq!(slots[3], 0);
    for (target, ideal) in targets.iter().zip([0.25, 0.25, 0.5, 0.0]) {
        let share = target["share"].as_f64().unwrap();
        assert!((share - ideal).abs() < 0.002, "{target}");
        assert_eq!(share, target["slots"].as_f64().unwrap() / 997.0);
    }
    let evenness = shown["evenness"].as_f64().unwrap();
    assert!((0.99..=1.0).contains(&evenness), "{evenness}");
    let text = room.ok("show");
    assert_eq!(text.matches("  50.00 %\n").count(), 1, "{text}");
    assert_eq!(text.matches("  25.00 %\n").count(), 2, "{text}");
    assert!(text.ends_with("3   104       0      0   0.00 %   0.00 %\n"));
}

// ---- activate, deactivate

#[test]
fn marks_are_decimal_or_hexadecimal_and_take_the_first_free_index() {
    let room = Room::with(&["init", "activate 0x65 0 103", "deactivate 0x0"]);
    assert_eq!(room.targets("markway"), [(0, 101, 1), (2, 103, 1)]);
    room.ok("activate 0xfffffffe 9");
    assert_eq!(room.targets("markway"), [(0, 101, 1), (1, 0xffff_fffe, 1), (2, 103, 1), (3, 9, 1)]);
    room.ok("deactivate 9 9 101");
    room.ok("deactivate --index 1");
    assert_eq!(room.targets("markway"), [(2, 103, 1)]);
}

#[test]
fn a_present_mark_changes_its_weight_or_index_and_keeps_the_other() {
    let room = Room::with(&["init", "activate 101 102"]);
    room.ok("activate 101 --weight 5");
    assert_eq!(room.targets("markway"), [(0, 101, 5), (1, 102, 1)]);
    assert_eq!(room.ok("activate 101 --index 7"), "");
    assert_eq!(room.targets("markway"), [(1, 102, 1), (7, 101, 5)]);
    room.ok("activate 101 102 103 --weight 65535");
    assert_eq!(room.targets("markway"), [(0, 103, 65535), (1, 102, 65535), (7, 101, 65535)]);
}

#[test]
fn a_replaced_target_is_named() {
    let room = Room::with(&["init", "activate 101 102 103 104"]);
    assert_eq!(room.ok("activate 105 --index 3"), "index 3: mark 104 replaced by 105\n");
    assert_eq!(room.ok("activate 101 --index 3 --weight 2"), "index 3: mark 105 replaced by 101\n");
    assert_eq!(room.ok("activate 101 --index 3"), "");
    assert_eq!(room.targets("markway"), [(1, 102, 1), (2, 103, 1), (3, 101, 2)]);
}

#[test]
fn a_change_is_one_publication_and_no_change_is_none() {
    let room = Room::with(&["init", "activate 101 102 103"]);
    assert_eq!(room.generation("markway"), 2);
    let before = room.files();
    room.ok("activate 101 102 103");
    room.ok("activate 102 --weight 1");
    room.ok("activate 102 --index 1");
    assert!(room.files() == before);
    room.ok("deactivate 101 102 103");
    assert_eq!(room.generation("markway"), 3);
}

#[test]
fn the_fingerprint_depends_on_the_set_and_not_on_its_history() {
    let room = Room::with(&[
        "init --shm a",
        "activate --shm a 101 102",
        "activate --shm a 103 --weight 2",
        "init --shm b --n 9 --own-mark 3",
        "activate --shm b 103 --weight 7 --index 8",
        "activate --shm b 55 102",
        "activate --shm b 101",
        "deactivate --shm b 55",
        "activate --shm b 103 --weight 2",
        "activate --shm b 99 --weight 0",
    ]);
    let same = room.fingerprint("a");
    assert_eq!(same, room.fingerprint("b"));
    room.ok("activate --shm b 101 --weight 2");
    assert_ne!(same, room.fingerprint("b"));
    room.ok("init --shm c --seed 1");
    room.ok("activate --shm c 101 102");
    room.ok("activate --shm c 103 --weight 2");
    assert_ne!(same, room.fingerprint("c"));
}

// ---- init over a table, delete

#[test]
fn keep_carries_over_targets_and_what_no_option_changes() {
    let room = Room::with(&[
        "init --m 101 --n 4 --own-mark 9 --seed 7 --sctp-hash tuple --affinity client --sctp-encap 9899",
        "activate 11 12",
        "activate 12 --weight 3 --index 3",
    ]);
    let before = room.targets("markway");
    let (generation, fingerprint) = (room.generation("markway"), room.fingerprint("markway"));
    room.ok("init --keep --n 40");
    let shown = room.json("show");
    assert_eq!(room.targets("markway"), before);
    assert!(room.generation("markway") > generation);
    assert_eq!(room.fingerprint("markway"), fingerprint);
    for (key, value) in [
        ("m", json!(101)),
        ("n", json!(40)),
        ("own_mark", json!(9)),
        ("seed", json!(7)),
        ("sctp_hash", json!("tuple")),
        ("affinity", json!("client")),
        ("sctp_encap", json!([9899])),
    ] {
        assert_eq!(shown[key], value, "{key}");
    }

    assert_eq!(
        room.ok("init --keep --m 1000 --seed 0x8 --sctp-hash ports --own-mark 0 --affinity flow \
             --sctp-encap 0"),
        "M adjusted: 1000 -> 997\n"
    );
    let shown = room.json("show");
    assert_eq!(room.targets("markway"), before);
    for (key, value) in [
        ("m", json!(997)),
        ("n", json!(40)),
        ("own_mark", json!(0)),
        ("seed", json!(8)),
        ("sctp_hash", json!("ports")),
        ("affinity", json!("flow")),
        ("sctp_encap", json!([])),
    ] {
        assert_eq!(shown[key], value, "{key}");
    }
    // Smaller, with just the room that the targets need.
    room.ok("init --keep --n 4");
    assert_eq!(room.targets("markway"), before);
    assert_eq!(room.names(), ["markway"]);
}

#[test]
fn keep_and_force_make_a_table_where_there_is_none() {
    let room = Room::with(&["init --shm a --keep --n 5", "init --shm b --force"]);
    assert_eq!(room.json("show --shm a")["n"], 5);
    assert_eq!(room.json("show --shm b")["n"], 32);
}

#[test]
fn force_makes_the_table_anew_with_the_defaults() {
    let room = Room::with(&["init --m 101 --n 4 --seed 7", "activate 11 12", "init --force --n 5"]);
    let shown = room.json("show");
    assert_eq!(
        (&shown["m"], &shown["n"], &shown["seed"], &shown["targets"]),
        (&json!(997), &json!(5), &json!(0x4d57_4159), &json!([]))
    );
    // Nobody's targets are lost here: no word is needed.
    room.ok("init --m 101");
    assert_eq!(room.json("show")["n"], 32);
    assert_eq!(room.generation("markway"), 4);
}

#[test]
fn delete_removes_the_table_and_nothing_else() {
    let room = Room::with(&["init", "activate 1", "init --shm other", "delete"]);
    assert_eq!(room.names(), ["other"]);
    room.ok("delete --shm other");
    assert_eq!(room.names(), [""; 0]);
}

// ---- list

#[test]
fn all_tables_are_listed_with_the_reason_where_one_is_damaged() {
    let room = Room::new();
    let empty = format!("no tables in {}\n", room.dir().display());
    assert_eq!(room.ok("list"), empty);
    assert_eq!(room.json("list"), json!([]));

    for line in [
        "init --shm beta",
        "activate --shm beta 1 2 3",
        "init --shm alpha --m 65537 --n 8",
        "init --shm gone-bad",
        "init --shm other-release",
        "init --shm slots-bad",
        "activate --shm slots-bad 1",
    ] {
        room.ok(line);
    }
    room.edit("gone-bad", |bytes| bytes[24] ^= 1);
    room.edit("other-release", |bytes| bytes[8] = 9);
    room.edit("slots-bad", |bytes| bytes[4096 + 2 * 4 + 32 * 8] ^= 2);
    std::fs::write(room.path("foreign"), "not a table").unwrap();

    let (alpha, beta) = (room.fingerprint("alpha"), room.fingerprint("beta"));
    let other = "layout version 9, this program reads version 1; use programs of one release, \
                 or make the table anew with `init --force`";
    let header = "damaged table: the header does not match its check word";
    let slots = "damaged table: the slots do not match the fingerprint";
    assert_eq!(
        room.json("list"),
        json!([
            {"name": "alpha", "m": 65537, "n": 8, "targets": 0, "generation": 1, "fingerprint": alpha},
            {"name": "beta", "m": 997, "n": 32, "targets": 3, "generation": 2, "fingerprint": beta},
            {"name": "gone-bad", "error": header},
            {"name": "other-release", "error": other},
            {"name": "slots-bad", "error": slots},
        ])
    );
    assert_eq!(
        room.ok("list"),
        format!(
            "\
name               M   N  targets  generation         fingerprint
alpha          65537   8        0           1  {alpha}
beta             997  32        3           2  {beta}
gone-bad       {header}
other-release  {other}
slots-bad      {slots}
"
        )
    );
}

// ---- lookup

/// Hashes as the kernel's nft `jhash` expression gave them (Linux 6.18), with this seed.
#[test]
fn a_flow_has_the_hash_that_the_kernel_gives_it() {
    let room = Room::with(&["init --seed 0x12345678", "activate 101 102"]);
    let (v4, v6) = (["10.0.0.1", "10.0.0.2"], ["[1000::1]", "[1000::2]"]);
    for ([source, destination], port, proto, hash) in [
        (v4, 4000, "udp", 0x1d37_1cac_u64),
        (v4, 4001, "UDP", 0xaa4c_9969),
        (v4, 4000, "tcp", 0xe9e7_9f85),
        (v4, 4001, "tcp", 0x861a_efa7),
        (v6, 4000, "udp", 0x10bc_33ef),
        (v6, 4001, "udp", 0x2b97_3547),
        (v6, 4000, "tcp", 0x6908_525e),
        (v6, 4001, "tcp", 0xff91_8fab),
        (v4, 4000, "sctp", 0x9eb3_199f),
        (v6, 4001, "sctp", 0x7722_f0c8),
    ] {
        let line = format!("lookup --src {source}:{port} --dst {destination}:80 --proto {proto}");
        let found = room.json(&line);
        let slot = (hash * 997) >> 32;
        assert_eq!(found["hash"], hash, "{line}");
        assert_eq!(found["slot"], slot, "{line}");
        let mark = found["mark"].as_u64().unwrap();
        assert!([101, 102].contains(&mark), "{line}");
        assert_eq!(room.ok(&line), format!("hash  {hash:#010x}\nslot  {slot}\nmark  {mark}\n"));
    }
}

#[test]
fn tcp_is_the_protocol_of_a_lookup_and_sctp_goes_by_the_mode_of_the_table() {
    let room = Room::with(&["init", "init --shm tuple --sctp-hash tuple"]);
    let lookup = |rest: &str| {
        let found = room.json(&format!("lookup --dst 10.0.0.2:80 {rest}"));
        found["hash"].as_u64().unwrap()
    };
    assert_eq!(lookup("--src 10.0.0.1:4000"), lookup("--src 10.0.0.1:4000 --proto tcp"));
    let (one, other) = ("--src 10.0.0.1:4000 --proto sctp", "--src 10.9.9.9:4000 --proto sctp");
    assert_eq!(lookup(one), lookup(other));
    let tuple = |rest: &str| lookup(&format!("{rest} --shm tuple"));
    assert_ne!(tuple(one), tuple(other));
}

#[test]
fn with_client_affinity_the_source_alone_counts() {
    let room = Room::with(&["init --affinity client"]);
    let lookup = |flow: &str| room.json(&format!("lookup {flow}"))["hash"].as_u64().unwrap();
    let one = lookup("--src 10.0.0.1:1 --dst 10.0.0.2:80");
    assert_eq!(one, lookup("--src 10.0.0.1:9 --dst 10.0.0.3:443 --proto udp"));
    assert_ne!(one, lookup("--src 10.0.0.4:1 --dst 10.0.0.2:80"));
    assert_ne!(one, lookup("--src 10.0.0.1:1 --dst 10.0.0.2:80 --proto sctp"));
}

#[test]
fn sctp_in_udp_is_not_taken_for_udp() {
    let room = Room::with(&["init --sctp-encap 9899"]);
    assert_eq!(
        room.fails("lookup --src 10.0.0.1:9899 --dst 10.0.0.2:9899 --proto udp"),
        "look up in table markway: UDP to port 9899 holds SCTP there; \
         ask with `--proto sctp` for the ports inside"
    );
    room.ok("lookup --src 10.0.0.1:9899 --dst 10.0.0.2:53 --proto udp");
    room.ok("lookup --src 10.0.0.1:9899 --dst 10.0.0.2:9899 --proto tcp");
}

#[test]
fn without_an_active_target_a_lookup_finds_none() {
    let room = Room::with(&["init", "activate 5 --weight 0"]);
    let line = "lookup --src 10.0.0.1:1 --dst 10.0.0.2:2";
    assert_eq!(room.json(line)["mark"], Value::Null);
    let text = room.ok(line);
    assert!(text.ends_with("mark  none: no target is active\n"), "{text}");
}

#[test]
fn lookups_meet_every_target_and_follow_a_change() {
    let room = Room::with(&["init", "activate 101 102"]);
    let marks = || -> Vec<u64> {
        let line = |port| format!("lookup --src 10.0.0.1:{port} --dst 10.0.0.2:80");
        let marks = (4000..4040).map(|port| room.json(&line(port))["mark"].as_u64().unwrap());
        marks.collect()
    };
    let before = marks();
    assert!(before.contains(&101) && before.contains(&102));
    room.ok("deactivate 101");
    assert_eq!(marks(), [102; 40]);
    room.ok("activate 101 --index 9");
    assert_eq!(marks(), before);
}
