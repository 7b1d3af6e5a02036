//! The progress of a run: a line on the terminal that is written again and again.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use crate::stats::figures::{Counter, Figures};

pub struct Progress {
    is_shown: bool,
    clients: u32,
    before: (Duration, u64),
}

impl Progress {
    /// Shows something only to who looks at a terminal.
    pub fn new(clients: u32) -> Self {
        Progress { is_shown: io::stderr().is_terminal(), clients, before: (Duration::ZERO, 0) }
    }

    #[cfg(test)]
    pub fn hidden() -> Self {
        Progress { is_shown: false, clients: 0, before: (Duration::ZERO, 0) }
    }

    pub fn show(&mut self, figures: &Figures, time: Duration) {
        if self.is_shown {
            let line = self.line(figures, time);
            // Nobody may be looking any more, which is no reason to end.
            let _ = write!(io::stderr(), "\r\x1b[K{line}");
        }
    }

    /// What follows stands below the line.
    pub fn finish(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            let _ = writeln!(io::stderr());
        }
    }

    fn line(&mut self, figures: &Figures, time: Duration) -> String {
        let get = |counter| figures.get(counter);
        let (sent, received) = (get(Counter::Sent), get(Counter::Received));
        let (then, before) = std::mem::replace(&mut self.before, (time, received));
        let seconds = time.saturating_sub(then).as_secs_f64().max(1e-3);
        let new = u32::try_from(received.saturating_sub(before)).unwrap_or(u32::MAX);
        let unanswered = sent.saturating_sub(received);
        format!(
            "{:6.1} s  {}/{} up, {} failed, {} lost  sent {sent} received {received} ({:.0}/s) \
             unanswered {unanswered} dropped {}  max {:.1} ms",
            time.as_secs_f64(),
            get(Counter::Active),
            self.clients,
            get(Counter::FailedConnects),
            get(Counter::LostAssociations),
            f64::from(new) / seconds,
            get(Counter::Dropped),
            Duration::from_micros(get(Counter::MaxRttMicros)).as_secs_f64() * 1e3,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::figures::Shape;

    #[test]
    fn a_line_holds_what_matters() {
        let figures = Figures::own(Shape::new(16, 1000).unwrap());
        figures.add(Counter::Sent, 120);
        figures.add(Counter::Received, 100);
        figures.add(Counter::Active, 3);
        figures.add(Counter::FailedConnects, 1);
        figures.record(Duration::from_micros(1_500));
        let mut progress = Progress { is_shown: true, clients: 4, before: (Duration::ZERO, 0) };
        assert_eq!(
            progress.line(&figures, Duration::from_secs(2)),
            "   2.0 s  3/4 up, 1 failed, 0 lost  sent 120 received 100 (50/s) unanswered 20 dropped 0  max 1.5 ms"
        );
        assert!(progress.line(&figures, Duration::from_secs(3)).contains("(0/s)"));
    }
}
