use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use traffic::fail_on::NOT_ACCEPTED;
use traffic::process;

use crate::args::{LogArg, RemoteArgs, StackArgs, positive_time, time};
use crate::ctraffic::fail_on::FailOn;
use crate::ctraffic::progress::Progress;
use crate::ctraffic::report::Detail;
use crate::ctraffic::{Settings, Wake, run};
use crate::message::{DEFAULT_SIZE, HEADER};
use crate::output::print;
use crate::stats::figures::Shape;
use crate::stats::shm::Name;
use crate::{log, signals, stack};

/// Send messages at an even rate, and count what becomes of them
///
/// Statistics in shared memory can be read while it runs (`sctpt stats`); make them with `sctpt stats init` first. At
/// the end the statistics of this run are printed as JSON.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sctpt ctraffic --addr 10.0.0.1,1000::81 --laddr 192.168.2.221,1000::1 \\
    --clients 64 --rate 1000 --duration 30 --fail-on lost,failed
  sctpt ctraffic --init --reconnect --heartbeat 500ms --rto 200ms,100ms,500ms --path-max-retrans 2

Exit codes: 0 the run came to its end, or to a signal; 1 failed or wrong usage (stderr says why); \
3 something happened that --fail-on does not accept.")]
pub struct Ctraffic {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Associations
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65536))]
    clients: u32,
    /// Messages a second of all clients together
    #[arg(long, value_name = "N", default_value = "100.0", value_parser = rate)]
    rate: f64,
    /// How long to send: seconds, or with a unit
    #[arg(long, value_name = "TIME", default_value = "10", value_parser = positive_time)]
    duration: Duration,
    /// Name of the statistics in shared memory
    #[arg(long, value_name = "NAME", default_value = "sctpstats")]
    shm: String,
    /// Make the statistics if there are none
    #[arg(long)]
    init: bool,
    /// Do not clear the statistics first: other processes count there, too
    #[arg(long)]
    keep: bool,
    /// Bytes of a message
    #[arg(long, value_name = "112-16384", default_value_t = DEFAULT_SIZE, value_parser = size)]
    size: u16,
    /// Connect again when an association is lost or did not come up
    #[arg(long)]
    reconnect: bool,
    /// Limit of a connect
    #[arg(long, value_name = "TIME", default_value = "2", value_parser = positive_time)]
    connect_timeout: Duration,
    /// Clients that begin to connect in a second
    #[arg(long, value_name = "N", default_value = "500", value_parser = rate)]
    connect_rate: f64,
    /// How long late answers are waited for at the end
    #[arg(long, value_name = "TIME", default_value = "5", value_parser = time)]
    wait: Duration,
    /// Whether JSON shows every association, or only sums
    #[arg(long, value_name = "DETAIL", default_value = "all")]
    detail: Detail,
    /// Exit with 3 if there is any of these: lost, failed, dropped, duplicates, reordered, corrupted, paths, moves
    #[arg(long, value_name = "WORD,...")]
    fail_on: Option<FailOn>,
    #[command(flatten)]
    stack: StackArgs,
    #[command(flatten)]
    log: LogArg,
}

impl Ctraffic {
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        log::set_level(self.log.log);
        let settings = self.settings()?;
        let name = Name::new(&self.shm)?;
        if self.init && name.is_missing() {
            name.init(Shape::DEFAULT)?;
        }
        let shared = name.open()?;
        if !self.keep {
            shared.clear();
        }
        let (wake, waker) = mpsc::channel();
        let signal = wake.clone();
        signals::send_on_end(signal, Wake::Signal).context("wait for signals")?;
        let stack = stack::open(self.stack.stack, settings.sctp.encapsulation)?;
        if let Err(error) = process::raise_open_file_limit() {
            log::warning(format_args!("raise the limit of open files: {error}"));
        }
        let mut progress = Progress::new(settings.clients);
        let outcome = run(&settings, &*stack, &shared, (wake, &waker), &mut progress);

        for (cause, count) in &outcome.causes {
            log::notice(format_args!("{cause} ({count} times)"));
        }
        let json = outcome.json(&settings, stack.name(), self.detail);
        print(format!("{json:#}\n"))?;
        let complaints = self.fail_on.as_ref().map(|fail_on| fail_on.complaints(&outcome));
        let complaints = complaints.unwrap_or_default();
        complaints.iter().for_each(|complaint| process::log(format_args!("error: {complaint}")));
        Ok(match complaints.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(NOT_ACCEPTED),
        })
    }

    fn settings(&self) -> anyhow::Result<Settings> {
        let (local, remote) = self.remote.ends()?;
        let last = u32::from(local.port) + self.clients - 1;
        ensure!(
            local.port == 0 || last <= u32::from(u16::MAX),
            "--lport: there are not {} ports from {} on",
            self.clients,
            local.port
        );
        Ok(Settings {
            local,
            remote,
            sctp: self.stack.settings(),
            clients: self.clients,
            rate: self.rate,
            duration: self.duration,
            wait: self.wait,
            connect_timeout: self.connect_timeout,
            connect_rate: self.connect_rate,
            reconnect: self.reconnect,
            size: self.size,
        })
    }
}

fn rate(text: &str) -> Result<f64, &'static str> {
    let rate = text.parse().ok().filter(|rate: &f64| (1e-3..=1e7).contains(rate));
    rate.ok_or("not a number from 0.001 to 10000000")
}

fn size(text: &str) -> Result<u16, String> {
    let most = sctp_stack::MAX_MESSAGE;
    let size = text.parse().ok().filter(|size| (HEADER..=most).contains(&usize::from(*size)));
    size.ok_or_else(|| format!("not a number from {HEADER} to {most}"))
}
