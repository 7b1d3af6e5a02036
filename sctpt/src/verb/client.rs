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
            None => converse(&*association, io::stdin().lock(), PATIENCE),
        };
        match done {
            Ok(()) => {
                let closed = association.close(Instant::now() + CLOSE);
                closed.unwrap_or_else(|error| log::debug(format_args!("close: {error}")));
            }
            Err(_) => association.abort(),
        }
        done
    }
}

/// Sends each line, with its end, and prints what comes back.
fn converse(
    association: &dyn Association,
    mut input: impl io::BufRead,
    patience: Duration,
) -> anyhow::Result<()> {
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
        let answer = exchange(association, &line, patience)?;
        // Whoever ends a message with a zero, as the older program, means the text before it.
        let answer = answer.strip_suffix(b"\0").unwrap_or(&answer);
        let end: &[u8] = if answer.ends_with(b"\n") { b"" } else { b"\n" };
        print([b"recv> ", answer, end].concat())?;
    }
}

fn try_size(association: &dyn Association, size: usize) -> anyhow::Result<()> {
    let message = vec![0; size];
    log::notice(format_args!("Sent {size} bytes"));
    let answer = exchange(association, &message, SIZE_PATIENCE)?;
    log::notice(format_args!("Received {} bytes", answer.len()));
    ensure!(answer.len() == size, "Received {} bytes instead of {size}", answer.len());
    ensure!(answer == message, "Received other bytes than were sent");
    Ok(())
}

/// Sends a message and waits for the next one.
fn exchange(
    association: &dyn Association,
    message: &[u8],
    patience: Duration,
) -> anyhow::Result<Vec<u8>> {
    let deadline = Instant::now() + patience;
    while association.send(message, 0)? == Sent::Blocked {
        ensure!(association.writable(deadline)?, "send: no room within {patience:?}");
    }
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
