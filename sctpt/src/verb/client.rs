use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use sctp_stack::{Association, Event, MAX_MESSAGE, Sent};

use crate::args::{LogArg, RemoteArgs, StackArgs, exit_codes};
use crate::output::print;
use crate::{log, peer, stack};

/// Send lines of stdin and print the answers, or try one message of a given size
///
/// `echo Hi | sctpt client ...` tests whether a server is reached: its exit code is 0 if the answer came.
#[derive(Debug, Args)]
#[command(after_help = concat!(
    "Examples:
  echo Hi | sctpt client --addr 10.0.0.1,1000::81 --laddr 192.168.2.221,1000::1
  sctpt client --addr 10.0.0.1 --laddr 192.168.2.221 --size 16384

",
    exit_codes!("every answer came")
))]
pub struct Client {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Send one message of this many zeros and wait 1 s for the same back
    #[arg(long, value_name = "1-16384", value_parser = clap::value_parser!(u16).range(1..=16384))]
    size: Option<u16>,
    #[command(flatten)]
    stack: StackArgs,
    #[command(flatten)]
    log: LogArg,
}

/// Limit of a connect, and of an answer to a line.
const PATIENCE: Duration = Duration::from_secs(2);
/// Limit of an answer to a message of a given size.
const SIZE_PATIENCE: Duration = Duration::from_secs(1);
const CLOSE: Duration = Duration::from_secs(1);

impl Client {
    pub fn run(&self) -> anyhow::Result<()> {
        log::set_level(self.log.log);
        let (local, remote) = self.remote.ends()?;
        let settings = self.stack.settings();
        let stack = stack::open(self.stack.stack, settings.encapsulation)?;
        let deadline = Instant::now() + PATIENCE;
        let association = stack.connect(&local, &remote, &settings, deadline)?;
        log::info("Connected");
        peer::tell_addresses(&*association)?;
        let done = match self.size {
            Some(size) => try_size(&*association, usize::from(size)),
            None => converse(&*association, io::stdin().lock()),
        };
        match done {
            Ok(()) => {
                peer::tell_paths(&*association);
                let closed = association.close(Instant::now() + CLOSE);
                closed.unwrap_or_else(|error| log::debug(format_args!("close: {error}")));
            }
            Err(_) => association.abort(),
        }
        done
    }
}

/// Sends each line, with its end, and prints what comes back.
fn converse(association: &dyn Association, mut input: impl io::BufRead) -> anyhow::Result<()> {
    let mut line = Vec::new();
    loop {
        print("send> ")?;
        line.clear();
        input.read_until(b'\n', &mut line).context("read stdin")?;
        if line.is_empty() {
            return print("\n");
        }
        let length = line.len();
        ensure!(length <= MAX_MESSAGE, "send: a line of {length} bytes is too long");
        let deadline = Instant::now() + PATIENCE;
        send(association, &line, deadline)?;
        let answer = receive(association, deadline)?;
        // Whoever ends a message with a zero, as the older program, means the text before it.
        let answer = answer.strip_suffix(b"\0").unwrap_or(&answer);
        let end: &[u8] = if answer.ends_with(b"\n") { b"" } else { b"\n" };
        print([b"recv> ", answer, end].concat())?;
    }
}

fn try_size(association: &dyn Association, size: usize) -> anyhow::Result<()> {
    let message = vec![0; size];
    let deadline = Instant::now() + SIZE_PATIENCE;
    send(association, &message, deadline)?;
    log::notice(format_args!("Sent {size} bytes"));
    let answer = receive(association, deadline)?;
    log::notice(format_args!("Received {} bytes", answer.len()));
    ensure!(answer.len() == size, "Received {} bytes instead of {size}", answer.len());
    ensure!(answer == message, "Received other bytes than were sent");
    Ok(())
}

/// Sends a message as soon as there is room for it.
fn send(association: &dyn Association, message: &[u8], deadline: Instant) -> anyhow::Result<()> {
    while association.send(message, 0)? == Sent::Blocked {
        ensure!(association.writable(deadline)?, "send: no room for the message");
    }
    Ok(())
}

/// Waits for the next message.
fn receive(association: &dyn Association, deadline: Instant) -> anyhow::Result<Vec<u8>> {
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        match association.receive(&mut buffer, Some(deadline))? {
            None => bail!("No response"),
            Some(Event::Message { length, .. }) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Some(Event::Path { address, change }) => {
                log::info(format_args!("Path {address}: {change:?}"));
            }
            Some(Event::Closed) => bail!("receive: the peer closed the association"),
            Some(Event::Lost(by)) => bail!("receive: {by}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use sctp_stack::{Settings, Stack as _};

    use super::*;
    use crate::fake::{Fake, local, remote};

    /// An association with a server that says nothing by itself.
    fn pair() -> (std::sync::Arc<dyn Association>, std::sync::Arc<dyn Association>) {
        let fake = Fake::default();
        let listener = fake.listen(&remote(), &Settings::default()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let client = fake.connect(&local(), &remote(), &Settings::default(), deadline).unwrap();
        (client, listener.accept(Some(deadline)).unwrap().unwrap())
    }

    fn error(done: anyhow::Result<()>) -> String {
        format!("{:#}", done.unwrap_err())
    }

    #[test]
    fn what_is_no_answer_is_told() {
        let (client, server) = pair();
        assert_eq!(error(try_size(&*client, 100)), "No response");
        server.send(&[0; 99], 0).unwrap();
        assert_eq!(error(try_size(&*client, 100)), "Received 99 bytes instead of 100");
        server.send(&[1; 100], 0).unwrap();
        assert_eq!(error(try_size(&*client, 100)), "Received other bytes than were sent");
        server.send(&[0; 100], 0).unwrap();
        try_size(&*client, 100).unwrap();
    }

    #[test]
    fn who_is_left_alone_is_told_why() {
        let (client, server) = pair();
        server.abort();
        assert_eq!(error(try_size(&*client, 1)), "receive: aborted by the peer");
        let (client, server) = pair();
        server.close(Instant::now()).unwrap();
        assert_eq!(
            error(converse(&*client, &b"Hi\n"[..])),
            "receive: the peer closed the association"
        );
    }

    #[test]
    fn a_line_that_no_message_can_hold_is_refused() {
        let (client, _server) = pair();
        let line = vec![b'x'; MAX_MESSAGE + 1];
        assert_eq!(error(converse(&*client, &line[..])), "send: a line of 16385 bytes is too long");
    }
}
