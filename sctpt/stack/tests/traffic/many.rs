//! Many associations, and several processes.

use std::thread;
use std::time::Instant;

use sctp_stack::{Addresses, Choice, KernelStack, MAX_MESSAGE, Settings, open};

use crate::network::{ENCAPSULATION, FAR, NEAR, Net, PORT, in_time, message, on_both_stacks};

on_both_stacks!(
    two_hundred_at_once,
    two_processes_on_one_host,
    one_after_the_other,
    several_stacks
);

fn two_hundred_at_once(net: &mut Net) {
    const COUNT: usize = 200;
    // A busy machine may be slow to answer.
    net.settings = Settings::default();
    let mut peer = net.peer();
    peer.echo(&FAR.join(","));
    let start = Instant::now();
    let (local, remote) = (NEAR.join(","), FAR.join(","));
    thread::scope(|scope| {
        let threads: Vec<_> = (0..COUNT)
            .map(|number| {
                let (local, remote) = (&local, &remote);
                let net = &*net;
                scope.spawn(move || {
                    let association = net.connect(local, remote).unwrap();
                    let mut buffer = vec![0; MAX_MESSAGE];
                    for round in 0..20 {
                        let length = 1 + (number * 31 + round * 97) % 3_000;
                        association.send(&vec![1; length], 0).unwrap();
                        assert_eq!(message(&*association, &mut buffer), length);
                    }
                    association.close(in_time()).unwrap();
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    eprintln!("{COUNT} associations with 20 echoes each in {:?}", start.elapsed());
}

/// They do not end each other's associations, and both are heard.
fn two_processes_on_one_host(net: &mut Net) {
    let mut peer = net.peer();
    peer.echo(FAR[0]);
    // A process of the same host: a client here, and a client there that is a test of its own.
    let first = net.connect(NEAR[0], FAR[0]).unwrap();
    let mut second = net.neighbour();
    assert_eq!(second.tell(&format!("ping {} {}", NEAR[0], FAR[0])), "pong");
    let mut buffer = vec![0; 1_000];
    first.send(&[1; 4], 0).unwrap();
    assert_eq!(message(&*first, &mut buffer), 4);
    assert_eq!(second.tell("ping-again"), "pong");
    first.send(&[1; 5], 0).unwrap();
    assert_eq!(message(&*first, &mut buffer), 5);
}

/// Ends leave nothing behind.
fn one_after_the_other(net: &mut Net) {
    let mut peer = net.peer();
    peer.echo(FAR[0]);
    for _ in 0..50 {
        let association = net.connect(NEAR[0], FAR[0]).unwrap();
        association.send(&[1], 0).unwrap();
        message(&*association, &mut vec![0; 1_000]);
        association.close(in_time()).unwrap();
    }
}

/// In user space there is one in a process, and it goes one way; it may be started again.
fn several_stacks(net: &mut Net) {
    let second = open(net.choice, None);
    if net.choice == Choice::Kernel {
        return drop(second.unwrap());
    }
    let error = second.err().unwrap().to_string();
    assert_eq!(error, "user SCTP: it runs already in this process");
    let local = Addresses::parse("127.0.0.1", PORT).unwrap();
    let listener = net.stack.listen(&local, &net.settings).unwrap();
    let in_udp = Settings { encapsulation: Some(ENCAPSULATION), ..net.settings };
    let error = net.stack.listen(&local, &in_udp).err().unwrap().to_string();
    assert_eq!(error, "user SCTP: UDP port 9899: all of this process goes by IP");
    drop(listener);
    drop(net.stack.listen(&local, &in_udp).unwrap());
    net.stack = Box::new(KernelStack);
    net.stack = open(net.choice, None).unwrap().0;
    drop(net.stack.listen(&local, &net.settings).unwrap());
}
