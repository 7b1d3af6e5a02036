mod report;

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use clap::Args;
use lb_sys::shm::{Cause, Folder, Name, ShmError, StatsFile};
use lb_sys::wait::{EndSignals, wait};

use self::report::{Before, Report};
use crate::args::{JsonArg, TableArg, exit_codes};
use crate::error::Error;
use crate::output::{print, print_json};

/// Show what lb counts, per queue and in sum
///
/// Every packet is counted once as received, once by class and once by what became of it:
/// received = marked + held + dropped. The last values stay when lb has ended.
#[derive(Debug, Args)]
#[command(after_help = concat!(
    "Examples:
  shm-tool stats
  shm-tool stats --watch                 until Ctrl-C, with rates per second
  shm-tool stats --watch 10 --json | jq .sum.dropped

",
    exit_codes!(reading)
))]
pub struct Stats {
    #[command(flatten)]
    table: TableArg,
    /// The lb whose counters are shown [default: the name of the table]
    #[arg(long, value_name = "NAME")]
    instance: Option<Name>,
    /// Show them again and again, every second or every so many, also across restarts of lb
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "1",
        value_parser = interval
    )]
    watch: Option<Duration>,
    #[command(flatten)]
    format: JsonArg,
}

impl Stats {
    pub fn run(&self, folder: &Folder) -> Result<(), Error> {
        let instance = self.instance.as_ref().unwrap_or(&self.table.name);
        let file = StatsFile::open(folder, instance)?;
        match self.watch {
            Some(interval) => self.watch(folder, instance, file, interval),
            None => self.print(&Report::of(instance, &file), None),
        }
    }

    fn watch(
        &self,
        folder: &Folder,
        instance: &Name,
        mut file: StatsFile,
        interval: Duration,
    ) -> Result<(), Error> {
        let end = EndSignals::catch().map_err(Error::Watch)?;
        let redraws = !self.format.json && io::stdout().is_terminal();
        let mut before: Option<(Instant, Report)> = None;
        let mut due = Instant::now();
        loop {
            if let Some(next) = successor(folder, instance, &file)? {
                file = next;
                before = None;
            }
            let (now, report) = (Instant::now(), Report::of(instance, &file));
            if redraws {
                print("\x1b[H\x1b[2J")?;
            } else if before.is_some() && !self.format.json {
                print("\n")?;
            }
            let before_now =
                before.as_ref().map(|(then, report)| Before { report, elapsed: now - *then });
            self.print(&report, before_now.as_ref())?;
            before = Some((now, report));

            due += interval;
            if is_over(&end, due).map_err(Error::Watch)? {
                return Ok(());
            }
        }
    }

    fn print(&self, report: &Report, before: Option<&Before<'_>>) -> Result<(), Error> {
        if self.format.json {
            print_json(&report.json())
        } else {
            print(report.text(before, self.watch.is_some()))
        }
    }
}

/// The counters of the process that has taken the instance over, if one has.
fn successor(
    folder: &Folder,
    instance: &Name,
    file: &StatsFile,
) -> Result<Option<StatsFile>, Error> {
    if !file.is_replaced(folder, instance) {
        return Ok(None);
    }
    match StatsFile::open(folder, instance) {
        Ok(next) => Ok(Some(next)),
        Err(ShmError { cause: Cause::MissingStats, .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Waits until `due`, or for a signal to end; says whether one came.
fn is_over(end: &EndSignals, due: Instant) -> io::Result<bool> {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        let [ended] = wait([end.as_fd()], left)?;
        if ended || Instant::now() >= due {
            return Ok(ended);
        }
    }
}

fn interval(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.parse().ok();
    let seconds = seconds.filter(|seconds: &f64| (0.1..=86_400.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or("not a number of seconds from 0.1 to 86400")
}
