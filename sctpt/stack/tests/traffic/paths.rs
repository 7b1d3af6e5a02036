//! Several paths, and what becomes of them.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use sctp_stack::{Addresses, Association, Choice, Event, Heartbeats, Path, PathChange, PathState};

use crate::network::{
    FAR, NEAR, Net, PORT, all_active, expect, in_time, message, on_both_stacks, sh,
};

on_both_stacks!(
    all_paths_are_used,
    a_cut_path_goes_down_and_comes_back,
    the_primary_is_set,
    heartbeats_are_counted,
    any_address_may_be_the_first,
    the_other_family_may_be_dead,
);

/// Counts and drops what comes in by a link from the other link's address of the end with this number.
fn count_wrong(links: &str, end: u8) -> String {
    let rules = [(1, 2), (2, 1)].map(|(link, other)| {
        format!(
            "add rule inet t c iifname {links}{link} ip saddr 10.{other}.0.{end} counter name wrong drop
             add rule inet t c iifname {links}{link} ip6 saddr fd0{other}::{end} counter name wrong drop"
        )
    });
    format!(
        "nft 'add table inet t
         add chain inet t c {{ type filter hook input priority 0; }}
         add counter inet t wrong
         {}'",
        rules.join("\n")
    )
}

/// Every path becomes active, and each goes over its own link, from the address of that link.
fn all_paths_are_used(net: &mut Net) {
    let mut peer = net.peer();
    // What comes from the other link's address is counted, the answer to the first packet with it.
    peer.sh(&count_wrong("far", 1));
    sh(&count_wrong("near", 2));
    peer.echo(&FAR.join(","));
    let association = net.connect(&NEAR.join(","), &FAR.join(",")).unwrap();
    all_active(&*association);
    assert_eq!(association.paths().unwrap().len(), 4);
    let mut buffer = vec![0; 1_000];
    // Each in turn carries messages.
    for address in FAR {
        association.set_primary(address.parse().unwrap()).unwrap();
        association.send(&[3; 3], 0).unwrap();
        assert_eq!(message(&*association, &mut buffer), 3);
    }
    const NONE: &str = "nft list counter inet t wrong | grep -q 'packets 0 '";
    peer.sh(NONE);
    sh(NONE);
}

