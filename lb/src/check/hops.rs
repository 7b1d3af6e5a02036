//! Whether next hops that stay in force while `lb` is away lead somewhere.

use anyhow::Context;
use lb_sys::device::Devices;

use super::{Finding, Level};
use crate::args::Settings;
use crate::installed::Installed;
use crate::status::is_running;

const CHECK: &str = "next hops";

/// Nothing where there are no next hops: the first `lb` asks for them.
pub fn finding(settings: &Settings) -> Option<Finding> {
    match gone(settings) {
        Ok((0, _)) => None,
        Ok((many, gone)) => Some(judged(many, &gone, is_running(settings))),
        Err(error) => {
            Some(Finding::new(CHECK, Level::Note, format!("could not be read: {error:#}"), ""))
        }
    }
}

/// How many next hops are in force, and of those whose device is gone the mark and the number of the device.
fn gone(settings: &Settings) -> anyhow::Result<(usize, Vec<(u32, u32)>)> {
    let mut installed = Installed::open(&settings.instance)?;
    let devices = Devices::open().context("look at devices")?;
    let (mut many, mut gone) = (0, Vec::new());
    for (id, found) in installed.look()? {
        if !found.is_ours() {
            continue;
        }
        for (mark, device, _) in installed.next_hops(&id, &found)? {
            many += 1;
            if devices.name(device).context("look at a device")?.is_none() {
                gone.push((mark, device));
            }
        }
    }
    Ok((many, gone))
}

fn judged(many: usize, gone: &[(u32, u32)], is_running: bool) -> Finding {
    let Some((mark, device)) = gone.first() else {
        return Finding::ok(CHECK, format!("the devices of all {many} are there"));
    };
    let what = format!(
        "{} of {many} lead to devices that are gone, such as that of mark {mark} to device {device}: the IP \
         stack gets their packets with one hop less to live",
        gone.len()
    );
    // One that runs has noticed, or is about to.
    let (level, advice) = match is_running {
        true => (Level::Note, "lb is running and asks routing again"),
        false => (
            Level::Warning,
            "start lb, which asks routing again, or take the rules away with lb --down",
        ),
    };
    Finding::new(CHECK, level, what, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_gone_is_told_unless_lb_is_at_it() {
        let levels = |gone: &[(u32, u32)]| [false, true].map(|runs| judged(8, gone, runs).level);
        assert_eq!(levels(&[]), [Level::Ok; 2]);
        assert_eq!(levels(&[(1, 7)]), [Level::Warning, Level::Note]);
        let what = judged(8, &[(1, 7), (3, 7)], false).what;
        let begin = "2 of 8 lead to devices that are gone, such as that of mark 1 to device 7: ";
        assert!(what.starts_with(begin), "{what}");
    }
}
