//! Several paths, and what becomes of them.

use std::collections::HashSet;

use sctp_stack::{Event, PathChange, PathState};

use crate::network::{FAR, NEAR, Net, all_active, expect, message, on_both_stacks};

on_both_stacks!(all_paths_are_used, a_cut_path_goes_down_and_comes_back, the_primary_is_set);

/// Every path becomes active, and each goes over its own link, from the address of that link.
fn all_paths_are_used(net: &mut Net) {
    let mut peer = net.peer();
    // What comes from the other link's address is counted.
    peer.sh("nft 'add table inet t
        add chain inet t c { type filter hook input priority 0; }
        add counter inet t wrong
        add rule inet t c iifname far1 ip saddr 10.2.0.1 counter name wrong drop
        add rule inet t c iifname far2 ip saddr 10.1.0.1 counter name wrong drop
        add rule inet t c iifname far1 ip6 saddr fd02::1 counter name wrong drop
        add rule inet t c iifname far2 ip6 saddr fd01::1 counter name wrong drop'");
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
    peer.sh("nft list counter inet t wrong | grep -q 'packets 0 '");
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
