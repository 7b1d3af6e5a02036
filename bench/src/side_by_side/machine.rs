//! Where figures were taken: they depend on it.

use std::fs;
use std::time::Duration;

use anyhow::Context;

use super::interrupt::Interrupt;

/// Beyond this share of the processors in use by others, figures mean little.
const QUIET: f64 = 0.1;
/// How long the machine is watched.
const WATCHED: Duration = Duration::from_secs(2);

/// Processors, kernel, and how much of them others use.
#[derive(Clone, Debug)]
pub struct Machine {
    cpus: usize,
    model: String,
    release: String,
    busy: f64,
}

impl Machine {
    /// Looks at it, before anything is measured.
    pub fn look(signals: &Interrupt) -> anyhow::Result<Self> {
        let read = |path| fs::read_to_string(path).with_context(|| format!("read {path}"));
        let times = || Ok::<_, anyhow::Error>(Times::of(&read("/proc/stat")?).unwrap_or_default());
        let before = times()?;
        signals.pause(WATCHED)?;
        let busy = times()?.busy_since(before);
        let info = read("/proc/cpuinfo")?;
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Ok(Machine {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            model: model.map_or("unknown processor", |(_, name)| name.trim()).into(),
            release: read("/proc/sys/kernel/osrelease")?.trim().into(),
            busy,
        })
    }

    /// What to say if figures of this moment mean little.
    pub fn warning(&self) -> Option<String> {
        (self.busy > QUIET).then(|| {
            format!("the machine is not quiet: others use {:.0} % of it", 100.0 * self.busy)
        })
    }

    /// In a line.
    pub fn description(&self) -> String {
        let Machine { cpus, model, release, busy } = self;
        format!("{cpus} CPUs ({model}), Linux {release}, {:.0} % busy before", 100.0 * busy)
    }
}

/// Processor time since the start, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Times {
    idle: u64,
    all: u64,
}

impl Times {
    /// From /proc/stat: user, nice, system, idle, waiting for input or output, interrupts (hard, soft),
    /// stolen.
    fn of(stat: &str) -> Option<Self> {
        let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
        let ticks: Vec<u64> = fields.take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Times { idle: ticks.get(3)? + ticks.get(4)?, all: ticks.iter().sum() })
    }

    fn busy_since(self, before: Times) -> f64 {
        let all = self.all.saturating_sub(before.all);
        let idle = self.idle.saturating_sub(before.idle);
        if all == 0 { 0.0 } else { all.saturating_sub(idle) as f64 / all as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_idle_is_busy() {
        let before = Times::of("cpu  100 10 50 1000 40 0 5 5 7 7\ncpu0 1 2 3\n").unwrap();
        assert_eq!(before, Times { idle: 1040, all: 1210 });
        let after = Times::of("cpu  120 15 60 1150 50 0 5 10 7 7\n").unwrap();
        assert_eq!(after.busy_since(before), 0.2);
        assert_eq!(before.busy_since(before), 0.0);
        assert_eq!(Times::of("cpu0 1 2 3"), None);
        assert_eq!(Times::of(""), None);
    }

    #[test]
    fn a_busy_machine_is_told() {
        let (model, release) = (String::from("a processor"), String::from("6.18"));
        let quiet = Machine { cpus: 2, model, release, busy: 0.05 };
        assert_eq!(quiet.description(), "2 CPUs (a processor), Linux 6.18, 5 % busy before");
        assert_eq!(quiet.warning(), None);
        let busy = Machine { busy: 0.5, ..quiet };
        assert_eq!(busy.warning().unwrap(), "the machine is not quiet: others use 50 % of it");
    }
}
