//! How associations do not come up, and how they end.

use std::time::{Duration, Instant};

use sctp_stack::{Addresses, ConnectFailure, Error, Event, LostBy, Sent};

use crate::network::{FAR, NEAR, Net, PORT, expect, in_time, message, on_both_stacks};

/// Without waiting for the deadline, on a busy machine too.
const SOON: Duration = Duration::from_secs(8);

on_both_stacks!(
    refused_at_once,
    no_answer_until_the_deadline,
    no_route,
    not_an_address_of_this_host,
    the_peer_aborts,
    the_peer_closes,
    the_peer_vanishes,
    the_server_goes_on,
    send_blocks_and_goes_on,
    an_abort_here_ends_waits,
    nobody_to_accept,
    a_port_is_free_again,
    an_end_that_nobody_read_is_told,
);

fn refused_at_once(net: &mut Net) {
    let mut peer = net.peer();
    peer.echo(&FAR.join(","));
    for (local, remote) in [(NEAR[0], FAR[0]), (NEAR[2], FAR[2])] {
        // The two know each other's link addresses then.
        net.connect(local, remote).unwrap().close(in_time()).unwrap();
        let start = Instant::now();
        let remote = Addresses::parse(remote, PORT + 1).unwrap();
        let local = Addresses::parse(local, 0).unwrap();
        let result = net.stack.connect(&local, &remote, &net.settings, in_time());
        let error = result.err().unwrap();
        assert!(
            matches!(error, Error::Connect { cause: ConnectFailure::Refused, .. }),
            "{remote}: {error}"
        );
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    }
}

fn no_answer_until_the_deadline(net: &mut Net) {
    let _peer = net.peer();
    // Nobody has this address.
    let remote = Addresses::parse("10.1.0.99", PORT).unwrap();
    let local = Addresses::parse(NEAR[0], 0).unwrap();
    let start = Instant::now();
    let deadline = start + Duration::from_millis(1_500);
    // More attempts than the time has room for.
    let settings = sctp_stack::Settings { rto: None, ..net.settings };
    let error = net.stack.connect(&local, &remote, &settings, deadline).err().unwrap();
    let elapsed = start.elapsed();
    assert!(error.to_string().contains("no answer within 1"), "{error}");
    assert!(elapsed >= Duration::from_millis(1_400) && elapsed < SOON, "{elapsed:?}");
}

fn no_route(net: &mut Net) {
    let _peer = net.peer();
    let start = Instant::now();
    let error = net.connect(NEAR[0], "192.0.2.1").err().unwrap().to_string();
    assert!(error.starts_with("connect 192.0.2.1 port 6000: "), "{error}");
    assert!(error.contains("unreachable"), "{error}");
    assert!(start.elapsed() < SOON);
}

fn not_an_address_of_this_host(net: &mut Net) {
    let _peer = net.peer();
    let error = net.connect(FAR[0], FAR[1]).err().unwrap().to_string();
    assert!(error.starts_with("bind 10.1.0.2 port 0: "), "{error}");
    let taken = Addresses::parse(NEAR[0], PORT).unwrap();
    let _listener = net.stack.listen(&taken, &net.settings).unwrap();
    let error = net.stack.listen(&taken, &net.settings).err().unwrap().to_string();
    assert!(error.contains("10.1.0.1 port 6000: Address already in use"), "{error}");
}

fn the_peer_aborts(net: &mut Net) {
    let mut peer = net.peer();
    peer.echo(FAR[0]);
    let association = net.connect(NEAR[0], FAR[0]).unwrap();
    association.send(&[1], 0).unwrap();
    message(&*association, &mut vec![0; 1_000]);
    assert_eq!(peer.tell("abort"), "aborted");
    expect(&*association, |event| *event == Event::Lost(LostBy::Abort));
    assert!(matches!(association.send(&[1], 0), Err(Error::Ended)));
    assert!(matches!(association.writable(in_time()), Err(Error::Ended)));
}

fn the_peer_closes(net: &mut Net) {
    let mut peer = net.peer();
    peer.echo(&FAR.join(","));
    let association = net.connect(&NEAR.join(","), &FAR.join(",")).unwrap();
    association.send(&[1], 0).unwrap();
    message(&*association, &mut vec![0; 1_000]);
    assert_eq!(peer.tell("close"), "closed");
    expect(&*association, |event| *event == Event::Closed);
    association.close(in_time()).unwrap();
}

fn the_peer_vanishes(net: &mut Net) {
    let mut peer = net.peer();
    peer.echo(FAR[0]);
    let association = net.connect(NEAR[0], FAR[0]).unwrap();
    peer.sh("ip link set far1 down");
    association.send(&[1], 0).unwrap();
    expect(&*association, |event| *event == Event::Lost(LostBy::Timeout));
    assert!(matches!(association.send(&[1], 0), Err(Error::Ended)));
}

/// One association breaks, the others and new ones do not.
fn the_server_goes_on(net: &mut Net) {
    let mut peer = net.peer();
    peer.echo(FAR[0]);
    let mut buffer = vec![0; 1_000];
    let good = net.connect(NEAR[0], FAR[0]).unwrap();
    let bad = net.connect(NEAR[0], FAR[0]).unwrap();
    bad.send(&[1; 500], 0).unwrap();
    bad.abort();
    for association in [good, net.connect(NEAR[0], FAR[0]).unwrap()] {
        association.send(&[7; 5], 0).unwrap();
        assert_eq!(message(&*association, &mut buffer), 5);
    }
}

