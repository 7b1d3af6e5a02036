use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use sctp_stack::{Addresses, Association, Error, Event, Listener, MAX_MESSAGE, Sent};
use traffic::process;

use crate::args::{LogArg, PortArg, StackArgs, addresses, exit_codes};
use crate::message::Name;
use crate::{log, output, peer, signals, stack};

/// Return every message unchanged
///
/// Messages of `sctpt ctraffic` ask for the server's name, which stands in their answer; all others come back as they
/// were. An association that breaks does not disturb the others. SIGTERM and SIGINT end it.
#[derive(Debug, Args)]
#[command(after_help = concat!(
    "Examples:
  sctpt server --addr 10.0.0.1,1000::81 --log 6
  sctpt server --addr :: --port 7002 --encap-local 9899

",
    exit_codes!("ended by a signal")
))]
pub struct Server {
    /// Addresses to listen on, IPv4 and IPv6, with commas between them
    #[arg(long, value_name = "ADDR,...", default_value = "::1")]
    addr: String,
    #[command(flatten)]
    port: PortArg,
    /// What the server is called in answers to ctraffic [default: the host's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    pub stack: StackArgs,
    #[command(flatten)]
    log: LogArg,
}

/// How soon a signal is seen by who waits for a message.
const TICK: Duration = Duration::from_millis(500);
/// How long associations may take to end.
const CLOSE: Duration = Duration::from_secs(1);
/// What an association's thread needs: its message is on the heap.
const STACK_SIZE: usize = 128 * 1024;

impl Server {
    pub fn run(&self) -> anyhow::Result<()> {
        log::set_level(self.log.log);
        let local = addresses("Invalid (or no) addresses", &self.addr, self.port.get()?)?;
        let name = match &self.name {
            Some(name) => Name::new(name),
            None => Name::new(&process::host_name().context("get the host's name")?),
        };
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        signals::on_end(move || end.store(true, Ordering::Relaxed)).context("wait for signals")?;

        let settings = self.stack.settings();
        let stack = stack::open(self.stack.stack, settings.encapsulation)?;
        let listener =
            stack.listen(&local, &settings).with_context(|| format!("listen {local}"))?;
        let bound: Vec<_> = Addresses { port: listener.port(), ..local }.sockets().collect();
        log::info(format_args!("Accepting connections on:{}", peer::lines(&bound)));
        serve(&*listener, &name, &ended);
        Ok(())
    }
}

/// Takes associations and serves each in a thread of its own, until `ended` is set.
pub fn serve(listener: &dyn Listener, name: &Name, ended: &AtomicBool) {
    let numbers = AtomicU64::new(1);
    thread::scope(|scope| {
        while !ended.load(Ordering::Relaxed) {
            let association = match listener.accept(Some(Instant::now() + TICK)) {
                Ok(Some(association)) => association,
                Ok(None) => continue,
                Err(error) => {
                    log::warning(format_args!("accept: {error}"));
                    // It may be the same at once again, as without free descriptors.
                    thread::sleep(TICK);
                    continue;
                }
            };
            let number = numbers.fetch_add(1, Ordering::Relaxed);
            let taken = Arc::clone(&association);
            let echo = move || echo(&*taken, number, name, ended);
            let thread = thread::Builder::new().stack_size(STACK_SIZE);
            if let Err(error) = thread.spawn_scoped(scope, echo) {
                log::warning(format_args!("Connection ({number}): start thread: {error}"));
                association.abort();
            }
        }
    });
}

