//! Messages there and back.

use sctp_stack::{Choice, Error, KernelStack, MAX_MESSAGE, Sent};

use crate::network::{
    FAR, NEAR, Net, PORT, expect, in_time, message, on_both_stacks, run, skipped,
};

on_both_stacks!(
    by_ipv4,
    by_ipv6,
    by_all_paths,
    in_udp,
    with_addresses_of_a_load_balancer,
    longest_messages_stay_whole_and_in_order,
    too_short_a_buffer,
    narrow_links,
    bad_messages_are_refused,
);

#[test]
fn the_stacks_talk_to_each_other() {
    if let Err(missing) = KernelStack.check(None) {
        return skipped("the_stacks_talk_to_each_other", &missing);
    }
    // In UDP: a kernel with SCTP answers in the place of a stack that goes directly by IP.
    run(module_path!(), "the_stacks_talk_to_each_other", Choice::User, |net| {
        let mut peer = net.peer_of(Choice::Kernel);
        peer.echo_encapsulated(&FAR.join(","));
        net.encapsulate();
        echo(net, &NEAR.join(","), &FAR.join(","));
    });
}

fn by_ipv4(net: &mut Net) {
    let mut peer = net.peer();
    peer.echo(FAR[0]);
    echo(net, NEAR[0], FAR[0]);
}

fn by_ipv6(net: &mut Net) {
    let mut peer = net.peer();
    peer.echo(FAR[2]);
    echo(net, NEAR[2], FAR[2]);
}

fn by_all_paths(net: &mut Net) {
    let mut peer = net.peer();
    peer.echo(&FAR.join(","));
    echo(net, &NEAR.join(","), &FAR.join(","));
}