fn send_blocks_and_goes_on(net: &mut Net) {
    let mut peer = net.peer();
    assert_eq!(peer.tell(&format!("stall {}", FAR[0])), format!("listening {PORT}"));
    let association = net.connect(NEAR[0], FAR[0]).unwrap();
    assert_eq!(peer.line(), "stalled");
    let (mut sent, mut blocked) = (0, 0);
    while blocked < 3 {
        match association.send(&[5; 4_000], 0).unwrap() {
            Sent::Taken => (sent, blocked) = (sent + 1, 0),
            Sent::Blocked => {
                blocked += 1;
                let soon = Instant::now() + Duration::from_millis(300);
                // What is acknowledged makes room, until the peer's buffer is full.
                association.writable(soon).unwrap();
            }
        }
        assert!(sent < 10_000, "what the peer does not read must stop");
    }
    let drain = std::thread::spawn(move || {
        let count = peer.tell("drain");
        (peer, count)
    });
    while association.send(&[1], 0).unwrap() == Sent::Blocked {
        assert!(association.writable(in_time()).unwrap());
    }
    assert_eq!(drain.join().unwrap().1, sent.to_string());
}

fn an_abort_here_ends_waits(net: &mut Net) {
    let mut peer = net.peer();
    peer.echo(FAR[0]);
    let association = net.connect(NEAR[0], FAR[0]).unwrap();
    let waiter = std::sync::Arc::clone(&association);
    let thread = std::thread::spawn(move || {
        let mut buffer = vec![0; 1_000];
        loop {
            match waiter.receive(&mut buffer, None) {
                Ok(Some(Event::Path { .. })) => {}
                other => return other,
            }
        }
    });
    association.abort();
    assert!(matches!(thread.join().unwrap(), Err(Error::Ended)));
}

fn nobody_to_accept(net: &mut Net) {
    let local = Addresses::parse("127.0.0.1", 0).unwrap();
    let listener = net.stack.listen(&local, &net.settings).unwrap();
    assert_ne!(listener.port(), 0);
    let soon = Instant::now() + Duration::from_millis(50);
    assert!(listener.accept(Some(soon)).unwrap().is_none());
    assert!(Instant::now() >= soon);
}

/// However an association ended, the next one may have its port.
fn a_port_is_free_again(net: &mut Net) {
    let mut peer = net.peer();
    peer.echo(&FAR[..2].join(","));
    let local = Addresses::parse(&NEAR[..2].join(","), PORT + 1).unwrap();
    let remote = Addresses::parse(&FAR[..2].join(","), PORT).unwrap();
    let mut buffer = vec![0; 1_000];
    for end in ["abort", "close", "abort", "close", "here", "here", "last"] {
        let association = net.stack.connect(&local, &remote, &net.settings, in_time());
        let association = association.unwrap_or_else(|error| panic!("before {end}: {error}"));
        association.send(&[1; 9], 0).unwrap();
        assert_eq!(message(&*association, &mut buffer), 9);
        match end {
            "abort" | "close" => {
                peer.tell(end);
                expect(&*association, |event| matches!(event, Event::Lost(_) | Event::Closed));
            }
            "here" => association.abort(),
            _ => association.close(in_time()).unwrap(),
        }
    }
}

/// Who sends or asks before anybody has received the end is told of it, too.
fn an_end_that_nobody_read_is_told(net: &mut Net) {
    let mut peer = net.peer();
    peer.echo(FAR[0]);
    for end in ["close", "abort", "vanish"] {
        let association = net.connect(NEAR[0], FAR[0]).unwrap();
        association.send(&[1], 0).unwrap();
        assert_eq!(message(&*association, &mut [0; 1_000]), 1);
        match end {
            "vanish" => peer.sh("ip link set far1 down"),
            _ => drop(peer.tell(end)),
        }
        let error = error_of(|| association.send(&[1], 0).map(drop));
        assert!(matches!(error, Error::Ended), "{end}: send: {error}");
        let error = error_of(|| association.peer_addresses().map(drop));
        assert!(matches!(error, Error::Ended), "{end}: peer addresses: {error}");
        let has_ended = |error: Error| matches!(error, Error::Ended);
        let to = FAR[0].parse().unwrap();
        assert!(association.paths().is_err_and(has_ended), "{end}");
        assert!(association.set_primary(to).is_err_and(has_ended), "{end}");
        // It has not been told yet, so the next one to receive is.
        expect(&*association, |event| matches!(event, Event::Closed | Event::Lost(_)));
        assert!(association.local_addresses().is_err_and(has_ended), "{end}");
        assert!(association.receive(&mut [0; 9], None).is_err_and(has_ended), "{end}");
    }
}

/// What is said when it succeeds no longer.
fn error_of(mut call: impl FnMut() -> sctp_stack::Result<()>) -> Error {
    let deadline = in_time();
    loop {
        if let Err(error) = call() {
            return error;
        }
        assert!(Instant::now() < deadline, "it goes on");
        std::thread::sleep(Duration::from_millis(1));
    }
}