/// Serves an association to its end, however that comes.
fn echo(association: &dyn Association, number: u64, name: &Name, ended: &AtomicBool) {
    let mut buffer = vec![0; MAX_MESSAGE];
    if let Err(error) = begin(association, number) {
        log::debug(format_args!("Connection ({number}): {error}"));
    }
    while !ended.load(Ordering::Relaxed) {
        let event = match association.receive(&mut buffer, Some(Instant::now() + TICK)) {
            Ok(None) => continue,
            Ok(Some(event)) => event,
            Err(error @ Error::TooLong { .. }) => {
                log::warning(format_args!("Connection ({number}): {error}"));
                continue;
            }
            Err(error) => {
                log::warning(format_args!("Connection lost ({number}): {error}"));
                association.abort();
                return;
            }
        };
        match event {
            Event::Message { length, stream } => {
                let message = &mut buffer[..length];
                name.put_into(message);
                if let Err(error) = send(association, message, stream, ended) {
                    // What became of the association is told by the next event.
                    log::debug(format_args!("Connection ({number}): send: {error}"));
                }
            }
            Event::Path { address, change } => {
                log::info(format_args!("Connection ({number}): path {address}: {change:?}"));
            }
            Event::Closed => {
                close(association, number);
                // Nobody may be reading any more.
                let _ = output::print("Connection closed\n");
                return;
            }
            Event::Lost(by) => {
                log::warning(format_args!("Connection lost ({number}): {by}"));
                return;
            }
        }
    }
    close(association, number);
}

/// Tells who is there.
fn begin(association: &dyn Association, number: u64) -> sctp_stack::Result<()> {
    if log::is_told(log::Level::Info) {
        let from: Vec<SocketAddr> = association.peer_addresses()?;
        let from = peer::lines(from.get(..1).unwrap_or_default());
        log::info(format_args!("Got a new connection ({number}) from{from}"));
    }
    peer::tell_addresses(association)
}

fn close(association: &dyn Association, number: u64) {
    if let Err(error) = association.close(Instant::now() + CLOSE) {
        log::debug(format_args!("Connection ({number}): close: {error}"));
    }
}

/// Sends a message as soon as there is room for it.
fn send(
    association: &dyn Association,
    message: &[u8],
    stream: u16,
    ended: &AtomicBool,
) -> sctp_stack::Result<()> {
    while association.send(message, stream)? == Sent::Blocked {
        while !association.writable(Instant::now() + TICK)? {
            if ended.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sctp_stack::{LostBy, Settings, Stack};

    use super::*;
    use crate::fake::{Fake, local, remote};
    use crate::message::{Answer, Template, Time};

    /// Runs a server of this name while `client` does something.
    fn with_server<T>(client: impl FnOnce(&Fake) -> T) -> T {
        let fake = Fake::default();
        let listener = fake.listen(&remote(), &Settings::default()).unwrap();
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| serve(&*listener, &Name::new("vm-001"), &ended));
            let done = client(&fake);
            ended.store(true, Ordering::Relaxed);
            done
        })
    }

    fn connect(fake: &Fake) -> Arc<dyn Association> {
        fake.connect(&local(), &remote(), &Settings::default(), soon()).unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn answer(association: &dyn Association, message: &[u8]) -> Vec<u8> {
        let mut buffer = vec![0; MAX_MESSAGE];
        assert_eq!(association.send(message, 3).unwrap(), Sent::Taken);
        match association.receive(&mut buffer, Some(soon())).unwrap() {
            Some(Event::Message { length, stream: 3 }) => buffer[..length].to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn plain_messages_come_back_as_they_were_and_others_with_a_name() {
        with_server(|fake| {
            let association = connect(fake);
            for plain in [&b"Hi\n"[..], &[0], &[7; MAX_MESSAGE]] {
                assert_eq!(answer(&*association, plain), plain);
            }
            let mut template = Template::new(200, 5);
            let back = answer(&*association, template.stamp(0, Time::now()));
            assert_eq!(Answer::parse(&back).unwrap().server, "vm-001");
        });
    }

    #[test]
    fn an_association_that_breaks_ends_no_other() {
        with_server(|fake| {
            let (first, second) = (connect(fake), connect(fake));
            first.abort();
            connect(fake).close(soon()).unwrap();
            assert_eq!(answer(&*second, b"still there"), b"still there");
            assert_eq!(answer(&*connect(fake), b"and others"), b"and others");
        });
    }

    #[test]
    fn the_end_closes_every_association() {
        let association = with_server(|fake| {
            let association = connect(fake);
            assert_eq!(answer(&*association, b"x"), b"x");
            association
        });
        let event = association.receive(&mut [0; 9], Some(soon())).unwrap();
        assert_eq!(event, Some(Event::Closed));
        assert_ne!(event, Some(Event::Lost(LostBy::Abort)));
    }
}
