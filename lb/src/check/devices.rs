//! What the devices by which packets come in do to them.

use std::fs;

use lb_sys::device::{self, Devices};

use super::{Finding, Level};
use crate::args::Settings;

/// Features that join packets, with what comes of it.
const JOINING: [(&str, &str); 3] = [
    ("rx-lro", "joins received packets in a way that a router cannot undo"),
    (
        "rx-gro-list",
        "joins UDP packets of a flow, which are then decided, counted and dropped as one",
    ),
    (
        "rx-udp-gro-forwarding",
        "joins UDP packets of a flow, which are then decided, counted and dropped as one",
    ),
];

pub fn findings(settings: &Settings) -> Vec<Finding> {
    let devices =
        match Devices::open().and_then(|devices| Ok((names(settings, &devices)?, devices))) {
            Ok(devices) => devices,
            Err(error) => {
                let what = format!("devices could not be looked at: {error}");
                return vec![Finding::new("devices", Level::Note, what, "")];
            }
        };
    let (names, devices) = devices;
    let longest_held = settings.fragments.tun.as_ref().map(|_| settings.fragments.copy_range);
    let mut findings = Vec::new();
    for name in &names {
        match devices.features(name) {
            Ok(features) => findings.extend(JOINING.iter().filter_map(|(feature, effect)| {
                features.contains(*feature).then(|| {
                    let what = format!("{name}: the offload {feature} {effect}");
                    let advice = format!("ethtool -K {name} {feature} off");
                    Finding::new("offloads", Level::Warning, what, advice)
                })
            })),
            Err(error) => {
                let what = format!("{name}: offloads could not be read: {error}");
                findings.push(Finding::new("offloads", Level::Note, what, ""));
            }
        }
        findings.extend(source_check(name, source_check_of("all"), source_check_of(name)));
        if let (Ok(mtu), Some(longest)) = (devices.mtu(name), longest_held) {
            findings.extend(too_long_to_hold(name, mtu, longest));
        }
    }
    for (check, what) in [
        ("offloads", "no device joins UDP packets"),
        ("source check", "no device is strict about senders"),
    ] {
        if !findings.iter().any(|finding| finding.check == check) {
            findings.push(Finding::ok(check, format!("{what} ({})", names.join(", "))));
        }
    }
    findings
}

/// The devices by which packets may come in, if they are there.
fn names(settings: &Settings, devices: &Devices) -> std::io::Result<Vec<String>> {
    let tun = settings.fragments.tun.as_ref().map(ToString::to_string);
    let wanted = settings.rules.as_ref().map(|rules| rules.wanted.devices.as_slice());
    let wanted = wanted.filter(|devices| !devices.is_empty());
    let is_wanted = |name: &String| match wanted {
        Some(wanted) => wanted.contains(name),
        None => name != "lo" && devices.is_up(name).unwrap_or(false),
    };
    let all = device::list()?.into_iter();
    Ok(all.filter(|name| Some(name) != tun.as_ref() && is_wanted(name)).collect())
}

fn source_check_of(name: &str) -> u8 {
    let path = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
    fs::read_to_string(path).ok().and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// The larger of the two settings counts; 1 is strict.
fn source_check(name: &str, all: u8, own: u8) -> Option<Finding> {
    const STRICT: u8 = 1;
    let whose = if all >= own { "all" } else { name };
    (all.max(own) == STRICT).then(|| {
        let what =
            format!("{name}: rp_filter is strict: senders to which other ways lead are dropped");
        let advice = format!("sysctl net.ipv4.conf.{whose}.rp_filter=0");
        Finding::new("source check", Level::Warning, what, advice)
    })
}

fn too_long_to_hold(name: &str, mtu: u32, longest: u32) -> Option<Finding> {
    (mtu > longest).then(|| {
        let what =
            format!("{name}: fragments of up to {mtu} bytes come in, and {longest} are held");
        Finding::new("copy range", Level::Warning, what, format!("--copy-range {mtu}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_setting_counts() {
        let advice = |all, own| source_check("eth1", all, own).map(|finding| finding.advice);
        assert_eq!(advice(0, 0), None);
        assert_eq!(advice(1, 0), Some("sysctl net.ipv4.conf.all.rp_filter=0".into()));
        assert_eq!(advice(0, 1), Some("sysctl net.ipv4.conf.eth1.rp_filter=0".into()));
        assert_eq!((advice(2, 1), advice(1, 2)), (None, None), "loose");
    }

    #[test]
    fn fragments_must_fit() {
        assert_eq!(too_long_to_hold("eth1", 1500, 1500), None);
        assert_eq!(too_long_to_hold("eth1", 9000, 1500).unwrap().advice, "--copy-range 9000");
    }
}
