//! SCTP messages to a server that answers them. SCTP sends again what was lost, so a break is a time in which
//! nothing comes back.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sctp_stack::{
    Association, ConnectFailure, Error, Event, MAX_MESSAGE, Rto, Sent, Settings, Stack,
};
use traffic::pace::Pace;
use traffic::packet::{Label, SHORTEST_DATAGRAM};
use traffic::sctp::{self, StackFlags};

use crate::stream::{RETRY, SHORTEST_BREAK};
use crate::trials::{Break, Outcome, PATIENCE, Run, Trials};

/// Every 10 ms.
const RATE: f64 = 100.0;

/// Of the retransmissions, too: the end of a break is seen as soon as with the other probes.
const INTERVAL: Duration = Duration::from_millis(10);

/// So many that this probe gives up before the stack does.
const MAX_RETRANSMITS: u16 = 1_000;

/// What all paths share: a process has one stack.
pub struct Sctp {
    port: u16,
    /// Or why there is none.
    stack: Result<Box<dyn Stack>, String>,
    settings: Settings,
}

struct Messages<'a> {
    target: SocketAddr,
    stack: &'a dyn Stack,
    settings: &'a Settings,
    run: Run<'a>,
    cookie: u64,
    pace: Pace,
    trials: Trials,
    breaks: Vec<Break>,
    causes: BTreeMap<String, u64>,
    associations: u64,
    /// Since when an answer is waited for.
    silent: Option<Instant>,
}

/// Why messages do not go on.
enum End {
    /// A new association may do better.
    Failed(String),
    Unavailable(String),
}

impl Sctp {
    pub fn open(port: u16, flags: &StackFlags) -> Self {
        let stack = flags.open().map(|(stack, _)| stack).map_err(|error| error.to_string());
        let settings = Settings {
            rto: Some(Rto { initial: INTERVAL, min: INTERVAL, max: INTERVAL }),
            path_max_retransmits: Some(MAX_RETRANSMITS),
            association_max_retransmits: Some(MAX_RETRANSMITS),
            encapsulation: flags.encapsulation(),
            ..Settings::default()
        };
        Self { port, stack, settings }
    }

    pub fn run(&self, address: IpAddr, run: Run<'_>) -> Outcome {
        let stack = match &self.stack {
            Ok(stack) => &**stack,
            Err(why) => return Outcome::unavailable(why),
        };
        let mut messages = Messages {
            target: SocketAddr::new(address, self.port),
            stack,
            settings: &self.settings,
            run,
            cookie: RandomState::new().hash_one("break-test"),
            pace: Pace::new(run.begin, RATE),
            trials: Trials::default(),
            breaks: Vec::new(),
            causes: BTreeMap::new(),
            associations: 0,
            silent: Some(run.begin),
        };
        while Instant::now() < run.end() {
            match messages.connect_and_send() {
                Ok(()) => {}
                Err(End::Failed(cause)) => messages.failed(cause),
                Err(End::Unavailable(why)) => return Outcome::unavailable(why),
            }
        }
        messages.end_of_silence(run.end());
        Outcome {
            breaks: messages.breaks,
            causes: messages.causes,
            reconnects: Some(messages.associations.saturating_sub(1)),
            ..messages.trials.outcome(run.time())
        }
    }
}

impl Messages<'_> {
    fn connect_and_send(&mut self) -> Result<(), End> {
        let association = self.connect()?;
        self.associations += 1;
        match self.exchange(&*association) {
            Ok(()) => {
                // The answers are there, whatever becomes of the end.
                let _ = association.close(Instant::now() + PATIENCE);
                Ok(())
            }
            Err(end) => {
                association.abort();
                Err(end)
            }
        }
    }

    fn connect(&self) -> Result<Arc<dyn Association>, End> {
        let deadline = Instant::now() + PATIENCE;
        let association = sctp::connect(self.stack, self.target, self.settings, deadline);
        let association = association.map_err(|error| match error {
            Error::Unavailable { .. } => End::Unavailable(error.to_string()),
            Error::Connect { cause: ConnectFailure::Timeout(_), .. } => {
                End::Failed("no answer".to_owned())
            }
            Error::Connect { cause, .. } => End::Failed(cause.to_string()),
            error => End::Failed(error.to_string()),
        })?;
        let peers = association.peer_addresses().map_err(failed)?;
        if peers.iter().any(|peer| peer.ip() != self.target.ip()) {
            association.abort();
            return Err(End::Unavailable(format!(
                "the server has {} addresses, so SCTP would go around a break: let it listen on {} alone",
                peers.len(),
                self.target.ip()
            )));
        }
        Ok(association)
    }

    /// Sends until the end, then waits for the last answers.
    fn exchange(&mut self, association: &dyn Association) -> Result<(), End> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let mut heard = Instant::now();
        loop {
            let now = Instant::now();
            let is_over = now >= self.run.end();
            if is_over && (self.trials.all_answered() || now >= self.run.end() + PATIENCE) {
                return Ok(());
            }
            if !is_over && now >= self.pace.due() {
                self.pace.take(now);
                self.send(association, now)?;
            }
            if heard.elapsed() >= 3 * PATIENCE {
                return Err(End::Failed("nothing came back for 3 s".to_owned()));
            }
            let wake = match is_over {
                false => self.pace.due().min(self.run.end()),
                true => self.run.end() + PATIENCE,
            };
            match association.receive(&mut buffer, Some(wake)).map_err(failed)? {
                Some(Event::Message { length, .. }) => {
                    heard = Instant::now();
                    self.hear(&buffer[..length], heard);
                }
                Some(Event::Path { .. }) | None => {}
                Some(Event::Closed) => return Err(End::Failed("closed by the server".to_owned())),
                Some(Event::Lost(by)) => return Err(End::Failed(by.to_string())),
            }
        }
    }

    fn send(&mut self, association: &dyn Association, now: Instant) -> Result<(), End> {
        let number = self.trials.begin(self.run.since_begin(now));
        self.silent.get_or_insert(now);
        let mut message = [0; SHORTEST_DATAGRAM];
        Label { cookie: self.cookie, number }.put(&mut message);
        // A message that is sent again holds up only those of its stream.
        let stream = u16::try_from(number % u64::from(self.settings.streams)).unwrap_or(0);
        match association.send(&message, stream) {
            // Of an end, the next event tells more.
            Ok(Sent::Taken) | Err(Error::Ended) => Ok(()),
            Ok(Sent::Blocked) => {
                self.note("no room to send".to_owned());
                Ok(())
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn hear(&mut self, answer: &[u8], now: Instant) {
        // The server's name may stand before the message.
        if let Some(label) = Label::of(answer).filter(|label| label.cookie == self.cookie) {
            self.trials.answer(label.number, self.run.since_begin(now));
            self.end_of_silence(now.min(self.run.end()));
        }
    }

    fn end_of_silence(&mut self, now: Instant) {
        let Some(since) = self.silent.take() else { return };
        let silence = Break { from: self.run.since_begin(since), to: self.run.since_begin(now) };
        if silence.length() >= SHORTEST_BREAK {
            self.breaks.push(silence);
        }
    }

    fn failed(&mut self, cause: String) {
        self.note(cause);
        self.silent.get_or_insert_with(Instant::now);
        // Nothing else can be done in this thread meanwhile.
        std::thread::sleep(RETRY.min(self.run.end().saturating_duration_since(Instant::now())));
    }

    fn note(&mut self, cause: String) {
        *self.causes.entry(cause).or_default() += 1;
    }
}

fn failed(error: Error) -> End {
    End::Failed(error.to_string())
}
