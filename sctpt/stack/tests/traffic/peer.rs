//! The process on the other host: reads commands, answers with one line each.

use std::io::stdin;
use std::sync::{Arc, Mutex};
use std::{env, fs, thread};

use sctp_stack::{
    Addresses, Association, Choice, Event, Listener, MAX_MESSAGE, Sent, Settings, open,
};

use crate::network::{ENCAPSULATION, PORT, in_time, message};

/// All associations that came in.
type All = Arc<Mutex<Vec<Arc<dyn Association>>>>;

#[test]
#[ignore = "it is started by other tests, as their peer"]
fn peer() {
    let choice: Choice = env::var("MARKWAY_SCTP_TEST_STACK").unwrap().parse().unwrap();
    println!("peer: ready");
    let all = All::default();
    for line in stdin().lines().map_while(|line| line.ok()) {
        let (command, addresses) = line.split_once(' ').unwrap_or((&line, ""));
        match command {
            "echo" => listen(choice, addresses, Settings::default(), &all, echo),
            "encapsulated-echo" => {
                if choice == Choice::Kernel {
                    fs::write("/proc/sys/net/sctp/udp_port", "9899").unwrap();
                }
                let encapsulation = Some(ENCAPSULATION);
                let settings = Settings { encapsulation, ..Settings::default() };
                listen(choice, addresses, settings, &all, echo);
            }
            "stall" => listen(choice, addresses, Settings::default(), &all, |association| {
                println!("peer: stalled");
                association.writable(in_time()).unwrap();
            }),
            "ping" => {
                let (local, remote) = addresses.split_once(' ').unwrap();
                let (stack, _) = open(choice, None).unwrap();
                let local = Addresses::parse(local, 0).unwrap();
                let remote = Addresses::parse(remote, PORT).unwrap();
                let settings = Settings::default();
                let association = stack.connect(&local, &remote, &settings, in_time()).unwrap();
                ping(&*association);
                all.lock().unwrap().push(association);
            }
            "ping-again" => ping(&*all.lock().unwrap()[0]),
            "drain" => {
                let association = all.lock().unwrap()[0].clone();
                println!("peer: {}", drain(&*association));
            }
            "abort" => {
                all.lock().unwrap().iter().for_each(|association| association.abort());
                println!("peer: aborted");
            }
            "close" => {
                for association in all.lock().unwrap().iter() {
                    association.close(in_time()).unwrap();
                }
                println!("peer: closed");
            }
            other => panic!("unknown command {other}"),
        }
    }
}

fn listen(
    choice: Choice,
    addresses: &str,
    settings: Settings,
    all: &All,
    serve: fn(&dyn Association),
) {
    let (stack, _) = open(choice, settings.encapsulation).unwrap();
    let addresses = Addresses::parse(addresses, PORT).unwrap();
    let listener = stack.listen(&addresses, &settings).unwrap();
    println!("peer: listening {}", listener.port());
    let all = Arc::clone(all);
    thread::spawn(move || accept(&*listener, &all, serve));
}

fn accept(listener: &dyn Listener, all: &All, serve: fn(&dyn Association)) {
    loop {
        let association = listener.accept(None).unwrap().unwrap();
        all.lock().unwrap().push(Arc::clone(&association));
        thread::spawn(move || serve(&*association));
    }
}

/// Sends everything back until the association ends.
fn echo(association: &dyn Association) {
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        match association.receive(&mut buffer, None) {
            Ok(Some(Event::Message { length, stream })) => {
                while let Ok(Sent::Blocked) = association.send(&buffer[..length], stream) {
                    if !association.writable(in_time()).unwrap_or(false) {
                        return;
                    }
                }
            }
            Ok(Some(Event::Path { .. })) => {}
            Ok(Some(Event::Closed | Event::Lost(_))) | Err(_) => return,
            Ok(None) => panic!("a wait without a deadline ended"),
        }
    }
}

fn ping(association: &dyn Association) {
    association.send(&[8; 64], 0).unwrap();
    assert_eq!(message(association, &mut vec![0; MAX_MESSAGE]), 64);
    println!("peer: pong");
}

/// Reads until a message that says it is the last, of one byte; how many came.
fn drain(association: &dyn Association) -> usize {
    let mut buffer = vec![0; MAX_MESSAGE];
    let mut count = 0;
    loop {
        if let Some(Event::Message { length, .. }) =
            association.receive(&mut buffer, Some(in_time())).unwrap()
        {
            if length == 1 {
                return count;
            }
            count += 1;
        }
    }
}
