use std::io::{self, IsTerminal as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;

use crate::args::{LogArg, exit_codes, positive_time};
use crate::log;
use crate::output::print;
use crate::signals;
use crate::stats::figures::Shape;
use crate::stats::shm::Name;

/// Make, clear or show the statistics of ctraffic
///
/// Words: `init` makes them or puts new ones in the place of the old, `clear` sets the counters to zero, `show` prints
/// them with a histogram of round-trip times, `json` as JSON, `watch` shows them until Ctrl-C. They can be read while
/// ctraffic runs.
#[derive(Debug, Args)]
#[command(after_help = concat!(
    "Examples:
  sctpt stats init --buckets 20 --interval 500
  sctpt stats
  sctpt stats json | jq .sent
  sctpt stats watch --refresh 0.2

",
    exit_codes!("done")
))]
pub struct Stats {
    /// init, clear, show, json or watch
    #[arg(value_name = "WORD", default_value = "show")]
    command: String,
    /// Their name in shared memory
    #[arg(long, value_name = "NAME", default_value = "sctpstats")]
    shm: String,
    /// init: how many buckets the histogram has [default: 16]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    buckets: Option<i64>,
    /// init, clear: microseconds that a bucket stands for [default: 1000]
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    interval: Option<i64>,
    /// watch: time from one show to the next [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = positive_time)]
    refresh: Option<Duration>,
    #[command(flatten)]
    log: LogArg,
}

impl Stats {
    pub fn run(&self) -> anyhow::Result<()> {
        log::set_level(self.log.log);
        let name = Name::new(&self.shm)?;
        let (buckets, interval) = self.shape()?;
        let takes: &[&str] = match self.command.as_str() {
            "init" => &["--buckets", "--interval"],
            "clear" => &["--interval"],
            "watch" => &["--refresh"],
            "show" | "json" => &[],
            other => bail!("Invalid command: {other}"),
        };
        for (option, given) in [
            ("--buckets", buckets.is_some()),
            ("--interval", interval.is_some()),
            ("--refresh", self.refresh.is_some()),
        ] {
            if given && !takes.contains(&option) {
                bail!("stats {}: it takes no {option}", self.command);
            }
        }
        match self.command.as_str() {
            "init" => {
                let Shape { buckets: most, interval: width } = Shape::DEFAULT;
                let shape = Shape::new(buckets.unwrap_or(most), interval.unwrap_or(width))?;
                Ok(name.init(shape)?)
            }
            "clear" => {
                let figures = name.open()?;
                let interval = interval.map(|interval| Shape::new(1, interval)).transpose()?;
                figures.clear();
                if let Some(Shape { interval, .. }) = interval {
                    figures.set_interval(interval);
                }
                Ok(())
            }
            "json" => {
                let json = Value::Object(name.read()?.json());
                print(format!("{json:#}\n"))
            }
            "watch" => watch(&name, self.refresh.unwrap_or(Duration::from_secs(1))),
            _ => print(name.read()?.text()),
        }
    }

    /// Buckets and interval as far as they are given.
    pub fn shape(&self) -> anyhow::Result<(Option<u32>, Option<u32>)> {
        let buckets = self.buckets.map(|buckets| u32::try_from(buckets.max(0)));
        let interval = self.interval.map(|interval| u32::try_from(interval.max(0)));
        let buckets = buckets.transpose().context("--buckets")?;
        Ok((buckets, interval.transpose().context("--interval")?))
    }
}

/// Shows the statistics until a signal comes, also those that `init` puts in their place.
fn watch(name: &Name, refresh: Duration) -> anyhow::Result<()> {
    let (ended, end) = mpsc::channel();
    signals::send_on_end(ended, ()).context("watch statistics")?;
    let redraws = io::stdout().is_terminal();
    let mut is_first = true;
    loop {
        let text = name.read()?.text();
        let before = match (redraws, is_first) {
            (true, _) => "\x1b[H\x1b[2J",
            (false, true) => "",
            (false, false) => "\n",
        };
        print(format!("{before}{text}"))?;
        is_first = false;
        match end.recv_timeout(refresh) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}