fn in_udp(net: &mut Net) {
    let mut peer = net.peer();
    peer.echo_encapsulated(&FAR.join(","));
    net.encapsulate();
    // Nothing goes directly in IP.
    peer.sh("nft 'add table inet t; add chain inet t c { type filter hook input priority 0; }
        add rule inet t c meta l4proto sctp drop'");
    echo(net, &NEAR.join(","), &FAR.join(","));
}

/// The server has the addresses of a load balancer on its loopback interface, which are told to the client.
fn with_addresses_of_a_load_balancer(net: &mut Net) {
    let mut peer = net.peer();
    peer.sh("ip addr add 10.0.0.1/32 dev lo; ip addr add 1000::81/128 dev lo nodad");
    crate::network::sh("ip route add 10.0.0.1 via 10.1.0.2; ip route add 1000::81 via fd02::2");
    peer.echo("10.0.0.1,1000::81");
    echo(net, &format!("{},{}", NEAR[0], NEAR[3]), "10.0.0.1,1000::81");
}

fn echo(net: &Net, local: &str, remote: &str) {
    let association = net.connect(local, remote).unwrap();
    let mut buffer = vec![0; MAX_MESSAGE];
    for length in [1, 100, 1_400, 3_000] {
        let sent: Vec<u8> = (0..=255).cycle().take(length).collect();
        assert_eq!(association.send(&sent, 1).unwrap(), Sent::Taken);
        assert_eq!(message(&*association, &mut buffer), length);
        assert_eq!(buffer[..length], sent);
    }
    let sorted = |mut addresses: Vec<String>| {
        addresses.sort();
        addresses
    };
    let ips = |list: Vec<std::net::SocketAddr>| -> Vec<String> {
        list.iter().map(|address| address.ip().to_string()).collect()
    };
    let words = |list: &str| -> Vec<String> { list.split(',').map(String::from).collect() };
    let peers = association.peer_addresses().unwrap();
    assert!(peers.iter().all(|address| address.port() == PORT), "{peers:?}");
    assert_eq!(sorted(ips(peers)), sorted(words(remote)));
    assert_eq!(sorted(ips(association.local_addresses().unwrap())), sorted(words(local)));
    let paths = association.paths().unwrap();
    assert_eq!(paths.len(), words(remote).len(), "{paths:?}");
    assert_eq!(paths.iter().filter(|path| path.primary).count(), 1, "{paths:?}");
    association.close(in_time()).unwrap();
    assert!(matches!(association.send(&[1], 0), Err(Error::Ended)));
    assert!(matches!(association.receive(&mut buffer, None), Err(Error::Ended)));
}

fn longest_messages_stay_whole_and_in_order(net: &mut Net) {
    const COUNT: u32 = 200;
    let mut peer = net.peer();
    peer.echo(&FAR.join(","));
    let association = net.connect(&NEAR.join(","), &FAR.join(",")).unwrap();
    let sender = std::sync::Arc::clone(&association);
    let thread = std::thread::spawn(move || {
        for number in 0..COUNT {
            let mut sent = vec![number.to_ne_bytes()[0]; MAX_MESSAGE];
            sent[..4].copy_from_slice(&number.to_ne_bytes());
            while sender.send(&sent, 0).unwrap() == Sent::Blocked {
                assert!(sender.writable(in_time()).unwrap());
            }
        }
    });
    let mut buffer = vec![0; MAX_MESSAGE];
    for number in 0..COUNT {
        assert_eq!(message(&*association, &mut buffer), MAX_MESSAGE);
        assert_eq!(buffer[..4], number.to_ne_bytes());
        assert!(buffer[4..].iter().all(|byte| *byte == number.to_ne_bytes()[0]), "{number}");
    }
    thread.join().unwrap();
}

fn narrow_links(net: &mut Net) {
    let mut peer = net.peer();
    for link in ["1", "2"] {
        peer.sh(&format!("ip link set far{link} mtu 1300"));
        crate::network::sh(&format!("ip link set near{link} mtu 1300"));
    }
    peer.echo(&FAR.join(","));
    for (local, remote) in [(&NEAR[..1], &FAR[..1]), (&NEAR[..], &FAR[..])] {
        let association = net.connect(&local.join(","), &remote.join(",")).unwrap();
        let mut buffer = vec![0; MAX_MESSAGE];
        for _ in 0..5 {
            association.send(&vec![1; MAX_MESSAGE], 0).unwrap();
            assert_eq!(message(&*association, &mut buffer), MAX_MESSAGE);
        }
        association.close(in_time()).unwrap();
    }
}

/// The message is lost with an error; those after it are not.
fn too_short_a_buffer(net: &mut Net) {
    let mut peer = net.peer();
    peer.echo(FAR[0]);
    let association = net.connect(NEAR[0], FAR[0]).unwrap();
    for (length, room) in [(5_000, 1_000), (5_000, 10), (100, 10)] {
        association.send(&vec![1; length], 0).unwrap();
        association.send(&[2; 7], 0).unwrap();
        let mut buffer = vec![0; room];
        let error = loop {
            match association.receive(&mut buffer, Some(in_time())) {
                Ok(Some(sctp_stack::Event::Path { .. })) => {}
                Ok(other) => panic!("{other:?} in {room}"),
                Err(error) => break error.to_string(),
            }
        };
        assert_eq!(error, format!("a message of {length} bytes does not fit into {room}"));
        assert_eq!(message(&*association, &mut buffer), 7);
        assert_eq!(buffer[..7], [2; 7]);
    }
    // Short buffers are no hindrance to its end.
    association.abort();
    assert!(matches!(association.receive(&mut [0; 1], None), Err(Error::Ended)));
}

fn bad_messages_are_refused(net: &mut Net) {
    let mut peer = net.peer();
    peer.echo(FAR[0]);
    let association = net.connect(NEAR[0], FAR[0]).unwrap();
    for length in [0, MAX_MESSAGE + 1] {
        let error = association.send(&vec![0; length], 0).unwrap_err();
        assert!(matches!(error, Error::Length { .. }), "{error}");
    }
    assert!(association.send(&[1], 60_000).is_err(), "no such stream");
    // It works on.
    association.send(&[1; 9], 0).unwrap();
    assert_eq!(message(&*association, &mut vec![0; 2_000]), 9);
    peer.tell("close");
    expect(&*association, |event| *event == sctp_stack::Event::Closed);
}