fn a_cut_path_goes_down_and_comes_back(net: &mut Net) {
    let mut peer = net.peer();
    peer.echo(&FAR[..2].join(","));
    let association = net.connect(&NEAR[..2].join(","), &FAR[..2].join(",")).unwrap();
    let cut = FAR[1].parse().unwrap();
    let changed = |wanted: PathChange| {
        move |event: &Event| *event == Event::Path { address: cut, change: wanted }
    };
    all_active(&*association);
    peer.sh("nft 'add table inet t
        add chain inet t c { type filter hook input priority 0; }
        add rule inet t c iifname far2 drop'");
    expect(&*association, changed(PathChange::Down));
    let states: HashSet<_> = association
        .paths()
        .unwrap()
        .iter()
        .map(|path| (path.address.ip(), path.state == PathState::Active))
        .collect();
    assert_eq!(states, [(FAR[0].parse().unwrap(), true), (cut, false)].into());
    // The other one carries on.
    association.send(&[1; 9], 0).unwrap();
    assert_eq!(message(&*association, &mut vec![0; 1_000]), 9);
    peer.sh("nft flush chain inet t c");
    expect(&*association, changed(PathChange::Up));
}

fn the_primary_is_set(net: &mut Net) {
    let mut peer = net.peer();
    peer.echo(&FAR.join(","));
    let association = net.connect(&NEAR.join(","), &FAR.join(",")).unwrap();
    all_active(&*association);
    for address in [FAR[3], FAR[1], FAR[0]] {
        let address = address.parse().unwrap();
        association.set_primary(address).unwrap();
        let paths = association.paths().unwrap();
        let primary = paths.iter().find(|path| path.primary).unwrap();
        assert_eq!(primary.address.ip(), address);
    }
    let error = association.set_primary("192.0.2.1".parse().unwrap()).unwrap_err().to_string();
    assert!(error.starts_with("set primary path 192.0.2.1: "), "{error}");
}

/// Every path is probed, by both ends; what is cut has no answers; a new association begins anew.
fn heartbeats_are_counted(net: &mut Net) {
    let mut peer = net.peer();
    peer.echo(&FAR[..2].join(","));
    let connect = |port| {
        let local = Addresses::parse(&NEAR[..2].join(","), port).unwrap();
        let remote = Addresses::parse(&FAR[..2].join(","), PORT).unwrap();
        let association = net.stack.connect(&local, &remote, &net.settings, in_time()).unwrap();
        all_active(&*association);
        association
    };
    let counts = |association: &dyn Association| -> Vec<Option<Heartbeats>> {
        let paths = association.paths().unwrap();
        let of = |far: &str| {
            let path = paths.iter().find(|path| path.address.ip().to_string() == far);
            path.unwrap().heartbeats
        };
        FAR[..2].iter().map(|far| of(far)).collect()
    };
    let association = connect(PORT + 1);
    if net.choice == Choice::Kernel {
        assert_eq!(counts(&*association), [None, None]);
        return;
    }
    let heartbeats = |association: &dyn Association| -> Vec<Heartbeats> {
        counts(association).into_iter().flatten().collect()
    };
    let wait_for = |condition: &dyn Fn(&[Heartbeats]) -> bool| {
        let deadline = in_time();
        let mut buffer = vec![0; sctp_stack::MAX_MESSAGE];
        loop {
            let seen = heartbeats(&*association);
            assert_eq!(seen.len(), 2);
            if condition(&seen) {
                return seen;
            }
            assert!(Instant::now() < deadline, "{seen:?}");
            let soon = Instant::now() + Duration::from_millis(20);
            association.receive(&mut buffer, Some(soon)).unwrap();
        }
    };
    // The peer probes the address that the association did not begin with.
    let seen = wait_for(&|seen| {
        let answered = seen.iter().all(|path| path.acks_received >= 3);
        answered && seen.iter().any(|path| path.received > 0 && path.acks_sent > 0)
    });
    let sound =
        |path: &Heartbeats| path.acks_received <= path.sent && path.acks_sent <= path.received;
    assert!(seen.iter().all(sound), "{seen:?}");
    peer.sh("nft 'add table inet t
        add chain inet t c { type filter hook input priority 0; }
        add rule inet t c iifname far2 drop'");
    // What was under way has come when heartbeats are lost.
    let before = wait_for(&|seen| seen[1].sent >= seen[1].acks_received + 2);
    let after = wait_for(&|seen| {
        seen[1].sent >= before[1].sent + 2 && seen[0].acks_received >= before[0].acks_received + 2
    });
    assert_eq!(after[1].acks_received, before[1].acks_received);
    peer.sh("nft flush chain inet t c");
    association.close(in_time()).unwrap();
    drop(association);
    let anew = heartbeats(&*connect(PORT + 1));
    assert!(anew[1].sent < after[1].sent, "{anew:?} after {after:?}");
}

/// Of either family, private or public: all paths are there, and the first one named is in use.
fn any_address_may_be_the_first(net: &mut Net) {
    const PUBLIC: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
    let mut peer = net.peer();
    sh(&format!("ip addr add {}/24 dev near1", PUBLIC[0]));
    peer.sh(&format!("ip addr add {}/24 dev far1", PUBLIC[1]));
    peer.echo(&[&FAR[..], &PUBLIC[1..]].concat().join(","));
    for (local, remote) in [
        (vec![NEAR[2], NEAR[0]], vec![FAR[2], FAR[0]]),
        (vec![NEAR[0], NEAR[3]], vec![FAR[3], FAR[0]]),
        (vec![PUBLIC[0], NEAR[1]], vec![PUBLIC[1], FAR[1]]),
        (
            vec![NEAR[3], NEAR[2], PUBLIC[0], NEAR[1], NEAR[0]],
            vec![FAR[3], FAR[2], PUBLIC[1], FAR[1], FAR[0]],
        ),
    ] {
        let association = net.connect(&local.join(","), &remote.join(",")).unwrap();
        let paths = association.paths().unwrap();
        let primary: Vec<_> =
            paths.iter().filter(|path| path.primary).map(|path| path.address.ip()).collect();
        assert_eq!(primary, [remote[0].parse::<IpAddr>().unwrap()], "{paths:?}");
        let mut buffer = vec![0; 1_000];
        let deadline = in_time();
        let is_active = |paths: &[Path], address: &str| {
            let mut paths = paths.iter().filter(|path| path.state == PathState::Active);
            paths.any(|path| path.address.ip().to_string() == address)
        };
        loop {
            let paths = association.paths().unwrap();
            if remote.iter().all(|address| is_active(&paths, address)) {
                break;
            }
            assert!(Instant::now() < deadline, "{remote:?}: {paths:?}");
            let soon = Instant::now() + Duration::from_millis(20);
            association.receive(&mut buffer, Some(soon)).unwrap();
        }
        for address in &remote {
            association.set_primary(address.parse().unwrap()).unwrap();
            association.send(&[3; 3], 0).unwrap();
            assert_eq!(message(&*association, &mut buffer), 3);
        }
        association.close(in_time()).unwrap();
    }
}

/// An association comes up over the first address that answers.
fn the_other_family_may_be_dead(net: &mut Net) {
    let mut peer = net.peer();
    peer.echo(&FAR.join(","));
    peer.sh("nft 'add table inet t
        add chain inet t c { type filter hook input priority 0; }
        add rule inet t c iifname far1 drop'");
    for (local, remote) in
        [([NEAR[3], NEAR[0]], [FAR[3], FAR[0]]), ([NEAR[2], NEAR[1]], [FAR[2], FAR[1]])]
    {
        let association = net.connect(&local.join(","), &remote.join(",")).unwrap();
        association.send(&[1; 9], 0).unwrap();
        assert_eq!(message(&*association, &mut vec![0; 1_000]), 9);
    }
}
