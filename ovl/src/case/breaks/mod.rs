//! For how long traffic breaks while something is done to the load balancer, measured by break-test: on
//! a path beside `lb`, and by virtual addresses.

mod report;
mod stage;
mod target;
mod tier;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use self::report::{Report, Row};
use self::stage::{Measured, Stage};
use super::{Case, PLAIN, check, is_soak};
use crate::address::NodeId;
use crate::lab::{Lab, Shape};

/// Which plane serves plain packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plane {
    Slow,
    Fast,
}

/// What is measured in milliseconds wants a machine without other tests.
const ALONE: Case = Case { alone: true, ..PLAIN };

const TIER: Shape = Shape { routers: 2, spread: true, ..Shape::STANDARD };

pub const CASES: &[Case] = &[
    Case {
        name: "breaks-restart-slow",
        about: "lb ended and started: traffic by the queue breaks for that time, no connection fails",
        run: |lab| restart(lab, Plane::Slow),
        ..ALONE
    },
    Case {
        name: "breaks-restart-fast",
        about: "lb --fast ended and started: no probe is lost",
        run: |lab| restart(lab, Plane::Fast),
        ..ALONE
    },
    Case {
        name: "breaks-kill-slow",
        about: "lb killed, and started later: traffic by the queue breaks for that time",
        run: |lab| kill(lab, Plane::Slow),
        ..ALONE
    },
    Case {
        name: "breaks-kill-fast",
        about: "lb --fast killed, and started later: no probe is lost",
        run: |lab| kill(lab, Plane::Fast),
        ..ALONE
    },
    Case {
        name: "breaks-target-slow",
        about: "a target goes and returns: its connections break, those of others do not",
        run: |lab| target::goes_and_returns(lab, Plane::Slow),
        ..ALONE
    },
    Case {
        name: "breaks-target-fast",
        about: "the same with lb --fast",
        run: |lab| target::goes_and_returns(lab, Plane::Fast),
        ..ALONE
    },
    Case {
        name: "breaks-router-slow",
        about: "a router of two is taken out of the routing, and returns: no probe is lost",
        shape: TIER,
        run: |lab| tier::router_goes_and_returns(lab, Plane::Slow),
        ..ALONE
    },
    Case {
        name: "breaks-router-fast",
        about: "the same with lb --fast",
        shape: TIER,
        run: |lab| tier::router_goes_and_returns(lab, Plane::Fast),
        ..ALONE
    },
];

/// What TCP waits at least before it sends again.
const FIRST_RETRANSMIT: Duration = Duration::from_millis(200);

/// What a machine with other work may add to any time.
const SLACK: Duration = Duration::from_millis(150);

/// How long something that goes is gone.
const MOMENT: Duration = Duration::from_millis(300);

/// How often it goes.
fn turns() -> u32 {
    if is_soak() { 10 } else { 1 }
}

fn restart(lab: &mut Lab, plane: Plane) -> Result<()> {
    let end = |stage: &mut Stage| stage.end(NodeId::ROUTER, "TERM");
    without_lb(lab, plane, ["lb-restart", "lb restarted"], Duration::ZERO, end)
}

fn kill(lab: &mut Lab, plane: Plane) -> Result<()> {
    without_lb(lab, plane, ["lb-kill", "lb killed, started 0.3 s later"], MOMENT, |stage| {
        stage.end(NodeId::ROUTER, "KILL")?;
        // Not to wait for anything: this is what is done to the traffic.
        thread::sleep(MOMENT);
        Ok(())
    })
}

/// Measures while `lb` is ended and started again. It is gone for `least_gone` in each turn.
fn without_lb(
    lab: &mut Lab,
    plane: Plane,
    [command, title]: [&str; 2],
    least_gone: Duration,
    end: impl Fn(&mut Stage) -> Result<()>,
) -> Result<()> {
    let mut stage = Stage::new(lab, plane)?;
    let Measured { report, value: gaps } = stage.measure(command, |stage| {
        stage.each_turn(|stage| {
            let begin = Instant::now();
            end(stage)?;
            stage.start_lb(NodeId::ROUTER)?;
            Ok(begin.elapsed())
        })
    })?;
    report.keep(title, plane)?;
    let slack = report.slack();
    if plane == Plane::Fast {
        return unbroken(report.direct().chain(report.by_vip()), slack);
    }
    unbroken(report.direct(), slack)?;
    report.by_vip().try_for_each(|row| broken_during(row, &gaps, slack))?;
    // What waits for a while before it starts cannot have been without effect.
    let least = u64::from(turns()) * u64::try_from(least_gone.as_millis())? / 10 / 2;
    let mut echoes = report.by_vip().filter(|row| row.probe == "icmp" || row.probe == "udp");
    echoes.try_for_each(|row| check(row.lost >= least, format!("at least {least} lost"), row))
}

/// Nothing was lost. TCP makes up for what is, so there it is no long pause; that it sends a segment again
/// is no sign of a loss where a busy machine makes acknowledgements late.
fn unbroken<'a>(mut rows: impl Iterator<Item = &'a Row>, slack: Duration) -> Result<()> {
    rows.try_for_each(|row| {
        let longest = match row.interval() {
            Some(_) => Duration::ZERO,
            None => FIRST_RETRANSMIT + slack,
        };
        let holds = row.sent > 0 && row.lost == 0 && row.longest <= longest;
        check(holds, format!("nothing lost, no break beyond {longest:?}"), row)
    })
}

/// It broke for as long as `lb` was not there, which nobody can avoid: the kernel has nobody to ask. TCP
/// tries again at growing intervals, so it may notice the end only after as much again; its connection
/// holds.
fn broken_during(row: &Row, gaps: &[Duration], slack: Duration) -> Result<()> {
    let longest = gaps.iter().max().copied().unwrap_or_default();
    let (most_lost, longest) = match row.interval() {
        Some(interval) => {
            let trials = |gap: &Duration| (*gap + slack).as_millis() / interval.as_millis() + 2;
            (u64::try_from(gaps.iter().map(trials).sum::<u128>())?, longest + 2 * interval + slack)
        }
        None => (0, 2 * longest + 2 * FIRST_RETRANSMIT + slack),
    };
    check(
        row.lost <= most_lost && row.longest <= longest,
        format!("at most {most_lost} lost, and no break beyond {longest:?}, for gaps of {gaps:?}"),
        row,
    )
}
